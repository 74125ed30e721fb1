//! What one call has cost: seen in its answer, told as one usage event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use spendfuse_domain::Nanos;
use spendfuse_sidecar::{RefusedEvent, Sidecar, TakenEvent};
use tokio::runtime::Handle;

use crate::answer::Seen;
use crate::attribution::Who;
use crate::forward::Way;
use crate::metrics::{CALLS, UNSAFE_EVENTS};
use crate::particulars::Particulars;
use crate::postponed::Postponed;
use crate::proxy::Proxy;
use crate::route::Call;
use crate::starts::Start;
use crate::under_way::UnderWay;
use crate::upstream::Shape;

/// How soon an event is delivered again that neither the broker nor the spool has taken.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Names responses in the background of servers of one's own.
pub(crate) const BACKGROUND: &str = "background";

/// One call, from its permission to its event.
pub(crate) struct Meter {
    pub(crate) sidecar: Arc<Sidecar>,
    pub(crate) call: Call,
    pub(crate) upstream: String,
    pub(crate) provider: String,
    pub(crate) is_private: bool,
    /// The name of the caller's key.
    pub(crate) key_name: Option<String>,
    /// Where the upstream answers, as the path says.
    pub(crate) region: String,
    pub(crate) who: Who,
    /// The model that was asked for, after a downgrade the one that is asked instead.
    pub(crate) asked_model: String,
    /// Whether that is so.
    pub(crate) is_downgraded: bool,
    pub(crate) asked_tier: String,
    /// Input tokens of the request, as they are held.
    pub(crate) asked_input: u64,
    /// Output tokens that the request allows; `None` where it sets no limit.
    pub(crate) most_output: Option<u64>,
    /// Bytes of the answer that were passed on without being read.
    pub(crate) unread: usize,
    /// What the request says besides.
    pub(crate) particulars: Particulars,
    /// Names that the caller has given the request: some servers put them into their answers' ids.
    pub(crate) callers_names: Vec<String>,
    /// Of its prompt; `None` where no key is set, or it has no message of a user.
    pub(crate) prompt_fingerprint: Option<u64>,
    pub(crate) reservation: Option<String>,
    /// Names the call where the provider's answer does not.
    pub(crate) call_id: String,
    pub(crate) began: Instant,
    /// Whether the answer was made before, and is only asked for.
    pub(crate) is_retrieved: bool,
    pub(crate) seen: Seen,
    postponed: Arc<Postponed>,
    pub(crate) under_way: Option<UnderWay>,
    pub(crate) is_settled: bool,
}

impl Drop for Meter {
    /// A call that was cut is charged by what was seen of it.
    fn drop(&mut self) {
        if !self.is_settled {
            self.settle();
        }
    }
}

impl Meter {
    /// A call whose answer says all of what it costs.
    pub(crate) fn begin(
        proxy: &Proxy,
        way: &Way,
        call: Call,
        who: Who,
        asked_model: String,
    ) -> Self {
        let call_id = proxy.next_call_id();
        let start = || Start {
            call: call_id.clone(),
            at: proxy.sidecar.now().to_string(),
            upstream: way.name.clone(),
            model: asked_model.clone(),
            who: who.clone(),
        };
        let under_way = UnderWay::begin(proxy, start, &call_id);
        let mut meter = Self::new(proxy, way, call, who, asked_model, call_id);
        meter.under_way = Some(under_way);
        meter
    }

    /// An answer of a batch, of which `seen` says all. It is told by whoever reads the batch's results.
    pub(crate) fn of_batch(
        proxy: &Proxy,
        way: &Way,
        call: Call,
        who: Who,
        name: String,
        seen: Seen,
    ) -> Self {
        let mut meter = Self::new(proxy, way, call, who, seen.model.clone(), name);
        meter.is_retrieved = true;
        meter.is_settled = true;
        meter.seen = seen;
        meter
    }

