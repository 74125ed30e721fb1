//! What the decoder makes of events: read, mended, rejected.

use spendfuse_domain::event::{self, Body, Call, Event, Flags, RejectReason, Rejection};
use spendfuse_domain::{Nanos, TokenClasses, UnixMillis};

const CONTRACT_EXAMPLE: &str = include_str!("../../../../schemas/examples/usage-event.json");

fn arrival() -> UnixMillis {
    UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap()
}

fn decode(json: &str) -> Result<Event<'_>, Rejection> {
    event::decode(json.as_bytes(), &[], arrival())
}

/// A structured event whose data are a minimal usage event's plus `more` (JSON members).
fn usage_event(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(
        r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"app","id":"r-1","time":"2026-11-22T10:15:30Z",
            "data":{{"workspace":"acme","model":"m","usage":{{"input_tokens":10}}{comma}{more}}}}}"#
    )
}

fn call<'e>(event: &'e Event<'_>) -> &'e Call<'e> {
    match &event.body {
        Body::Usage(call) => call,
        other => panic!("not a call: {other:?}"),
    }
}

fn reason(json: &str) -> RejectReason {
    decode(json).unwrap_err().reason
}

#[test]
fn the_contracts_example_is_read_in_full() {
    let event = decode(CONTRACT_EXAMPLE).unwrap();
    assert_eq!(
        (&*event.source, &*event.id),
        ("checkout-api", "chatcmpl-9x")
    );
    assert_eq!(event.time.to_string(), "2026-11-22T10:15:30.123Z");
    assert_eq!(event.flags, Flags::default());
    assert_eq!(event.session_key(), Some("s-0"));
    let attribution = &event.attribution;
    assert_eq!(&*attribution.customer, "c-42");
    assert_eq!(attribution.tags, [("team".into(), "growth".into())]);
    let call = call(&event);
    let expected = TokenClasses {
        input: 400,
        cache_read: 800,
        output: 252,
        reasoning: 128,
        ..TokenClasses::default()
    };
    assert_eq!(call.tokens, expected);
    assert_eq!(call.units.entries[0].1.to_string(), "2");
    assert_eq!(call.prompt_fingerprint, Some(0x9f2c_41d0_a1b2_c3d4));
    assert_eq!(call.reported_cost, Some(Nanos::new(12_300_000)));
    assert_eq!((call.tool_calls, call.attempt), (2, 1));
    assert_eq!(call.latency_ms, Some(812));
}

#[test]
fn binary_mode_reads_the_same_event_from_headers() {
    let data = r#"{"workspace":"acme","model":"m","usage":{"input_tokens":10}}"#;
    let headers: [(&str, &[u8]); 6] = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_type", b"spendfuse.usage"),
        ("ce_source", b"app"),
        ("ce_id", b"r-1"),
        ("ce_time", b"2026-11-22T10:15:30Z"),
    ];
    let binary = event::decode(data.as_bytes(), &headers, arrival()).unwrap();
    assert_eq!(binary, decode(&usage_event("")).unwrap());

    // A structured content type wins over headers that a proxy may have added.
    let structured = usage_event("");
    let headers: [(&str, &[u8]); 2] = [
        (
            "content-type",
            b"application/cloudevents+json; charset=utf-8",
        ),
        ("ce_specversion", b"1.0"),
    ];
    let read = event::decode(structured.as_bytes(), &headers, arrival()).unwrap();
    assert_eq!(binary, read);
}

