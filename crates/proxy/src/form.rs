//! `multipart/form-data`, as far as it says what a call costs: short fields, and how long the files are.

use axum::http::{HeaderMap, HeaderValue, header};

/// Longer fields are prompts, which are nobody's business here.
const LONGEST_FIELD: usize = 256;
const FILE_TYPE: &[u8] = b"multipart/form-data";

/// The fields and files of a form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Form {
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) file_bytes: usize,
    pub(crate) files: usize,
}

impl Form {
    /// The form in `body`; `None` where the headers say that it is none, or it is not.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes)?;
        let (name, _) = kind.split_at_checked(FILE_TYPE.len())?;
        if !name.eq_ignore_ascii_case(FILE_TYPE) {
            return None;
        }
        let (_, boundary) = std::str::from_utf8(kind).ok()?.split_once("boundary=")?;
        let boundary = boundary.split(';').next().unwrap_or_default();
        let delimiter = format!("--{}", boundary.trim().trim_matches('"'));
        let mut form = Self::default();
        for part in parts(body, delimiter.as_bytes()) {
            form.take(part);
        }
        Some(form)
    }

    /// The value of a field; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    fn take(&mut self, part: &[u8]) {
        let Some(end) = find(part, b"\r\n\r\n") else {
            return;
        };
        let (head, value) = (String::from_utf8_lossy(&part[..end]), &part[end + 4..]);
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        if head.to_ascii_lowercase().contains("filename") {
            self.file_bytes += value.len();
            self.files += 1;
            return;
        }
        let name = head.split("name=\"").nth(1);
        let name = name.and_then(|rest| rest.split('"').next());
        let value = std::str::from_utf8(value).ok();
        if let (Some(name), Some(value)) = (name, value.filter(|one| one.len() <= LONGEST_FIELD)) {
            self.fields.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// What stands between the delimiters.
fn parts<'b>(mut body: &'b [u8], delimiter: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    let begin = find(body, delimiter).map_or(body.len(), |found| found + delimiter.len());
    body = &body[begin..];
    std::iter::from_fn(move || {
        let found = find(body, delimiter)?;
        let part = &body[..found];
        body = &body[found + delimiter.len()..];
        Some(part)
    })
}

/// Where `wanted` begins. Looks for its first byte first: files have millions.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        let next = bytes[from..].iter().position(|byte| *byte == first)?;
        if bytes[from + next..].starts_with(wanted) {
            return Some(from + next);
        }
        from += next + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    #[test]
    fn fields_and_lengths_of_files_are_read() {
        let body = b"--x-1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
            --x-1\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n\0--x-2\r\n\r\n-\r\n\
            --x-1\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--x-1--\r\n";
        let form = Form::read(&headers("multipart/form-data; boundary=\"x-1\""), body).unwrap();
        assert_eq!((form.field("model"), form.field("n")), ("whisper-1", "2"));
        assert_eq!((form.field("file"), form.file_bytes), ("", 11));
        assert_eq!(form.files, 1);
        assert_eq!(Form::read(&headers("application/json"), body), None);
        for broken in [&b""[..], b"--x-1", b"--x-1\r\n--x-1--", b"no"] {
            let form = Form::read(&headers("multipart/form-data; boundary=x-1"), broken);
            assert_eq!(form, Some(Form::default()));
        }
    }
}
