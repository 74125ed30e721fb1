//! A holder with its desk, its calls, and what it has said and nobody has heard.

use std::collections::VecDeque;

use super::super::{Decided, Desk, Facts, Said, Seen};
use super::{LIMIT, PATIENCE};

/// What is done wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// A cost leaves what is held before an entry shows it.
    PendingDroppedEarly,
    /// What was granted and is not wanted stays granted.
    RollbackForgotten,
    /// Who has just begun admits without a share.
    NewcomerAdmitsAlone,
}

/// A call under way, or settled and shown by the entry of this offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) amount: i64,
    pub(super) shown_by: Option<i64>,
}

pub(super) struct Sim {
    pub(super) desk: Desk,
    pub(super) read: usize,
    pub(super) entries: Seen,
    pub(super) calls: Vec<Call>,
    pub(super) outbox: VecDeque<Said>,
    pub(super) asked: Vec<(u64, i64)>,
    /// When the log has heard it last.
    pub(super) logged_at: i64,
    pub(super) is_counted_mute: bool,
    flaw: Flaw,
}

pub(super) struct View<'a> {
    pub(super) spent: i64,
    pub(super) held: i64,
    pub(super) entries: &'a Seen,
}

impl Facts for View<'_> {
    fn held(&self, _: &str) -> i64 {
        self.held
    }

    fn spent(&self, _: &str) -> i64 {
        self.spent
    }

    fn limit(&self, _: &str) -> i64 {
        LIMIT
    }

    fn shown(&self) -> Seen {
        self.entries.clone()
    }

    fn read(&self) -> Seen {
        self.entries.clone()
    }
}

impl Sim {
    pub(super) fn new(number: u64, now: i64, flaw: Flaw) -> Self {
        let mut desk = Desk::new(format!("h.{number}").into(), PATIENCE);
        desk.caught_up();
        Self {
            desk,
            read: 0,
            entries: Seen::from([(0, 0)]),
            calls: Vec::new(),
            outbox: VecDeque::new(),
            asked: Vec::new(),
            logged_at: now,
            is_counted_mute: false,
            flaw,
        }
    }

    pub(super) fn held(&self) -> i64 {
        let is_held = |call: &&Call| match call.shown_by {
            None => true,
            Some(_) if self.flaw == Flaw::PendingDroppedEarly => false,
            Some(offset) => self.entries[&0] < offset,
        };
        self.calls
            .iter()
            .filter(is_held)
            .map(|call| call.amount)
            .sum()
    }

    pub(super) fn under_way(&self) -> i64 {
        let is_open = |call: &&Call| call.shown_by.is_none();
        self.calls
            .iter()
            .filter(is_open)
            .map(|call| call.amount)
            .sum()
    }

    /// The places of the calls under way.
    pub(super) fn open(&self) -> Vec<usize> {
        let places = 0..self.calls.len();
        places
            .filter(|place| self.calls[*place].shown_by.is_none())
            .collect()
    }

    pub(super) fn turn(&mut self, spent: &[i64], now: i64) {
        let entries = self.entries.clone();
        let at = entries[&0] as usize;
        let mut view = View {
            spent: spent[at],
            held: self.held(),
            entries: &entries,
        };
        for (ticket, decided) in self.desk.decide(&view, now) {
            let place = self.asked.iter().position(|(asked, _)| *asked == ticket);
            let (_, amount) = self.asked.remove(place.unwrap());
            if decided == Decided::Granted {
                // Every fifth is not wanted any more: another budget refused.
                if !ticket.is_multiple_of(5) {
                    self.calls.push(Call {
                        amount,
                        shown_by: None,
                    });
                } else if self.flaw == Flaw::RollbackForgotten {
                    continue;
                }
                self.desk.done("b|acme", amount);
            }
        }
        view.held = self.held();
        if self.desk.is_beat_due(now) {
            self.outbox.extend(self.desk.beat(&view, now));
        }
        self.outbox.extend(self.desk.tell(&view, now));
    }
}
