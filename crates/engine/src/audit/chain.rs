//! Chains: each record names the writer's commit before and its own.

use std::collections::BTreeMap;

/// A record that does not continue its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenChain {
    /// The commit that it should continue; 0 = none.
    pub expected: u64,
    /// The commit that it names as the one before.
    pub previous: u64,
    /// Its own commit.
    pub seq: u64,
}

impl BrokenChain {
    /// Whether records are missing; else some come again.
    pub fn is_gap(&self) -> bool {
        self.previous > self.expected && self.seq > self.expected
    }
}

/// How far each chain has come. A further record of the same commit names that commit as the one
/// before.
#[derive(Clone, Debug, Default)]
pub struct Chains<K> {
    last: BTreeMap<K, u64>,
}

impl<K: Ord> Chains<K> {
    /// No chain seen yet.
    pub fn new() -> Self {
        Self {
            last: BTreeMap::new(),
        }
    }

    /// The last commit of a chain; `None` where nothing was seen of it.
    pub fn last(&self, chain: &K) -> Option<u64> {
        self.last.get(chain).copied()
    }

    /// Takes a record in. `log_is_whole`: the log is read from its first record on, so that a chain
    /// must begin at 0; else its first link is taken as it is.
    ///
    /// # Errors
    /// [`BrokenChain`]; the chain goes on from the record in either case.
    pub fn follow(
        &mut self,
        chain: K,
        previous: u64,
        seq: u64,
        log_is_whole: bool,
    ) -> Result<(), BrokenChain> {
        let known = self.last.insert(chain, seq);
        let Some(expected) = known.or(log_is_whole.then_some(0)) else {
            return Ok(());
        };
        if previous == expected && seq >= expected {
            return Ok(());
        }
        Err(BrokenChain {
            expected,
            previous,
            seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_overlaps_are_told_apart_and_an_unknown_beginning_is_neither() {
        let mut chains = Chains::new();
        assert_eq!(chains.follow("whole", 0, 3, true), Ok(()));
        assert_eq!(chains.follow("whole", 3, 4, true), Ok(()));
        assert_eq!(chains.follow("whole", 4, 4, true), Ok(()), "a second part");
        assert!(chains.follow("whole", 7, 8, true).unwrap_err().is_gap());
        let again = chains.follow("whole", 4, 8, true).unwrap_err();
        assert!(!again.is_gap());
        assert_eq!((again.expected, again.previous), (8, 4));
        assert_eq!(chains.follow("cut", 41, 42, false), Ok(()));
        assert!(chains.follow("cut", 43, 44, false).unwrap_err().is_gap());
        assert!(chains.follow("late", 1, 2, true).unwrap_err().is_gap());
    }
}
