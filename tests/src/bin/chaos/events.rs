//! The events of a run.

mod text;

use spendfuse_domain::Nanos;
use spendfuse_domain::routing::partition_of;
use spendfuse_tests::Record;
use spendfuse_tests::lab::WORKSPACE;

use crate::clock::now;
use crate::ledger::{Call, Kind, Ledger, Revenue};
use crate::quiet::Quiet;
use spendfuse_tests::random::Random;
use text::text;
pub use text::{number_in, number_of};

/// Partitions of every stage topic.
pub const PARTITIONS: u32 = 4;
/// The `source` of every event.
pub const SOURCE: &str = "chaos";

pub const CUSTOMERS: u64 = 40;
pub const MOST_OUTPUT: u64 = 800;
const SESSIONS: u64 = 400;
const LOOPING_SESSIONS: u64 = 6;
/// Sessions that are called at the beginning, and then never again.
const IDLING_SESSIONS: u64 = 4;
/// So many calls of a sender are its beginning: seconds.
const BEGINNING: u64 = 1_000;
const FEATURES: [&str; 3] = ["agent", "chat", "search"];
/// Duplicates repeat one of this many last events.
const REMEMBERED: usize = 4096;
const CALLS_BEFORE_END: u64 = 4;
/// Begins the names of sessions that neither end nor run in circles.
pub const GOING_ON: &str = "s-";
const LATE_MILLIS: i64 = 30 * 60 * 60 * 1000;

/// An event on its way.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number in the ledger.
    pub number: usize,
    /// What is sent.
    pub record: Record,
}

impl Event {
    fn new(number: usize, partition: u32, key: Option<String>, value: String) -> Self {
        Self {
            number,
            record: Record {
                partition: Some(partition),
                key: key.map(String::into_bytes),
                value: value.into_bytes(),
            },
        }
    }
}

/// Makes events.
pub struct Events {
    random: Random,
    /// Who must not send now.
    pub quiet: Quiet,
    recent: Vec<Event>,
    /// The session that is about to end: its number and its calls.
    ending: (u64, u64),
    /// Calls so far.
    calls: u64,
    /// Whether more is told of calls: a release before counts the first telling alone.
    tells_more: bool,
}

impl Events {
    /// The events of a seed; `purpose` keeps senders apart.
    pub fn new(seed: u64, purpose: u64, quiet: Quiet) -> Self {
        Self {
            random: Random::new(seed, purpose),
            quiet,
            recent: Vec::new(),
            ending: (0, 0),
            calls: 0,
            tells_more: false,
        }
    }

    /// The same; of some calls more is told later.
    #[must_use]
    pub fn telling_more(mut self, tells_more: bool) -> Self {
        self.tells_more = tells_more;
        self
    }

    /// The next event: 5 % come again (in any partition), 1 % cannot be read, 1 % are too old, 1 %
    /// come again with other content, 1 % are revenue, 1 % belong to sessions that are ended, 3 % tell
    /// more of a call, one in ten lies in another partition than its session's.
    pub fn mixed(&mut self, ledger: &Ledger) -> Event {
        match self.random.below(100) {
            0..5 if !self.recent.is_empty() => self.again(),
            5 => self.malformed(ledger),
            6 => self.late(ledger),
            7 if !self.recent.is_empty() => self.conflicting(ledger),
            8 => self.revenue(ledger),
            9 => self.ending(ledger),
            10..20 => {
                let partition = self.any_partition();
                let call = self.any_call();
                self.call(ledger, call, partition)
            }
            20..23 if self.tells_more && !self.recent.is_empty() => self.growing(ledger),
            _ => self.good(ledger),
        }
    }

    /// More of a call that was sent before, in the same partition: of what says less later nothing
    /// counts.
    fn growing(&mut self, ledger: &Ledger) -> Event {
        let place = self.random.below(self.recent.len() as u64) as usize;
        let mut event = self.recent[place].clone();
        let partition = event.record.partition;
        let may_be_sent = partition.is_none_or(|partition| !self.quiet.holds(partition));
        let mut book = ledger.book();
        match book.events.get_mut(event.number) {
            // Others have ended since, or count their steps.
            Some((Kind::Call(call), _)) if may_be_sent && call.session.starts_with(GOING_ON) => {
                call.input += self.random.below(500);
                call.output += 1 + self.random.below(400);
                event.record.value = text(event.number, &now().to_string(), call).into_bytes();
                book.grown += 1;
                event
            }
            _ => {
                drop(book);
                self.good(ledger)
            }
        }
    }

    /// An event that was sent before, in any partition.
    pub fn again(&mut self) -> Event {
        let place = self.random.below(self.recent.len() as u64) as usize;
        let mut again = self.recent[place].clone();
        again.record.partition = Some(self.any_partition());
        again
    }

    /// Something else of an event that was sent before: more of one count and less of another. In
    /// the same partition: the first in the log stands.
    fn conflicting(&mut self, ledger: &Ledger) -> Event {
        let place = self.random.below(self.recent.len() as u64) as usize;
        let mut event = self.recent[place].clone();
        if event
            .record
            .partition
            .is_some_and(|partition| self.quiet.holds(partition))
        {
            return self.good(ledger);
        }
        let mut book = ledger.book();
        if let Some((Kind::Call(call), _)) = book.events.get(event.number) {
            let other = Call {
                input: call.input - 1,
                cached: 0,
                output: call.output + 1_000,
                feature: "conflict".to_owned(),
                ..call.clone()
            };
            event.record.value = text(event.number, &now().to_string(), &other).into_bytes();
            book.conflicts += 1;
        }
        event
    }

