//! The desks of all partitions, and the calls that wait for what they decide.

use std::time::Duration;

use hashbrown::HashMap;
use spendfuse_domain::routing::partition_of;
use spendfuse_guard::Met;
use spendfuse_guard::inflight::{Decided, Desk, Facts, Key, Way, Weighed};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::early::Early;
use super::{InFlight, View};

/// A call that has not heard of all that it asked for by then, whatever it meets, is refused: its
/// caller waits half a second longer, and may let it go. Where the log is not heard
/// for so long that this sidecar is stale, it is told earlier, and follows the budget's `on_stale`.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Desks {
    pub(super) by_partition: Vec<Desk>,
    early: Early,
    tickets: u64,
    pub(super) waiting: HashMap<u64, Waiting>,
}

pub(super) struct Waiting {
    pub(super) key: Key,
    pub(super) amount: i64,
    pub(super) tell: oneshot::Sender<Decided>,
}

type Answer = Option<oneshot::Receiver<Decided>>;

impl Desks {
    /// Where `key` is told of; `None` before the topic is known.
    fn desk_of(&mut self, key: &str) -> Option<&mut Desk> {
        let partitions = u32::try_from(self.by_partition.len()).unwrap_or(u32::MAX);
        let partition = partition_of(key.as_bytes(), partitions.max(1));
        self.by_partition.get_mut(partition as usize)
    }

    /// The topic has so many partitions, each with a new desk. What is held already, by keys that the
    /// former ones knew or that there was no desk for, is told by the new ones.
    pub(super) fn renew(&mut self, desks: impl Iterator<Item = Desk>, view: &View<'_>) {
        let mut keys = self.early.take();
        keys.extend(self.by_partition.iter().flat_map(Desk::keys).cloned());
        self.by_partition = desks.collect();
        // They belong to desks that are gone.
        self.waiting.clear();
        for key in keys.iter().filter(|key| view.held(key) > 0) {
            if let Some(desk) = self.desk_of(key) {
                desk.holds_already(key);
            }
        }
    }

    /// How what a call counts in a budget may be admitted; `None` before the topic is known.
    fn weigh(&mut self, met: &Met, view: &View<'_>, now: i64) -> Option<Weighed> {
        let desk = self.desk_of(&met.key)?;
        Some(desk.weigh(&met.key, met.amount, view, now))
    }

    /// Asks for what may not be admitted without, and counts nothing; where nothing is asked, counts
    /// all as admitted.
    pub(super) fn ask_where_needed<'m>(
        &mut self,
        met: impl Iterator<Item = &'m Met>,
        view: &View<'_>,
        now: i64,
    ) -> Vec<(Met, Answer)> {
        let mut asked = Vec::new();
        let mut others: Vec<(&Met, Option<Weighed>)> = Vec::new();
        for met in met {
            let weighed = self.weigh(met, view, now);
            match weighed.map_or(Way::Unsure, |weighed| weighed.way()) {
                Way::Log => asked.push((met.clone(), Some(self.ask(met)))),
                Way::Unsure if met.blocks_unsure => asked.push((met.clone(), None)),
                Way::Silent | Way::Unsure => others.push((met, weighed)),
            }
        }
        if asked.is_empty() {
            for (met, weighed) in others {
                self.admit(met, weighed.unwrap_or(Weighed::UNSURE), view);
            }
        }
        asked
    }

    /// Counts what was weighed just now as admitted.
    pub(super) fn admit(&mut self, met: &Met, weighed: Weighed, view: &View<'_>) {
        match self.desk_of(&met.key) {
            Some(desk) => desk.admit(&met.key, met.amount, weighed),
            None => self.early.admit(&met.key, |key| view.held(key) > 0),
        }
    }

    fn ask(&mut self, met: &Met) -> oneshot::Receiver<Decided> {
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(desk) = self.desk_of(&met.key) {
            desk.ask(&met.key, met.amount, ticket);
        }
        let (tell, answer) = oneshot::channel();
        let waiting = Waiting {
            key: met.key.clone(),
            amount: met.amount,
            tell,
        };
        self.waiting.insert(ticket, waiting);
        answer
    }

    /// What was granted is held now, or is not wanted any more.
    fn done(&mut self, key: &str, amount: i64) {
        if let Some(desk) = self.desk_of(key) {
            desk.done(key, amount);
        }
    }
}

/// What a call asked for, until it has heard what was decided.
pub(super) struct Asked<'a> {
    in_flight: &'a InFlight,
    pub(super) met: Met,
    answer: Answer,
}

impl<'a> Asked<'a> {
    pub(super) fn new(in_flight: &'a InFlight, (met, answer): (Met, Answer)) -> Self {
        Self {
            in_flight,
            met,
            answer,
        }
    }

