//! Properties of the decoder over generated events and over noise.

use std::borrow::Cow;

use proptest::prelude::*;
use proptest::sample::select;
use spendfuse_domain::event::usage_format::read;
use spendfuse_domain::event::{self, Body, Particulars, Rare, UsageFormat, encode, redact};
use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Event, Nanos, TokenClass, UnitKind, UnixMillis};

const ARRIVAL: UnixMillis = UnixMillis(1_795_000_000_000);

/// Names that the formats know, so that noise meets the code behind them.
const COUNT_NAMES: [&str; 16] = [
    "input_tokens",
    "output_tokens",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_input_cached_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "promptTokenCount",
    "cachedContentTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
];

fn member() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        4 => (0..2_000_u64).prop_map(|count| count.to_string()),
        1 => Just("1000000000".to_owned()),
        1 => select(vec!["-1", "1.5", "null", "\"7\"", "{}", "[]", "true", "1e30"]).prop_map(str::to_owned),
    ];
    (select(COUNT_NAMES.to_vec()), value).prop_map(|(name, value)| format!("\"{name}\":{value}"))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,12}", "\\PC{0,20}", "[\"\\\\/\n\u{1}ü]{0,6}"]
}

/// Events of all three types, with every field filled or empty.
fn some_event() -> impl Strategy<Value = Event<'static>> {
    let texts = prop::collection::vec(text(), 24);
    let counts = prop::collection::vec(0_u64..10_000_000, 11);
    let units =
        prop::collection::btree_map(select(UnitKind::ALL.to_vec()), 1..=10_u64.pow(18), 0..4);
    let tags = prop::collection::btree_map("[a-z]{1,5}", "\\PC{1,9}", 0..5);
    let optional = (
        any::<Option<u64>>(),
        any::<Option<u32>>(),
        prop::option::of(0..10_i128.pow(15)),
        any::<(u32, u32)>(),
        0..4_000_000_000_000_i64,
    );
    (texts, counts, units, tags, optional, 0..3).prop_map(
        |(
            texts,
            counts,
            units,
            tags,
            (fingerprint, latency, reported, (calls, attempt), time),
            kind,
        )| {
            let mut event = Event {
                identity: spendfuse_domain::Identity(0),
                content: 0,
                source: Cow::Owned(format!("s{}", texts[0])),
                id: Cow::Owned(format!("i{}", texts[1])),
                time: UnixMillis(time.min(ARRIVAL.0)),
                flags: event::Flags::default(),
                attribution: Default::default(),
                body: Body::SessionEnd,
            };
            let who = &mut event.attribution;
            who.workspace = Cow::Owned(format!("w{}", texts[2]));
            who.customer = Cow::Owned(format!("c{}", texts[3]));
            who.session = Cow::Owned(format!("s{}", texts[4]));
            who.model = Cow::Owned(format!("m{}", texts[5]));
            let absent = who.texts_mut().into_iter().filter(|text| text.is_empty());
            for (field, text) in absent.zip(texts[6..].iter().cycle()) {
                *field = Cow::Owned(text.clone());
            }
            who.tags = tags
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)))
                .collect();
            if kind == 1 {
                event.body = Body::Revenue(Nanos::new(reported.unwrap_or(-1)));
            } else if kind == 0 {
                let mut call = event::Call::default();
                for (class, count) in TokenClass::ALL.into_iter().zip(counts) {
                    call.tokens[class] = count;
                }
                call.units.entries = units
                    .into_iter()
                    .map(|(unit, quantity)| (unit, Quantity(quantity)))
                    .collect();
                call.units.quality = Cow::Owned(texts[14].clone());
                call.units.size = Cow::Owned(texts[15].clone());
                call.operation = Cow::Owned(texts[16].clone());
                call.service_tier = Cow::Owned(texts[17].clone());
                call.call_id = Cow::Owned(texts[18].clone());
                call.status = Cow::Owned(texts[19].clone());
                call.request_model = Cow::Owned(texts[20].clone());
                call.response_id = Cow::Owned(texts[21].clone());
                call.trace_id = Cow::Owned(texts[22].clone());
                call.region = Cow::Owned(texts[23].clone());
                call.rare = Rare::from(Particulars {
                    speed: Cow::Owned(texts[12].clone()),
                    inference_geo: Cow::Owned(texts[13].clone()),
                    session_limit: latency.map(|nanos| Nanos::new(nanos.into())),
                    ..Particulars::default()
                });
                call.prompt_fingerprint = fingerprint;
                call.tool_fingerprint = fingerprint.map(u64::swap_bytes);
                call.latency_ms = latency;
                call.reported_cost = reported.map(Nanos::new);
                call.tool_calls = calls;
                call.attempt = attempt;
                if calls % 2 == 1 {
                    event.flags = event::Flags::TOLD;
                }
                event.body = Body::Usage(call);
            }
            event
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded_to_the_same(event in some_event()) {
        let json = encode(&event);
        let decoded = event::decode(&json, &[], ARRIVAL).unwrap();
        // Identity and content are computed from the rest.
        let expected = Event { identity: decoded.identity, content: decoded.content, ..event };
        prop_assert_eq!(&decoded, &expected);
        prop_assert_eq!(encode(&decoded), json.clone());
    }

    #[test]
    fn noise_is_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = event::decode(&bytes, &[], ARRIVAL);
        let _ = redact(&bytes, &[]);
    }

    /// An event with a hole or a changed byte anywhere is read or rejected, never a panic.
    #[test]
    fn damaged_events_do_not_panic(event in some_event(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut: bool) {
        let mut bytes = encode(&event);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at); } else { bytes[at] = byte; }
        let _ = event::decode(&bytes, &[], ARRIVAL);
        let _ = redact(&bytes, &[]);
    }

    /// Whatever is accepted never charges less than the largest single count, nor a class above its bound.
    #[test]
    fn accepted_usage_is_never_less_than_any_of_its_counts(
        members in prop::collection::vec(member(), 1..8),
        format in select(UsageFormat::ALL.to_vec()),
    ) {
        let json = format!("{{{}}}", members.join(","));
        if let Ok(reading) = read(format, &json, false) {
            let tokens = reading.tokens;
            prop_assert!(tokens.each().into_iter().all(|count| count <= 1_000_000_000));
            prop_assert_eq!(tokens.context() + tokens.generated(), tokens.total());
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let count = |name: &str| value.get(name).and_then(|count| count.as_u64()).unwrap_or(0);
            let (input, output) = match format {
                UsageFormat::Gemini => ("promptTokenCount", "thoughtsTokenCount"),
                UsageFormat::OpenAiChat | UsageFormat::OpenAiResponses | UsageFormat::Cohere => ("prompt_tokens", "completion_tokens"),
                UsageFormat::GeminiInteractions => ("total_input_tokens", "total_thought_tokens"),
                UsageFormat::BedrockConverse => ("inputTokens", "outputTokens"),
                _ => ("input_tokens", "output_tokens"),
            };
            prop_assert!(tokens.context() >= count(input));
            prop_assert!(tokens.generated() >= count(output));
        }
    }
}
