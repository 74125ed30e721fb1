//! Metadata responses of a cluster that, for a moment, knows no broker.

/// From this version on lengths are variable and fields may be tagged.
const FLEXIBLE: i16 = 9;

/// The same response (without its size) without its brokers; the topics stay. `None` where it cannot be
/// read.
pub(super) fn without_brokers(response: &[u8], version: i16) -> Option<Vec<u8>> {
    let is_flexible = version >= FLEXIBLE;
    let mut rest = Rest(response);
    rest.skip(4)?;
    if is_flexible {
        rest.tags()?;
    }
    if version >= 3 {
        // For how long the client was held up.
        rest.skip(4)?;
    }
    let head = response.len() - rest.0.len();
    let brokers = if is_flexible {
        rest.varint()?.checked_sub(1)?
    } else {
        rest.number()?
    };
    for _ in 0..brokers {
        // Its id, host, port and rack.
        rest.skip(4)?;
        rest.text(is_flexible)?;
        rest.skip(4)?;
        if version >= 1 {
            rest.text(is_flexible)?;
        }
        if is_flexible {
            rest.tags()?;
        }
    }
    let none: &[u8] = if is_flexible { &[1] } else { &[0; 4] };
    Some([&response[..head], none, rest.0].concat())
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn number(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = self.0.get(..4)?.try_into().ok()?;
        self.skip(4)?;
        usize::try_from(i32::from_be_bytes(bytes)).ok()
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = *self.0.first()?;
            self.skip(1)?;
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A text, or none.
    fn text(&mut self, is_flexible: bool) -> Option<()> {
        let bytes = if is_flexible {
            self.varint()?.saturating_sub(1)
        } else {
            let length: [u8; 2] = self.0.get(..2)?.try_into().ok()?;
            self.skip(2)?;
            usize::try_from(i16::from_be_bytes(length)).unwrap_or(0)
        };
        self.skip(bytes)
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let bytes = self.varint()?;
            self.skip(bytes)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_left_out_and_the_rest_stays() {
        // Correlation id, held up for 0 ms, one broker (id 1, "ab", port 9, no rack), the rest.
        let old = [
            &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 9, 0xFF, 0xFF],
            b"rest",
        ];
        let expected = [&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0][..], b"rest"].concat();
        assert_eq!(without_brokers(&old.concat(), 8), Some(expected));
        let new = [
            &[0, 0, 0, 7, 0, 0, 0, 0, 0, 2][..],
            &[0, 0, 0, 1, 3, b'a', b'b', 0, 0, 0, 9, 0, 0],
            b"rest",
        ];
        let expected = [&[0, 0, 0, 7, 0, 0, 0, 0, 0, 1][..], b"rest"].concat();
        assert_eq!(without_brokers(&new.concat(), 12), Some(expected));
        assert_eq!(without_brokers(&new.concat()[..15], 12), None);
    }
}
