//! Scopes of which calls were admitted before the topic was known: nobody has heard of them.

use std::mem;

use hashbrown::HashSet;
use spendfuse_guard::inflight::Key;

/// So many are kept before anybody looks for those of which nothing is held any more.
const FEW: usize = 1_000;

#[derive(Default)]
pub(super) struct Early {
    keys: HashSet<Key>,
    looked_at: usize,
}

impl Early {
    /// A call of `key` was admitted. Those that hold nothing go in time.
    pub(super) fn admit(&mut self, key: &Key, is_held: impl Fn(&str) -> bool) {
        if self.keys.len() >= 2 * self.looked_at + FEW {
            self.keys.retain(|key| is_held(key));
            self.looked_at = self.keys.len();
        }
        self.keys.insert(key.clone());
    }

    /// All of them; from now on there are none.
    pub(super) fn take(&mut self) -> HashSet<Key> {
        mem::take(self).keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_which_nothing_is_held_any_more_do_not_pile_up() {
        let mut early = Early::default();
        for number in 0..10 * FEW {
            let key = Key::from(format!("b|c-{number}"));
            early.admit(&key, |held| held == "b|c-7");
            assert!(early.keys.len() <= 2 * FEW);
        }
        assert!(early.take().contains("b|c-7"));
        assert!(early.take().is_empty());
    }
}
