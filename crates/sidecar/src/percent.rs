//! `%XX` in scopes and in headers, taken back.

/// `value` with each `%XX` as the byte that it stands for; other `%` stay.
pub(crate) fn decoded(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn escapes_are_taken_back_and_everything_else_stays() {
        for (escaped, text) in [
            ("c%2042", "c 42"),
            ("gr%C3%B6%c3%9fe", "größe"),
            ("100%", "100%"),
            ("%+f", "%+f"),
        ] {
            assert_eq!(decoded(escaped.as_bytes()), text);
        }
    }
}
