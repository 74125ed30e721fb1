//! Calls that other products' clients tell of, as events of ours.

use serde::Serialize;
use serde_json::{Map, Number, Value, json};
use spendfuse_domain::event::{MAX_TAGS, MAX_TEXT_BYTES};

use super::workspace;
use crate::delivery::Unsafe;
use crate::http::Sidecar;
use crate::keys::Caller;
use crate::usage::{Outgoing, Told, take_all};

/// An event in the making: only what is known stands in it.
#[derive(Debug)]
pub(super) struct Draft {
    id: String,
    source: &'static str,
    kind: &'static str,
    time: Option<String>,
    data: Map<String, Value>,
    tags: Map<String, Value>,
}

/// What became of one request's events, for those who read answers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    pub(super) accepted: usize,
    pub(super) rejected: usize,
    /// Why some were not taken, the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) reasons: Vec<String>,
}

/// Reasons that an answer holds.
const MOST_REASONS: usize = 8;

impl Summary {
    pub(super) fn reject(&mut self, reason: String) {
        self.rejected += 1;
        if self.reasons.len() < MOST_REASONS {
            self.reasons.push(reason);
        }
    }
}

impl Draft {
    pub(super) fn call(source: &'static str, id: String) -> Self {
        Self::new(source, id, "spendfuse.usage")
    }

    pub(super) fn revenue(source: &'static str, id: String) -> Self {
        Self::new(source, id, "spendfuse.revenue")
    }

    fn new(source: &'static str, id: String, kind: &'static str) -> Self {
        Self {
            id,
            source,
            kind,
            time: None,
            data: Map::new(),
            tags: Map::new(),
        }
    }

    /// When it happened, RFC 3339; otherwise now.
    pub(super) fn at(mut self, time: Option<&str>) -> Self {
        self.time = time.map(str::to_owned);
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() && value != "" {
            self.data.insert(name.to_owned(), value);
        }
        self
    }

    /// A tag, where the value is a scalar and there is room for one more; the first of a name counts.
    pub(super) fn tagged(mut self, name: &str, value: &Value) -> Self {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            _ => return self,
        };
        let fits = !name.is_empty() && name.len().max(text.len()) <= MAX_TEXT_BYTES;
        if fits && !text.is_empty() && self.tags.len() < MAX_TAGS {
            let tag = self.tags.entry(name.to_owned());
            tag.or_insert(Value::String(text));
        }
        self
    }

    fn to_json(&self, now: &str, workspace: &str) -> Vec<u8> {
        let mut data = self.data.clone();
        data.entry("workspace").or_insert_with(|| workspace.into());
        if !self.tags.is_empty() {
            data.insert("tags".to_owned(), Value::Object(self.tags.clone()));
        }
        let event = json!({
            "specversion": "1.0", "type": self.kind, "source": self.source, "id": self.id,
            "time": self.time.as_deref().unwrap_or(now), "data": data,
        });
        event.to_string().into_bytes()
    }
}

/// The events of one request on their way, as many at once as fit into one of `/v1/usage`: every one
/// is taken, because these clients do not send again what they are told was too much.
pub(super) struct Taking<'s> {
    sidecar: &'s Sidecar,
    caller: &'s Caller,
    waiting: Vec<Result<Draft, String>>,
    pub(super) summary: Summary,
    /// Drafts whose events are safe, or that never will be events.
    pub(super) done: usize,
}

impl<'s> Taking<'s> {
    pub(super) fn new(sidecar: &'s Sidecar, caller: &'s Caller) -> Self {
        Self {
            sidecar,
            caller,
            waiting: Vec::new(),
            summary: Summary::default(),
            done: 0,
        }
    }

    /// One more; sends those that are there where they are enough.
    pub(super) async fn add(&mut self, draft: Result<Draft, String>) -> Result<(), Unsafe> {
        self.waiting.push(draft);
        match self.waiting.len() < self.sidecar.config.max_usage_events {
            true => Ok(()),
            false => self.send().await,
        }
    }

    /// Judges what is there as `/v1/usage` does, and returns when it is safe.
    pub(super) async fn send(&mut self) -> Result<(), Unsafe> {
        let drafts = std::mem::take(&mut self.waiting);
        let count = drafts.len();
        let outgoing = judge(self.sidecar, self.caller, drafts, &mut self.summary).await;
        outgoing.deliver(self.sidecar).await?;
        self.done += count;
        Ok(())
    }
}

async fn judge(
    sidecar: &Sidecar,
    caller: &Caller,
    drafts: Vec<Result<Draft, String>>,
    summary: &mut Summary,
) -> Outgoing {
    let now = sidecar.checker.clock.now().wall.to_string();
    let workspace = workspace(sidecar, caller);
    let mut events = Vec::new();
    for draft in drafts {
        match draft {
            Ok(draft) => events.push(draft.to_json(&now, workspace)),
            Err(reason) => summary.reject(reason),
        }
    }
    let (told, outgoing) = take_all(sidecar, caller, &events).await;
    for one in told {
        match one {
            Told::Taken => summary.accepted += 1,
            Told::Refused(reason) => summary.reject(reason),
        }
    }
    outgoing
}

/// A token count, of which these clients send none, null, or a float.
pub(super) fn count(value: Option<&Value>) -> Value {
    let whole = value.and_then(|value| match value {
        Value::Number(number) => whole(number),
        _ => None,
    });
    whole.map_or(Value::Null, Value::from)
}

fn whole(number: &Number) -> Option<u64> {
    let rounded = |float: f64| (0.0..=1e15).contains(&float).then(|| float.round() as u64);
    number
        .as_u64()
        .or_else(|| number.as_f64().and_then(rounded))
}

/// A name, which an app may have given as a number.
pub(super) fn name(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => text.trim().into(),
        Some(number @ Value::Number(_)) => number.clone(),
        _ => Value::Null,
    }
}
