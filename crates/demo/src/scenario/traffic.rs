//! The real hour with made-up names.
//!
//! Arrival order and token counts are those of the trace; time is compressed evenly. Who called, for
//! which feature and which model is made up, and so is which calls form a session: a call continues
//! a conversation whose context it could have grown from.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Route, Step};
use crate::event::{
    CODESTRAL, Call, DemoEvent, GEMINI_FLASH, GPT_4O_MINI, GPT_41_MINI, HAIKU, Model, SONNET, Usage,
};
use crate::made_up;
use crate::real_hour::{self, RealCall, Service};

/// Customers who pay, with their share of the calls.
const CUSTOMERS: [(&str, u64); 14] = [
    ("globex", 20),
    ("umbrella", 16),
    ("stark", 13),
    ("wayne", 11),
    ("tyrell", 9),
    ("cyberdyne", 8),
    ("oscorp", 6),
    ("soylent", 5),
    ("massive-dynamic", 4),
    ("dunder-mifflin", 3),
    ("pied-piper", 2),
    ("vandelay", 1),
    ("sterling-cooper", 1),
    ("bluth", 1),
];

/// What conversations are for, and the model used for it.
const TALKING: [((&str, Model), u64); 3] = [
    (("chat", GPT_4O_MINI), 6),
    (("search-answers", GEMINI_FLASH), 3),
    (("email-drafts", HAIKU), 1),
];

/// What code is written for.
const CODING: [((&str, Model), u64); 3] = [
    (("code-completion", GPT_41_MINI), 6),
    (("code-completion", CODESTRAL), 2),
    (("code-review", SONNET), 2),
];

/// A conversation has no more turns than this.
const LONGEST_CONVERSATION: u32 = 14;

/// The first `percent` of the calls.
pub fn steps(percent: u32, length: Duration) -> Vec<Step> {
    let calls = real_hour::calls();
    let count = calls.len() * percent as usize / 100;
    let calls = &calls[..count];
    let last = calls.last().map_or(Duration::from_secs(1), |call| call.at);
    let speed = length.as_secs_f64() / last.as_secs_f64().max(1.0);
    let mut conversations = Conversations::default();
    let numbered = calls.iter().enumerate();
    numbered
        .map(|(number, real)| Step {
            at: real.at.mul_f64(speed).min(length),
            action: action(number as u64, real, &mut conversations),
        })
        .collect()
}

fn action(number: u64, real: &RealCall, conversations: &mut Conversations) -> Action {
    let id = format!("real-{number:05}");
    let usage = Usage::plain(real.context, real.generated);
    let (source, call) = match real.service {
        Service::Code => {
            let (feature, model) = made_up::one_of("coding", number, &CODING);
            let call = Call {
                customer: made_up::one_of("customer", number, &CUSTOMERS).to_owned(),
                feature,
                model,
                ..Call::default()
            };
            ("ide-plugin", call)
        }
        Service::Conversation => ("assistant-api", conversations.turn(real)),
    };
    let call = Call {
        plan: "pro",
        usage,
        ..call
    };
    // Sessions keep their order; calls without one may come from any client.
    let route = match (made_up::number("route", number) % 8, real.service) {
        (0, Service::Code) => Route::Anywhere,
        (1, Service::Code) => Route::Librdkafka,
        _ => Route::Home,
    };
    Action::Send {
        event: DemoEvent::call(source, id, call),
        route,
        repeat: made_up::number("repeat", number).is_multiple_of(100),
    }
}

/// Conversations that could go on.
#[derive(Default)]
struct Conversations {
    /// By the context of their last turn.
    open: BTreeMap<u64, Vec<Conversation>>,
    begun: u64,
}

struct Conversation {
    number: u64,
    tokens: u64,
    turns: u32,
}

impl Conversations {
    /// The next turn of a conversation, or the first of a new one.
    fn turn(&mut self, real: &RealCall) -> Call {
        let tokens = real.context + real.generated;
        let mut conversation = self.continued_by(real).unwrap_or_else(|| {
            self.begun += 1;
            Conversation {
                number: self.begun,
                tokens: 0,
                turns: 0,
            }
        });
        conversation.tokens = tokens;
        conversation.turns += 1;
        let named = conversation.number;
        if conversation.turns < LONGEST_CONVERSATION {
            self.open
                .entry(real.context)
                .or_default()
                .push(conversation);
        }
        let (feature, model) = made_up::one_of("talking", named, &TALKING);
        Call {
            customer: made_up::one_of("customer", named, &CUSTOMERS).to_owned(),
            feature,
            model,
            session: format!("chat-{named:05}"),
            ..Call::default()
        }
    }

    /// Takes out a conversation from whose last turn this call could have grown: by at most a fifth.
    fn continued_by(&mut self, real: &RealCall) -> Option<Conversation> {
        let tokens = real.context + real.generated;
        let smallest = (real.context * 5).div_ceil(6);
        let fitting = self.open.range_mut(smallest..=real.context);
        for (_, conversations) in fitting {
            let index = conversations
                .iter()
                .position(|conversation| tokens < conversation.tokens * 2);
            if let Some(index) = index {
                return Some(conversations.swap_remove(index));
            }
        }
        None
    }
}