    fn revenue(&mut self, ledger: &Ledger) -> Event {
        let cents = i128::from(self.random.below(10_000)) - 1_000;
        let revenue = Revenue {
            customer: format!("c-{}", self.random.below(CUSTOMERS)),
            nanos: cents * 10_000_000 + 1,
        };
        let number = ledger.enter(Kind::Revenue(revenue.clone()));
        let value = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.revenue\",\"source\":\"{SOURCE}\",\
             \"id\":\"call-{number}\",\"time\":\"{}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
             \"customer\":\"{}\",\"revenue_usd\":\"{}\"}}}}",
            now(),
            revenue.customer,
            Nanos::new(revenue.nanos)
        );
        Event::new(number, self.any_partition(), None, value)
    }

    /// A call of a session that is ended after the fourth, or its end. All in the session's
    /// partition: what comes before the end is in the log's order.
    fn ending(&mut self, ledger: &Ledger) -> Event {
        let (session, calls) = self.ending;
        let session = format!("end-{session}");
        let partition = partition_of(session.as_bytes(), PARTITIONS);
        if self.quiet.holds(partition) {
            return self.good(ledger);
        }
        if calls < CALLS_BEFORE_END {
            self.ending.1 += 1;
            let call = Call {
                session,
                ..self.any_call()
            };
            return self.call(ledger, call, partition);
        }
        self.ending = (self.ending.0 + 1, 0);
        let number = ledger.enter(Kind::SessionEnd(session.clone()));
        let value = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.session_end\",\"source\":\"{SOURCE}\",\
             \"id\":\"call-{number}\",\"time\":\"{}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
             \"session\":\"{session}\"}}}}",
            now()
        );
        Event::new(number, partition, Some(session), value)
    }

    /// A new event in its session's partition.
    pub fn good(&mut self, ledger: &Ledger) -> Event {
        let call = self.any_call();
        let partition = partition_of(call.session.as_bytes(), PARTITIONS);
        self.call(ledger, call, partition)
    }

    fn any_call(&mut self) -> Call {
        // Some customers spend much more than others.
        let customer = self
            .random
            .below(CUSTOMERS)
            .min(self.random.below(CUSTOMERS));
        let session = self.any_session();
        let input = 100 + self.random.below(5_000);
        Call {
            workspace: WORKSPACE.to_owned(),
            customer: format!("c-{customer}"),
            feature: self.random.one_of(&FEATURES).to_owned(),
            plan: self.random.one_of(&["free", "pro", "pro"]).to_owned(),
            session,
            input,
            cached: self.random.below(input),
            output: self.random.below(MOST_OUTPUT),
        }
    }

    /// One whose partition is not quiet.
    fn any_session(&mut self) -> String {
        self.calls += 1;
        loop {
            let session = match self.random.below(100) {
                0 => format!("loop-{}", self.random.below(LOOPING_SESSIONS)),
                1..26 if self.calls <= BEGINNING => {
                    format!("idle-{}", self.random.below(IDLING_SESSIONS))
                }
                _ => format!("{GOING_ON}{}", self.random.below(SESSIONS)),
            };
            if !self
                .quiet
                .holds(partition_of(session.as_bytes(), PARTITIONS))
            {
                return session;
            }
        }
    }

    /// A new event with this content.
    fn call(&mut self, ledger: &Ledger, call: Call, partition: u32) -> Event {
        let number = ledger.enter(Kind::Call(call.clone()));
        let event = Event::new(
            number,
            partition,
            Some(call.session.clone()),
            text(number, &now().to_string(), &call),
        );
        if self.recent.len() < REMEMBERED {
            self.recent.push(event.clone());
        } else {
            self.recent.remove(0);
            self.recent.push(event.clone());
        }
        event
    }

    /// A new event that somebody else counts before it is sent.
    pub fn counted_before(&mut self, ledger: &Ledger) -> Event {
        let number = ledger.enter(Kind::CountedBefore);
        let call = Call {
            customer: "c-before".to_owned(),
            session: format!("before-{number}"),
            input: 10,
            ..Call::default()
        };
        Event::new(
            number,
            partition_of(call.session.as_bytes(), PARTITIONS),
            Some(call.session.clone()),
            text(number, &now().to_string(), &call),
        )
    }

    fn late(&mut self, ledger: &Ledger) -> Event {
        let number = ledger.enter(Kind::Late);
        let time = now().plus(-LATE_MILLIS).to_string();
        let call = Call {
            customer: "c-late".to_owned(),
            session: "late".to_owned(),
            input: 10,
            ..Call::default()
        };
        Event::new(
            number,
            self.any_partition(),
            None,
            text(number, &time, &call),
        )
    }

    fn malformed(&mut self, ledger: &Ledger) -> Event {
        let number = ledger.enter(Kind::Malformed);
        let value = match self.random.below(3) {
            0 => format!("not JSON {number}"),
            1 => format!("{{\"specversion\":\"1.0\",\"id\":\"call-{number}\""),
            _ => format!(
                "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"{SOURCE}\",\
                 \"id\":\"call-{number}\",\"time\":\"{}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
                 \"usage\":{{\"input_tokens\":1}}}}}}",
                now()
            ),
        };
        Event::new(number, self.any_partition(), None, value)
    }

    fn any_partition(&mut self) -> u32 {
        loop {
            let partition = self.random.below(u64::from(PARTITIONS)) as u32;
            if !self.quiet.holds(partition) {
                return partition;
            }
        }
    }
}

/// Whether nothing comes to a session after the beginning.
pub fn is_idling(session: &str) -> bool {
    session.starts_with("idle-")
}

/// Whether a session runs the same prompt again and again.
pub fn is_looping(session: &str) -> bool {
    session.starts_with("loop-")
}
