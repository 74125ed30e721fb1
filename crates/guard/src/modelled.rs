//! The table under a model checker, which tries every order of the writer's and a reader's steps,
//! and every value that the memory model lets a load see.

use std::sync::Arc as StdArc;
use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize};
use spendfuse_domain::{UnixMillis, Verdict};

use crate::digest::{Digest, Epoch, Glimpse};
use crate::entry::Entry;
use crate::hash::EntryHash;
use crate::table::{Change, Filling, Table, Word};

struct Modelled(AtomicU64);

impl Word for Modelled {
    fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, ordering);
    }
}

const NOW: UnixMillis = UnixMillis(1_000_000);

/// Scopes whose home is the first line.
const ONE: EntryHash = 1 << 48;
const OTHER: EntryHash = 2 << 48;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // Bugs of this kind show with two.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn change(key: EntryHash, was_there: bool, spent: Option<u32>) -> Change {
    // To read an entry takes more room than loom gives its threads (0.7, without optimization).
    let digest = |spent: u32| {
        let read = move || {
            let entry = Entry::of_spend(&format!("{spent}.00"), Verdict::Ok, None);
            Digest::of(&entry, Epoch::new(NOW))
        };
        std::thread::spawn(read).join().expect("a good entry")
    };
    Change {
        key,
        was_there,
        digest: spent.map(digest),
    }
}

/// What a reader sees of `key` in whole dollars; `None` where it asks the full entry.
fn dollars(glimpse: Glimpse) -> Option<i64> {
    match glimpse {
        Glimpse::Nothing => Some(0),
        Glimpse::AtMost(_, most) => Some((most + 1) / 1_000_000_000),
        Glimpse::Ask => None,
    }
}

#[test]
fn a_reader_sees_each_scope_as_one_change_left_it_while_slots_change_hands() {
    let steps = || {
        [
            change(ONE, false, Some(1)),
            change(ONE, true, Some(2)),
            change(ONE, true, None),
            change(OTHER, false, Some(7)),
            change(ONE, false, Some(3)),
        ]
    };
    explore(move || {
        let table = Arc::new(Table::<Modelled>::with_lines(1, NOW));
        let mut filling = Filling::default();
        let mut steps = steps().into_iter();
        filling.make(&table, steps.next().unwrap()).unwrap();
        let writer = {
            let table = Arc::clone(&table);
            loom::thread::spawn(move || {
                for step in steps {
                    filling.make(&table, step).unwrap();
                }
            })
        };
        let seen = dollars(table.get(ONE, NOW));
        assert!(
            [Some(0), Some(1), Some(2), Some(3)].contains(&seen),
            "{seen:?}"
        );
        writer.join().unwrap();
        assert_eq!(dollars(table.get(ONE, NOW)), Some(3));
        assert_eq!(dollars(table.get(OTHER, NOW)), Some(7));
    });
}

#[test]
fn who_sees_a_snapshot_sees_everything_that_was_written_before_it() {
    explore(|| {
        // As `GuardWriter::publish`: slots of the table in use, then a new table, then the swap,
        // for which the index of the table stands.
        let tables = std::array::from_fn(|_| Table::<Modelled>::with_lines(1, NOW));
        let tables: StdArc<[_; 2]> = StdArc::new(tables);
        let snapshot = Arc::new(AtomicUsize::new(0));
        let mut filling = Filling::default();
        filling
            .make(&tables[0], change(ONE, false, Some(1)))
            .unwrap();
        let writer = {
            let (tables, snapshot) = (StdArc::clone(&tables), Arc::clone(&snapshot));
            loom::thread::spawn(move || {
                filling
                    .make(&tables[0], change(ONE, true, Some(2)))
                    .unwrap();
                let mut filling = Filling::default();
                for key in [ONE, OTHER] {
                    filling
                        .make(&tables[1], change(key, false, Some(2)))
                        .unwrap();
                }
                snapshot.store(1, Ordering::Release);
            })
        };
        let seen = snapshot.load(Ordering::Acquire);
        let spent = [ONE, OTHER].map(|key| dollars(tables[seen].get(key, NOW)));
        match seen {
            0 => assert!([Some(1), Some(2)].contains(&spent[0]), "{spent:?}"),
            _ => assert_eq!(spent, [Some(2), Some(2)]),
        }
        writer.join().unwrap();
    });
}