    /// What was decided until then. What is granted is the caller's to give back.
    pub(super) async fn decided(&mut self, until: Instant) -> Decided {
        let Some(answer) = &mut self.answer else {
            return Decided::Unsure;
        };
        let waited = timeout_at(until, answer).await;
        let Ok(decided) = waited else {
            return Decided::Refused;
        };
        self.answer = None;
        decided.unwrap_or(Decided::Unsure)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else {
            return;
        };
        // Whoever decides from now on hears that the call is gone; what is here already nobody else
        // gives back.
        answer.close();
        if matches!(answer.try_recv(), Ok(Decided::Granted)) {
            let mut desks = self.in_flight.desks();
            desks.done(&self.met.key, self.met.amount);
        }
    }
}

/// What was granted to a call, until it is held or not wanted any more.
pub(super) struct Granted<'a> {
    pub(super) in_flight: &'a InFlight,
    pub(super) parts: Vec<(Key, i64)>,
}

impl Granted<'_> {
    /// All of it is held now, or not wanted any more.
    pub(super) fn are_done(&mut self, desks: &mut Desks) {
        for (key, amount) in self.parts.drain(..) {
            desks.done(&key, amount);
        }
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        if !self.parts.is_empty() {
            let in_flight = self.in_flight;
            self.are_done(&mut in_flight.desks());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::Poll;

    use serde_json::json;
    use spendfuse_bus::{Health, KafkaConfig};
    use spendfuse_domain::budget::Spend;
    use spendfuse_domain::{Attribution, Nanos, Topics, UnixMillis};
    use spendfuse_guard::inflight::{Said, Seen, What};
    use spendfuse_guard::{CheckRequest, Clock, Expected, Guard, GuardConfig};

    use super::super::Positions;
    use super::*;

    const CAP: &str = "cap|acme";
    const WIDE: &str = "wide|acme";
    const HALF: i64 = 500_000_000;
    const CENT: i64 = 10_000_000;

    /// A sidecar that hears itself in a topic of one partition. Its budget is one dollar.
    fn joined() -> Arc<InFlight> {
        joined_with(&[("cap", "1.00")], 1)
    }

    /// Its budgets and their limits, and how many heartbeats it has heard; with the second it has its
    /// share, half of each limit.
    fn joined_with(budgets: &[(&str, &str)], heartbeats: usize) -> Arc<InFlight> {
        let in_flight = opened(budgets);
        in_flight.expect_partitions(1);
        in_flight.caught_up();
        for _ in 0..heartbeats {
            for said in &beats(&in_flight) {
                in_flight.take(0, 0, 0, said);
            }
        }
        in_flight
    }

    /// What the next heartbeats say.
    fn beats(in_flight: &InFlight) -> Vec<Said> {
        let (view, now) = (in_flight.view(), in_flight.monotonic());
        let mut desks = in_flight.desks();
        let desks = desks.by_partition.iter_mut();
        desks.flat_map(|desk| desk.beat(&view, now)).collect()
    }

    /// A sidecar that has waited for the topic for long enough.
    fn opened(budgets: &[(&str, &str)]) -> Arc<InFlight> {
        let (mut writer, guard) = Guard::new(GuardConfig::new(1));
        for (version, (id, limit)) in (1..).zip(budgets) {
            let record = json!({
                "v": 1, "id": id, "scope": {"workspace": "acme"}, "limit": limit,
                "window": "lifetime", "timezone": "UTC", "counted_from": "2026-01-01T00:00:00Z",
                "steps": [{"at": 100, "do": "block"}],
            });
            let record = serde_json::to_vec(&record).unwrap();
            writer.apply_budget(id, Some(&record), version).unwrap();
        }
        writer.publish(UnixMillis(0));
        let in_flight = InFlight::open(
            &KafkaConfig::new("127.0.0.1:1", "test"),
            &Topics::new("spendfuse."),
            guard,
            (Clock::new(), Arc::new(Positions::default())),
            ("host-1", "0011223344556677"),
            Health::default().part("inflight"),
        )
        .unwrap();
        in_flight.joining.ends();
        in_flight
    }

    /// The log has the record by which the sidecar asks, its `number`th.
    fn hear(in_flight: &InFlight, number: u64, held: i64, asked: i64) {
        hear_of(in_flight, CAP, number, held, asked);
    }

    fn hear_of(in_flight: &InFlight, key: &str, number: u64, held: i64, asked: i64) {
        let key = Key::from(key);
        let said = Said {
            holder: in_flight.names.holder(),
            number,
            seen: Seen::new(),
            what: What::Held { key, held, asked },
        };
        in_flight.take(0, i64::try_from(number).unwrap(), 0, &said);
        in_flight.turn();
    }

    /// Whether a call of so much may be made.
    async fn reserve(in_flight: Arc<InFlight>, nanos: i64) -> bool {
        let estimate = Spend {
            cost: Nanos::new(nanos.into()),
            tokens: 0,
            calls: 1,
        };
        let request = CheckRequest {
            attribution: Attribution {
                workspace: "acme".into(),
                ..Attribution::default()
            },
            estimate,
            ..CheckRequest::default()
        };
        let expected = Expected::given(estimate);
        let reserved = in_flight.reserve(&request, expected, 60_000).await;
        reserved.unwrap().hold.is_some()
    }

    async fn begin(mut call: Pin<&mut impl Future<Output = bool>>) {
        let begun = poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        assert_eq!(begun.await, Poll::Pending);
    }

    #[tokio::test]
    async fn what_was_granted_to_a_call_that_is_gone_is_given_back() {
        let in_flight = joined();
        let reserve = |nanos: i64| reserve(Arc::clone(&in_flight), nanos);
        // Its client goes away after it was told yes, and before it hears it.
        let mut gone = Box::pin(reserve(HALF));
        begin(gone.as_mut()).await;
        hear(&in_flight, 2, 0, HALF);
        drop(gone);
        let mut call = Box::pin(reserve(2 * HALF));
        begin(call.as_mut()).await;
        hear(&in_flight, 3, 0, 2 * HALF);
        assert!(call.await, "all of the budget is free");
    }

    #[tokio::test]
    async fn a_call_that_waits_for_one_budget_uses_others_once() {
        let in_flight = joined_with(&[("cap", "1.00"), ("wide", "2.00")], 2);
        // More than the share of the one, and not of the other.
        let mut call = Box::pin(reserve(Arc::clone(&in_flight), 60 * CENT));
        begin(call.as_mut()).await;
        hear(&in_flight, 3, 0, 60 * CENT);
        assert!(
            call.await,
            "of the other a dollar may be held without asking"
        );
    }

    #[tokio::test]
    async fn what_is_used_up_meanwhile_is_asked_for() {
        let in_flight = joined_with(&[("cap", "1.00"), ("wide", "2.00")], 2);
        let mut call = Box::pin(reserve(Arc::clone(&in_flight), 60 * CENT));
        begin(call.as_mut()).await;
        let way = {
            let (view, now) = (in_flight.view(), in_flight.monotonic());
            let mut desks = in_flight.desks();
            desks.by_partition[0].way(&Key::from(WIDE), 90 * CENT, &view, now)
        };
        assert_eq!(way, Way::Silent);
        hear(&in_flight, 3, 0, 60 * CENT);
        begin(call.as_mut()).await;
        hear_of(&in_flight, WIDE, 4, 0, 100 * CENT);
        assert!(call.await, "there is room for it");
    }

    #[tokio::test]
    async fn what_is_held_when_the_topic_is_known_and_when_it_grows_is_told() {
        let in_flight = opened(&[("cap", "1.00")]);
        assert!(reserve(Arc::clone(&in_flight), 60 * CENT).await);
        let what = What::Held {
            key: CAP.into(),
            held: 60 * CENT,
            asked: 0,
        };
        let is_told = |said: &Said| said.what == what;
        in_flight.expect_partitions(1);
        in_flight.caught_up();
        assert!(beats(&in_flight).iter().any(is_told));
        in_flight.expect_partitions(2);
        assert!(beats(&in_flight).iter().any(is_told));
    }

    #[tokio::test]
    async fn what_is_admitted_though_nobody_could_say_is_told() {
        let in_flight = joined();
        let mut call = Box::pin(reserve(Arc::clone(&in_flight), 60 * CENT));
        begin(call.as_mut()).await;
        // The desk that it waits for is gone.
        in_flight.expect_partitions(2);
        assert!(call.await);
        let what = What::Held {
            key: CAP.into(),
            held: 60 * CENT,
            asked: 0,
        };
        let is_told = |said: &Said| said.what == what;
        assert!(beats(&in_flight).iter().any(is_told));
    }

    #[tokio::test]
    async fn a_call_that_hears_nothing_waits_once_whatever_it_meets() {
        let in_flight = joined_with(&[("cap", "1.00"), ("wide", "1.00")], 1);
        let began = Instant::now();
        assert!(!reserve(in_flight, CENT).await);
        let waited = began.elapsed();
        assert!(
            (LONGEST_WAIT..LONGEST_WAIT * 3 / 2).contains(&waited),
            "{waited:?}"
        );
    }
}
