//! A cell under a model checker, which tries every order of the threads' steps, and every value that
//! the memory model lets a load see.

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicI64, AtomicU64};

use super::cell::{Added, CHANGING, Cell, READING, Sum};

struct Modelled(AtomicI64);

impl Sum for Modelled {
    fn zero() -> Self {
        Self(AtomicI64::new(0))
    }

    fn load(&self) -> i64 {
        self.0.load(READING)
    }

    fn add(&self, amount: i64) -> i64 {
        self.0.fetch_add(amount, CHANGING)
    }

    fn replace(&self, current: i64, new: i64) -> Result<(), i64> {
        self.0
            .compare_exchange(current, new, CHANGING, READING)
            .map(|_| ())
    }
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A call that takes the only place, and gives it back; whether it was admitted.
fn call(cell: &Cell<Modelled>, filled: &Modelled, inside: &AtomicU64) -> bool {
    if cell.add_if(1, filled, |held| held < 1) != Added::Yes {
        return false;
    }
    assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0);
    assert!(filled.load() >= 1);
    inside.fetch_sub(1, Ordering::AcqRel);
    cell.change(-1, filled);
    // Another call may be in it again.
    cell.close();
    true
}

#[test]
fn two_calls_never_have_one_place_and_an_empty_cell_closes_for_good() {
    explore(|| {
        let cell = Arc::new(Cell::<Modelled>::new());
        let inside = Arc::new(AtomicU64::new(0));
        let filled = Arc::new(Modelled::zero());
        let other = {
            let (cell, inside) = (Arc::clone(&cell), Arc::clone(&inside));
            let filled = Arc::clone(&filled);
            loom::thread::spawn(move || call(&cell, &filled, &inside))
        };
        let was_admitted = call(&cell, &filled, &inside);
        let other_was = other.join().unwrap();
        assert!(was_admitted || other_was);
        assert_eq!(filled.load(), 0);
        assert!(cell.is_closed());
        assert_eq!(cell.add_if(1, &filled, |_| true), Added::Closed);
        assert_eq!(filled.load(), 0);
    });
}

#[test]
fn who_no_longer_sees_an_amount_sees_the_figure_that_counts_it() {
    explore(|| {
        let cell = Arc::new(Cell::<Modelled>::new());
        let spent = Arc::new(AtomicU64::new(0));
        let filled = Arc::new(Modelled::zero());
        assert_eq!(cell.add_if(1, &filled, |_| true), Added::Yes);
        let writer = {
            let (cell, spent) = (Arc::clone(&cell), Arc::clone(&spent));
            let filled = Arc::clone(&filled);
            loom::thread::spawn(move || {
                spent.store(1, Ordering::Relaxed);
                cell.change(-1, &filled);
            })
        };
        // As a check reads: nothing of cells where none has anything in it.
        let held = match filled.load() {
            0 => 0,
            _ => cell.held(),
        };
        let counted = spent.load(Ordering::Relaxed);
        assert!(held + counted.cast_signed() >= 1);
        writer.join().unwrap();
    });
}
