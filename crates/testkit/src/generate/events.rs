//! Random events of a small world, so that everything collides.

use std::borrow::Cow;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::{FixedDimension, Identity, Nanos, TokenClasses, UnixMillis};

use super::Choices;
use crate::scenario::{Known, LogCorrection, LogEvent, Wanted};

const MINUTE: i64 = 60_000;
const GAPS: [i64; 10] = [
    0,
    1,
    300,
    900,
    2_000,
    20_000,
    2 * MINUTE,
    9 * MINUTE,
    25 * MINUTE,
    70 * MINUTE,
];
/// How much the event's own time is behind its arrival.
const LAGS: [i64; 8] = [
    0,
    0,
    40,
    1_500,
    12 * MINUTE,
    58 * MINUTE,
    75 * MINUTE,
    -4 * MINUTE,
];
/// The same of history.
const AGES: [i64; 5] = [
    26 * 60 * MINUTE,
    12 * MINUTE,
    3 * 60 * MINUTE,
    20 * 24 * 60 * MINUTE,
    MINUTE,
];
/// How long before its arrival history was judged.
const JUDGED: [i64; 4] = [1_000, 0, 30 * MINUTE, 2 * 60 * MINUTE];
const COSTS: [i128; 6] = [100, 0, 7, 250, 999, 4_000];
const TOKENS: [u64; 6] = [100, 0, 130, 450, 1_200, 5_000];

/// A log of events, the first at `start`.
pub fn log(start: UnixMillis, bits: &[u128]) -> Vec<LogEvent> {
    let mut log: Vec<LogEvent> = Vec::with_capacity(bits.len());
    let mut arrival = start;
    for (number, bits) in bits.iter().enumerate() {
        let mut choices = Choices::new(*bits);
        arrival = arrival.plus(choices.one_of(&GAPS));
        let repeats = choices.one_in(6);
        let back = choices.below(8);
        let differs = choices.one_in(2);
        let corrects = choices.one_in(6);
        let next = match log.len().checked_sub(back + 1) {
            Some(index) if corrects => correction(&log, index, arrival, &mut choices),
            Some(index) if repeats => repeated(&log[index], arrival, differs, &mut choices),
            _ => fresh(number, arrival, &mut choices),
        };
        log.push(next);
    }
    log
}

/// The same billed response again; where it `differs` with more, less or other content.
fn repeated(
    first: &LogEvent,
    arrival: UnixMillis,
    differs: bool,
    choices: &mut Choices,
) -> LogEvent {
    let mut again = first.clone();
    again.arrival = arrival;
    again.event.time = first.event.time.min(arrival.plus(5 * MINUTE));
    let mut is_measured = false;
    if differs {
        again.event.content = again.event.content.wrapping_add(0x5555 << choices.below(8));
        again.cost.output += Nanos::new(1_000);
        count_otherwise(&mut again.event, choices);
        let is_estimate = |one: &LogEvent| one.event.flags.contains(Flags::USAGE_ESTIMATED);
        is_measured = is_estimate(first) && !is_estimate(&again);
        if is_measured {
            again.cost.output = Nanos::new(choices.one_of(&COSTS));
        }
    }
    let judged_at = arrival.plus(-choices.one_of(&JUDGED));
    again.judged_at = match choices.below(3) {
        // History alone never makes less of what was reached: what opens then depends on the order.
        _ if is_measured => None,
        0 => first.judged_at,
        1 => None,
        _ => Some(judged_at),
    };
    again
}

/// What another report of the same call may say.
fn count_otherwise(event: &mut Event<'_>, choices: &mut Choices) {
    let Body::Usage(call) = &mut event.body else {
        return;
    };
    let tokens = &mut call.tokens;
    let who = &mut event.attribution;
    match choices.below(14) {
        // Nothing else was counted.
        0 => {}
        // Another instrument knows other things.
        8 => who.customer = Cow::Borrowed(""),
        9 => who.project = Cow::Borrowed("x-1"),
        10 => who.user = Cow::Borrowed("u-2"),
        11 => who.tags.push((Cow::Borrowed("zone"), Cow::Borrowed("eu"))),
        1 => tokens.output = tokens.output.saturating_sub(7),
        2 => {
            tokens.input += 10;
            tokens.output = tokens.output.saturating_sub(7);
        }
        3 => {
            let cached = tokens.input / 2;
            tokens.input -= cached;
            tokens.cache_read += cached;
        }
        4 => who.model = Cow::Borrowed("m-3"),
        5 => event.flags.insert(Flags::USAGE_ESTIMATED),
        // Where it was an estimate, somebody has measured.
        12 | 13 => {
            tokens.output /= 2;
            event.flags.remove(Flags::USAGE_ESTIMATED);
        }
        _ => tokens.output += 375,
    }
}

