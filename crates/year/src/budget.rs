//! Budgets as the year draws them, and what they expect: whose spend counts, in which window, and
//! what verdict follows. Nothing of it asks the engine.

use serde_json::{Value, json};

use crate::calendar;
use crate::random::Random;
use crate::traffic::Call;

const DIMENSIONS: [&str; 4] = ["customer", "feature", "user", "model"];
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Africa/Cairo"];
const WINDOWS: [&str; 7] = [
    "hour", "day", "week", "month", "quarter", "year", "lifetime",
];

/// The model that calls are told to use instead.
const CHEAPER: &str = "small";

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    Nanos,
    Tokens,
    Calls,
}

/// A step: percent of the limit and action.
type Step = (i128, &'static str);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget {
    pub(crate) id: String,
    /// `*` for each.
    workspace: &'static str,
    /// Further dimensions in their natural order, each with a value or `*`.
    scope: Vec<(&'static str, &'static str)>,
    /// Whose spend counts besides.
    filter: Option<(&'static str, &'static str)>,
    unit: Unit,
    limit: i128,
    pub(crate) window: &'static str,
    zone: &'static str,
    steps: Vec<Step>,
    /// What was spent before the count began, in the unit of the limit.
    opening: i128,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) nanos: i128,
    pub(crate) tokens: i128,
    pub(crate) calls: i128,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Self) {
        self.nanos += other.nanos;
        self.tokens += other.tokens;
        self.calls += other.calls;
    }
}

impl Budget {
    pub(crate) fn draw(number: usize, random: &mut Random) -> Self {
        let mut scope = Vec::new();
        for dimension in DIMENSIONS {
            if random.one_in(3) {
                scope.push((dimension, random.pick(values_of(dimension))));
            }
        }
        let filters = [
            None,
            None,
            Some(("feature", "agent")),
            Some(("plan", "free")),
        ];
        let mut budget = Self {
            id: format!("b-{number}"),
            workspace: random.pick(&["*", "acme"]),
            scope,
            filter: random.pick(&filters),
            unit: random.pick(&[Unit::Nanos, Unit::Nanos, Unit::Tokens, Unit::Calls]),
            limit: 0,
            window: random.pick(&WINDOWS),
            zone: random.pick(&ZONES),
            steps: Vec::new(),
            opening: 0,
        };
        budget.change_limit(random);
        budget.steps = random.pick(&steps());
        budget.draw_opening(random);
        budget
    }

    /// Where the budget has one scope alone, its file may say what was spent before.
    pub(crate) fn draw_opening(&mut self, random: &mut Random) {
        self.opening = match self.only_scope().is_some() && !random.one_in(4) {
            true => self.limit * i128::from(random.between(1, 120)) / 100,
            false => 0,
        };
    }

    /// Another figure of what was spent before the same count.
    pub(crate) fn change_opening(&mut self) {
        self.opening = self.opening / 2 + 1;
    }

    pub(crate) fn has_opening(&self) -> bool {
        self.opening != 0
    }

    pub(crate) fn opening(&self) -> Sum {
        let mut sum = Sum::default();
        match self.unit {
            Unit::Nanos => sum.nanos = self.opening,
            Unit::Tokens => sum.tokens = self.opening,
            Unit::Calls => sum.calls = self.opening,
        }
        sum
    }

    /// The only scope of the budget, and a call of it; `None` where there may be others, or none.
    pub(crate) fn only_scope(&self) -> Option<(String, Call)> {
        let is_any = |value: &str| value == "*";
        if is_any(self.workspace) || self.scope.iter().any(|(_, value)| is_any(value)) {
            return None;
        }
        let exactly = |wanted: &str| {
            let mut named = self.scope.iter().chain(&self.filter);
            let found = named.find(|(dimension, _)| *dimension == wanted);
            found.map(|(_, value)| *value)
        };
        let like = Call {
            id: String::new(),
            workspace: self.workspace,
            customer: String::new(),
            feature: exactly("feature").unwrap_or_default(),
            user: exactly("user").unwrap_or_default(),
            plan: exactly("plan").unwrap_or_default(),
            session: String::new(),
            model: exactly("model").unwrap_or("large"),
            input: 0,
            cached: 0,
            output: 0,
            time: 0,
        };
        Some((self.scope_of(&like)?, like))
    }

    /// Keeps what was counted.
    pub(crate) fn change_limit(&mut self, random: &mut Random) {
        let calls = match self.window {
            "hour" => 8,
            "day" => 30,
            "week" => 120,
            "month" => 400,
            "quarter" => 1_200,
            _ => 4_000,
        };
        let calls = i128::from(random.between(calls / 8, calls * 2));
        self.limit = match self.unit {
            Unit::Nanos => calls * 3_000_000,
            Unit::Tokens => calls * 2_000,
            Unit::Calls => calls,
        };
    }

