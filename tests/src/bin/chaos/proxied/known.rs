//! What is known of every call, by its number in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answers::Language;
use super::starts::left_open;
use crate::ledger::{Call, Kind, Ledger};

/// Longer than the event of an answer takes until it is safe: the broker has 2.2 s for it, a pause of the
/// process 3 s, and the disk behind them is that of a busy machine.
const UNSAFE_FOR: Duration = Duration::from_secs(8);
/// Some 20 seconds of all clients: longer than everything takes to run for the first time.
const TRIED_FOR_LONG: u64 = 400;

/// One call.
#[derive(Clone, Debug)]
pub struct Known {
    /// What its provider counts; where it broke the answer off, what is charged for it.
    pub call: Call,
    pub language: Language,
    pub streams: bool,
    /// Of the request, in bytes.
    pub body_bytes: u64,
    /// How long the provider takes for each piece of its answer.
    pub pause: Duration,
    pub begun: Instant,
    /// How it ended for its client, and when; `None` while it is under way.
    pub ended: Option<(Seen, Instant)>,
    /// How often the provider was asked.
    pub asked: u64,
    /// Whether the provider broke its answer off.
    pub is_broken_off: bool,
}

/// What a client has seen of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// All of it.
    Whole,
    /// A refusal by a budget.
    Refused,
    /// Nothing, or a part.
    Cut,
    /// What nobody should answer.
    Wrong(String),
}

/// A `kill -9` of the proxy: it happened between two moments.
#[derive(Clone, Debug)]
struct Kill {
    from: Instant,
    to: Instant,
    /// Calls that stood in the starts file without an end.
    open: BTreeSet<usize>,
}

impl Kill {
    /// Whether it came before a client had seen the end of its call.
    fn cuts(&self, known: &Known) -> bool {
        let is_over = |(_, at): &(Seen, Instant)| *at < self.from;
        known.begun <= self.to && !known.ended.as_ref().is_some_and(is_over)
    }

    /// Whether the event of a call may not have been safe when it came.
    fn may_lose(&self, known: &Known) -> bool {
        let is_safe = |(_, at): &(Seen, Instant)| *at + UNSAFE_FOR < self.from;
        known.begun <= self.to && !known.ended.as_ref().is_some_and(is_safe)
    }
}

