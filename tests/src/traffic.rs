//! Usage events with known totals: good ones, duplicates, misrouted and malformed ones.
//!
//! Costs are worked out here by the formula of the price list (tokens × rate, added up, rounded up
//! once an event) from the rates that table `prices` shows, not by the code under test.

use std::time::{SystemTime, UNIX_EPOCH};

use spendfuse_domain::UnixMillis;
use spendfuse_domain::routing::partition_of;

use crate::expected::Expected;
use crate::lab::{Lab, WORKSPACE};

/// A model whose cached input costs 8.75 nano-dollars a token: rounding shows.
pub const PROVIDER: &str = "bedrock";
/// See [`PROVIDER`].
pub const MODEL: &str = "amazon.nova-micro-v1:0";

const NANOS_PER_MILLION: i128 = 1_000_000;
/// Duplicates repeat one of this many last events.
const REMEMBERED: usize = 4096;
const SESSIONS: u64 = 500;
const CUSTOMERS: u64 = 40;

/// What a model's tokens cost, nano-dollars per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    input: i128,
    cache_read: i128,
    output: i128,
}

impl Rates {
    /// The rates of [`MODEL`] from table `prices`.
    ///
    /// # Panics
    /// Where they are not there.
    pub fn of(lab: &Lab) -> Self {
        let rate = |line: &str| {
            let sql = format!(
                "SELECT toInt128(rate * 1000000000) FROM prices WHERE provider = '{PROVIDER}' \
                 AND model = '{MODEL}' AND service_tier = 'default' AND line = '{line}' \
                 AND above_context_tokens = 0"
            );
            let found = lab.warehouse().numbers(&sql);
            found.unwrap_or_else(|error| panic!("the price of {line}: {error}"))[0]
        };
        Self {
            input: rate("input"),
            cache_read: rate("cache_read"),
            output: rate("output"),
        }
    }

    /// The cost of a call: `cached` is contained in `input`.
    pub fn cost(&self, input: u64, cached: u64, output: u64) -> i128 {
        let tokens = |count: u64| i128::from(count);
        let sum = tokens(input - cached) * self.input
            + tokens(cached) * self.cache_read
            + tokens(output) * self.output;
        (sum + NANOS_PER_MILLION - 1) / NANOS_PER_MILLION
    }
}

/// A record to send.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Partition, where it is not left to the key.
    pub partition: Option<u32>,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Vec<u8>,
}

/// Makes records and adds up what they must come to.
pub struct Traffic {
    rates: Rates,
    partitions: u32,
    random: u64,
    made: u64,
    recent: Vec<Record>,
    expected: Expected,
}

impl Traffic {
    /// Traffic for a lab; the same `seed` makes the same events.
    pub fn new(lab: &Lab, seed: u64) -> Self {
        Self {
            rates: Rates::of(lab),
            partitions: lab.partitions(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            made: 0,
            recent: Vec::new(),
            expected: Expected::default(),
        }
    }

    /// Ids begin at `first`: two traffics of one lab must not share any.
    #[must_use]
    pub fn counting_from(mut self, first: u64) -> Self {
        self.made = first;
        self
    }

    /// What everything made so far must come to.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// What everything made must come to.
    pub fn into_expected(self) -> Expected {
        self.expected
    }

    /// The next record: 4 % repeat an earlier one (in another partition), 1 % cannot be read, one in
    /// ten lies in another partition than its session's, as from producers with other partitioners.
    pub fn mixed(&mut self) -> Record {
        match self.below(100) {
            0..4 if !self.recent.is_empty() => {
                let place = self.below(self.recent.len() as u64) as usize;
                let mut again = self.recent[place].clone();
                again.partition = Some(self.below(u64::from(self.partitions)) as u32);
                self.expected.duplicates += 1;
                again
            }
            4 => self.unreadable(),
            5..15 => {
                let mut record = self.good();
                record.partition = Some(self.below(u64::from(self.partitions)) as u32);
                record
            }
            _ => self.good(),
        }
    }

    /// A new event, in its session's partition.
    pub fn good(&mut self) -> Record {
        let customer = format!("c-{}", self.below(CUSTOMERS));
        self.good_of(&customer)
    }

    /// A new event of `customer`, in its session's partition.
    pub fn good_of(&mut self, customer: &str) -> Record {
        let session = format!("s-{}", self.below(SESSIONS));
        let input = 100 + self.below(5000);
        let cached = self.below(input);
        let output = self.below(800);
        self.call(customer, &session, input, cached, output)
    }

    /// A new event as healthy sessions make them: 20 calls of about the same size each, 100 sessions
    /// at a time, in their partitions. Detectors find nothing.
    pub fn steady(&mut self) -> Record {
        let session = self.made / 2000 * 100 + self.made % 100;
        let customer = format!("c-{}", session % 2000);
        let session = format!("s-{session}");
        let input = 1000 + self.below(100);
        let (cached, output) = (self.below(500), 100 + self.below(20));
        self.call(&customer, &session, input, cached, output)
    }

    /// A new event with these counts; `cached` is contained in `input`.
    pub fn call(
        &mut self,
        customer: &str,
        session: &str,
        input: u64,
        cached: u64,
        output: u64,
    ) -> Record {
        self.made += 1;
        let (number, now) = (self.made, now());
        let value = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"tests\",\
             \"id\":\"call-{number}\",\"time\":\"{now}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
             \"customer\":\"{customer}\",\"feature\":\"agent\",\"session\":\"{session}\",\
             \"provider\":\"{PROVIDER}\",\"model\":\"{MODEL}\",\"usage\":{{\"input_tokens\":{input},\
             \"cache_read_tokens\":{cached},\"output_tokens\":{output}}}}}}}"
        );
        let nanos = self.rates.cost(input, cached, output);
        self.expected.add(customer, nanos);
        let record = Record {
            partition: Some(partition_of(session.as_bytes(), self.partitions)),
            key: Some(session.as_bytes().to_vec()),
            value: value.into_bytes(),
        };
        if self.recent.len() < REMEMBERED {
            self.recent.push(record.clone());
        } else {
            self.recent[number as usize % REMEMBERED] = record.clone();
        }
        record
    }

    /// A record that cannot be counted.
    fn unreadable(&mut self) -> Record {
        self.made += 1;
        self.expected.rejected += 1;
        let number = self.made;
        let value = match self.below(3) {
            0 => format!("not JSON {number}"),
            1 => format!("{{\"specversion\":\"1.0\",\"id\":\"call-{number}\""),
            _ => format!(
                "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"tests\",\
                 \"id\":\"call-{number}\",\"time\":\"{}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
                 \"usage\":{{\"input_tokens\":1}}}}}}",
                now()
            ),
        };
        Record {
            partition: Some(self.below(u64::from(self.partitions)) as u32),
            key: None,
            value: value.into_bytes(),
        }
    }

    /// xorshift64*: reproducible, and needs no dependency.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// The wall clock.
///
/// # Panics
/// Where it stands before 1970.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.expect("the clock stands after 1970").as_millis();
    UnixMillis(i64::try_from(millis).expect("milliseconds fit an i64"))
}
