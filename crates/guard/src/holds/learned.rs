//! What calls of a model and feature have really cost in the last hour.
//!
//! Of each pair the costs of seven times ten minutes are kept, by their size: what is asked for is
//! their 99th percentile, so the small ones matter little and are told apart least. Each class of
//! sizes keeps its largest value, and that is the answer: a cost that was really seen, where all
//! calls cost the same exactly it, else at most a quarter too large. No clock: callers say the time.

use hashbrown::HashMap;
use spendfuse_domain::Nanos;
use spendfuse_domain::budget::Spend;

use super::parts::MOST;

/// Whose calls cost alike: a hash of workspace, model and feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair(pub(crate) u128);

/// So many calls say what the next one will cost.
const ENOUGH: u64 = 10;

const SLOT_MILLIS: i64 = 600_000;
/// The hour, and the ten minutes that have only begun.
const SLOTS: usize = 7;
/// Classes of sizes in ten minutes; with four an octave they reach over a factor of 250.
const MOST_CLASSES: usize = 32;

/// A pair takes about 1 KB, at worst 8 KB.
const MOST_PAIRS: usize = 4096;
const FORGOTTEN_AT_ONCE: usize = 256;

/// Every pair that something is known of.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    pairs: HashMap<Pair, Costs>,
}

/// One pair.
#[derive(Debug)]
struct Costs {
    dollars: Sizes,
    tokens: Sizes,
    last_slot: i64,
    /// What the next call is expected to cost, as of the last slot; `None` where too few are known.
    expected: Option<Spend>,
    /// The most that one has cost.
    worst: Spend,
}

/// What is known of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The 99th percentile of what the last hour's calls have cost; `None` where fewer than ten are
    /// known.
    pub(crate) expected: Option<Spend>,
    /// The most that one of them has cost; nothing where none is known.
    pub(crate) worst: Spend,
}

/// Values of the last hour by their size.
#[derive(Debug, Default)]
struct Sizes {
    slots: [Slot; SLOTS],
}

/// Those of ten minutes, the largest first.
#[derive(Debug, Default)]
struct Slot {
    number: i64,
    classes: Vec<Class>,
}

#[derive(Clone, Copy, Debug)]
struct Class {
    largest: i64,
    count: u32,
}

impl Learned {
    /// A call of `pair` has cost `spend`. Returns how many other pairs were forgotten for it.
    pub(crate) fn learn(&mut self, pair: Pair, spend: &Spend, now_millis: i64) -> usize {
        let slot = slot_of(now_millis);
        let is_full = self.pairs.len() >= MOST_PAIRS && !self.pairs.contains_key(&pair);
        let forgotten = if is_full { self.forget_some() } else { 0 };
        let costs = self.pairs.entry(pair).or_insert_with(|| Costs::new(slot));
        costs.learn(spend, slot);
        forgotten
    }

    /// What a call of `pair` may cost, by what the last hour's have.
    pub(crate) fn known(&mut self, pair: Pair, now_millis: i64) -> Known {
        let slot = slot_of(now_millis);
        let Some(costs) = self.pairs.get_mut(&pair) else {
            return Known::default();
        };
        if costs.last_slot < slot {
            costs.move_to(slot);
        }
        Known {
            expected: costs.expected,
            worst: costs.worst,
        }
    }

    /// Forgets the pairs that were learnt of longest ago, first of those too little is known of:
    /// names that somebody makes up push each other out. Many at once, as all must be looked at.
    fn forget_some(&mut self) -> usize {
        let worth = |costs: &Costs| (costs.expected.is_some(), costs.last_slot);
        let pairs = self.pairs.iter();
        let mut by_worth: Vec<_> = pairs.map(|(pair, costs)| (worth(costs), pair.0)).collect();
        by_worth.select_nth_unstable(FORGOTTEN_AT_ONCE);
        for (_, pair) in &by_worth[..FORGOTTEN_AT_ONCE] {
            self.pairs.remove(&Pair(*pair));
        }
        FORGOTTEN_AT_ONCE
    }
}

impl Costs {
    fn new(slot: i64) -> Self {
        Self {
            dollars: Sizes::default(),
            tokens: Sizes::default(),
            last_slot: slot,
            expected: None,
            worst: Spend::default(),
        }
    }

    fn learn(&mut self, spend: &Spend, slot: i64) {
        let slot = slot.max(self.last_slot);
        let nanos = spend.cost.get().clamp(0, MOST.into());
        self.dollars.add(slot, i64::try_from(nanos).unwrap_or(MOST));
        self.tokens.add(slot, spend.tokens.clamp(0, MOST));
        self.move_to(slot);
    }

    fn move_to(&mut self, slot: i64) {
        self.last_slot = slot;
        let known = self.dollars.count(slot);
        self.expected = (known >= ENOUGH).then(|| Spend {
            cost: Nanos::new(self.dollars.high(slot, known).into()),
            tokens: self.tokens.high(slot, known),
            calls: 1,
        });
        self.worst = Spend {
            cost: Nanos::new(self.dollars.largest(slot).into()),
            tokens: self.tokens.largest(slot),
            calls: 1,
        };
    }
}

impl Sizes {
    fn add(&mut self, number: i64, value: i64) {
        let slot = &mut self.slots[number.rem_euclid(SLOTS as i64) as usize];
        if slot.number != number {
            slot.number = number;
            slot.classes.clear();
        }
        slot.add(value);
    }

