//! The calls that a run sent last: an agent's log tells of one call several times, each time with more.

use std::collections::HashMap;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::growth::{Growth, ToldCall};
use spendfuse_domain::{Identity, Nanos};

/// Calls of a generation; two are kept, some 300 bytes each.
const GENERATION: usize = 50_000;

/// What was sent of a call.
pub(super) struct SentCall {
    pub(super) told: ToldCall,
    pub(super) spend: Spend,
    pub(super) at_ceiling: Nanos,
}

/// The last calls, by identity.
#[derive(Default)]
pub(super) struct SentLately {
    young: HashMap<Identity, SentCall>,
    old: HashMap<Identity, SentCall>,
}

impl SentLately {
    /// How much more `call` tells than what was sent of it lately, and the part of that at a ceiling;
    /// `None` where it tells no more, or nothing was sent.
    pub(super) fn growth(
        &self,
        identity: Identity,
        call: Option<&SentCall>,
    ) -> Option<(Spend, Nanos)> {
        let known = self.young.get(&identity);
        let (sent, call) = (known.or_else(|| self.old.get(&identity))?, call?);
        if sent.told.growth(&call.told) != Growth::More {
            return None;
        }
        Some((call.spend - sent.spend, call.at_ceiling - sent.at_ceiling))
    }

    /// `call` is sent.
    pub(super) fn note(&mut self, identity: Identity, call: Option<SentCall>) {
        let Some(call) = call else {
            return;
        };
        if self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(identity, call);
    }
}
