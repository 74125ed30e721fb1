//! How far each writer's chain of blocks has come.

use std::collections::BTreeMap;

use spendfuse_warehouse::record::Link;

/// The blocks of one table that one writer partition has written in one set of topics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// The table.
    pub table: String,
    /// The writer's partition.
    pub partition: u32,
    /// The set of topics.
    pub epoch: u32,
}

/// The last commit number seen of each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<Chain, u64>);

/// A chain that does not continue where it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenLink {
    /// The table.
    pub table: String,
    /// What the block says.
    pub link: Link,
    /// The number that it should continue, 0 = the first block.
    pub expected: u64,
}

impl BrokenLink {
    /// All that [`kind`](Self::kind) can be.
    pub const KINDS: [&str; 2] = ["gap", "overlap"];

    /// `gap` where blocks are missing, `overlap` where some come again.
    pub fn kind(&self) -> &'static str {
        if self.link.previous > self.expected {
            "gap"
        } else {
            "overlap"
        }
    }
}

impl Links {
    /// Chains of which each is known up to a commit.
    pub fn new(ends: impl IntoIterator<Item = (Chain, u64)>) -> Self {
        Self(ends.into_iter().collect())
    }

    /// The last commit number seen of a chain.
    pub fn end_of(&self, chain: &Chain) -> Option<u64> {
        self.0.get(chain).copied()
    }

    /// The number that a block of `chain` with this link has to continue, 0 = none. A writer's first
    /// commit in a set of topics follows none, or its last one before, where its state went on.
    pub(crate) fn expected(&self, chain: &Chain, link: Link) -> u64 {
        let before = self.0.range(..=chain).next_back();
        match before {
            Some((known, end)) if known == chain => *end,
            Some((known, end))
                if (&known.table, known.partition) == (&chain.table, chain.partition)
                    && link.previous == *end =>
            {
                *end
            }
            _ => 0,
        }
    }

    /// Goes on from the block, wherever the chain was before.
    pub(crate) fn adopt(&mut self, chain: Chain, link: Link) {
        self.set(chain, link.seq);
    }

    pub(crate) fn set(&mut self, chain: Chain, seq: u64) {
        self.0.insert(chain, seq);
    }

    /// Takes over the chains that are known only to `other`.
    pub(crate) fn add_unknown(&mut self, other: &Self) {
        for (chain, seq) in &other.0 {
            self.0.entry(chain.clone()).or_insert(*seq);
        }
    }

    /// Each chain as far as it or `others` know it.
    pub(crate) fn advance(&mut self, others: Self) {
        for (chain, seq) in others.0 {
            let end = self.0.entry(chain).or_default();
            *end = seq.max(*end);
        }
    }

    /// Takes a block in; an error where it does not continue the chain. The chain goes on from the
    /// block in either case.
    ///
    /// # Errors
    /// [`BrokenLink`], to be counted and reported: the loader loads the block nevertheless, because
    /// only people can know what a break means.
    pub fn follow(&mut self, chain: Chain, link: Link) -> Result<(), BrokenLink> {
        let expected = self.expected(&chain, link);
        let table = chain.table.clone();
        self.adopt(chain, link);
        if link.previous == expected {
            return Ok(());
        }
        Err(BrokenLink {
            table,
            link,
            expected,
        })
    }

    /// The chains that are still written: of each table and partition the one of the newest epoch.
    pub(super) fn newest(&self) -> impl Iterator<Item = (&Chain, u64)> {
        let mut all = self.0.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let (chain, seq) = all.next()?;
                let is_followed = all.peek().is_some_and(|(next, _)| {
                    (&next.table, next.partition) == (&chain.table, chain.partition)
                });
                if !is_followed {
                    return Some((chain, *seq));
                }
            }
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    pub(in crate::checkpoint) fn link(previous: u64, seq: u64) -> Link {
        Link {
            partition: 3,
            previous,
            seq,
        }
    }

    pub(in crate::checkpoint) fn chain(table: &str) -> Chain {
        Chain {
            table: table.to_owned(),
            partition: 3,
            epoch: 0,
        }
    }

    #[test]
    fn gaps_and_overlaps_of_a_chain_are_told_apart() {
        let mut links = Links::default();
        assert_eq!(links.follow(chain("spend"), link(0, 5)), Ok(()));
        assert_eq!(links.follow(chain("spend"), link(5, 6)), Ok(()));
        let second = links.follow(chain("spend"), link(6, 6));
        assert_eq!(second, Ok(()), "a second block");
        let gap = links.follow(chain("spend"), link(8, 9)).unwrap_err();
        assert_eq!((gap.kind(), gap.expected), ("gap", 6));
        let overlap = links.follow(chain("spend"), link(8, 9)).unwrap_err();
        assert_eq!((overlap.kind(), overlap.expected), ("overlap", 9));
        assert_eq!(links.follow(chain("verdicts"), link(0, 2)), Ok(()));
    }

    /// Topics of the rows may stay where others of their set are made anew.
    #[test]
    fn a_chain_begins_anew_with_each_epoch_or_goes_on() {
        let of_epoch = |epoch| Chain {
            epoch,
            ..chain("spend")
        };
        let mut links = Links::default();
        assert_eq!(links.follow(of_epoch(0), link(0, 40)), Ok(()));
        let mut goes_on = links.clone();
        assert_eq!(goes_on.follow(of_epoch(2), link(40, 41)), Ok(()));
        assert!(goes_on.follow(of_epoch(2), link(40, 42)).is_err());
        let mut lacks = links.clone();
        let gap = lacks.follow(of_epoch(2), link(7, 8)).unwrap_err();
        assert_eq!((gap.kind(), gap.expected), ("gap", 0));

        assert_eq!(links.follow(of_epoch(2), link(0, 1)), Ok(()));
        assert_eq!(links.follow(of_epoch(2), link(1, 2)), Ok(()));
        // What an older program reads stays what it was, and only what is still written is kept.
        let checkpoint = Checkpoint {
            links,
            ..Checkpoint::default()
        };
        let text = checkpoint.encode();
        assert_eq!(text, r#"{"v":1,"links":[["spend",3,2]],"epochs":[2]}"#);
        let kept = Checkpoint::decode(&text).unwrap().links;
        assert_eq!(kept, Links::new([(of_epoch(2), 2)]));
    }
}