    /// How many there are, `newest` being the number of this slot of time.
    fn count(&self, newest: i64) -> u64 {
        let classes = self.current(newest).flat_map(|slot| &slot.classes);
        classes.map(|class| u64::from(class.count)).sum()
    }

    fn largest(&self, newest: i64) -> i64 {
        let heads = self.current(newest).filter_map(|slot| slot.classes.first());
        heads.map(|class| class.largest).max().unwrap_or(0)
    }

    /// The 99th percentile of `count` values: one of a hundred is larger.
    fn high(&self, newest: i64, count: u64) -> i64 {
        let mut next = [0; SLOTS];
        let mut passed = 0;
        loop {
            let slots = self.slots.iter().enumerate();
            let heads = slots
                .filter(|(_, slot)| slot.is_current(newest))
                .filter_map(|(index, slot)| Some((slot.classes.get(next[index])?, index)));
            let Some((class, index)) = heads.max_by_key(|(class, _)| class.largest) else {
                return 0;
            };
            passed += u64::from(class.count);
            if passed > count / 100 {
                return class.largest;
            }
            next[index] += 1;
        }
    }

    fn current(&self, newest: i64) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.iter();
        slots.filter(move |slot| slot.is_current(newest))
    }
}

impl Slot {
    fn is_current(&self, newest: i64) -> bool {
        !self.classes.is_empty() && newest - self.number < SLOTS as i64
    }

    fn add(&mut self, value: i64) {
        let class = class_of(value);
        let found = self
            .classes
            .binary_search_by(|known| class.cmp(&class_of(known.largest)));
        match found {
            Ok(index) => {
                let known = &mut self.classes[index];
                known.largest = known.largest.max(value);
                known.count = known.count.saturating_add(1);
            }
            Err(index) => {
                let new = Class {
                    largest: value,
                    count: 1,
                };
                self.classes.insert(index, new);
            }
        }
        if self.classes.len() > MOST_CLASSES
            && let Some(smallest) = self.classes.pop()
            && let Some(last) = self.classes.last_mut()
        {
            last.count = last.count.saturating_add(smallest.count);
        }
    }
}

fn slot_of(now_millis: i64) -> i64 {
    now_millis.div_euclid(SLOT_MILLIS)
}

/// A number that grows with `value`, four to an octave.
fn class_of(value: i64) -> u32 {
    let value = value.max(0).unsigned_abs();
    let Some(octave) = value.checked_ilog2().filter(|octave| *octave >= 2) else {
        return u32::try_from(value).unwrap_or(0);
    };
    let quarter = (value >> (octave - 2)) & 3;
    octave * 4 + u32::try_from(quarter).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    fn spend(nanos: i64) -> Spend {
        Spend {
            cost: Nanos::new(nanos.into()),
            tokens: nanos,
            calls: 1,
        }
    }

    fn of(costs: &[(i64, i64)], now: i64) -> Option<i64> {
        let mut learned = Learned::default();
        for (nanos, at) in costs {
            learned.learn(Pair(7), &spend(*nanos), *at);
        }
        let expected = learned.known(Pair(7), now).expected?;
        assert_eq!(expected.tokens, i64::try_from(expected.cost.get()).unwrap());
        i64::try_from(expected.cost.get()).ok()
    }

    #[test]
    fn ten_calls_of_the_last_hour_say_it_exactly_where_they_are_alike() {
        let nine = [(10_000_000, 5); 9];
        assert_eq!(of(&nine, 5), None);
        let ten = [(10_000_000, 5); 10];
        assert_eq!(of(&ten, 5), Some(10_000_000));
        assert_eq!(of(&ten, HOUR), Some(10_000_000));
        assert_eq!(of(&ten, 2 * HOUR), None);
    }

    #[test]
    fn one_of_a_hundred_may_be_dearer() {
        let mut costs = vec![(1_000, 0); 198];
        costs.extend([(900_000, 0), (800_000, 0)]);
        assert_eq!(of(&costs, 0), Some(1_000));
        costs.push((800_000, HOUR / 2));
        assert_eq!(of(&costs, HOUR / 2), Some(800_000));
    }

    #[test]
    fn what_somebody_makes_up_pushes_out_only_what_is_as_little_known() {
        let mut learned = Learned::default();
        for _ in 0..10 {
            learned.learn(Pair(0), &spend(5), 0);
        }
        let mut forgotten = 0;
        for made_up in 1..3 * MOST_PAIRS as u128 {
            forgotten += learned.learn(Pair(made_up), &spend(5), HOUR / 2);
            assert!(learned.pairs.len() <= MOST_PAIRS);
        }
        assert_eq!(forgotten + learned.pairs.len(), 3 * MOST_PAIRS);
        let known = learned.known(Pair(0), HOUR / 2);
        assert_eq!((known.expected, known.worst), (Some(spend(5)), spend(5)));
    }

    proptest! {
        /// Never below the true percentile, and at most a quarter above it.
        #[test]
        fn it_lies_just_above_the_true_percentile(
            costs in prop::collection::vec((1_i64..2_000_000_000, 0..HOUR), 10..400)
        ) {
            let mut in_order = costs.clone();
            in_order.sort_by_key(|(_, at)| *at);
            let found = of(&in_order, HOUR).unwrap();
            let mut values: Vec<i64> = costs.iter().map(|(nanos, _)| *nanos).collect();
            values.sort_unstable();
            let exact = values[values.len() - 1 - values.len() / 100];
            prop_assert!(found >= exact);
            prop_assert!(found <= exact + exact / 4 + 1 && values.contains(&found));
        }
    }
}
