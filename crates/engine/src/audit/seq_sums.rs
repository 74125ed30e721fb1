//! Sums by commit, or by blocks of commits where there are too many.

use std::collections::BTreeMap;

use super::differences::Tally;

/// Sums by a series `K` and its commits.
#[derive(Clone, Debug, Default)]
pub struct SeqSums<K> {
    commits_a_block: u64,
    sums: BTreeMap<(K, u64), Tally>,
}

impl<K: Ord + Clone> SeqSums<K> {
    /// Empty sums of blocks of `commits_a_block` commits, at least 1.
    pub fn new(commits_a_block: u64) -> Self {
        Self {
            commits_a_block: commits_a_block.max(1),
            sums: BTreeMap::new(),
        }
    }

    /// How many commits make a block.
    pub fn commits_a_block(&self) -> u64 {
        self.commits_a_block
    }

    /// Adds what commit `seq` has.
    pub fn add(&mut self, key: K, seq: u64, tally: Tally) {
        let block = seq / self.commits_a_block;
        self.add_block(key, block, tally);
    }

    /// Adds what a block has.
    pub fn add_block(&mut self, key: K, block: u64, tally: Tally) {
        self.sums.entry((key, block)).or_default().add(tally);
    }

    /// Sum of everything under keys for which `wanted` holds.
    pub fn total(&self, wanted: impl Fn(&K) -> bool) -> Tally {
        let mut total = Tally::default();
        for ((key, _), tally) in &self.sums {
            if wanted(key) {
                total.add(*tally);
            }
        }
        total
    }

    /// Every (key, first commit of the block, what is here, what is there) where both differ.
    pub fn unlike<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a K, u64, Tally, Tally)> + 'a {
        let places = self.sums.keys();
        let only_there = other
            .sums
            .keys()
            .filter(|place| !self.sums.contains_key(*place));
        places.chain(only_there).filter_map(|place| {
            let here = self.sums.get(place).copied().unwrap_or_default();
            let there = other.sums.get(place).copied().unwrap_or_default();
            let first = place.1 * self.commits_a_block;
            (here != there).then_some((&place.0, first, here, there))
        })
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::Nanos;

    use super::*;

    #[test]
    fn what_only_one_side_has_is_found_with_its_commit() {
        let one = |events| Tally::new(events, Nanos::new(i128::from(events)));
        let mut here = SeqSums::new(10);
        let mut there = SeqSums::new(10);
        for (seq, sums) in [(3, &mut here), (4, &mut there)] {
            sums.add(0_u32, seq, one(2));
        }
        assert_eq!(here.unlike(&there).count(), 0);
        here.add(0, 25, one(1));
        there.add(1, 31, one(4));
        let found: Vec<_> = here.unlike(&there).collect();
        assert_eq!(
            found,
            [
                (&0, 20, one(1), Tally::default()),
                (&1, 30, Tally::default(), one(4))
            ]
        );
    }
}
