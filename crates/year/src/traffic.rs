//! The calls of a year: who makes them, when they are told of, how often they are told again.

use std::borrow::Cow;

use serde_json::{Value, json};
use spendfuse_domain::FixedDimension;
use spendfuse_domain::event::Attribution;
use spendfuse_guard::CheckRequest;

use crate::calendar::{self, DAY, HOUR, MINUTE};
use crate::prices::MODELS;
use crate::random::Random;

/// One model call, as the year knows it without decoding anything.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) workspace: &'static str,
    pub(crate) customer: String,
    pub(crate) feature: &'static str,
    pub(crate) user: &'static str,
    pub(crate) plan: &'static str,
    pub(crate) session: String,
    pub(crate) model: &'static str,
    /// Cached ones included.
    pub(crate) input: i128,
    pub(crate) cached: i128,
    pub(crate) output: i128,
    pub(crate) time: i64,
}

impl Call {
    /// The value of a dimension; empty where the call has none.
    pub(crate) fn value(&self, dimension: &str) -> &str {
        match dimension {
            "customer" => &self.customer,
            "feature" => self.feature,
            "user" => self.user,
            "plan" => self.plan,
            "model" => self.model,
            _ => "",
        }
    }

    /// Fresh input, cached input, output.
    pub(crate) fn tokens(&self) -> [i128; 3] {
        [self.input - self.cached, self.cached, self.output]
    }

    /// Whose call it is, and of which model.
    pub(crate) fn names(&self) -> [&str; 7] {
        [
            self.workspace,
            &self.customer,
            self.feature,
            self.user,
            self.plan,
            &self.session,
            self.model,
        ]
    }

    /// A call of these names without counts, as [`Self::names`] says them.
    pub(crate) fn named(names: [&str; 7], time: i64) -> Self {
        let [workspace, customer, feature, user, plan, session, model] = names;
        Self {
            id: String::new(),
            workspace: drawn(workspace),
            customer: customer.to_owned(),
            feature: drawn(feature),
            user: drawn(user),
            plan: drawn(plan),
            session: session.to_owned(),
            model: drawn(model),
            input: 0,
            cached: 0,
            output: 0,
            time,
        }
    }

    /// The event that tells of it.
    pub(crate) fn event(&self) -> Value {
        let mut data = json!({
            "workspace": self.workspace, "feature": self.feature, "plan": self.plan,
            "provider": "openai", "model": self.model,
            "usage": {"input_tokens": self.input as i64, "cache_read_tokens": self.cached as i64,
                      "output_tokens": self.output as i64},
        });
        let optional = [
            ("customer", self.customer.as_str()),
            ("user", self.user),
            ("session", &self.session),
        ];
        for (name, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            data[name] = json!(value);
        }
        json!({
            "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": self.id,
            "time": calendar::text(self.time), "data": data,
        })
    }
}

impl Call {
    /// The question whether the same call may be made again.
    pub(crate) fn request(&self) -> CheckRequest<'_> {
        let attribution = Attribution::of(Vec::new(), |dimension| {
            Cow::Borrowed(match dimension {
                FixedDimension::Workspace => self.workspace,
                FixedDimension::Customer => &self.customer,
                FixedDimension::Feature => self.feature,
                FixedDimension::User => self.user,
                FixedDimension::Plan => self.plan,
                FixedDimension::Model => self.model,
                FixedDimension::Provider => "openai",
                _ => "",
            })
        });
        CheckRequest {
            attribution,
            ..CheckRequest::default()
        }
    }
}

/// An event on its way to Kafka.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Call(Call),
    SessionEnd {
        workspace: &'static str,
        session: String,
    },
}

/// Makes the traffic of one day after the other.
pub(crate) struct Traffic {
    random: Random,
    calls: u64,
    sessions: u64,
    /// The running sessions.
    open: Vec<String>,
}