#[test]
fn what_cannot_be_counted_is_rejected_with_its_reason() {
    use RejectReason::*;
    let with = |from: &str, to: &str| {
        let event = usage_event("");
        assert!(event.contains(from), "{from}");
        event.replace(from, to)
    };
    for (json, expected) in [
        ("{\"specversion\"".to_owned(), MalformedJson),
        (String::new(), MalformedJson),
        (usage_event("") + "x", MalformedJson),
        ("[1]".to_owned(), NotCloudevent),
        (r#"{"workspace":"acme"}"#.to_owned(), NotCloudevent),
        (
            with(r#""specversion":"1.0""#, r#""specversion":"0.3""#),
            NotCloudevent,
        ),
        (
            with("spendfuse.usage", "com.example.order"),
            UnsupportedType,
        ),
        (usage_event(r#""phase":"estimate""#), UnsupportedPhase),
        (usage_event(r#""phase":7"#), UnsupportedPhase),
        (with(r#""id":"r-1","#, ""), MissingField),
        (with(r#""source":"app""#, r#""source":"""#), MissingField),
        (with(r#""time":"2026-11-22T10:15:30Z","#, ""), MissingField),
        (
            with(r#""workspace":"acme""#, r#""workspace":"""#),
            MissingField,
        ),
        (
            with(r#""workspace":"acme""#, r#""workspace":[5]"#),
            MissingField,
        ),
        (with(r#""model":"m","#, ""), MissingField),
        (
            with(r#""usage":{"input_tokens":10}"#, r#""usage":null"#),
            MissingField,
        ),
        (with(r#"{"input_tokens":10}"#, "7"), BadUsage),
        (
            with(r#"{"input_tokens":10}"#, r#"{"input_tokens":-1}"#),
            BadUsage,
        ),
        (
            with(r#"{"input_tokens":10}"#, r#"{"input_tokens":1.5}"#),
            BadUsage,
        ),
        (
            with(r#"{"input_tokens":10}"#, r#"{"input_tokens":"10"}"#),
            BadUsage,
        ),
        (
            with(r#"{"input_tokens":10}"#, r#"{"input_tokens":1000000001}"#),
            BadUsage,
        ),
        (
            with(r#"{"input_tokens":10}"#, r#"{"input_tokens":1e999}"#),
            BadUsage,
        ),
        (usage_event(r#""usage_format":"frobnicate""#), BadUsage),
        (usage_event(r#""units":{"images":"-1"}"#), BadUsage),
        (usage_event(r#""reported_cost_usd":"1000000""#), BadMoney),
        (
            usage_event(&format!(r#""x":"{}""#, "y".repeat(70_000))),
            TooLarge,
        ),
    ] {
        assert_eq!(reason(&json), expected, "{json}");
    }
    let not_utf8 = event::decode(b"{\"a\":\"\xff\"}", &[], arrival());
    assert_eq!(not_utf8.unwrap_err().reason, MalformedJson);
}

#[test]
fn a_usage_object_of_another_format_is_refused_and_named() {
    let json = usage_event("").replace(
        r#"{"input_tokens":10}"#,
        r#"{"prompt_tokens":10,"completion_tokens":5}"#,
    );
    let rejection = decode(&json).unwrap_err();
    assert_eq!(rejection.reason, RejectReason::BadUsage);
    assert!(
        rejection
            .detail
            .contains(r#"set data.usage_format to "openai.chat""#)
    );
}

#[test]
fn details_say_where_and_never_quote_texts_that_may_be_prompts() {
    let secret = "my secret prompt";
    let event = usage_event("");
    for json in [
        event.replace("spendfuse.usage", secret),
        event.replace(r#""1.0""#, &format!("\"{secret}\"")),
        event.replace(r#"{"input_tokens":10}"#, &format!("\"{secret}\"")),
        event.replace("10}", &format!("\"{secret}\"}}")),
        usage_event(&format!(r#""phase":"{secret}""#)),
        usage_event(&format!(r#""usage_format":"{secret}""#)),
        event.replace(r#""data""#, &format!(r#""{secret}" "#)),
    ] {
        let detail = decode(&json).unwrap_err().detail;
        assert!(!detail.contains(secret), "{detail}");
    }
    let json = usage_event("").replace(
        r#"{"input_tokens":10}"#,
        r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":-4}}"#,
    );
    let json = json.replace(r#""model""#, r#""usage_format":"openai.chat","model""#);
    let detail = decode(&json).unwrap_err().detail;
    assert!(
        detail.contains("data.usage.prompt_tokens_details.cached_tokens"),
        "{detail}"
    );
}

#[test]
fn what_can_be_counted_is_mended_and_flagged() {
    for (more, flag) in [
        (r#""customer":[5]"#, Flags::FIELD_DROPPED),
        (r#""customer":true"#, Flags::FIELD_DROPPED),
        (r#""latency_ms":"fast""#, Flags::FIELD_DROPPED),
        (r#""tags":["a"]"#, Flags::FIELD_DROPPED),
        (r#""tags":{"a":[1]}"#, Flags::FIELD_DROPPED),
        (r#""prompt_fingerprint":"xyz""#, Flags::FIELD_DROPPED),
        (r#""reported_cost_usd":0.5"#, Flags::FIELD_DROPPED),
        (r#""session_limit_usd":"-1""#, Flags::FIELD_DROPPED),
        (r#""session_limit_usd":"much""#, Flags::FIELD_DROPPED),
        (r#""session_limit_usd":"1000000000""#, Flags::FIELD_DROPPED),
        (r#""units":{"gpu_seconds":"1"}"#, Flags::FIELD_DROPPED),
        (r#""flags":"downgraded""#, Flags::FIELD_DROPPED),
        (
            r#""flags":["downgraded","told_again","mine",7,["downgraded"]]"#,
            Flags::DOWNGRADED,
        ),
        (
            r#""flags":["compat_no_c\u0061che","\ud800"]"#,
            Flags::COMPAT_NO_CACHE,
        ),
        (
            r#""reported_cost_usd":"0.1234567891""#,
            Flags::MONEY_ROUNDED,
        ),
        (r#""prompt":"hello \ud800""#, Flags::PROMPT_REMOVED),
        (r#""messages":[{"role":"user"}]"#, Flags::PROMPT_REMOVED),
    ] {
        let json = usage_event(more);
        let event = decode(&json).unwrap();
        assert_eq!(event.flags, flag, "{more}");
    }
    let nulls =
        usage_event(r#""customer":null,"prompt":null,"tags":null,"flags":null,"latency_ms":null"#);
    assert_eq!(decode(&nulls).unwrap().flags, Flags::default());
}

#[test]
fn a_number_where_a_text_is_wanted_is_its_digits() {
    for number in ["42", "12345678901234567890123", "-7", "1.50", "4.2e1"] {
        let json = usage_event(&format!(
            r#""customer":{number},"session":{number},"tags":{{"team":{number}}}"#
        ));
        let event = decode(&json).unwrap();
        assert_eq!(event.flags, Flags::default(), "{number}");
        assert_eq!(event.attribution.customer, number);
        assert_eq!(event.session_key(), Some(number));
        assert_eq!(event.attribution.tags, [("team".into(), number.into())]);
    }
    let numbered = usage_event("").replace(r#""r-1""#, "42");
    assert_eq!(decode(&numbered).unwrap().id, "42");
}

#[test]
fn times_that_cannot_be_are_counted_at_arrival() {
    let at = |time: &str| {
        let json = usage_event("").replace("2026-11-22T10:15:30Z", time);
        let event = decode(&json).unwrap();
        (event.time, event.flags)
    };
    let just_ahead = UnixMillis::parse_rfc3339("2026-11-22T10:20:31Z").unwrap();
    assert_eq!(at("2026-11-22T10:20:31Z"), (just_ahead, Flags::default()));
    assert_eq!(
        at("2026-11-22T10:20:31.001Z"),
        (arrival(), Flags::TIME_CLAMPED)
    );
    let (time, flags) = at("yesterday");
    assert_eq!(time, arrival());
    assert!(flags.contains(Flags::TIME_CLAMPED) && flags.contains(Flags::FIELD_DROPPED));
}

#[test]
fn long_texts_keep_a_prefix_and_stay_different() {
    let long = |last: char| usage_event(&format!(r#""customer":"{}{last}""#, "ü".repeat(200)));
    let (first, second) = (long('a'), long('b'));
    let (first, second) = (decode(&first).unwrap(), decode(&second).unwrap());
    assert_eq!(first.flags, Flags::FIELD_TRUNCATED);
    let customer = &first.attribution.customer;
    assert!(customer.len() <= 256 && customer.starts_with("üüü"));
    assert_ne!(customer, &second.attribution.customer);

    let tags: Vec<String> = (0..17).map(|n| format!(r#""t{n:02}":"v""#)).collect();
    let json = usage_event(&format!(r#""tags":{{{}}}"#, tags.join(",")));
    let event = decode(&json).unwrap();
    assert_eq!(event.flags, Flags::FIELD_TRUNCATED);
    assert_eq!(event.attribution.tags.len(), 16);
    assert_eq!(event.attribution.tags[15].0, "t15");
}

#[test]
fn the_content_hash_is_over_what_is_said() {
    let hash = |json: &str| decode(json).unwrap().content;
    let base = hash(&usage_event(r#""customer":"c","user":"u""#));
    let reordered = usage_event(r#""user":"\u0075","customer":"c""#);
    assert_eq!(base, hash(&reordered));
    let later = reordered.replace("10:15:30Z", "10:15:29Z");
    assert_eq!(base, hash(&later));
    assert_ne!(base, hash(&usage_event(r#""customer":"u","user":"c""#)));
    assert_ne!(base, hash(&reordered.replace("10}", "11}")));
}

#[test]
fn a_dimension_of_a_later_release_is_content_where_it_is_there() {
    let hash = |data: &str| decode(&usage_event(data)).unwrap().content;
    let without = hash(r#""customer":"c""#);
    assert_eq!(without, hash(r#""customer":"c","project":"""#));
    assert_ne!(without, hash(r#""customer":"c","project":"p""#));
}

#[test]
fn revenue_and_session_end_have_their_own_required_fields() {
    let event = |kind: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"{kind}","source":"billing","id":"i-1","time":"2026-11-22T10:15:30Z","data":{{{data}}}}}"#
        )
    };
    let refund = event(
        "spendfuse.revenue",
        r#""workspace":"acme","customer":"c","revenue_usd":"-12.5""#,
    );
    let body = decode(&refund).unwrap().body;
    assert_eq!(body, Body::Revenue(Nanos::new(-12_500_000_000)));
    let revenue = |data| event("spendfuse.revenue", data);
    for (data, expected) in [
        (
            r#""workspace":"a","revenue_usd":"1""#,
            RejectReason::MissingField,
        ),
        (
            r#""workspace":"a","customer":"c""#,
            RejectReason::MissingField,
        ),
        (
            r#""workspace":"a","customer":"c","revenue_usd":1"#,
            RejectReason::BadMoney,
        ),
        (
            r#""workspace":"a","customer":"c","revenue_usd":"-1000000""#,
            RejectReason::BadMoney,
        ),
    ] {
        assert_eq!(reason(&revenue(data)), expected, "{data}");
    }
    let end = event(
        "spendfuse.session_end",
        r#""workspace":"acme","session":"s""#,
    );
    assert_eq!(decode(&end).unwrap().body, Body::SessionEnd);
    let nameless = event("spendfuse.session_end", r#""workspace":"acme""#);
    assert_eq!(reason(&nameless), RejectReason::MissingField);
}
