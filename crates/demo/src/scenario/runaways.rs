//! For each detector a session that it must find, and a near miss that it must not.
//!
//! Runaways ask before each step, as a guarded agent would, so that the ones with a verdict are
//! stopped; near misses just run.

use std::time::Duration;

use spendfuse_domain::Detector;

use super::{Action, Route, Step, moment};
use crate::event::{Call, DemoEvent, GPT_4O, GPT_4O_MINI, Model, Usage};

/// What a detector must say about a pair of sessions.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The detector.
    pub detector: Detector,
    /// The session that it must find.
    pub runaway: &'static str,
    /// The session that it must not find.
    pub near_miss: &'static str,
}

/// One step of a session: tokens in and out, tool calls, which prompt.
#[derive(Clone, Copy)]
struct Turn {
    input: u64,
    output: u64,
    tools: u32,
    prompt: u64,
}

const fn turn(input: u64, output: u64) -> Turn {
    Turn {
        input,
        output,
        tools: 0,
        prompt: 0,
    }
}

const fn prompt(prompt: u64) -> Turn {
    Turn {
        prompt,
        ..turn(800, 100)
    }
}

const fn tool(input: u64, output: u64) -> Turn {
    Turn {
        tools: 1,
        ..turn(input, output)
    }
}

struct Pair {
    expected: Expected,
    model: Model,
    runaway: &'static [Turn],
    near_miss: &'static [Turn],
}

const PAIRS: [Pair; 5] = [
    // The same prompt three times in a row; twice, something else, twice again.
    Pair {
        expected: Expected {
            detector: Detector::RetryLoop,
            runaway: "runaway-retry-loop",
            near_miss: "near-miss-retry-loop",
        },
        model: GPT_4O,
        runaway: &[
            prompt(1),
            prompt(2),
            prompt(2),
            prompt(2),
            prompt(2),
            prompt(2),
        ],
        near_miss: &[
            prompt(3),
            prompt(4),
            prompt(4),
            prompt(5),
            prompt(4),
            prompt(4),
        ],
    },
    // A quarter more each time; exactly a fifth more.
    Pair {
        expected: Expected {
            detector: Detector::ContextBloat,
            runaway: "runaway-context-bloat",
            near_miss: "near-miss-context-bloat",
        },
        model: GPT_4O,
        runaway: &[
            turn(2000, 60),
            turn(2500, 60),
            turn(3125, 60),
            turn(3907, 60),
        ],
        near_miss: &[
            turn(2000, 60),
            turn(2400, 60),
            turn(2880, 60),
            turn(3456, 60),
        ],
    },
    // Twice the tokens of the step before; one token less than that. The answer grows, not the
    // context.
    Pair {
        expected: Expected {
            detector: Detector::TokenAcceleration,
            runaway: "runaway-token-acceleration",
            near_miss: "near-miss-token-acceleration",
        },
        model: GPT_4O_MINI,
        runaway: &[turn(900, 300), turn(900, 1500)],
        near_miss: &[turn(900, 300), turn(900, 1499)],
    },
    // In a chain of tool calls six times the smallest step; just below five times.
    Pair {
        expected: Expected {
            detector: Detector::ToolAmplification,
            runaway: "runaway-tool-amplification",
            near_miss: "near-miss-tool-amplification",
        },
        model: GPT_4O_MINI,
        runaway: &[
            tool(900, 200),
            tool(900, 1100),
            tool(900, 2900),
            tool(900, 5800),
            tool(900, 200),
        ],
        near_miss: &[
            tool(900, 200),
            tool(900, 1100),
            tool(900, 2900),
            tool(900, 4599),
            tool(900, 200),
        ],
    },
    // A session may cost $0.05: four steps of $0.0125 reach it, with one token less they do not.
    Pair {
        expected: Expected {
            detector: Detector::BudgetExceeded,
            runaway: "runaway-session-budget",
            near_miss: "near-miss-session-budget",
        },
        model: GPT_4O,
        runaway: &[
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 250),
        ],
        near_miss: &[
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 250),
            turn(4000, 249),
        ],
    },
];

pub fn steps(length: Duration) -> (Vec<Step>, Vec<Expected>) {
    let mut steps = Vec::new();
    let mut expected = Vec::new();
    for (index, pair) in PAIRS.iter().enumerate() {
        let begin = 0.15 + 0.13 * index as f64;
        for (number, turn) in pair.runaway.iter().enumerate() {
            steps.push(Step {
                at: moment(length, begin + 0.03 * number as f64),
                action: Action::Ask(event(pair.expected.runaway, pair.model, number, turn)),
            });
        }
        for (number, turn) in pair.near_miss.iter().enumerate() {
            steps.push(Step {
                at: moment(length, begin + 0.03 * number as f64),
                action: Action::Send {
                    event: event(pair.expected.near_miss, pair.model, number, turn),
                    // Any client will do, as long as it is one: the order stays.
                    route: Route::Librdkafka,
                    repeat: false,
                },
            });
        }
        expected.push(pair.expected.clone());
    }
    (steps, expected)
}

fn event(session: &'static str, model: Model, number: usize, turn: &Turn) -> DemoEvent {
    let fingerprint = |number: u64| format!("{number:016x}");
    let call = Call {
        customer: "acme-support".to_owned(),
        plan: "internal",
        feature: "support-agent",
        agent: "resolver",
        session: session.to_owned(),
        model,
        usage: Usage::plain(turn.input, turn.output),
        tool_calls: turn.tools,
        prompt_fingerprint: if turn.prompt > 0 {
            fingerprint(turn.prompt)
        } else {
            String::new()
        },
        ..Call::default()
    };
    DemoEvent::call("support-agent", format!("{session}-{number}"), call)
}