/// All calls, and what is to happen to them.
#[derive(Default)]
pub struct Calls {
    /// How often clients wanted to call.
    tried: AtomicU64,
    known: Mutex<BTreeMap<usize, Known>>,
    kills: Mutex<Vec<Kill>>,
    /// Streams that the provider still has to break off.
    to_break: AtomicU64,
    /// Answers that the provider has given.
    answers: Mutex<u64>,
    answered: Condvar,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// A client wants to call, whether a proxy runs or not.
    pub fn tries(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether clients have tried for long, and no call has reached the provider: then all else that is
    /// said of calls says nothing.
    pub fn reach_nobody(&self) -> bool {
        let is_asked = |known: &Known| known.asked > 0;
        let tried = self.tried.load(Ordering::Relaxed);
        tried >= TRIED_FOR_LONG && !locked(&self.known).values().any(is_asked)
    }

    /// A client is about to call.
    pub fn begin(&self, number: usize, known: Known) {
        locked(&self.known).insert(number, known);
    }

    /// Its client has seen the end of a call.
    pub fn ended(&self, number: usize, seen: Seen) {
        if let Some(known) = locked(&self.known).get_mut(&number) {
            known.ended = Some((seen, Instant::now()));
        }
    }

    /// The provider is asked; what it is to answer. `None` where nobody has called.
    pub fn asked(&self, number: usize) -> Option<Known> {
        let mut all = locked(&self.known);
        let known = all.get_mut(&number)?;
        known.asked += 1;
        Some(known.clone())
    }

    /// The provider is about to break an answer off, for which this much is to be charged.
    pub fn broken_off(&self, number: usize, charged: Call) {
        if let Some(known) = locked(&self.known).get_mut(&number) {
            known.is_broken_off = true;
            known.call = charged;
        }
    }

    /// From now on the provider breaks off so many more streams.
    pub fn break_streams(&self, count: u64) {
        self.to_break.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether the stream that begins now is one of them.
    pub fn is_to_break(&self) -> bool {
        let order = Ordering::Relaxed;
        let taken = self
            .to_break
            .fetch_update(order, order, |count| count.checked_sub(1));
        taken.is_ok()
    }

    /// The provider has given an answer.
    pub fn answered(&self) {
        *locked(&self.answers) += 1;
        self.answered.notify_all();
    }

    /// Waits for the next answer of the provider, for no longer than `patience`.
    pub fn await_answer(&self, patience: Duration) {
        let answers = locked(&self.answers);
        let before = *answers;
        let wait = self
            .answered
            .wait_timeout_while(answers, patience, |answers| *answers == before);
        // Whether one came or not: the kill comes.
        drop(wait);
    }

    /// The proxy, whose spool is in `folder`, was killed after `from` and has ended.
    pub fn killed(&self, from: Instant, folder: &Path) {
        let to = Instant::now();
        let open = left_open(folder);
        locked(&self.kills).push(Kill { from, to, open });
    }

    /// Tells the ledger what was charged, and that all calls are promised which reached the provider, but
    /// for those that the proxy has `named` as lost.
    pub fn settle(&self, ledger: &Ledger, named: &BTreeSet<usize>) {
        for (number, known) in &*locked(&self.known) {
            ledger.book().events[*number].0 = Kind::Call(known.call.clone());
            if known.asked > 0 && !named.contains(number) {
                ledger.sent();
                ledger.acknowledged(*number);
            }
        }
    }

    /// Every call by its number.
    pub fn all(&self) -> BTreeMap<usize, Known> {
        locked(&self.known).clone()
    }

    /// How often the proxy was killed.
    pub fn kill_count(&self) -> usize {
        locked(&self.kills).len()
    }

    /// Calls that stood in the starts file without an end when the proxy was killed.
    pub fn open_at_kills(&self) -> BTreeSet<usize> {
        let kills = locked(&self.kills);
        let open = kills.iter().flat_map(|kill| &kill.open);
        open.copied().collect()
    }

    /// Whether a kill may have come between a call's answer and its client.
    pub fn is_cut_by_kill(&self, known: &Known) -> bool {
        locked(&self.kills).iter().any(|kill| kill.cuts(known))
    }

    /// Whether a kill came before the event of a call was safe.
    pub fn may_be_lost(&self, known: &Known) -> bool {
        locked(&self.kills).iter().any(|kill| kill.may_lose(known))
    }

    /// What happened, in numbers; the proxy has `named` calls as lost.
    pub fn figures(&self, named: &BTreeSet<usize>) -> Vec<(&'static str, u64)> {
        let all = self.all();
        let count =
            |is_one: &dyn Fn(&Known) -> bool| all.values().filter(|one| is_one(one)).count() as u64;
        let is_seen = |known: &Known, wanted: &Seen| {
            let seen = known.ended.as_ref().map(|(seen, _)| seen);
            seen == Some(wanted)
        };
        vec![
            ("calls through the proxy", all.len() as u64),
            (
                "of them answered whole",
                count(&|known| is_seen(known, &Seen::Whole)),
            ),
            (
                "of them refused",
                count(&|known| is_seen(known, &Seen::Refused)),
            ),
            (
                "of them broken off by the provider",
                count(&|known| known.is_broken_off),
            ),
            (
                "of them under way at a kill of the proxy",
                count(&|known| self.is_cut_by_kill(known)),
            ),
            ("of them named as lost by the proxy", named.len() as u64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            call: Call::default(),
            language: Language::OpenAi,
            streams: false,
            body_bytes: 0,
            pause: Duration::ZERO,
            begun: Instant::now(),
            ended: None,
            asked: 0,
            is_broken_off: false,
        }
    }

    #[test]
    fn calls_that_never_reach_the_provider_are_noticed_after_a_while() {
        let calls = Calls::default();
        calls.begin(7, known());
        (1..TRIED_FOR_LONG).for_each(|_| calls.tries());
        assert!(!calls.reach_nobody());
        calls.tries();
        assert!(calls.reach_nobody());
        assert!(calls.asked(7).is_some());
        assert!(!calls.reach_nobody());
    }

    #[test]
    fn a_kill_cuts_what_had_not_ended_and_loses_what_was_not_safe() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let kill = Kill {
            from: at(100),
            to: at(101),
            open: BTreeSet::new(),
        };
        for (begun, ended, cuts, may_lose) in [
            (90, None, true, true),
            (100, Some(101), true, true),
            (90, Some(99), false, true),
            (80, Some(91), false, false),
            (102, Some(103), false, false),
        ] {
            let call = Known {
                begun: at(begun),
                ended: ended.map(|seconds| (Seen::Cut, at(seconds))),
                ..known()
            };
            assert_eq!(
                (kill.cuts(&call), kill.may_lose(&call)),
                (cuts, may_lose),
                "{call:?}"
            );
        }
    }
}
