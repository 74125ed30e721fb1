//! What a call holds of the budgets that it meets, and where that waits once it is settled.

use smallvec::SmallVec;
use spendfuse_domain::budget::Spend;

use super::cells::{Cells, cell_of};
use crate::digest::Kind;
use crate::hash::EntryHash;

/// The largest amount of one call: a million dollars, the contract's bound of a call's price, in
/// nano-dollars. Thousands of such calls fit into a sum.
pub(crate) const MOST: i64 = 1_000_000_000_000_000;

/// What a call holds of one budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) key: EntryHash,
    pub(crate) unit: Kind,
    pub(crate) amount: i64,
    /// By how much the dearest call of its like has cost more.
    pub(crate) excess: i64,
}

impl Part {
    /// The place of the cell that it is in.
    pub(crate) fn cell(&self) -> EntryHash {
        cell_of(self.key, self.unit)
    }
}

pub(crate) type Parts = SmallVec<[Part; 4]>;

/// Where settled holds wait in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// By the offsets of their events in a partition of the usage topic.
    Usage(u32),
    /// By the commits of a meter partition that counted them, several to one.
    Meter(u32),
}

/// The part of `spend` that counts in `unit`, as far as an amount can say.
pub(crate) fn counted(unit: Kind, spend: &Spend) -> i64 {
    let amount = unit.counted(spend).clamp(0, i128::from(MOST));
    i64::try_from(amount).unwrap_or(MOST)
}

pub(crate) fn give_back(parts: &Parts, cells: &Cells) {
    for part in parts {
        cells.change(part.cell(), part.amount, 0);
    }
}

pub(crate) fn drop_pending(parts: &Parts, cells: &Cells) {
    for part in parts {
        cells.take_pending(part.cell(), part.amount);
    }
}
