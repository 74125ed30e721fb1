//! Where an entry lives in the replica: 128-bit hashes of budget and scope, built without a text.
//!
//! The hash of an entry is the hash of what the key says before its last `|` (the budget, or
//! `finding|` and the detector) combined with the hash of the scope text. So a check hashes each
//! scope once, however many budgets share it.

use std::hash::{BuildHasher, RandomState};

use spendfuse_domain::scope::Dimension;
use xxhash_rust::xxh3::Xxh3;

/// Place of an entry in the replica.
pub(crate) type EntryHash = u128;

/// Hashes scopes. Seeded anew in each process: values in scopes come from outside, and nobody must
/// be able to make up one customer that falls together with another.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    seeded: Xxh3,
}

impl KeyHasher {
    pub(crate) fn new() -> Self {
        Self {
            seeded: Xxh3::with_seed(RandomState::new().hash_one("spendfuse-guard")),
        }
    }

    /// The hash of a finished text.
    pub(crate) fn text(&self, text: &str) -> u128 {
        let mut hasher = self.seeded.clone();
        hasher.update(text.as_bytes());
        hasher.digest128()
    }

    /// The place of the entry with this whole key, as it stands in the topic.
    pub(crate) fn key(&self, key: &str) -> EntryHash {
        let (prefix, scope) = key.rsplit_once('|').unwrap_or(("", key));
        combine(self.text(prefix), self.text(scope))
    }

    /// Begins a scope as `ScopeText::begin` does.
    pub(crate) fn scope(&self, workspace: Option<&str>) -> ScopeHash {
        let mut hash = ScopeHash(self.seeded.clone());
        match workspace {
            Some(workspace) => hash.escaped(workspace),
            None => hash.0.update(b"*"),
        }
        hash
    }
}

/// The place of an entry, from the hash of the key's prefix and that of its scope.
pub(crate) fn combine(prefix: u128, scope: u128) -> EntryHash {
    prefix ^ scope
}

/// The hash of a scope text that is never written.
pub(crate) struct ScopeHash(Xxh3);

impl ScopeHash {
    /// Adds a part whose `/dimension=` is `label`, see [`part_label`].
    pub(crate) fn part(&mut self, label: &str, value: &str) {
        self.0.update(label.as_bytes());
        self.escaped(value);
    }

    pub(crate) fn finish(self) -> u128 {
        self.0.digest128()
    }

    fn escaped(&mut self, value: &str) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let plain =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let mut rest = value.as_bytes();
        while !rest.is_empty() {
            let run = rest.iter().take_while(|byte| plain(byte)).count();
            self.0.update(&rest[..run]);
            rest = &rest[run..];
            if let Some((byte, after)) = rest.split_first() {
                let high = HEX[usize::from(byte >> 4)];
                let low = HEX[usize::from(byte & 15)];
                self.0.update(&[b'%', high, low]);
                rest = after;
            }
        }
    }
}

/// What stands before a value in scope texts: `/customer=`, `/tags.team=`.
pub(crate) fn part_label(dimension: &Dimension) -> String {
    let mut text = spendfuse_domain::scope::ScopeText::begin(Some(""));
    text.part(dimension, "");
    text.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_domain::scope::ScopeText;

    #[test]
    fn a_streamed_scope_and_its_text_have_one_hash() {
        let hasher = KeyHasher::new();
        let long = "größe/|%".repeat(60);
        for values in [["acme", "c-42"], ["", "a b"], ["ä", &long]] {
            let mut text = ScopeText::begin(Some(values[0]));
            let mut hash = hasher.scope(Some(values[0]));
            for dimension in [Dimension::Customer, Dimension::Tag("te am".into())] {
                text.part(&dimension, values[1]);
                hash.part(&part_label(&dimension), values[1]);
            }
            let key = format!("finding|retry_loop|{}", text.finish());
            let prefix = hasher.text("finding|retry_loop");
            assert_eq!(combine(prefix, hash.finish()), hasher.key(&key));
        }
    }
}
