//! The calls that a run sent last: an agent's log tells of one call several times, each time with more.

use std::collections::HashMap;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::growth::{Growth, ToldCall};
use spendfuse_domain::{Identity, Nanos, UnixMillis};

/// Calls of a generation; two are kept, some 300 bytes each.
const GENERATION: usize = 50_000;

/// What was sent of a call.
pub(super) struct SentCall {
    pub(super) told: ToldCall,
    pub(super) spend: Spend,
    pub(super) at_ceiling: Nanos,
}

/// What comes on top of a call that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grown {
    pub(super) spend: Spend,
    pub(super) at_ceiling: Nanos,
    /// As of when the call was judged that was sent first. A meter that has forgotten what came since would
    /// take what has grown for a call of its own, and count it whole.
    pub(super) judged_at: UnixMillis,
}

/// The last calls, by identity, and as of when each was judged.
#[derive(Default)]
pub(super) struct SentLately {
    young: HashMap<Identity, (SentCall, UnixMillis)>,
    old: HashMap<Identity, (SentCall, UnixMillis)>,
}

impl SentLately {
    /// How much more `call` tells than what was sent of it lately; `None` where it tells no more, or
    /// nothing was sent.
    pub(super) fn growth(&self, identity: Identity, call: Option<&SentCall>) -> Option<Grown> {
        let known = self.young.get(&identity);
        let (sent, judged_at) = known.or_else(|| self.old.get(&identity))?;
        let call = call?;
        if sent.told.growth(&call.told) != Growth::More {
            return None;
        }
        Some(Grown {
            spend: call.spend - sent.spend,
            at_ceiling: call.at_ceiling - sent.at_ceiling,
            judged_at: *judged_at,
        })
    }

    /// `call` is sent, judged as of `judged_at`.
    pub(super) fn note(
        &mut self,
        identity: Identity,
        call: Option<SentCall>,
        judged_at: UnixMillis,
    ) {
        let Some(call) = call else {
            return;
        };
        if self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(identity, (call, judged_at));
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::TokenClass;

    use super::*;

    #[test]
    fn what_has_grown_is_as_old_as_what_was_sent_first() {
        let call = |output: u64| {
            let mut told = ToldCall::default();
            told.tokens[TokenClass::Output] = output;
            SentCall {
                told,
                spend: Spend::of_call(Nanos::new(i128::from(output)), output),
                at_ceiling: Nanos::ZERO,
            }
        };
        let [first, later] = [1, 2].map(UnixMillis);
        let mut sent = SentLately::default();
        let one = Identity(7);
        assert_eq!(sent.growth(one, Some(&call(5))), None);
        sent.note(one, Some(call(5)), first);
        let grown = sent.growth(one, Some(&call(8)));
        let grown = grown.expect("it tells more");
        assert_eq!((grown.spend.cost, grown.judged_at), (Nanos::new(3), first));
        sent.note(one, Some(call(8)), grown.judged_at);
        assert_eq!(sent.growth(one, Some(&call(8))), None);
        sent.note(Identity(8), Some(call(1)), later);
        let other = sent.growth(Identity(8), Some(&call(2)));
        assert_eq!(other.map(|grown| grown.judged_at), Some(later));
        let again = sent.growth(one, Some(&call(9)));
        assert_eq!(again.map(|grown| grown.judged_at), Some(first));
    }
}
