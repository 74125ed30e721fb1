//! What the meters of earlier topics knew, as far as the warehouse has it: which events were counted,
//! and what sessions that go on have spent.
//!
//! Nothing of it is counted again. The sums of other budgets come with [openings](crate::ledger), for
//! which the warehouse is asked as well.

use spendfuse_domain::event::{Body, Flags};
use spendfuse_domain::row::Counts;
use spendfuse_domain::{Identity, UnixMillis};

use super::Meter;
use super::corrections::Standing;
use super::dedupe::{Judgement, RememberedId, UNKNOWN_CONTENT};

impl Meter {
    /// An event of this identity was counted when it arrived: it is a duplicate from now on, whatever
    /// it says. Returns whether that is news.
    pub fn recover_identity(&mut self, identity: Identity, arrival: UnixMillis) -> bool {
        self.now = self.now.max(arrival);
        let judged = self.dedupe.judged(identity, UNKNOWN_CONTENT, arrival);
        if judged != Judgement::Fresh {
            return false;
        }
        let id = RememberedId::new(identity, UNKNOWN_CONTENT, arrival);
        self.dedupe.restore(id);
        self.outputs.ids.ids.push(id);
        true
    }

    /// The same of a call, which besides is part of what its session has spent and done. The session
    /// begins now, and so does the time that it may idle. Of fingerprints of prompts and tools, and of
    /// what the session's app lets it spend, the warehouse knows nothing.
    pub fn recover_call(&mut self, call: &Standing<'_>, arrival: UnixMillis) -> bool {
        let (event, charge) = (&call.event, &call.charge);
        let is_news = self.recover_identity(event.identity, arrival);
        let is_history = event.flags.contains(Flags::BACKFILLED);
        if let Body::Usage(usage) = &event.body
            && is_news
            && !is_history
        {
            let spend = Counts::of(event, charge.cost).spend();
            self.watch_sessions(event, usage, charge, (spend, charge.at_ceiling));
        }
        is_news
    }
}
