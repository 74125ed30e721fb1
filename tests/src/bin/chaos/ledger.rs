//! What was sent, and what the system has promised about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spendfuse_tests::random::Random;

use crate::events::{CUSTOMERS, GOING_ON, MOST_OUTPUT};

/// An event is counted when so many have followed it.
pub const COUNTED_BY_THEN: usize = 1_500;
/// Nothing more is told of a call when so many have followed it.
pub const WHOLE_BY_THEN: usize = 6_000;

/// What an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It counts.
    Call(Call),
    /// What a customer paid: a row, and nothing that a budget counts.
    Revenue(Revenue),
    /// It ends this session, which never goes on, and is no row.
    SessionEnd(String),
    /// Older than the dedupe horizon: it belongs to the DLQ.
    Late,
    /// It cannot be read: it belongs to the DLQ.
    Malformed,
    /// Another worker has counted it before: a duplicate from its first arrival on.
    CountedBefore,
}

/// What a call says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Call {
    pub workspace: String,
    pub customer: String,
    pub feature: String,
    pub plan: String,
    pub session: String,
    /// All input tokens.
    pub input: u64,
    /// Those of them from a cache.
    pub cached: u64,
    pub output: u64,
}

/// What a customer paid, nano-dollars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Revenue {
    pub customer: String,
    pub nanos: i128,
}

/// What stands for a call since it was amended; all else stays.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Amendment {
    pub customer: String,
    pub output: u64,
}

impl Amendment {
    /// Any customer, any answer.
    pub fn any(random: &mut Random) -> Self {
        Self {
            customer: format!("c-{}", random.below(CUSTOMERS)),
            output: random.below(MOST_OUTPUT),
        }
    }
}

/// Every event by its number.
#[derive(Default)]
pub struct Ledger(Mutex<Book>);

/// What the ledger says.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Each event, and how often some part has promised to have it.
    pub events: Vec<(Kind, u64)>,
    /// Records handed to Kafka or the sidecar, repetitions included.
    pub sent: u64,
    /// Those of them that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that say something else of an event that was sent before.
    pub conflicts: u64,
    /// Those of them that say more of a call that was sent before.
    pub grown: u64,
    /// Calls that were taken back.
    pub voided: BTreeSet<usize>,
    /// Calls that were amended.
    pub amended: BTreeMap<usize, Amendment>,
}

impl Ledger {
    /// What it says, to be read and written.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up an event; its number.
    pub fn enter(&self, kind: Kind) -> usize {
        let mut book = self.book();
        book.events.push((kind, 0));
        book.events.len() - 1
    }

    /// Notes that an event goes out.
    pub fn sent(&self) {
        self.book().sent += 1;
    }

    /// Notes that an event is promised to be safe.
    pub fn acknowledged(&self, number: usize) {
        let mut book = self.book();
        book.acknowledged += 1;
        book.events[number].1 += 1;
    }

    /// Notes that a call was taken back.
    pub fn voided(&self, number: usize) {
        self.book().voided.insert(number);
    }

    /// Notes that a call was amended.
    pub fn amended(&self, number: usize, amendment: Amendment) {
        self.book().amended.insert(number, amendment);
    }

    /// A call that may be corrected: of a session that goes on, and at least `age` events ago.
    pub fn any_old_call(&self, random: &mut Random, age: usize) -> Option<usize> {
        let book = self.book();
        let old = book.events.len().checked_sub(age)? as u64;
        let number = random.below(old.max(1)) as usize;
        let (kind, promised) = book.events.get(number)?;
        let is_of_session = matches!(kind, Kind::Call(call) if call.session.starts_with(GOING_ON));
        (is_of_session && *promised > 0).then_some(number)
    }

    /// A copy of everything.
    pub fn snapshot(&self) -> Book {
        self.book().clone()
    }
}
