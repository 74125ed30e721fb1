//! Events of an identity that was counted: more of a call, a late echo, what another instrument tells
//! of it, or a conflict.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{Body, Event, Flags};
use spendfuse_domain::growth::Growth;
use spendfuse_domain::row::{Amended, AmendedBy, MeterAddress, Origin};

use super::count::Feed;
use super::counted_call::CountedCall;
use super::estimated::is_less;
use super::{Charge, Counted, Meter, Rows};

impl Meter {
    /// An event of an identity that was counted with other content.
    #[cold]
    pub(super) fn count_again(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        (origin, counted_at): (Origin, UnixMillis),
        feed: Feed,
        rows: &mut impl Rows,
        first: UnixMillis,
    ) -> Counted {
        let known = self.lately.as_ref();
        let before = known.and_then(|known| known.of(event.identity, self.config.partition));
        let growth = before.and_then(|before| {
            let Body::Usage(call) = &event.body else {
                return None;
            };
            let now = CountedCall::of(event, call, charge, before.address);
            Some((before.told.growth(&now.told), before, now))
        });
        let (before, mut now) = match growth {
            Some((Growth::More, before, now)) if !before.has_ended => (before, now),
            Some((Growth::Echo, before, now)) => {
                if before.told.who.lacks(&now.told.who) {
                    self.add_told_again(event, charge, (origin, counted_at), (before, &now), rows);
                }
                return Counted::Echo;
            }
            Some((Growth::Conflict | Growth::More, ..)) | None => {
                self.tell_of_conflict(event, origin, first);
                return Counted::Conflict;
            }
        };
        let more = now.beside(&before);
        let gives_way = is_less(more);
        let stays = before.estimated.as_deref();
        let stays = stays.filter(|_| gives_way || now.told.is_estimate);
        let is_contradicted = stays.is_some_and(|stays| stays.is_contradicted_by(event));
        if gives_way && is_contradicted {
            self.tell_of_conflict(event, origin, first);
            return Counted::Conflict;
        }
        let is_estimate = now.told.is_estimate;
        now.estimated = stays
            .filter(|_| is_estimate)
            .map(|stays| Box::new(stays.after(event)));
        let stays = stays.filter(|_| !is_contradicted);
        let placed = stays.map(|stays| stays.placed(event));
        let tells_more = placed.is_some() && before.told.who.lacks(&now.told.who);
        now.told.who = before.told.who.with(&now.told.who);
        let counted = placed.as_ref().unwrap_or(event);
        let first_address = before.address;
        let amended = Amended {
            id: &event.id,
            address: first_address,
            counts: before.counts(),
            by: AmendedBy::Event,
        };
        let (address, _) = self.add_row(counted, charge, origin, feed, Some(&amended), rows);
        self.count_spend(counted, more, feed);
        if feed == Feed::Live {
            self.count_growth_in_sessions(counted, first_address, more);
        }
        if tells_more {
            self.add_row_of_names(event, charge, origin, (first_address, &now), rows);
        }
        let id = self.remember(event, (origin, counted_at));
        self.dedupe.restore(id);
        self.remember_call(event, &now);
        Counted::Grown(address)
    }

    /// An event tells more of whose call it is than was known: a row says so that counts nothing.
    fn add_told_again(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        (origin, counted_at): (Origin, UnixMillis),
        (mut known, now): (CountedCall, &CountedCall),
        rows: &mut impl Rows,
    ) {
        self.add_row_of_names(event, charge, origin, (known.address, now), rows);
        known.told.who = known.told.who.with(&now.told.who);
        let id = self.remember(event, (origin, counted_at));
        self.dedupe.restore(id);
        self.remember_call(event, &known);
    }

    /// The row of it, beside what `now` stands for the call that was counted first at `first`.
    fn add_row_of_names(
        &mut self,
        event: &Event<'_>,
        charge: &Charge<'_>,
        origin: Origin,
        (first, now): (MeterAddress, &CountedCall),
        rows: &mut impl Rows,
    ) {
        let mut told_again = event.clone();
        told_again.flags.insert(Flags::TOLD_AGAIN);
        let nothing_more = Amended {
            id: &event.id,
            address: first,
            counts: now.clone().counts(),
            by: AmendedBy::Event,
        };
        self.add_row(
            &told_again,
            charge,
            origin,
            Feed::Live,
            Some(&nothing_more),
            rows,
        );
    }
}