    /// Begins a new count, or goes on with the one that runs where the same is drawn again.
    pub(crate) fn change_window(&mut self, random: &mut Random) {
        let before = self.clone();
        self.window = random.pick(&WINDOWS);
        self.zone = random.pick(&ZONES);
        self.change_limit(random);
        if !self.counts_like(&before) {
            self.draw_opening(random);
        }
    }

    /// Whether `other` goes on with the count of this one.
    pub(crate) fn counts_like(&self, other: &Self) -> bool {
        (
            self.workspace,
            &self.scope,
            self.filter,
            self.window,
            self.zone,
        ) == (
            other.workspace,
            &other.scope,
            other.filter,
            other.window,
            other.zone,
        )
    }

    /// The record of the budgets topic; the count that it goes on with began at `counted_from`.
    pub(crate) fn record(&self, counted_from: i64) -> Value {
        let mut scope = json!({"workspace": self.workspace});
        for (dimension, value) in &self.scope {
            scope[*dimension] = json!(value);
        }
        let steps = self.steps.iter().map(|(at, action)| match *action {
            "downgrade" => json!({"at": *at as i64, "do": "downgrade", "to": CHEAPER}),
            action => json!({"at": *at as i64, "do": action}),
        });
        let mut record = json!({
            "v": 1, "id": self.id, "scope": scope, "window": self.window,
            "timezone": self.zone, "steps": steps.collect::<Vec<_>>(),
            "counted_from": calendar::text(counted_from),
        });
        match self.unit {
            Unit::Nanos => record["limit"] = json!(dollars(self.limit)),
            Unit::Tokens => record["limit_tokens"] = json!(self.limit as i64),
            Unit::Calls => record["limit_calls"] = json!(self.limit as i64),
        }
        match self.unit {
            _ if self.opening == 0 => {}
            Unit::Nanos => record["opening"] = json!(dollars(self.opening)),
            Unit::Tokens | Unit::Calls => record["opening"] = json!(self.opening as i64),
        }
        if let Some((dimension, value)) = self.filter {
            record["where"] = json!({dimension: value});
        }
        record
    }

    /// The scope in which the budget counts a call; `None` where it does not.
    pub(crate) fn scope_of(&self, call: &Call) -> Option<String> {
        if self.workspace != "*" && self.workspace != call.workspace {
            return None;
        }
        if self
            .filter
            .is_some_and(|(dimension, value)| call.value(dimension) != value)
        {
            return None;
        }
        let mut text = call.workspace.to_owned();
        for (dimension, wanted) in &self.scope {
            let value = call.value(dimension);
            if value.is_empty() || *wanted != "*" && *wanted != value {
                return None;
            }
            text = format!("{text}/{dimension}={value}");
        }
        Some(text)
    }

    /// Window by the minute of a call, as the deltas name it.
    pub(crate) fn window_at(&self, time: i64) -> (i64, Option<i64>) {
        calendar::window(self.window, self.zone, time)
    }

    pub(crate) fn counted(&self, sum: Sum) -> i128 {
        match self.unit {
            Unit::Nanos => sum.nanos,
            Unit::Tokens => sum.tokens,
            Unit::Calls => sum.calls,
        }
    }

    /// What the strictest step that is reached means for a call: whoever uses the cheaper model
    /// already is only warned.
    pub(crate) fn verdict(&self, sum: Sum, call: &Call) -> &'static str {
        let spent = self.counted(sum);
        let reached = |step: &&Step| spent * 100 >= self.limit * step.0;
        match self.steps.iter().rev().find(reached) {
            None => "ok",
            Some((_, "downgrade")) if call.model == CHEAPER => "warn",
            Some((_, action)) => action,
        }
    }
}

fn values_of(dimension: &str) -> &'static [&'static str] {
    match dimension {
        "customer" => &["*"],
        "feature" => &["*", "agent", "chat"],
        "user" => &["*", "u-1"],
        _ => &["*", "large"],
    }
}

fn steps() -> [Vec<Step>; 4] {
    [
        vec![(80, "warn"), (100, "block")],
        vec![(50, "warn"), (100, "downgrade"), (120, "block")],
        vec![(100, "block")],
        vec![(90, "warn")],
    ]
}

/// Nano-dollars as a decimal text.
pub(crate) fn dollars(nanos: i128) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}
