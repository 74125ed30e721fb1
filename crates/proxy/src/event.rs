//! The event of a call: what its answer has said, and an estimate of what it has not.

use serde_json::{Map, Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::USAGE_TYPE;
use spendfuse_domain::fingerprint::to_hex;

use crate::answer::Seen;
use crate::meter::{BACKGROUND, Meter};
use crate::route::Call;

/// Bytes of text that make a token, where nobody has counted them; of English about four, of JSON
/// and code fewer.
const BYTES_OF_TOKEN: usize = 4;
/// Tokens of an answer that was not read, where its request sets no limit: as reservations have it.
const USUAL_OUTPUT: u64 = 4096;

impl Meter {
    /// The event as a structured CloudEvent.
    pub(crate) fn event(&self) -> Value {
        let Seen {
            model,
            service_tier,
            ..
        } = &self.seen;
        let named = crate::identity::Named {
            upstream: &self.upstream,
            provider: &self.provider,
            is_private: self.is_private,
            call_id: &self.call_id,
            answer_id: self.answer_id(),
        };
        let (source, id) = named.identity();
        let or = |told: &String, asked: &String| match told.is_empty() {
            true => asked.clone(),
            false => told.clone(),
        };
        let latency = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Bedrock has its own names of models and prices for them, other than those of the answer;
        // what an inference profile stands for the answer alone says.
        let is_named = self.call == Call::Invoke && !self.asked_model.starts_with("arn:");
        let charged_model = match is_named {
            true => self.asked_model.clone(),
            false => or(model, &self.asked_model),
        };
        // Whom it counts against comes first: nobody's word replaces what is known of the call.
        let mut event = Value::Object(self.attributed());
        event["provider"] = json!(self.provider);
        event["model"] = json!(charged_model);
        event["request_model"] = json!(self.asked_model);
        event["operation"] = json!(self.call.operation());
        event["status"] = json!("ok");
        if !self.is_retrieved {
            event["latency_ms"] = json!(latency);
            if self.call_id != BACKGROUND {
                event["call_id"] = json!(self.call_id);
            }
        }
        let (format, usage) = self.usage();
        event["usage_format"] = json!(format);
        event["usage"] = Value::Object(usage);
        let units = self.units().map(|(units, _)| units);
        let tools = || {
            let Seen { tools, usage, .. } = &self.seen;
            // What an estimate stands in for counts no tools.
            let usage = usage.as_ref().filter(|_| self.seen.is_final);
            tools.units(usage, &charged_model)
        };
        let video = self.seen.video.as_ref();
        let video = video.map(|one| json!({"video_seconds": one.seconds, "size": one.size}));
        if let Some(units) = units.or(video).or_else(tools) {
            event["units"] = units;
        }
        let tool_calls = self.seen.tool_calls.count();
        if tool_calls > 0 {
            event["tool_calls"] = json!(tool_calls);
        }
        if let Some(fingerprint) = self.prompt_fingerprint {
            event["prompt_fingerprint"] = json!(to_hex(fingerprint));
        }
        let tier = or(service_tier, &self.asked_tier);
        if !tier.is_empty() && tier != "auto" {
            event["service_tier"] = json!(tier);
        }
        if !self.region.is_empty() {
            event["region"] = json!(self.region);
        }
        if let Some(name) = &self.key_name {
            event["api_key_id"] = json!(name);
        }
        if self.is_downgraded {
            event["flags"] = json!(["downgraded"]);
        }
        if let Some(reservation) = &self.reservation {
            event["reservation_id"] = json!(reservation);
        }
        let made = self.seen.created_at.filter(|_| self.is_retrieved);
        let made = made.map(|seconds| UnixMillis(seconds.saturating_mul(1000)));
        let time = made.unwrap_or_else(|| self.sidecar.now());
        json!({
            "specversion": "1.0",
            "type": USAGE_TYPE,
            "source": source,
            "id": id,
            "time": time.to_string(),
            "data": event,
        })
    }

    /// Whom the call counts against, as members of its event.
    fn attributed(&self) -> Map<String, Value> {
        let mut members = Map::new();
        let mut tags = Map::new();
        for (name, value) in &self.who {
            match name.strip_prefix("tags.") {
                Some(tag) => tags.insert(tag.to_owned(), json!(value)),
                None => members.insert(name.clone(), json!(value)),
            };
        }
        if !tags.is_empty() {
            members.insert("tags".to_owned(), Value::Object(tags));
        }
        members
    }

    /// What the call costs by the piece, where its answer tells no usage.
    pub(crate) fn units(&self) -> Option<(Value, bool)> {
        if self.seen.is_final {
            return None;
        }
        let model = &self.asked_model;
        self.particulars.units(self.call, model, self.seen.images)
    }

    /// The provider's counts; where the answer was cut before they came, an estimate by what was seen
    /// of it.
    fn usage(&self) -> (&'static str, Map<String, Value>) {
        match &self.seen.usage {
            Some(usage) if self.seen.is_final => {
                let format = self.seen.usage_format;
                (format.unwrap_or(self.call.usage_format()), usage.clone())
            }
            _ if self.call == Call::Speech || self.units().is_some() => match self.units() {
                Some((_, true)) => ("spendfuse", Map::new()),
                Some((_, false)) => {
                    let model = &self.asked_model;
                    ("estimated", self.particulars.drawn(self.call, model))
                }
                None => {
                    let text = tokens_in(self.particulars.text_bytes());
                    ("estimated", self.particulars.spoken(text))
                }
            },
            begun => {
                let (input, output) = begun.as_ref().map_or((None, 0), told_at_first);
                let input = input.unwrap_or_else(|| vec![("input_tokens", self.asked_input)]);
                let mut usage: Map<String, Value> = input
                    .into_iter()
                    .map(|(name, count)| (name.to_owned(), json!(count)))
                    .collect();
                let output = output.max(tokens_in(self.seen.generated));
                let output = output.max(self.unread_tokens());
                usage.insert("output_tokens".to_owned(), json!(output));
                ("estimated", usage)
            }
        }
    }

    /// Output tokens of what was passed on without being read: it may hold files, which are no text.
    fn unread_tokens(&self) -> u64 {
        match self.call.generates_nothing() {
            true => 0,
            false => tokens_in(self.unread).min(self.most_output.unwrap_or(USUAL_OUTPUT)),
        }
    }
}

/// What Anthropic tells at the beginning of a stream, as spendfuse counts: the input, which is exact,
/// and the output so far.
fn told_at_first(usage: &Map<String, Value>) -> (Option<Vec<(&'static str, u64)>>, u64) {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let split = usage
        .get("cache_creation")
        .and_then(|split| split.get("ephemeral_1h_input_tokens"));
    let (read, written) = (
        count("cache_read_input_tokens"),
        count("cache_creation_input_tokens"),
    );
    let input = usage.contains_key("input_tokens").then(|| {
        vec![
            ("input_tokens", count("input_tokens") + read + written),
            ("cache_read_tokens", read),
            ("cache_write_tokens", written),
            (
                "cache_write_1h_tokens",
                split.and_then(Value::as_u64).unwrap_or(0),
            ),
        ]
    });
    (input, count("output_tokens"))
}

/// Tokens in so many bytes of text, where nobody has counted them.
pub(crate) fn tokens_in(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_OF_TOKEN) as u64
}
