//! HTTP in small: one request on a connection of its own.

use std::io::{self, Read, Write};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Everything, as it came.
    pub bytes: Vec<u8>,
    /// Status code.
    pub status: u16,
    head: String,
    /// What follows the head.
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A header's value in the head of a request or an answer.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

/// Asks over `stream` and reads the answer to its end; `headers` are those besides `Host`, which is
/// 127.0.0.1.
///
/// # Errors
/// Where the connection breaks.
///
/// # Panics
/// Where what comes is no answer.
pub fn ask(
    stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    request(stream, method, path, headers, "")
}

/// Posts `json` as [`ask`] asks.
///
/// # Errors
/// As [`ask`].
///
/// # Panics
/// As [`ask`].
pub fn post(stream: impl Read + Write, path: &str, json: &str) -> io::Result<Answer> {
    post_with(stream, path, &[], json)
}

/// As [`post`], with further headers.
///
/// # Panics
/// As [`ask`].
pub fn post_with(
    stream: impl Read + Write,
    path: &str,
    further: &[(&str, &str)],
    json: &str,
) -> io::Result<Answer> {
    let length = json.len().to_string();
    let own = [
        ("Content-Type", "application/json"),
        ("Content-Length", &*length),
    ];
    let headers: Vec<_> = own.into_iter().chain(further.iter().copied()).collect();
    request(stream, "POST", path, &headers, json)
}

fn request(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.expect("an answer has a status"),
        head: head.to_owned(),
        body: body.to_owned(),
        bytes,
    })
}

/// Whoever answered is gone.
fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the answer has no head")
}

/// Reads a request with its body from `stream`; the head.
///
/// # Errors
/// Where the connection breaks before its end.
pub fn read_request(stream: &mut impl Read) -> io::Result<String> {
    read_whole_request(stream).map(|(head, _)| head)
}

/// Reads a request from `stream`; its head and its body.
///
/// # Errors
/// Where the connection breaks before its end.
pub fn read_whole_request(stream: &mut impl Read) -> io::Result<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = header(head, "content-length").and_then(|value| value.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}
