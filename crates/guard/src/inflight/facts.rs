//! What the rule asks of a guard.

use super::{Seen, is_behind};

/// What a desk asks its guard for.
pub trait Facts {
    /// What is held of a key: calls under way, and costs that no entry shows to readers. To be read
    /// before all else.
    fn held(&self, key: &str) -> i64;
    /// What readers see as spent.
    fn spent(&self, key: &str) -> i64;
    /// By how much calls under way may pass the limit all the same; for people.
    fn exceeding(&self, _key: &str) -> i64 {
        0
    }
    /// The budget's limit; 0 where there is none any more.
    fn limit(&self, key: &str) -> i64;
    /// The entries that readers see.
    fn shown(&self) -> Seen;
    /// Whether readers see everything that is in `seen`.
    fn shows(&self, seen: &Seen) -> bool {
        is_behind(seen, &self.shown())
    }
    /// The entries that were read, be it that readers do not see them yet. What has left what is
    /// held is in one of them.
    fn read(&self) -> Seen;
}