    fn new(
        proxy: &Proxy,
        way: &Way,
        call: Call,
        who: Who,
        asked_model: String,
        call_id: String,
    ) -> Self {
        Self {
            sidecar: Arc::clone(&proxy.sidecar),
            call,
            upstream: way.name.clone(),
            provider: way.upstream.provider.clone(),
            is_private: way.upstream.is_private(),
            region: match way.upstream.shape {
                Shape::Bedrock => way.place.clone(),
                _ => String::new(),
            },
            key_name: way.entrant.caller.key().map(|key| key.name.clone()),
            who,
            asked_model,
            is_downgraded: false,
            asked_tier: String::new(),
            asked_input: 0,
            most_output: None,
            unread: 0,
            particulars: Particulars::default(),
            callers_names: Vec::new(),
            prompt_fingerprint: None,
            reservation: None,
            call_id,
            began: Instant::now(),
            is_retrieved: false,
            seen: Seen::default(),
            postponed: Arc::clone(&proxy.postponed),
            under_way: None,
            is_settled: false,
        }
    }

    /// A response that is asked for. Made in the background it is told as it was then, so that asked
    /// for again it is the same event, which is counted once.
    pub(crate) fn retrieved(proxy: &Proxy, way: &Way, call: Call, who: Who) -> Self {
        let mut meter = Self::begin(proxy, way, call, who, String::new());
        meter.is_retrieved = true;
        meter
    }

    /// So much is held for the call, and stays so until its event is safe.
    pub(crate) fn hold(&mut self, reservation: Option<String>) {
        if let (Some(held), Some(under_way)) = (&reservation, &mut self.under_way) {
            under_way.hold(held);
        }
        self.reservation = reservation;
    }

    /// The call was not made, or its provider does not charge for it.
    pub(crate) fn forget(mut self) {
        self.count("failed");
        self.drop_uncounted();
    }

    /// The answer is made in the background: its cost is told when somebody asks for it, and what is held
    /// for it stays so until then.
    fn leave_for_later(&mut self) {
        self.count("unmetered");
        let (upstream, response) = (&self.upstream, &self.seen.id);
        if !self.is_retrieved {
            // Not given back where it cannot be kept either: its time ends it.
            let held = self.reservation.take();
            if let Some(held) = &held {
                self.sidecar.extend(held);
            }
            let seconds = self.sidecar.now().0 / 1000;
            self.postponed
                .keep(upstream, response, held, &self.who, seconds);
        } else if self.seen.is_pending {
            if let Some(held) = self.postponed.still(upstream, response) {
                self.sidecar.extend(&held);
            }
        } else {
            // One that has failed will say no more.
            self.reservation = self.postponed.take(upstream, response);
        }
        self.drop_uncounted();
    }

    /// The answer is at its end, as far as anybody will read it. What it costs, where it will be
    /// counted; its event is delivered meanwhile, again and again until it is safe.
    pub(crate) fn finish(mut self) -> Option<Nanos> {
        self.settle()
    }

    fn drop_uncounted(&mut self) {
        self.is_settled = true;
        self.release();
        self.end();
    }

    fn end(&self) {
        if let Some(under_way) = &self.under_way {
            under_way.end();
        }
    }

    fn release(&self) {
        if let Some(reservation) = &self.reservation {
            self.sidecar.release(reservation);
        }
    }

    /// Whether the cost is to be told of what was seen. A response in the background goes on when its
    /// stream is cut, and is asked for later: an estimate would stand in the way of its own counts.
    fn is_told_now(&self) -> bool {
        let Seen {
            was_background,
            is_pending,
            is_final,
            created_at,
            ref id,
            ..
        } = self.seen;
        match self.is_retrieved {
            true => was_background && is_final && created_at.is_some() && !id.is_empty(),
            false => is_final || !(was_background && is_pending),
        }
    }

