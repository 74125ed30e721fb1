//! Where a scope lives in the replica: 128-bit hashes of dimension values, built without a text.
//!
//! A scope's hash is the sum of the hashes of its parts, one for each dimension and value. So a
//! check hashes each value of the request once, and a scope of any shape is a few additions. The
//! writer, who has only texts, takes them apart and comes to the same sums.
//!
//! Hashes are not compared with the texts they stand for: that would cost a check a second miss of
//! the processor's caches for each budget. Two scopes fall together by chance once in 2¹²⁸, and
//! nobody can make them: values are hashed with a secret of this process.

use std::hash::{BuildHasher, RandomState};

use spendfuse_domain::Attribution;
use spendfuse_domain::scope::{Dimension, Dimensions as _, ScopeText};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Hash of a scope, or of a scope and the budget that counts it.
pub(crate) type EntryHash = u128;

/// As much as the longest inputs use; at least 136.
const SECRET_BYTES: usize = 192;

/// Hashes values, scopes and keys.
pub(crate) struct KeyHasher {
    secret: [u8; SECRET_BYTES],
    /// What stands for the workspace of a scope across all workspaces.
    all_workspaces: u128,
    workspace: Factor,
}

/// Tells the values of one dimension from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factor(u128);

impl KeyHasher {
    /// A hasher with a new secret: values in scopes come from outside, and nobody must be able to
    /// make up one customer that falls together with another.
    pub(crate) fn new() -> Self {
        let mut secret = [0; SECRET_BYTES];
        for bytes in secret.chunks_mut(8) {
            let random = RandomState::new().hash_one("spendfuse-guard");
            bytes.copy_from_slice(&random.to_le_bytes());
        }
        let mut hasher = Self {
            secret,
            all_workspaces: 0,
            workspace: Factor(1),
        };
        hasher.all_workspaces = hasher.text("all workspaces");
        hasher.workspace = hasher.factor(&Dimension::Workspace);
        hasher
    }

    /// The hash of a text.
    pub(crate) fn text(&self, text: &str) -> u128 {
        xxh3_128_with_secret(text.as_bytes(), &self.secret)
    }

    /// What the values of `dimension` are multiplied with.
    pub(crate) fn factor(&self, dimension: &Dimension) -> Factor {
        // Odd, so that no two values fall together.
        Factor(self.text(&format!("dimension {}", dimension.name())) | 1)
    }

    /// The part that a value contributes to the sums of its scopes. Never 0.
    pub(crate) fn part(&self, factor: Factor, value: &str) -> u128 {
        self.text(value).wrapping_mul(factor.0).max(1)
    }

    /// The part of the scopes that name no workspace.
    pub(crate) fn all_workspaces(&self) -> u128 {
        self.all_workspaces
    }

    /// The hash of the scope with this text.
    pub(crate) fn scope(&self, text: &str) -> u128 {
        let Some(scope) = ScopeText::parse(text) else {
            // No writer's scope, and no request's: it has a place of its own. (Sums know no order, so
            // another text of the same parts would fall together with theirs.)
            return self.text(text);
        };
        let workspace = match &scope.workspace {
            // As a request that names none.
            Some(workspace) if workspace.is_empty() => 0,
            Some(workspace) => self.part(self.workspace, workspace),
            None => self.all_workspaces,
        };
        let parts = scope.parts.iter();
        parts.fold(workspace, |sum, (dimension, value)| {
            sum.wrapping_add(self.part(self.factor(dimension), value))
        })
    }

    /// The hash of the root session's scope; `None` where `who` names none.
    pub(crate) fn root_session(&self, who: &Attribution<'_>) -> Option<u128> {
        let part = |dimension| match who.value(&dimension) {
            "" => 0,
            value => self.part(self.factor(&dimension), value),
        };
        let is_named = !who.root_session.is_empty();
        is_named.then(|| part(Dimension::Workspace).wrapping_add(part(Dimension::RootSession)))
    }

    /// The place of the entry with this whole key, as it stands in the topic.
    pub(crate) fn key(&self, key: &str) -> EntryHash {
        let (prefix, scope) = key.rsplit_once('|').unwrap_or(("", key));
        combine(self.text(prefix), self.scope(scope))
    }
}

/// The place of an entry, from the hash of the key's prefix and that of its scope.
pub(crate) fn combine(prefix: u128, scope: u128) -> EntryHash {
    prefix ^ scope
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_domain::scope::scope_of;

    #[test]
    fn the_sum_of_a_requests_values_is_the_hash_of_the_scopes_text() {
        let hasher = KeyHasher::new();
        let long = "größe/|%".repeat(60);
        for values in [["acme", "c-42"], ["*", "a b"], ["ä", &long]] {
            let mut parts = vec![(Dimension::Workspace, values[0])];
            let mut sum = hasher.part(hasher.factor(&Dimension::Workspace), values[0]);
            for dimension in [Dimension::Customer, Dimension::Tag("te am".into())] {
                sum = sum.wrapping_add(hasher.part(hasher.factor(&dimension), values[1]));
                parts.push((dimension, values[1]));
            }
            let scope = scope_of(parts.iter().map(|(dimension, value)| (dimension, *value)));
            let key = format!("finding|retry_loop|{scope}");
            let prefix = hasher.text("finding|retry_loop");
            assert_eq!(combine(prefix, sum), hasher.key(&key));
        }
        let part = hasher.part(hasher.factor(&Dimension::Plan), "free");
        let sum = hasher.all_workspaces().wrapping_add(part);
        assert_eq!(sum, hasher.scope("*/plan=free"));
    }

    #[test]
    fn only_a_text_as_writers_write_it_has_the_hash_of_its_parts() {
        let hasher = KeyHasher::new();
        let texts = [
            "acme/customer=a/feature=b",
            "acme/customer=b/feature=a",
            "acme/feature=b/customer=a",
            "acme/customer=%61/feature=b",
            "acme/customer=a/feature=b/",
            "acme/customer=a/feature=b/feature=b",
            "acme/customer=a/plan=b",
            "acme/customer=a/feature=b/plan=%",
            "*/customer=a/feature=b",
            "%2A/customer=a/feature=b",
            "/customer=a/feature=b",
        ];
        let hashes: std::collections::HashSet<_> =
            texts.iter().map(|text| hasher.scope(text)).collect();
        assert_eq!(hashes.len(), texts.len());
    }
}
