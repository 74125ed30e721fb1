//! Which billed provider response an event is about.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128;

/// 128-bit hash of (`workspace`, `source`, `id`, `phase`): two events with the same identity are
/// one billed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub u128);

impl Identity {
    /// The identity of the event `id` of `source` in `workspace`; `phase` is `final` where absent.
    pub fn of(workspace: &str, source: &str, id: &str, phase: &str) -> Self {
        let mut bytes: SmallVec<[u8; 256]> = SmallVec::new();
        for part in [workspace, source, id, phase] {
            // Length first: no two different tuples give the same bytes.
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(xxh3_128(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(
            Identity::of("a", "bc", "d", "final"),
            Identity::of("ab", "c", "d", "final")
        );
    }
}
