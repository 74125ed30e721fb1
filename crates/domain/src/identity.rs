//! Which billed provider response an event is about.

use xxhash_rust::xxh3::xxh3_128;

/// 128-bit hash of (`workspace`, `source`, `id`, `phase`): two events with the same identity are
/// one billed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub u128);

impl Identity {
    /// The identity of the event `id` of `source` in `workspace`; `phase` is `final` where absent.
    pub fn of(workspace: &str, source: &str, id: &str, phase: &str) -> Self {
        let parts = [workspace, source, id, phase];
        let length: usize = parts.iter().map(|part| 4 + part.len()).sum();
        let mut short = [0; 256];
        let mut long = Vec::new();
        let bytes = match short.get_mut(..length) {
            Some(bytes) => bytes,
            None => {
                long.resize(length, 0);
                long.as_mut_slice()
            }
        };
        let mut rest = &mut *bytes;
        for part in parts {
            // Length first: no two different tuples give the same bytes.
            let (length, behind) = rest.split_at_mut(4);
            length.copy_from_slice(&(part.len() as u32).to_le_bytes());
            let (text, behind) = behind.split_at_mut(part.len());
            text.copy_from_slice(part.as_bytes());
            rest = behind;
        }
        Self(xxh3_128(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_that_are_hashed_are_the_same_whether_short_or_long() {
        for id in ["d".to_owned(), "d".repeat(300)] {
            let mut bytes = Vec::new();
            for part in ["acme", "app", &id, "final"] {
                bytes.extend((part.len() as u32).to_le_bytes());
                bytes.extend(part.as_bytes());
            }
            let identity = Identity::of("acme", "app", &id, "final");
            assert_eq!(identity, Identity(xxh3_128(&bytes)));
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(
            Identity::of("a", "bc", "d", "final"),
            Identity::of("ab", "c", "d", "final")
        );
    }
}
