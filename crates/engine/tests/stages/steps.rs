//! One session's steps, fed to a meter: what the table tests of detectors drive.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::{DetectorRule, DetectorRules};
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::{Identity, Nanos, TokenClasses, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Charge, Meter, MeterConfig, MeterOutputs, Rows};

const IDLE_MILLIS: i64 = 30 * 60_000;

/// One call, as far as detectors care.
#[derive(Clone, Debug)]
pub struct Step {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub input_cost: i128,
    pub output_cost: i128,
    pub prompt: Option<u64>,
    pub tool: Option<u64>,
    pub tool_calls: u32,
    /// Milliseconds since the case began; else two seconds after the step before.
    pub at_millis: Option<i64>,
    /// A real time instead.
    pub time: Option<UnixMillis>,
    pub agent: String,
    pub model: String,
    pub feature: String,
    pub operation: String,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            input: 0,
            cached: 0,
            output: 0,
            input_cost: 0,
            output_cost: 0,
            prompt: None,
            tool: None,
            tool_calls: 0,
            at_millis: None,
            time: None,
            agent: "planner".to_owned(),
            model: "m-1".to_owned(),
            feature: "agent".to_owned(),
            operation: "chat".to_owned(),
        }
    }
}

struct NoRows;
impl Rows for NoRows {
    fn push(&mut self, _: &SpendRow<'_>) {}
}

/// A session `s-1` of `acme` in a meter of its own.
pub struct Lane {
    meter: Meter,
    seq: u64,
    number: u32,
    begin: UnixMillis,
    /// Time of the last step.
    time: UnixMillis,
    /// Broker time, which never goes back.
    arrival: UnixMillis,
}

impl Lane {
    pub fn new() -> Self {
        let config = MeterConfig {
            partition: 0,
            partitions: 1,
            dedupe_horizon_millis: 24 * 3_600_000,
            dedupe_capacity: 10_000,
            session_idle_millis: IDLE_MILLIS,
            session_capacity: 1_000,
        };
        let book = Arc::new(BudgetBook::compile(1, Vec::new(), DetectorRules::default()));
        let begin = UnixMillis::parse_rfc3339("2026-01-25T10:00:00Z").unwrap();
        let mut meter = Meter::new(config, book);
        meter.restored();
        meter.begin(1);
        Self {
            meter,
            seq: 1,
            number: 0,
            begin,
            time: begin,
            arrival: begin,
        }
    }

    pub fn use_rules(&mut self, rules: Vec<DetectorRule>) {
        let rules = DetectorRules::new(rules);
        let book = BudgetBook::compile(self.seq + 1, Vec::new(), rules);
        self.meter.set_book(Arc::new(book));
    }

    pub fn step(&mut self, step: &Step) {
        let next = match step.at_millis {
            Some(millis) => self.begin.plus(millis),
            None => self.time.plus(2_000),
        };
        self.time = step.time.unwrap_or(next);
        let tokens = TokenClasses {
            input: step.input,
            cache_read: step.cached,
            output: step.output,
            ..TokenClasses::default()
        };
        let call = Call {
            operation: Cow::Owned(step.operation.clone()),
            tokens,
            tool_calls: step.tool_calls,
            prompt_fingerprint: step.prompt,
            tool_fingerprint: step.tool,
            ..Call::default()
        };
        let attribution = Attribution {
            agent: Cow::Owned(step.agent.clone()),
            model: Cow::Owned(step.model.clone()),
            feature: Cow::Owned(step.feature.clone()),
            ..Attribution::default()
        };
        let cost = CostParts {
            input: Nanos::new(step.input_cost),
            output: Nanos::new(step.output_cost),
            ..CostParts::default()
        };
        self.count(attribution, Body::Usage(call), cost);
    }

    pub fn end_session(&mut self) {
        self.count(
            Attribution::default(),
            Body::SessionEnd,
            CostParts::default(),
        );
    }

    pub fn wait_until_idle(&mut self) {
        self.arrival = self.arrival.plus(IDLE_MILLIS + 1);
        self.time = self.arrival;
        self.meter.advance(self.arrival);
    }

    fn count(&mut self, mut attribution: Attribution<'_>, body: Body<'_>, cost: CostParts) {
        self.arrival = self.arrival.max(self.time);
        attribution.workspace = Cow::Borrowed("acme");
        attribution.session = Cow::Borrowed("s-1");
        let id = format!("e{}", self.number);
        let event = Event {
            identity: Identity::of("acme", "test", &id, "final"),
            content: self.number,
            source: Cow::Borrowed("test"),
            id: Cow::Owned(id),
            time: self.time,
            flags: Flags::default(),
            attribution,
            body,
        };
        self.number += 1;
        let charge = Charge {
            cost,
            ..Charge::default()
        };
        let origin = Origin {
            arrival: self.arrival,
            ..Origin::default()
        };
        self.meter.count(&event, &charge, origin, &mut NoRows);
    }

    /// Ends the commit.
    pub fn commit(&mut self) -> MeterOutputs {
        let outputs = self.meter.finish();
        self.seq += 1;
        self.meter.begin(self.seq);
        outputs
    }
}
