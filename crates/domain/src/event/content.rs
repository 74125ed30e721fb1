//! The hash over what an event says, by which a duplicate is told from a conflict.

use xxhash_rust::xxh3::xxh3_64;

use super::{Attribution, Body, Call};

/// Dimensions of the first release, which have the first numbers. Their hashes are remembered with
/// identities, so that later dimensions, where they are absent, must not change them.
const OF_FIRST_RELEASE: usize = 12;
/// The place of the first later dimension, far behind everything else.
const LATER_PLACE: u64 = 1_000;
/// The place of the first later property of a call.
const LATEST_PLACE: u64 = 2_000;

/// Hash over attribution, tokens, units, amounts and the call's other properties.
///
/// Left out: the time, which a sender's retry may write anew, and flags, which depend on the
/// arrival. The order of keys, escapes and the usage format do not matter, because the hash is over
/// what was read. It is remembered with the identity.
pub(super) fn content_hash(attribution: &Attribution<'_>, body: &Body<'_>) -> u32 {
    let mut content = ContentHash::new();
    content.attribution(attribution);
    match body {
        Body::Usage(call) => content.call(call),
        Body::Revenue(amount) => {
            content.number(1);
            content.amount(amount.get());
        }
        Body::SessionEnd => content.number(2),
    }
    content.place = LATER_PLACE;
    for text in &attribution.texts()[OF_FIRST_RELEASE..] {
        content.text(text);
    }
    if let Body::Usage(call) = body {
        content.place = LATEST_PLACE;
        content.later_properties(call);
    }
    (content.hash >> 32) as u32
}

/// Collects properties in a fixed order. Absent ones cost nothing but their place.
struct ContentHash {
    hash: u64,
    place: u64,
}

impl ContentHash {
    fn new() -> Self {
        Self {
            hash: 0x9e37_79b9_7f4a_7c15,
            place: 0,
        }
    }

    /// Folds `value` in at the current place (multiply and fold, as wyhash does).
    fn fold(&mut self, value: u64) {
        const ODD: u64 = 0xa076_1d64_78bd_642f;
        let place = self.place.wrapping_mul(0xe703_7ed1_a0b4_28db);
        let product = u128::from(self.hash ^ value) * u128::from(ODD ^ place);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
    }

    fn text(&mut self, text: &str) {
        self.place += 1;
        if !text.is_empty() {
            self.fold(xxh3_64(text.as_bytes()));
        }
    }

    fn number(&mut self, number: u64) {
        self.place += 1;
        if number != 0 {
            self.fold(number);
        }
    }

    /// Absence differs from zero.
    fn optional(&mut self, number: Option<u64>) {
        self.place += 1;
        if let Some(number) = number {
            self.fold(1);
            self.fold(number);
        }
    }

    fn amount(&mut self, amount: i128) {
        self.place += 1;
        self.fold(amount as u64);
        self.fold((amount >> 64) as u64);
    }

    fn attribution(&mut self, attribution: &Attribution<'_>) {
        for text in &attribution.texts()[..OF_FIRST_RELEASE] {
            self.text(text);
        }
        let tags = &attribution.tags;
        self.number(tags.len() as u64);
        for (name, value) in tags {
            self.text(name);
            self.text(value);
        }
    }

    /// Those that the first release did not have. What a session may spend is none of the call.
    fn later_properties(&mut self, call: &Call<'_>) {
        self.text(&call.rare.speed);
        self.text(&call.rare.inference_geo);
        for part in &call.rare.sub_calls {
            self.text(&part.model);
            for count in part.tokens.each() {
                self.number(count);
            }
        }
    }

    fn call(&mut self, call: &Call<'_>) {
        let Call {
            operation,
            service_tier,
            tokens,
            // See [`ContentHash::later_properties`].
            rare: _,
            // Says which hold ends, not what happened: sent again under another, a call is the same.
            reservation_id: _,
            units,
            tool_calls,
            prompt_fingerprint,
            tool_fingerprint,
            call_id,
            attempt,
            status,
            latency_ms,
            reported_cost,
            request_model,
            response_id,
            trace_id,
            span_id,
            parent_span_id,
            region,
            api_key_id,
        } = call;
        for count in tokens.each() {
            self.number(count);
        }
        self.number(units.entries.len() as u64);
        for (unit, quantity) in &units.entries {
            self.number(*unit as u64 + 1);
            self.number(quantity.0);
        }
        self.number(u64::from(*tool_calls));
        self.number(u64::from(*attempt));
        self.optional(*prompt_fingerprint);
        self.optional(*tool_fingerprint);
        self.optional(latency_ms.map(u64::from));
        match reported_cost {
            Some(cost) => self.amount(cost.get()),
            None => self.place += 1,
        }
        let texts = [
            &units.quality,
            &units.size,
            operation,
            service_tier,
            call_id,
            status,
            request_model,
            response_id,
            trace_id,
            span_id,
            parent_span_id,
            region,
            api_key_id,
        ];
        for text in texts {
            self.text(text);
        }
    }
}