    fn settle(&mut self) -> Option<Nanos> {
        if self.is_retrieved && self.call == Call::Interactions {
            // It does not say itself where it was made, nor by a number when.
            self.seen.created_at = self.postponed.begun(&self.upstream, &self.seen.id);
            self.seen.was_background = self.seen.created_at.is_some();
        }
        if !self.is_told_now() {
            self.leave_for_later();
            return None;
        }
        self.is_settled = true;
        if self.is_private && self.seen.was_background && !self.answer_id().is_empty() {
            // Streamed, and asked for, it is the same answer.
            BACKGROUND.clone_into(&mut self.call_id);
        }
        if self.is_retrieved {
            self.asked_model.clone_from(&self.seen.model);
            let told = self.postponed.told(&self.upstream, &self.seen.id);
            let workspace = self.who.get("workspace");
            if let Some((held, who)) = told.filter(|(_, who)| who.get("workspace") == workspace) {
                self.reservation = held;
                // Whoever asks need not say again whose call it was, nor has a body to say it in.
                self.who = who;
            }
        }
        let taken = self.taken().or_else(|error| {
            if self.is_retrieved {
                // Nothing is lost: it may be asked for again.
                self.end();
                return Err(error);
            }
            let (upstream, call) = (&self.upstream, &self.call_id);
            tracing::warn!(upstream, call, %error, "a call is charged by estimate");
            // The provider's own counts are none that anybody can read.
            self.seen.is_final = false;
            self.seen.usage = None;
            self.taken()
        });
        let is_exact = self.units().is_some_and(|(_, is_exact)| is_exact);
        self.count(match self.seen.is_final || is_exact {
            true => "metered",
            false => "estimated",
        });
        let taken = taken.map_err(|error| {
            let (upstream, call) = (&self.upstream, &self.call_id);
            tracing::error!(upstream, call, %error, "a call is not counted");
        });
        let cost = taken.as_ref().ok().and_then(|taken| taken.cost);
        if !taken.as_ref().is_ok_and(TakenEvent::settles) {
            self.release();
        }
        // Without a runtime the process is going down.
        if let (Ok(taken), Some(under_way), Ok(runtime)) =
            (taken, self.under_way.take(), Handle::try_current())
        {
            runtime.spawn(make_safe(Arc::clone(&self.sidecar), taken, under_way));
        }
        cost
    }

    /// The name of the answer by its provider; empty where it has none that all others lack.
    pub(crate) fn answer_id(&self) -> &str {
        let id = self.seen.id.as_str();
        let mut names = self.callers_names.iter();
        match names.any(|name| stands_in(id, name)) {
            true => "",
            false => id,
        }
    }

    /// The call's event, as the sidecar takes it.
    pub(crate) fn taken(&self) -> Result<TakenEvent, RefusedEvent> {
        let event = self.event().to_string();
        self.sidecar.take_event(event.as_bytes())
    }

    fn count(&self, outcome: &'static str) {
        count(&self.upstream, outcome);
    }
}

/// Whether `name` stands in `id` by itself: a short one is in many a word by chance.
fn stands_in(id: &str, name: &str) -> bool {
    let is_end = |beside: Option<char>| !beside.is_some_and(char::is_alphanumeric);
    id.char_indices().any(|(at, _)| {
        let (before, rest) = id.split_at(at);
        let after = rest.strip_prefix(name);
        after
            .is_some_and(|after| is_end(before.chars().next_back()) && is_end(after.chars().next()))
    })
}

pub(crate) fn count(upstream: &str, outcome: &'static str) {
    counter!(CALLS, "upstream" => upstream.to_owned(), "outcome" => outcome).increment(1);
}

/// Counts a request that passes unmetered by its name, too.
pub(crate) fn count_unmetered(upstream: &str, name: &'static str) {
    let upstream = upstream.to_owned();
    counter!(CALLS, "upstream" => upstream, "outcome" => "unmetered", "requests" => name)
        .increment(1);
}

/// Delivers an event until it is safe.
pub(crate) async fn until_safe(sidecar: &Arc<Sidecar>, mut event: TakenEvent) {
    gauge!(UNSAFE_EVENTS).increment(1.0);
    while let Err((error, same)) = sidecar.deliver(event).await {
        tracing::warn!(%error, "a call's event waits in memory");
        event = same;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    gauge!(UNSAFE_EVENTS).decrement(1.0);
}

async fn make_safe(sidecar: Arc<Sidecar>, event: TakenEvent, under_way: UnderWay) {
    until_safe(&sidecar, event).await;
    under_way.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_in_an_id_by_itself_or_not() {
        for (id, name, wanted) in [
            ("chatcmpl-1", "1", true),
            ("mine", "mine", true),
            ("cmpl-a-b-0", "a-b", true),
            ("chatcmpl-l-l", "l-l", true),
            ("resp_x", "x", true),
            ("chatcmpl-B42abc", "42", false),
            ("msg_01AbCd", "01", false),
            ("chatcmpl-1", "2", false),
            ("", "1", false),
        ] {
            assert_eq!(stands_in(id, name), wanted, "{id} {name}");
        }
    }
}
