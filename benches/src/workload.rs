//! The traffic of the ratios: agent sessions of one workspace, shaped like what a Kafka Streams
//! application was measured with before (423 to 450 bytes an event, names that come again).
//!
//! A session's context grows by a few per cent a step and jumps about once in 25 steps, as in
//! recorded runs: random contexts would open a finding at every other event.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use spendfuse_domain::event::{Body, Event};
use spendfuse_domain::{Budget, Nanos, UnixMillis};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

use crate::random::Random;

const WORKSPACE: &str = "acme";
const CUSTOMERS: u64 = 300;
const FEATURES: u64 = 10;
/// Steps of a session, on average.
const STEPS: u64 = 20;
/// Sessions that are under way at the same time.
const OPEN_SESSIONS: u64 = 1_000;
/// Models with a price, as providers name them.
const MODELS: [(&str, &str); 4] = [
    ("openai", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-4o-2024-08-06"),
    ("anthropic", "claude-3-5-haiku-20241022"),
    ("bedrock", "amazon.nova-micro-v1:0"),
];
/// Begins the name of a customer that was never seen before.
const FRESH: &str = "fresh-";
/// Begins the name of a customer whose only call costs more than its budget.
const RUINED: &str = "ruined-";

/// Four budgets that stack on every event and one for each session, with limits that most scopes
/// stay below.
pub const BUDGETS: &str = r#"budgets:
  - {id: everything, scope: {}, limit: "10000000.00", window: lifetime, action: warn}
  - {id: workspace, scope: {workspace: "*"}, limit: "1000000.00", window: day}
  - {id: customer, scope: {workspace: "*", customer: "*"}, limit: "100.00", window: day}
  - {id: feature, scope: {workspace: "*", customer: "*", feature: "*"}, limit: "20.00", window: month}
  - {id: session, scope: {workspace: "*"}, limit: "2.00", window: session}
"#;

/// [`BUDGETS`] for those who need no file.
///
/// # Errors
/// Where a record is wrong.
pub fn budgets() -> Result<Vec<Budget>> {
    let budget = |id: &str, scope: Value, limit: &str, window: &str| {
        let record = json!({
            "v": 1, "id": id, "scope": scope, "limit": limit, "window": window,
            "timezone": "UTC", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        anyhow::Ok(Budget::from_record(id, &serde_json::to_vec(&record)?)?)
    };
    Ok(vec![
        budget("everything", json!({}), "10000000.00", "lifetime")?,
        budget("workspace", json!({"workspace": "*"}), "1000000.00", "day")?,
        budget(
            "customer",
            json!({"workspace": "*", "customer": "*"}),
            "100.00",
            "day",
        )?,
        budget(
            "feature",
            json!({"workspace": "*", "customer": "*", "feature": "*"}),
            "20.00",
            "month",
        )?,
        budget("session", json!({"workspace": "*"}), "2.00", "session")?,
    ])
}

/// Makes events, the same ones in every run but for their times.
#[derive(Debug)]
pub struct Workload {
    label: String,
    random: Random,
    made: u64,
    begun: u64,
    open: Vec<Session>,
    key: String,
    value: String,
}

#[derive(Debug)]
struct Session {
    name: String,
    customer: String,
    feature: u64,
    model: usize,
    context: u64,
    cached: u64,
}

/// An event on its way: where it belongs and its JSON.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// The routing key: the session.
    pub key: &'a str,
    /// The event.
    pub value: &'a str,
}

impl Workload {
    /// Traffic whose ids and sessions carry `label`: different labels share no identity.
    pub fn new(label: &str) -> Self {
        let mut workload = Self {
            label: label.to_owned(),
            random: Random::default(),
            made: 0,
            begun: 0,
            open: Vec::new(),
            key: String::new(),
            value: String::new(),
        };
        for _ in 0..OPEN_SESSIONS {
            let session = workload.begin_session();
            workload.open.push(session);
        }
        workload
    }

    /// The next event of a running session, at `time` (RFC 3339).
    pub fn next_event(&mut self, time: &str) -> Made<'_> {
        let place = self.random.below(OPEN_SESSIONS) as usize;
        if self.random.below(STEPS) == 0 {
            self.open[place] = self.begin_session();
        }
        let growth = if self.random.below(25) == 0 {
            130
        } else {
            101 + self.random.below(6)
        };
        let session = &mut self.open[place];
        session.cached = session.context;
        session.context = (session.context * growth / 100).min(60_000);
        self.made += 1;
        session.write(&self.label, self.made, time, &mut self.value);
        self.key.clone_from(&session.name);
        self.made()
    }

    /// The first event of a customer and a session that were never seen before: the customer's
    /// state is published at once. [`fresh_number`] finds `number` again.
    pub fn next_fresh(&mut self, time: &str, number: u64) -> Made<'_> {
        let session = Session {
            name: format!("{}f-{number}", self.label),
            customer: format!("{FRESH}{number}"),
            feature: number % FEATURES,
            model: 0,
            context: 1_200,
            cached: 0,
        };
        self.made += 1;
        session.write(&self.label, self.made, time, &mut self.value);
        self.key = session.name;
        self.made()
    }

    /// A call of a customer of its own that costs more than the customer's budget has: its verdict
    /// changes to block. [`ruined_number`] finds the number again that comes with it.
    pub fn next_ruinous(&mut self, time: &str) -> (u64, Made<'_>) {
        let number = self.made;
        let session = Session {
            name: format!("{}x-{number}", self.label),
            customer: format!("{RUINED}{number}"),
            feature: 0,
            model: 0,
            context: 900_000_000,
            cached: 0,
        };
        self.made += 1;
        session.write(&self.label, self.made, time, &mut self.value);
        self.key = session.name;
        (number, self.made())
    }

    fn made(&self) -> Made<'_> {
        Made {
            key: &self.key,
            value: &self.value,
        }
    }

    fn begin_session(&mut self) -> Session {
        self.begun += 1;
        Session {
            name: format!("{}s-{}", self.label, self.begun),
            customer: format!("c-{}", self.random.below(CUSTOMERS)),
            feature: self.random.below(FEATURES),
            model: self.random.below(MODELS.len() as u64) as usize,
            context: 1_500 + self.random.below(2_500),
            cached: 0,
        }
    }
}

