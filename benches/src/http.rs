//! One request, one answer: enough to read metrics and to ask ClickHouse for a total.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

/// The body that `path` at `address` (host and port) answers with; `body` is sent.
///
/// # Errors
/// Where nobody answers, or with another status than 200.
pub fn ask(address: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("asking {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let method = if body.is_empty() { "GET" } else { "POST" };
    // Version 1.0: the answer ends with the connection and comes in one piece.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, text) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{address}{path} answers {status}: {text}");
    Ok(text.to_owned())
}
