//! Made-up apps that ask before each call: a customer that runs through its daily budget, one that
//! upgrades, and the users of a free plan. And what customers paid.

use std::time::Duration;

use super::{Action, Route, Step, moment};
use crate::event::{Body, Call, DemoEvent, GPT_4O, GPT_4O_MINI, Model, UNPRICED, Usage};
use crate::made_up;

/// Runs through its daily budget.
const BUSY_CUSTOMER: &str = "initech";
/// Is refused, upgrades, and is let in.
pub const UPGRADING_CUSTOMER: &str = "hooli";

const FREE_CUSTOMERS: u64 = 60;
const FREE_CALLS: u64 = 24;
const BUSY_CALLS: u64 = 160;
const UPGRADING_CALLS: u64 = 180;
const UNPRICED_CALLS: u64 = 40;
/// When the upgrade happens.
const UPGRADE_AT: f64 = 0.6;

/// What customers paid today.
const REVENUE: [(&str, &str); 8] = [
    ("globex", "6.00"),
    ("umbrella", "4.50"),
    ("stark", "5.00"),
    ("wayne", "2.00"),
    ("tyrell", "2.50"),
    ("cyberdyne", "1.00"),
    ("initech", "1.50"),
    ("hooli", "2.25"),
];

pub fn steps(length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut ask = |share: f64, event: DemoEvent| {
        steps.push(Step {
            at: moment(length, share),
            action: Action::Ask(event),
        });
    };
    for number in 0..BUSY_CALLS {
        let share = spread(number, BUSY_CALLS, 0.10, 0.92);
        ask(
            share,
            call(BUSY_CUSTOMER, "business", "busy", GPT_4O, number),
        );
    }
    for number in 0..UPGRADING_CALLS {
        let share = spread(number, UPGRADING_CALLS, 0.15, 0.95);
        let event = call(UPGRADING_CUSTOMER, "business", "growing", GPT_4O, number);
        ask(share, event);
    }
    for number in 0..FREE_CUSTOMERS * FREE_CALLS {
        let customer = format!("free-{:02}", number % FREE_CUSTOMERS + 1);
        // They come one after the other.
        let begin = spread(number % FREE_CUSTOMERS, FREE_CUSTOMERS, 0.02, 0.6);
        let share = spread(number / FREE_CUSTOMERS, FREE_CALLS, begin, begin + 0.35);
        ask(share, call(&customer, "free", "free", GPT_4O_MINI, number));
    }
    steps.push(Step {
        at: moment(length, UPGRADE_AT),
        action: Action::Upgrade,
    });
    steps.extend(unasked(length));
    steps
}

/// Calls of a model that nobody has a price for, and revenue.
fn unasked(length: Duration) -> Vec<Step> {
    let send = |share: f64, event: DemoEvent| Step {
        at: moment(length, share),
        action: Action::Send {
            event,
            route: Route::Home,
            repeat: false,
        },
    };
    let unpriced = (0..UNPRICED_CALLS).map(|number| {
        let share = spread(number, UNPRICED_CALLS, 0.2, 0.9);
        send(
            share,
            call("acme-labs", "internal", "unpriced", UNPRICED, number),
        )
    });
    let revenue = REVENUE.iter().map(|(customer, dollars)| {
        let body = Body::Revenue {
            customer: (*customer).to_owned(),
            dollars,
        };
        let event = DemoEvent {
            source: "billing",
            id: format!("payment-{customer}"),
            body,
        };
        send(0.02, event)
    });
    unpriced.chain(revenue).collect()
}

/// The place of the `number`-th of `count` calls between two shares of the length.
fn spread(number: u64, count: u64, from: f64, to: f64) -> f64 {
    from + (to - from) * number as f64 / count as f64
}

fn call(
    customer: &str,
    plan: &'static str,
    what: &'static str,
    model: Model,
    number: u64,
) -> DemoEvent {
    let input = made_up::between(what, number, 2500, 4500);
    let output = made_up::between(what, number + 1_000_000, 150, 450);
    // A part of longer prompts was cached by the provider.
    let cache_read = if model == GPT_4O { input / 3 } else { 0 };
    let call = Call {
        customer: customer.to_owned(),
        plan,
        feature: "assistant",
        model,
        usage: Usage {
            input: input - cache_read,
            cache_read,
            output,
            ..Usage::default()
        },
        ..Call::default()
    };
    DemoEvent::call("guarded-app", format!("{what}-{number:04}"), call)
}
