//! Which billed provider response an event is about.

use xxhash_rust::xxh3::Xxh3;

/// 128-bit hash of (`workspace`, `source`, `id`, `phase`): two events with the same identity are
/// one billed response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub u128);

impl Identity {
    /// The identity of the event `id` of `source` in `workspace`; `phase` is `final` where absent.
    pub fn of(workspace: &str, source: &str, id: &str, phase: &str) -> Self {
        let mut hasher = Xxh3::new();
        for part in [workspace, source, id, phase] {
            // Length first: no two different tuples feed the same bytes.
            hasher.update(&(part.len() as u32).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.digest128())
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
