//! Names of reservations: `<holder>.<incarnation>-<n>`.

use std::fmt;

/// Longer names of instances are cut.
const LONGEST_HOLDER: usize = 64;
/// Hexadecimal digits of 64 random bits.
const INCARNATION: usize = 16;

/// The name of a reservation, taken apart. It names who gave it, so that whoever meets it in a usage
/// event can tell that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReservationId<'a> {
    /// The sidecar.
    pub holder: &'a str,
    /// 64 random bits of its start, as hexadecimal digits.
    pub incarnation: &'a str,
    /// Counts what it gave since.
    pub number: u64,
}

impl<'a> ReservationId<'a> {
    /// Reads a name; `None` for what no sidecar gives.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (start, digits) = name.rsplit_once('-')?;
        let (holder, incarnation) = start.rsplit_once('.')?;
        let number: u64 = digits.parse().ok()?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_whole = (1..=LONGEST_HOLDER).contains(&holder.len())
            && holder.chars().all(is_plain)
            && incarnation.len() == INCARNATION
            && incarnation.bytes().all(is_hex)
            // A number has one way to be written.
            && !digits.starts_with(['+', '0']);
        is_whole.then_some(Self {
            holder,
            incarnation,
            number,
        })
    }

    /// The name of the instance as it stands in reservations.
    pub fn holder_name(instance: &str) -> String {
        let plain = |character: char| if is_plain(character) { character } else { '-' };
        let holder: String = instance.chars().map(plain).take(LONGEST_HOLDER).collect();
        match holder.is_empty() {
            true => "sidecar".to_owned(),
            false => holder,
        }
    }
}

impl fmt::Display for ReservationId<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            holder,
            incarnation,
            number,
        } = self;
        write!(formatter, "{holder}.{incarnation}-{number}")
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_given_and_no_other_is() {
        let holder = ReservationId::holder_name("host 1.example/\u{1f}");
        assert_eq!(holder, "host-1.example--");
        let given = ReservationId {
            holder: &holder,
            incarnation: "00112233445566ff",
            number: 17,
        };
        let name = given.to_string();
        assert_eq!(ReservationId::parse(&name), Some(given));
        let longest = ReservationId::holder_name(&"x".repeat(500));
        assert_eq!(longest.len(), LONGEST_HOLDER);
        assert_eq!(ReservationId::holder_name(""), "sidecar");
        for wrong in [
            "",
            "17",
            "sidecar-1",
            ".00112233445566ff-1",
            "a b.00112233445566ff-1",
            "sidecar.00112233445566FF-1",
            "sidecar.00112233445566f-1",
            "sidecar.00112233445566ff-",
            "sidecar.00112233445566ff-017",
            "sidecar.00112233445566ff-+17",
            "sidecar.00112233445566ff-17x",
            &format!("{}.00112233445566ff-1", "x".repeat(65)),
        ] {
            assert_eq!(ReservationId::parse(wrong), None, "{wrong}");
        }
    }
}