impl Session {
    fn write(&self, label: &str, number: u64, time: &str, value: &mut String) {
        let (provider, model) = MODELS[self.model];
        let fingerprint = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let output = 150 + number * 7_919 % 90;
        let latency = 300 + number * 104_729 % 2_000;
        let tool_calls = number % 3;
        value.clear();
        write!(
            value,
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"checkout-api\",\
             \"id\":\"chatcmpl-{label}{number:09}\",\"time\":\"{time}\",\"data\":{{\
             \"workspace\":\"{WORKSPACE}\",\"customer\":\"{}\",\
             \"feature\":\"feature-{}\",\"agent\":\"planner\",\"session\":\"{}\",\
             \"provider\":\"{provider}\",\"model\":\"{model}\",\
             \"usage\":{{\"input_tokens\":{},\"cache_read_tokens\":{},\
             \"output_tokens\":{output}}},\"tool_calls\":{tool_calls},\
             \"prompt_fingerprint\":\"{fingerprint:016x}\",\
             \"latency_ms\":{latency}}}}}",
            self.customer, self.feature, self.name, self.context, self.cached,
        )
        .expect("text can be appended to");
    }
}

/// The number of a customer that [`Workload::next_fresh`] made up, from a scope's text.
pub fn fresh_number(scope: &str) -> Option<u64> {
    customer_number(scope, FRESH)
}

/// The number of a customer that [`Workload::next_ruinous`] made up, from a scope's text.
pub fn ruined_number(scope: &str) -> Option<u64> {
    customer_number(scope, RUINED)
}

fn customer_number(scope: &str, begins: &str) -> Option<u64> {
    let customer = scope.strip_prefix(WORKSPACE)?.strip_prefix("/customer=")?;
    customer.strip_prefix(begins)?.parse().ok()
}

/// A model's rates, nano-dollars per million tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Uncached input.
    pub input: i128,
    /// Cached input.
    pub cache_read: i128,
    /// Output.
    pub output: i128,
}

