//! `multipart/form-data`, as far as it says what a call costs: short fields, and how long the files are.

use axum::http::{HeaderMap, header};

/// Longer fields are prompts, which are nobody's business here.
const LONGEST_FIELD: usize = 256;
const FILE_TYPE: &str = "multipart/form-data";
/// Fields that say what a call costs.
const METERED: [&str; 5] = ["model", "stream", "n", "quality", "size"];

/// The fields and files of a form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Form {
    fields: Vec<(String, String)>,
    pub(crate) file_bytes: usize,
    pub(crate) files: usize,
    /// Those of them that say what a call costs, in small letters.
    metered: Vec<String>,
    /// Whether servers may read it in different ways: a field that says what a call costs is there twice, or
    /// one has no name that all find.
    pub(crate) is_ambiguous: bool,
}

impl Form {
    /// The form in `body`; `None` where the headers say that it is none, or it is not.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?;
        let kind = kind.to_str().ok()?;
        let (name, parameters) = kind.split_once(';').unwrap_or((kind, ""));
        if !name.trim().eq_ignore_ascii_case(FILE_TYPE) {
            return None;
        }
        let boundaries = values(parameters, "boundary");
        let boundary = boundaries.first()?;
        let mut form = Self {
            is_ambiguous: boundaries.len() > 1
                || headers.get_all(header::CONTENT_TYPE).iter().count() > 1,
            ..Self::default()
        };
        for part in parts(body, format!("--{boundary}").as_bytes()) {
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
        if part.trim_ascii().is_empty() {
            return;
        }
        let head_and_value = find(part, b"\r\n\r\n").map(|end| (&part[..end], &part[end + 4..]));
        let Some((head, value)) = head_and_value else {
            self.is_ambiguous = true;
            return;
        };
        let head = String::from_utf8_lossy(head);
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let dispositions =
            lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"));
        let disposition: String = dispositions.map(|(_, parameters)| parameters).collect();
        let names = values(&disposition, "name");
        let [name] = names.as_slice() else {
            self.is_ambiguous = true;
            return;
        };
        let is_file = ["filename", "filename*"]
            .iter()
            .any(|of| !values(&disposition, of).is_empty());
        let plain = name.to_ascii_lowercase();
        if METERED.contains(&plain.as_str()) {
            self.is_ambiguous |= is_file || self.metered.contains(&plain);
            self.metered.push(plain);
        }
        if is_file {
            self.file_bytes += value.len();
            self.files += 1;
            return;
        }
        let value = std::str::from_utf8(value).ok();
        if let Some(value) = value.filter(|one| one.len() <= LONGEST_FIELD) {
            self.fields.push((name.clone(), value.to_owned()));
        }
    }
}

/// The values of parameters `wanted` in `; name=value; name="value"`.
fn values(parameters: &str, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = parameters;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        let value;
        (value, rest) = value_of(after.trim_start());
        if name.eq_ignore_ascii_case(wanted) {
            found.push(value);
        }
    }
    found
}

/// A value, quoted or not, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
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
    use axum::http::HeaderValue;

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
        assert_eq!((form.files, form.is_ambiguous), (1, false));
        assert_eq!(Form::read(&headers("application/json"), body), None);
        for broken in [&b""[..], b"--x-1", b"--x-1\r\n--x-1--", b"no"] {
            let form = Form::read(&headers("multipart/form-data; boundary=x-1"), broken);
            assert_eq!(form, Some(Form::default()));
        }
    }

    #[test]
    fn a_field_is_found_however_it_is_written_and_what_can_be_read_in_two_ways_is_known() {
        let read = |kind: &'static str, parts: &[&str]| {
            let mut body: String = parts
                .iter()
                .map(|part| format!("--b\r\n{part}\r\n"))
                .collect();
            body.push_str("--b--\r\n");
            Form::read(&headers(kind), body.as_bytes()).unwrap()
        };
        const KIND: &str = "Multipart/Form-Data; charset=\"a;b=c\"; BOUNDARY=b";
        for part in [
            "Content-Disposition: form-data; name=model\r\n\r\nm",
            "content-disposition:form-data;x=\"filename\";NAME = \"model\"\r\n\r\nm",
            "Content-Type: text/plain; name=\"x\"\r\nContent-Disposition: form-data; name=\"mo\\del\"\r\n\r\nm",
        ] {
            let form = read(KIND, &[part]);
            assert_eq!(
                (form.field("model"), form.is_ambiguous),
                ("m", false),
                "{part}"
            );
        }
        let model = "Content-Disposition: form-data; name=\"model\"\r\n\r\nm";
        for (kind, parts) in [
            (KIND, &[model, model][..]),
            (
                KIND,
                &["Content-Disposition: form-data; name=\"model\"; name=\"x\"\r\n\r\nm"][..],
            ),
            (KIND, &["Content-Disposition: form-data\r\n\r\nm"][..]),
            (
                KIND,
                &["Content-Disposition: form-data; name=\"model\"\n\nm"][..],
            ),
            ("multipart/form-data; boundary=b; boundary=c", &[model][..]),
            (
                KIND,
                &[
                    model,
                    "Content-Disposition: form-data; name=\"Model\"\r\n\r\nm",
                ][..],
            ),
            (
                KIND,
                &["Content-Disposition: form-data; name=\"model\"; filename=\"a\"\r\n\r\nm"][..],
            ),
            (
                KIND,
                &[
                    "Content-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm",
                ][..],
            ),
        ] {
            assert!(read(kind, parts).is_ambiguous, "{parts:?}");
        }
        // Some clients write lists without their brackets.
        for name in ["timestamp_granularities[]", "include"] {
            let list = format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\nword");
            assert!(
                !read(KIND, &[model, list.as_str(), list.as_str()]).is_ambiguous,
                "{name}"
            );
        }
    }
}
