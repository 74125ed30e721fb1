//! How results and errors look on the wire.

use bytes::Bytes;
use hyper::StatusCode;

/// Formats whose result can be sent piece by piece: every piece the engine gives is a complete
/// document, which for these means rows, at most behind a header that can be cut off.
const STREAMED_FORMATS: [&str; 7] = [
    "RowBinary",
    FORMAT_WITH_HEADER,
    "Native",
    "TabSeparated",
    "TSV",
    "CSV",
    "JSONEachRow",
];
const FORMAT_WITH_HEADER: &str = "RowBinaryWithNamesAndTypes";
/// Marks an error in the middle of a body; any 16 letters do.
pub const EXCEPTION_TAG: &str = "spendfusedevtags";

/// Whether a result in this format can be sent in the pieces that the engine gives.
pub fn can_stream(format: &str) -> bool {
    STREAMED_FORMATS.contains(&format)
}

/// Length of what every piece repeats at its beginning.
pub fn repeated_header_length(format: &str, piece: &[u8]) -> usize {
    if format == FORMAT_WITH_HEADER {
        header_length(piece)
    } else {
        0
    }
}

/// Length of the header of `RowBinaryWithNamesAndTypes`: the number of columns, then as many
/// names and as many types, each with its length.
fn header_length(piece: &[u8]) -> usize {
    let mut at = 0;
    let columns = read_varint(piece, &mut at);
    for _ in 0..columns * 2 {
        let length = read_varint(piece, &mut at);
        at += length;
    }
    at
}

fn read_varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// What ClickHouse (25.11 and later) writes at the end of a body that it could not complete.
pub fn late_exception(error: &str) -> Bytes {
    let message = format!("{error}\n");
    Bytes::from(format!(
        "\r\n__exception__\r\n{EXCEPTION_TAG}\r\n{message}{} {EXCEPTION_TAG}\r\n__exception__\r\n",
        message.len()
    ))
}

/// The number in `Code: N. DB::Exception: …`.
pub fn error_code(error: &str) -> Option<u32> {
    let after = error.split_once("Code: ")?.1;
    after.split_once('.')?.0.parse().ok()
}

/// The status that ClickHouse gives to the codes clients meet; 500 for all others.
pub fn status_of(error: &str) -> StatusCode {
    match error_code(error) {
        Some(
            20 | 26 | 27 | 36 | 38 | 41 | 43 | 53 | 62 | 72 | 115 | 117 | 130 | 131 | 456 | 457,
        ) => StatusCode::BAD_REQUEST,
        Some(46 | 60 | 81) => StatusCode::NOT_FOUND,
        Some(159 | 160) => StatusCode::REQUEST_TIMEOUT,
        Some(497) => StatusCode::FORBIDDEN,
        Some(48) => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_names_and_types_is_measured() {
        let header = b"\x02\x01a\x02bc\x05UInt8\x06String";
        let piece = [header.as_slice(), b"\x07rows"].concat();
        assert_eq!(header_length(&piece), header.len());
    }

    #[test]
    fn an_error_code_is_read_from_its_text() {
        assert_eq!(error_code("Code: 60. DB::Exception: no table"), Some(60));
        assert_eq!(error_code("something else"), None);
    }
}
