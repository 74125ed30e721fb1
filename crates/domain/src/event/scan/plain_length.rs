//! Where a text without escapes ends, eight bytes at a time.

/// How many bytes come before the first quote, backslash or control character (or the end).
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES * 0x80;
    let mut rest = bytes;
    // Eight bytes at a time. The lowest mark of each term is exact: subtracting borrows only from
    // bytes above one that is marked.
    while let Some((eight, behind)) = rest.split_first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        // With this bit turned, quotes (0x22) stand right above the control characters, and nothing
        // else does.
        let turned = eight ^ (ONES * 0x02);
        let escapes = eight ^ (ONES * u64::from(b'\\'));
        let marks =
            (turned.wrapping_sub(ONES * 0x21) & !turned) | (escapes.wrapping_sub(ONES) & !escapes);
        let marks = marks & HIGH;
        if marks != 0 {
            return bytes.len() - rest.len() + marks.trailing_zeros() as usize / 8;
        }
        rest = behind;
    }
    plain_length_of_few(bytes, rest)
}

/// The same, where all before `rest` is plain.
// Apart: it is the text's last bytes only, and would cost registers.
#[cold]
fn plain_length_of_few(bytes: &[u8], rest: &[u8]) -> usize {
    let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    let plain = rest.iter().position(ends).unwrap_or(rest.len());
    bytes.len() - rest.len() + plain
}

#[cfg(test)]
mod tests {
    use super::plain_length;

    #[test]
    fn a_text_ends_at_the_first_byte_that_is_not_plain_wherever_it_stands() {
        for end in *b"\"\\\n\0\x1f" {
            for before in 0..20 {
                for filler in [b'a', b'!', b'#', b'[', b']', b' ', 0x7f, 0x80, 0xff] {
                    let mut bytes = vec![filler; before];
                    assert_eq!(plain_length(&bytes), before);
                    bytes.extend([end, b'"', b'x', 0, b'\\', b'a', b'a', b'a', b'a']);
                    assert_eq!(plain_length(&bytes), before, "{filler} then {end}");
                }
            }
        }
    }
}