impl Rates {
    /// What a call costs by them: divided once, rounded up.
    pub fn cost(&self, input: u64, cached: u64, output: u64) -> i128 {
        let sum = i128::from(input - cached) * self.input
            + i128::from(cached) * self.cache_read
            + i128::from(output) * self.output;
        (sum + 999_999) / 1_000_000
    }
}

/// Prices events, and knows what a peer must be told to come to the same sums.
pub struct Prices {
    pricer: Pricer,
    rates: Vec<(&'static str, Rates)>,
}

impl Prices {
    /// The prices that the binary brings along.
    ///
    /// # Errors
    /// Where a model of the workload has no price.
    pub fn new() -> Result<Self> {
        let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
        let mut rates = Vec::new();
        for (provider, model) in MODELS {
            // A tenth of a million tokens: below every threshold of long contexts.
            let mut rate = |input: u64, cached: u64, output: u64| -> Result<i128> {
                let value = format!(
                    "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"s\",\
                     \"id\":\"i\",\"time\":\"2026-11-22T10:00:00Z\",\"data\":{{\
                     \"workspace\":\"w\",\"provider\":\"{provider}\",\"model\":\"{model}\",\
                     \"usage\":{{\"input_tokens\":{input},\"cache_read_tokens\":{cached},\
                     \"output_tokens\":{output}}}}}}}"
                );
                Ok(priced(
                    &mut pricer,
                    &decoded(&value, UnixMillis(1_795_344_000_000))?,
                )?
                .get()
                    * 10)
            };
            let each = 100_000;
            let rates_of = Rates {
                input: rate(each, 0, 0)?,
                cache_read: rate(each, each, 0)?,
                output: rate(0, 0, each)?,
            };
            rates.push((model, rates_of));
        }
        Ok(Self { pricer, rates })
    }

    /// What an event costs.
    ///
    /// # Errors
    /// Where it is no event, or simple rates would not come to the same cost.
    pub fn cost(&mut self, value: &str, now: UnixMillis) -> Result<i128> {
        let event = decoded(value, now)?;
        let cost = priced(&mut self.pricer, &event)?.get();
        let Body::Usage(call) = &event.body else {
            bail!("an event is no usage");
        };
        let model: &str = &event.attribution.model;
        let rates = self.rates.iter().find(|(known, _)| *known == model);
        if let Some((_, rates)) = rates {
            let (cached, tokens) = (call.tokens.cache_read, &call.tokens);
            let simple = rates.cost(tokens.input + cached, cached, tokens.output);
            ensure!(
                simple == cost,
                "{model}: {cost} nano-dollars, by simple rates {simple}"
            );
        }
        Ok(cost)
    }

    /// A line `model,input,cache_read,output` for each model.
    pub fn as_lines(&self) -> String {
        let line = |(model, rates): &(&str, Rates)| {
            let Rates {
                input,
                cache_read,
                output,
            } = rates;
            format!("{model},{input},{cache_read},{output}\n")
        };
        self.rates.iter().map(line).collect()
    }
}

/// What an event is keyed by to arrive at home: its session, else its identity.
///
/// # Errors
/// Where it is no event.
pub fn routing_key(value: &str, now: UnixMillis) -> Result<Vec<u8>> {
    let event = decoded(value, now)?;
    Ok(match event.session_key() {
        Some(session) => session.as_bytes().to_vec(),
        None => event.identity.0.to_be_bytes().to_vec(),
    })
}

fn decoded(value: &str, now: UnixMillis) -> Result<Event<'_>> {
    spendfuse_domain::event::decode(value.as_bytes(), &[], now)
        .map_err(|rejection| anyhow::anyhow!("an event is refused: {rejection:?}"))
}

fn priced(pricer: &mut Pricer, event: &Event<'_>) -> Result<Nanos> {
    let Body::Usage(call) = &event.body else {
        bail!("an event is no usage");
    };
    let who = &event.attribution;
    let priced = pricer.price(&who.provider, &who.account, call, &who.model, event.time)?;
    Ok(priced.parts.total())
}
