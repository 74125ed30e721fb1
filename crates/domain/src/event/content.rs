//! The hash over what an event says, by which a duplicate is told from a conflict.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::{Attribution, Body};

/// Hash over attribution, tokens, units, amounts and the call's other properties.
///
/// Left out: the time, which a sender's retry may write anew, and flags, which depend on the
/// arrival. The order of keys, escapes and the usage format do not matter, because the hash is over
/// what was read.
pub(super) fn content_hash(attribution: &Attribution<'_>, body: &Body<'_>) -> u32 {
    let mut said = Said::default();
    said.attribution(attribution);
    said.body(body);
    // The low half of a 64-bit xxh3 is itself a good 32-bit hash.
    xxh3_64(&said.0) as u32
}

/// The bytes that are hashed: texts with their length first, numbers little-endian.
#[derive(Default)]
struct Said(SmallVec<[u8; 512]>);

impl Said {
    fn text(&mut self, text: &str) {
        // At most 256 bytes: mended before.
        self.0.extend_from_slice(&(text.len() as u16).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Absence differs from every number.
    fn optional(&mut self, number: Option<u64>) {
        self.0.push(u8::from(number.is_some()));
        self.number(number.unwrap_or(0));
    }

    fn attribution(&mut self, attribution: &Attribution<'_>) {
        let Attribution {
            workspace,
            customer,
            feature,
            user,
            agent,
            plan,
            session,
            root_session,
            environment,
            account,
            model,
            provider,
            tags,
        } = attribution;
        let texts = [
            workspace,
            customer,
            feature,
            user,
            agent,
            plan,
            session,
            root_session,
            environment,
            account,
            model,
            provider,
        ];
        for text in texts {
            self.text(text);
        }
        self.number(tags.len() as u64);
        for (name, value) in tags {
            self.text(name);
            self.text(value);
        }
    }

    fn body(&mut self, body: &Body<'_>) {
        let call = match body {
            Body::Usage(call) => call,
            Body::Revenue(amount) => {
                self.0.push(b'r');
                self.0.extend_from_slice(&amount.get().to_le_bytes());
                return;
            }
            Body::SessionEnd => {
                self.0.push(b'e');
                return;
            }
        };
        self.0.push(b'u');
        for count in call.tokens.each() {
            self.number(count);
        }
        self.number(u64::from(call.tool_calls));
        self.number(u64::from(call.attempt));
        for (unit, quantity) in &call.units.entries {
            self.0.push(*unit as u8);
            self.number(quantity.0);
        }
        self.optional(call.prompt_fingerprint);
        self.optional(call.tool_fingerprint);
        self.optional(call.latency_ms.map(u64::from));
        self.0.push(u8::from(call.reported_cost.is_some()));
        let reported = call.reported_cost.unwrap_or_default();
        self.0.extend_from_slice(&reported.get().to_le_bytes());
        let texts = [
            &call.units.quality,
            &call.units.size,
            &call.operation,
            &call.service_tier,
            &call.call_id,
            &call.status,
            &call.request_model,
            &call.response_id,
            &call.trace_id,
            &call.span_id,
            &call.parent_span_id,
            &call.region,
            &call.api_key_id,
        ];
        for text in texts {
            self.text(text);
        }
    }
}
