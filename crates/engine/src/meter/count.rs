//! One event, from what the memory says of its identity to its row, its sums and its sessions.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, Event, Flags};
use spendfuse_domain::row::{Amended, MeterAddress, Origin, SpendRow};
use spendfuse_domain::{Nanos, UnixMillis};

use super::counted_call::CountedCall;
use super::dedupe::{Judgement, RememberedId};
use super::{Charge, Counted, Meter, Rows};

/// What an event is to those who watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feed {
    /// It happens now: sessions, detectors and people are told.
    Live,
    /// It is history: rows and sums alone.
    History,
}

impl Meter {
    /// Counts one event at home. `charge` is its price; revenue and session ends have none.
    pub fn count(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        // By engine time, not by its own arrival: an event that was handed over late may be older
        // than what the memory has kept.
        let age = self.now.since(event.time);
        if age > self.dedupe.effective_horizon(self.now) {
            return Counted::Late;
        }
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::Live, rows)
    }

    /// Time passes until an event's arrival, as far as that is believed. Returns engine time, by which
    /// identities are remembered: by the stamps of a clock that runs back for a while they would be
    /// forgotten before events of their time are late.
    #[inline]
    pub(super) fn pass(&mut self, origin: Origin) -> UnixMillis {
        let arrival = self.stamps.believed(origin.arrival, self.now);
        self.now = self.now.max(arrival);
        self.now
    }

    /// Counts an event whatever its age: somebody has made sure that it was not counted before the
    /// memory began (`dlq replay --verify` asks the warehouse). What is remembered is still a
    /// duplicate.
    pub fn count_verified(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::Live, rows)
    }

    /// Counts an event of history, whatever its age, into rows and budgets' windows: sessions,
    /// detectors and people do not learn of it (`ingest --backfill`).
    ///
    /// Somebody has made sure that the warehouse does not know it and has everything that was
    /// counted before `judged_at`. What was counted since then must be remembered here: where the
    /// memory does not reach back so far the event is late.
    pub fn count_history(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        judged_at: UnixMillis,
        rows: &mut impl Rows,
    ) -> Counted {
        let counted_at = self.pass(origin);
        if event.body == Body::SessionEnd {
            // The session of now is another one, or goes on.
            return Counted::SessionEnded;
        }
        if judged_at < self.dedupe.knows_since(self.now) {
            return Counted::Late;
        }
        self.count_unless_remembered(event, charge, (origin, counted_at), Feed::History, rows)
    }

    #[inline]
    fn count_unless_remembered(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        (origin, counted_at): (Origin, UnixMillis),
        feed: Feed,
        rows: &mut impl Rows,
    ) -> Counted {
        match self.dedupe.judge(event.identity, event.content, counted_at) {
            Judgement::Duplicate => return Counted::Duplicate,
            Judgement::Conflict { first } => {
                return self.count_again(event, charge, (origin, counted_at), feed, rows, first);
            }
            Judgement::Fresh => {}
        }
        self.remember(event, (origin, counted_at));
        if event.body == Body::SessionEnd {
            self.end_named_session(event);
            return Counted::SessionEnded;
        }
        let (address, flags) = self.add_row(event, charge, origin, feed, None, rows);
        if let Body::Usage(call) = &event.body {
            let counted = CountedCall::of(event, call, charge, address);
            let spend = counted.spend();
            self.count_spend(event, spend, feed);
            if feed == Feed::Live {
                self.watch_sessions(event, call, charge, spend);
                self.tell_people(event, call, flags);
            }
            self.remember_call(event, &counted);
        }
        Counted::AtAddress(address)
    }

    /// An event is counted: its identity and where it came from are remembered.
    pub(super) fn remember(
        &mut self,
        event: &Event<'_>,
        (origin, counted_at): (Origin, UnixMillis),
    ) -> RememberedId {
        self.origins.remember(event.identity, origin);
        let id = RememberedId::new(event.identity, event.content, counted_at);
        self.outputs.ids.ids.push(id);
        id
    }

    pub(super) fn remember_call(&mut self, event: &Event<'_>, counted: &CountedCall) {
        if let Some(lately) = &mut self.lately {
            lately.remember(event.identity, counted, &mut self.outputs.ids.calls);
        }
    }

    /// Adds a row at the commit's next address; returns it and the flags of event and price.
    pub(super) fn add_row(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        feed: Feed,
        amends: Option<&Amended<'_>>,
        rows: &mut impl Rows,
    ) -> (MeterAddress, Flags) {
        let address = self.next_address();
        let mut flags = event.flags;
        flags.insert(charge.flags);
        if feed == Feed::History {
            flags.insert(Flags::BACKFILLED);
        }
        rows.push(&SpendRow {
            event,
            amends,
            cost: charge.cost,
            priced: charge.priced,
            price_version: charge.price_version,
            priced_as: charge.priced_as,
            price_detail: charge.price_detail,
            budget_version: self.book.version,
            flags,
            origin,
            address,
        });
        (address, flags)
    }

    /// The address of the commit's next row.
    pub(super) fn next_address(&mut self) -> MeterAddress {
        let index = self.index;
        self.index += 1;
        MeterAddress {
            partition: self.config.partition,
            seq: self.seq,
            index,
        }
    }

    pub(super) fn count_spend(
        &mut self,
        event: &Event<'_>,
        (spend, unpriced): (Spend, Nanos),
        feed: Feed,
    ) {
        let is_history = feed == Feed::History;
        self.fold
            .add(&self.book.series, event, spend, unpriced, is_history);
    }
}