impl Traffic {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            random,
            calls: 0,
            sessions: 0,
            open: Vec::new(),
        }
    }

    /// What is told in a day that begins at `begin`, with the times of the telling, in no order.
    pub(crate) fn day(&mut self, number: i64, begin: i64) -> Vec<(i64, Told)> {
        let mut told = Vec::new();
        for _ in 0..self.calls_of_day(number) {
            let at = begin + self.random.between(0, DAY);
            let call = self.call(number, at);
            for (later, piece) in self.pieces(&call) {
                for again in self.repeats() {
                    told.push((at + later + again, Told::Call(piece.clone())));
                }
                told.push((at + later, Told::Call(piece)));
            }
            if !call.session.is_empty() && self.random.one_in(20) {
                self.open.retain(|one| *one != call.session);
                let (workspace, session) = (call.workspace, call.session.clone());
                told.push((at + MINUTE, Told::SessionEnd { workspace, session }));
            }
        }
        told
    }

    /// Three weeks of every ten are quiet, two of them without any call; some days are busy.
    fn calls_of_day(&mut self, number: i64) -> usize {
        let of_ten_weeks = number.rem_euclid(70);
        if (52..66).contains(&of_ten_weeks) {
            return 0;
        }
        match (of_ten_weeks >= 49, self.random.below(10)) {
            (true, 0..8) => 0,
            (true, _) => self.random.below(4),
            (false, 0) => 300,
            (false, _) => 20 + self.random.below(60),
        }
    }

    fn call(&mut self, day: i64, at: i64) -> Call {
        self.calls += 1;
        let id = format!("r-{}", self.calls);
        let random = &mut self.random;
        // Customers come and go: each stays for about two months.
        let customer = day / 10 + random.between(0, 6);
        let session = match random.below(4) {
            0 => String::new(),
            1 => {
                self.sessions += 1;
                let session = format!("s-{}", self.sessions);
                self.open.push(session.clone());
                if self.open.len() > 12 {
                    self.open.remove(0);
                }
                session
            }
            _ => self.open.last().cloned().unwrap_or_default(),
        };
        let input = i128::from(random.between(1, 4_000));
        Call {
            id,
            workspace: random.pick(&["acme", "acme", "globex"]),
            customer: if random.one_in(6) {
                String::new()
            } else {
                format!("c-{customer}")
            },
            feature: random.pick(&["agent", "agent", "chat"]),
            user: random.pick(&["u-1", "u-2", ""]),
            plan: random.pick(&["free", "pro"]),
            session,
            model: random.pick(&MODELS),
            input,
            cached: if random.one_in(3) { input / 2 } else { 0 },
            output: i128::from(random.between(0, 900)),
            time: at - lag(random),
        }
    }

    /// What is told of a call, and how much later: most at once, some while the answer grows.
    fn pieces(&mut self, call: &Call) -> Vec<(i64, Call)> {
        if call.output < 3 || !self.random.one_in(10) {
            return vec![(0, call.clone())];
        }
        let mut later = 0;
        let pieces = [call.output / 3, call.output * 2 / 3, call.output].map(|output| {
            let piece = Call {
                output,
                ..call.clone()
            };
            let told = (later, piece);
            let pauses = [
                self.random.between(1, 3_000),
                self.random.between(MINUTE, HOUR),
                self.random.between(HOUR, 9 * HOUR),
            ];
            later += self.random.pick(&pauses);
            told
        });
        pieces.to_vec()
    }

    /// How much later the same is told again, for each time.
    fn repeats(&mut self) -> Vec<i64> {
        let random = &mut self.random;
        if !random.one_in(4) {
            return Vec::new();
        }
        let delays = [
            random.between(1, 5_000),
            random.between(MINUTE, HOUR),
            random.between(HOUR, DAY - HOUR),
            // Around the end of the memory of identities.
            DAY + random.between(-8 * MINUTE, 12 * MINUTE),
            random.between(DAY + HOUR, 3 * DAY),
            random.between(3 * DAY, 12 * DAY),
        ];
        let count = 1 + random.below(2);
        (0..count).map(|_| random.pick(&delays)).collect()
    }
}

/// The name as the year draws it.
fn drawn(name: &str) -> &'static str {
    const NAMES: [&str; 9] = [
        "", "acme", "globex", "agent", "chat", "u-1", "u-2", "free", "pro",
    ];
    let mut known = NAMES.into_iter().chain(MODELS);
    let found = known.find(|known| *known == name);
    found.unwrap_or_else(|| panic!("the year draws no {name}"))
}

/// How much the call's own time is behind its telling.
fn lag(random: &mut Random) -> i64 {
    match random.below(40) {
        0 => random.between(HOUR, DAY - HOUR),
        1 => random.between(DAY - 10 * MINUTE, DAY + 10 * MINUTE),
        2 => random.between(DAY, 5 * DAY),
        3 => -random.between(0, 4 * MINUTE),
        4..8 => random.between(MINUTE, HOUR),
        _ => random.between(0, 3_000),
    }
}