/// A correction of the entry at `index`, or of what the correction there corrects.
fn correction(
    log: &[LogEvent],
    index: usize,
    arrival: UnixMillis,
    choices: &mut Choices,
) -> LogEvent {
    let before = log[index].corrects.as_ref();
    let of = before.map_or(index, |before| before.of);
    let changed = Wanted::Usage {
        output: choices.one_of(&[0, 700, 40]),
        cost: choices.one_of(&COSTS),
    };
    let customer = Wanted::Customer(choices.one_of(&["c-1", "c/2", ""]));
    let rate = Wanted::Rate {
        cost: choices.one_of(&COSTS),
        priced: choices.one_of(&[PriceBasis::Book, PriceBasis::Ceiling]),
    };
    LogEvent {
        arrival,
        corrects: Some(LogCorrection {
            of,
            what: choices.one_of(&[Wanted::Void, changed, customer, rate, Wanted::Restore]),
            known: choices.one_of(&[Known::All, Known::All, Known::AllButOne, Known::Again]),
            judged_before: choices.one_of(&JUDGED),
        }),
        ..log[of].clone()
    }
}

fn fresh(number: usize, arrival: UnixMillis, choices: &mut Choices) -> LogEvent {
    let kind = choices.below(16);
    let lag = choices.one_of(&LAGS);
    let attribution = attribution(choices);
    let cost = CostParts {
        input: Nanos::new(choices.one_of(&COSTS)),
        cache_read: Nanos::new(choices.one_of(&[0, 0, 30])),
        output: Nanos::new(choices.one_of(&COSTS)),
        ..CostParts::default()
    };
    let (body, cost) = match kind {
        14 => (Body::Revenue(Nanos::new(-5)), CostParts::default()),
        15 => (Body::SessionEnd, CostParts::default()),
        _ => (Body::Usage(call(choices)), cost),
    };
    let priced = choices.one_of(&[PriceBasis::Book, PriceBasis::Book, PriceBasis::Ceiling]);
    let judged_at = choices
        .one_in(8)
        .then(|| arrival.plus(-choices.one_of(&JUDGED)));
    let lag = match judged_at {
        Some(_) => choices.one_of(&AGES),
        None => lag,
    };
    let id = format!("e{number}");
    LogEvent {
        arrival,
        event: Event {
            identity: Identity::of(&attribution.workspace, "app", &id, "final"),
            content: number as u32,
            source: Cow::Borrowed("app"),
            id: Cow::Owned(id),
            time: arrival.plus(-lag),
            flags: if choices.one_in(8) {
                Flags::USAGE_ESTIMATED
            } else {
                Flags::default()
            },
            attribution,
            body,
        },
        cost,
        priced,
        judged_at,
        corrects: None,
    }
}

fn attribution(choices: &mut Choices) -> Attribution<'static> {
    // A session never changes its root: s-2 and s-3 are sub-agents of r-0.
    let (session, root_session) = choices.one_of(&[
        ("", ""),
        ("s-1", ""),
        ("s-2", "r-0"),
        ("s-3", "r-0"),
        ("", "r-0"),
        ("s-1", ""),
    ]);
    let mut pick = |menu: &[&'static str]| Cow::Borrowed(choices.one_of(menu));
    let mut attribution = Attribution::of(Vec::new(), |dimension| match dimension {
        FixedDimension::Workspace => pick(&["acme", "acme", "globex"]),
        FixedDimension::Customer => pick(&["c-1", "", "c/2"]),
        FixedDimension::Feature => pick(&["agent", "agent", "", "chat"]),
        FixedDimension::User => pick(&["u-1", "", "u-2"]),
        FixedDimension::Agent => pick(&["planner", "planner", ""]),
        FixedDimension::Plan => pick(&["free", "pro", ""]),
        FixedDimension::Session => Cow::Borrowed(session),
        FixedDimension::RootSession => Cow::Borrowed(root_session),
        FixedDimension::Environment => pick(&["prod", ""]),
        FixedDimension::Account => pick(&["", "main"]),
        FixedDimension::Model => pick(&["m-1", "m-1", "m-1", "m-2"]),
        FixedDimension::Provider => pick(&["openai", "anthropic"]),
        _ => pick(&["", "x-1", "x-2"]),
    });
    let team = pick(&["", "growth", "core"]);
    if !team.is_empty() {
        attribution.tags.push((Cow::Borrowed("team"), team));
    }
    attribution
}

fn call(choices: &mut Choices) -> Call<'static> {
    Call {
        operation: Cow::Borrowed(choices.one_of(&["", "", "chat", "responses", "embeddings"])),
        tokens: TokenClasses {
            input: choices.one_of(&TOKENS),
            cache_read: choices.one_of(&[0, 0, 200]),
            output: choices.one_of(&[0, 10, 300]),
            reasoning: choices.one_of(&[0, 0, 5]),
            ..TokenClasses::default()
        },
        tool_calls: choices.one_of(&[0, 1, 2]),
        prompt_fingerprint: choices.one_of(&[None, Some(1), Some(1), Some(2)]),
        tool_fingerprint: choices.one_of(&[None, Some(1), Some(2), Some(1)]),
        ..Call::default()
    }
}
