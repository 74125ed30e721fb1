//! One HTTP request as ClickHouse reads it: statement, parameters, settings, credentials.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode, Uri};

use crate::engine::Parameters;
use crate::sessions::SessionName;

/// URL parameters that are addressed to the HTTP interface; all others are settings.
const NOT_SETTINGS: [&str; 22] = [
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "compress",
    "database",
    "decompress",
    "default_format",
    "framing",
    "password",
    "query",
    "query_id",
    "quota_key",
    "role",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "user",
    "wait_end_of_query",
    "http_write_exception_in_output_format",
    "enable_http_compression",
    "http_zlib_compression_level",
];

/// A request that is refused before the engine sees it.
#[derive(Debug)]
pub struct Refusal {
    /// ClickHouse's error code.
    pub code: u32,
    /// ClickHouse's text, without the code.
    pub message: String,
    /// The HTTP status that goes with it.
    pub status: StatusCode,
}

impl Refusal {
    /// What ClickHouse would have put into the body.
    pub fn text(&self) -> String {
        format!("Code: {}. DB::Exception: {}", self.code, self.message)
    }
}

/// What this front does not do and says so, rather than answering wrongly.
fn not_supported(what: &str) -> Refusal {
    Refusal {
        code: 48,
        message: format!("{what} is not supported by the development front. (NOT_IMPLEMENTED)"),
        status: StatusCode::NOT_IMPLEMENTED,
    }
}

/// A bad request in ClickHouse's words.
pub fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal {
        code: 36,
        message: format!("{}. (BAD_ARGUMENTS)", message.into()),
        status: StatusCode::BAD_REQUEST,
    }
}

/// Everything but the statement's own text in the body.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// Whether the method allows writing.
    pub may_write: bool,
    /// The statement, or its beginning, from the URL.
    pub query: Option<String>,
    /// The database names are looked up in.
    pub database: Option<String>,
    /// The output format where the statement names none.
    pub default_format: Option<String>,
    /// Whether the body comes in ClickHouse's compressed frames.
    pub is_compressed: bool,
    /// Settings for this statement.
    pub settings: BTreeMap<String, String>,
    /// Values for placeholders.
    pub parameters: Parameters,
    /// The boundary where the body is `multipart/form-data`.
    pub multipart_boundary: Option<String>,
    /// The session that the statement belongs to, where the client keeps one.
    pub session: Option<SessionName>,
    /// Whether the body comes as an LZ4 frame, which is what clients compress inserts with.
    pub is_lz4_body: bool,
    session_timeout: Option<String>,
    session_must_exist: bool,
    user: Option<String>,
    password: Option<String>,
}

impl RequestHead {
    /// Reads method, URL and headers.
    pub fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD | Method::POST) {
            return Err(not_supported(&format!("the method {method}")));
        }
        let encoding = header(headers, CONTENT_ENCODING.as_str()).unwrap_or_default();
        if !matches!(encoding.as_str(), "" | "identity" | "lz4") {
            let what = format!("a request body with Content-Encoding {encoding:?}");
            return Err(not_supported(&what));
        }
        let mut head = Self {
            may_write: *method == Method::POST,
            user: header(headers, "x-clickhouse-user"),
            password: header(headers, "x-clickhouse-key"),
            database: header(headers, "x-clickhouse-database"),
            default_format: header(headers, "x-clickhouse-format"),
            multipart_boundary: multipart_boundary(headers),
            is_lz4_body: encoding == "lz4",
            ..Self::default()
        };
        if let Some((user, password)) = basic_credentials(headers) {
            head.user = Some(user);
            head.password = Some(password);
        }
        for (name, value) in url_pairs(uri.query().unwrap_or_default())? {
            head.take(name, value)?;
        }
        head.complete_session()?;
        Ok(head)
    }

    /// Takes one field of a `multipart/form-data` body.
    pub fn take_field(&mut self, name: String, value: String) -> Result<(), Refusal> {
        if name == "query" || name.starts_with("param_") {
            self.take(name, value)
        } else {
            Err(not_supported(&format!("the form field {name:?}")))
        }
    }

    /// Whether the credentials are those of the user `default`.
    pub fn is_authentic(&self, expected_password: &str) -> bool {
        let user = self.user.as_deref().unwrap_or("default");
        user == "default" && self.password.as_deref().unwrap_or_default() == expected_password
    }

    fn take(&mut self, name: String, value: String) -> Result<(), Refusal> {
        if let Some(parameter) = name.strip_prefix("param_") {
            self.parameters.push((parameter.to_owned(), value));
            return Ok(());
        }
        let is_on = value == "1" || value == "true";
        match name.as_str() {
            "query" => self.query = Some(value),
            // ClickHouse takes an empty name for none.
            "database" => self.database = (!value.is_empty()).then_some(value),
            "default_format" => self.default_format = Some(value),
            "decompress" => self.is_compressed = is_on,
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "compress" if is_on => return Err(not_supported("compress=1")),
            "client_protocol_version" => return Err(not_supported(&name)),
            "session_id" if !value.is_empty() => self.session = Some(SessionName::new(value)),
            "session_timeout" => self.session_timeout = Some(value),
            "session_check" => self.session_must_exist = is_on,
            _ if NOT_SETTINGS.contains(&name.as_str()) => {}
            _ => {
                self.settings.insert(name, value);
            }
        }
        Ok(())
    }
}

impl RequestHead {
    /// Puts together what the URL says of the session, in whatever order.
    fn complete_session(&mut self) -> Result<(), Refusal> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.must_exist = self.session_must_exist;
        if let Some(seconds) = &self.session_timeout {
            let seconds = seconds.parse();
            let seconds = seconds.map_err(|_| bad_request("session_timeout is not a number"))?;
            session.lasts = Duration::from_secs(seconds);
        }
        Ok(())
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

fn multipart_boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let boundary = content_type
        .strip_prefix("multipart/form-data")?
        .split_once("boundary=")?
        .1;
    Some(boundary.trim_matches('"').to_owned())
}

fn basic_credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let decoded = decode_base64(encoded.strip_prefix("Basic ")?)?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut bit_count = 0;
    let mut bytes = Vec::new();
    for byte in text.trim_end_matches('=').bytes() {
        let digit = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = (bits << 6) | u32::try_from(digit).ok()?;
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((bits >> bit_count).to_be_bytes()[3]);
        }
    }
    Some(bytes)
}

fn url_pairs(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode_url(name)?, decode_url(value)?))
        })
        .collect()
}

fn decode_url(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                bytes.push(byte.ok_or_else(|| bad_request("broken %-escape in the URL"))?);
                rest = &after[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad_request("the URL is not UTF-8"))
}

/// The fields of a `multipart/form-data` body.
pub fn multipart_fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, Refusal> {
    let body = std::str::from_utf8(body).map_err(|_| bad_request("the form is not UTF-8"))?;
    let delimiter = format!("--{boundary}");
    let mut fields = Vec::new();
    for part in body.split(delimiter.as_str()).skip(1) {
        if part.starts_with("--") {
            return Ok(fields);
        }
        let (head, value) = part
            .split_once("\r\n\r\n")
            .ok_or_else(|| bad_request("a part of the form has no end of its headers"))?;
        let name = head
            .split_once("name=\"")
            .and_then(|(_, after)| after.split_once('"'))
            .ok_or_else(|| bad_request("a part of the form has no name"))?
            .0;
        let value = value.strip_suffix("\r\n").unwrap_or(value);
        fields.push((name.to_owned(), value.to_owned()));
    }
    Err(bad_request("the form has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str, headers: &[(&'static str, &str)]) -> RequestHead {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        RequestHead::parse(&Method::POST, &uri.parse().unwrap(), &headers).unwrap()
    }

    #[test]
    fn url_parameters_are_told_apart() {
        let head = parse(
            "/?query=SELECT+%7Bx%3AString%7D&param_x=a%2Fb&database=d&decompress=1&max_threads=2&role=r",
            &[],
        );
        assert_eq!(head.query.as_deref(), Some("SELECT {x:String}"));
        assert_eq!(head.parameters, [("x".to_owned(), "a/b".to_owned())]);
        assert_eq!(head.database.as_deref(), Some("d"));
        assert!(head.is_compressed);
        assert_eq!(head.settings.len(), 1);
        assert_eq!(head.settings["max_threads"], "2");
    }

    #[test]
    fn credentials_come_from_either_kind_of_header() {
        // "default:secret"
        let basic = parse("/", &[("authorization", "Basic ZGVmYXVsdDpzZWNyZXQ=")]);
        assert!(basic.is_authentic("secret"));
        let own = parse(
            "/",
            &[
                ("x-clickhouse-user", "default"),
                ("x-clickhouse-key", "secret"),
            ],
        );
        assert!(own.is_authentic("secret"));
        assert!(!own.is_authentic("other"));
        assert!(!parse("/", &[]).is_authentic("secret"));
    }

    #[test]
    fn form_fields_keep_line_ends_of_their_own() {
        let body = b"--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT\r\n1\r\n--B\r\nContent-Disposition: form-data; name=\"param_x\"\r\n\r\n\r\n--B--\r\n";
        let fields = multipart_fields(body, "B").unwrap();
        let expected = [("query", "SELECT\r\n1"), ("param_x", "")];
        assert_eq!(fields.len(), expected.len());
        for ((name, value), (expected_name, expected_value)) in fields.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert_eq!(value, expected_value);
        }
    }
}
