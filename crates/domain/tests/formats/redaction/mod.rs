//! What is kept of an event's bytes: everything that is counted, nothing that was said.

mod properties;

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{
    Body, MAX_TEXT_BYTES, RejectReason, UsageFormat, decode, redact, redact_bytes, redact_header,
    usage_format::{Reading, read},
};

const ARRIVAL: UnixMillis = UnixMillis(1_795_000_000_000);

fn event_with(envelope: Vec<(&str, Value)>, data: Vec<(&str, Value)>) -> String {
    let object = |base: Value, more: Vec<(&str, Value)>| {
        let mut object: Map<String, Value> = serde_json::from_value(base).unwrap();
        object.extend(
            more.into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Value::Object(object)
    };
    let base = json!({"workspace": "acme", "model": "m", "usage": {"input_tokens": 10}});
    let data = object(base, data);
    let base = json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": "r-1",
        "time": "2026-11-18T10:15:30Z", "data": data});
    object(base, envelope).to_string()
}

/// Details stand in the headers of the DLQ.
#[test]
fn what_is_wrong_with_an_event_is_told_without_repeating_it() {
    for member in [
        r#""units":{"HIDDEN name":-1}"#,
        r#""units":{"HIDDEN name":"99999999999999"}"#,
        r#""units":{"requests":"HIDDEN text"}"#,
        r#""units":{"requests":-1,"HIDDEN name":1}"#,
        r#""usage":{"HIDDEN name":-1,"input_tokens":-1}"#,
        r#""usage":{"input_tokens":"HIDDEN text"}"#,
        r#""usage":"HIDDEN text""#,
        r#""usage_format":"HIDDEN text""#,
        r#""phase":"HIDDEN text""#,
        r#""reported_cost_usd":"HIDDEN text""#,
        r#""workspace":["HIDDEN text"]"#,
        r#""model":{"HIDDEN name":"HIDDEN text"}"#,
    ] {
        let text = format!(
            r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"s","id":"i","time":"2026-11-18T10:00:00Z","data":{{"workspace":"w","model":"m","usage":{{"input_tokens":1}},{member}}}}}"#
        );
        match decode(text.as_bytes(), &[], ARRIVAL) {
            Ok(event) => assert!(
                event.flags.names().any(|name| name == "field_dropped"),
                "{text}"
            ),
            Err(rejection) => assert!(!rejection.detail.contains("HIDDEN"), "{rejection}"),
        }
    }
}

/// Every number with its path.
fn numbers(value: &Value, path: String, found: &mut Vec<(String, String)>) {
    match value {
        Value::Number(number) => found.push((path, number.to_string())),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                numbers(item, format!("{path}/{index}"), found);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                numbers(member, format!("{path}/{name}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_number_of_the_providers_usage_objects_stays() {
    let goldens: Vec<Value> =
        serde_json::from_str(include_str!("../../golden/usage_formats.json")).unwrap();
    for golden in goldens {
        let mut usage = golden["usage"].clone();
        let format = UsageFormat::from_name(golden["usage_format"].as_str().unwrap()).unwrap();
        let given = usage.to_string();
        let reading = read(format, &given, false).unwrap();
        // What providers may add: numbers that nobody knows yet, beside texts.
        usage["new_tokens"] = json!({"a": [1, 2.5], "b": {"c": 3}, "label": "AUDIO"});
        usage["said"] = json!("x".repeat(65));
        let event = event_with(
            vec![],
            vec![
                ("usage", usage.clone()),
                ("usage_format", golden["usage_format"].clone()),
            ],
        );
        let kept = redact(event.as_bytes(), &[]);
        let kept: Value = serde_json::from_slice(&kept.value).unwrap();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        numbers(&usage, String::new(), &mut before);
        numbers(&kept["data"]["usage"], String::new(), &mut after);
        assert_eq!(before, after);
        assert_eq!(kept["data"]["usage"]["new_tokens"]["label"], "AUDIO");
        assert_eq!(kept["data"]["usage"]["said"], "[removed]");
        let kept = kept["data"]["usage"].to_string();
        let again = read(format, &kept, false).unwrap();
        // The number that was put in is still there to be seen.
        assert!(again.unread.is_some(), "{kept}");
        let again = Reading {
            unread: None,
            ..again
        };
        assert_eq!(reading, again);
    }
}

/// What a schema names is read, and what is read is kept.
#[test]
fn every_member_of_the_schemas_stays() {
    for schema in [
        include_str!("../../../../../schemas/usage-event.schema.json"),
        include_str!("../../../../../schemas/revenue-event.schema.json"),
        include_str!("../../../../../schemas/session-end-event.schema.json"),
    ] {
        let schema: Value = serde_json::from_str(schema).unwrap();
        let names = |properties: &Value| -> Vec<String> {
            properties.as_object().unwrap().keys().cloned().collect()
        };
        let envelope = names(&schema["properties"]);
        let data = names(&schema["properties"]["data"]["properties"]);
        let null = |names: &[String]| -> Map<String, Value> {
            names
                .iter()
                .map(|name| (name.clone(), Value::Null))
                .collect()
        };
        let mut event = null(&envelope);
        event.insert("data".to_owned(), Value::Object(null(&data)));
        let event = Value::Object(event);
        let text = event.to_string();
        let kept = redact(text.as_bytes(), &[]);
        assert_eq!(kept.removed.names, Vec::<String>::new());
        assert_eq!(serde_json::from_slice::<Value>(&kept.value).unwrap(), event);
    }
}

#[test]
fn unreadable_values_are_kept_byte_for_byte() {
    for text in [
        "{\"prompt\": \"x",
        "",
        "prompt: tell me",
        "{\"specversion\":\"1.0\"} x",
    ] {
        let kept = redact(text.as_bytes(), &[]);
        assert_eq!(&*kept.value, text.as_bytes());
        let reason = decode(text.as_bytes(), &[], ARRIVAL).unwrap_err().reason;
        assert_eq!(reason, RejectReason::MalformedJson);
    }
    assert_eq!(&*redact(b"\xff{", &[]).value, b"\xff{");
}

#[test]
fn half_a_surrogate_pair_that_decoding_passes_over_lets_no_prompt_in() {
    let event = |envelope: &str, usage: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","type":"spendfuse.usage","source":"s","id":"i","time":"2026-11-18T10:00:00Z"{envelope},"data":{{"workspace":"w","model":"m","prompt":"HIDDEN","usage":{{"input_tokens":1{usage}}}{data}}}}}"#
        )
    };
    let half = r#""HIDDEN \ud800""#;
    let mut read = 0;
    for text in [
        event(&format!(r#","subject":{half}"#), "", ""),
        event(&format!(r#","dataschema":{half}"#), "", ""),
        event(&format!(r#","datacontenttype":{half}"#), "", ""),
        event(&format!(r#","extension":{half}"#), "", ""),
        event("", &format!(r#","note":{half}"#), ""),
        event("", &format!(r#","notes":[1,{half}]"#), ""),
        event("", &format!(r#","notes":{{"a":{{{half}:1}}}}"#), ""),
        event("", "", &format!(r#","choices":{{{half}:{half}}}"#)),
        event(
            "",
            "",
            &format!(r#","units":{{"requests":"1","quality":{half}}}"#),
        ),
        event(
            "",
            "",
            &format!(r#","units":{{"requests":"1","note":{half}}}"#),
        ),
        event("", "", &format!(r#","tags":{{"team":{half}}}"#)),
        event("", "", &format!(r#","region":{half}"#)),
        event("", "", &format!(r#","output":{half}"#)),
    ] {
        let original = decode(text.as_bytes(), &[], ARRIVAL);
        let kept = redacted(&text);
        match original {
            // What is not readable at all is kept byte for byte.
            Err(rejection) => assert_eq!(rejection.reason, RejectReason::MalformedJson, "{text}"),
            Ok(original) => {
                read += 1;
                assert!(!kept.contains("HIDDEN"), "{kept}");
                let again = decode(kept.as_bytes(), &[], ARRIVAL).expect(&kept);
                assert_eq!(again.content, original.content, "{kept}");
                assert_eq!(again.identity, original.identity, "{kept}");
            }
        }
    }
    assert!(read >= 8, "{read}");
}

fn redacted(text: &str) -> String {
    let redacted = redact(text.as_bytes(), &[]);
    String::from_utf8(redacted.value.into_owned()).unwrap()
}

#[test]
fn known_members_stay_as_they_are_written_and_others_go() {
    let removed = redact(
        br#"{ "specversion":"1.0","prompt":"a","data": {"model":"m", "prompt" : [{"a":"b}"}],"choices":[1],"usage":{"output":"2","x":{"y":[1.50,"s"]}},"out\u0070ut":"x\"y" , "content":null}}"#,
        &[],
    );
    assert_eq!(
        std::str::from_utf8(&removed.value),
        Ok(
            r#"{"specversion":"1.0","data":{"model":"m","prompt":"[removed]","usage":{"output":"2","x":{"y":[1.50,"s"]}},"output":"","content":null}}"#
        )
    );
    assert_eq!(removed.removed.count, 2);
    assert_eq!(removed.removed.names, ["prompt", "data.choices"]);
    for kept in [
        r#"{"specversion":"1.0", "data":{"workspace":"a","tags":{"t":"x"}}, "id":1.0e5}"#,
        r#"{"id":"1","model":"m"}"#,
        "not json, prompt: tell me",
        r#"{"prompt": "x "y" z"}"#,
        "[]",
        "7",
    ] {
        let redacted = redact(kept.as_bytes(), &[]);
        assert!(matches!(redacted.value, Cow::Borrowed(_)), "{kept}");
    }
}

#[test]
fn of_wrong_types_only_the_type_stays() {
    assert_eq!(
        redacted(
            r#"{"specversion":"1.0","source":["secret"],"data":{"customer":{"s":"secret"},"tags":"secrets secrets","units":["secret"],"usage":"2"}}"#
        ),
        r#"{"specversion":"1.0","source":[],"data":{"customer":{},"tags":"[removed]","units":[],"usage":"2"}}"#
    );
    for (text, kept) in [
        (
            r#"{"specversion":"1.0","data":"a secret"}"#,
            r#"{"specversion":"1.0","data":""}"#,
        ),
        (r#""a secret""#, "\"\""),
        (r#"["secret",{"id":"1","x":2}]"#, r#"["",{"id":"1"}]"#),
    ] {
        assert_eq!(redacted(text), kept);
    }
}

#[test]
fn binary_mode_is_told_by_its_headers() {
    let value = br#"{"specversion":"x","model":"m","id":"secret"}"#;
    let redacted = redact(value, &[("ce_specversion", b"1.0")]);
    assert_eq!(&*redacted.value, br#"{"model":"m"}"#);
}

#[test]
fn depth_ends_before_the_stack_does() {
    let deep = format!(
        r#"{{"usage":{}7{}}}"#,
        "[".repeat(30_000),
        "]".repeat(30_000)
    );
    assert!(redacted(&deep).len() < 60);
}

#[test]
fn long_headers_and_keys_are_cut_and_an_identity_in_headers_stays() {
    let data = br#"{"workspace":"acme","model":"m","usage":{"input_tokens":10}}"#;
    let (id, trace) = ("i".repeat(5000), vec![b'\xff'; 5000]);
    let headers: [(&str, &[u8]); 6] = [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"spendfuse.usage"),
        ("ce_source", b"app"),
        ("ce_id", id.as_bytes()),
        ("ce_time", b"2026-11-18T10:15:30Z"),
        ("trace", &trace),
    ];
    let kept: Vec<(Cow<'_, str>, Cow<'_, [u8]>)> = headers
        .iter()
        .map(|(name, value)| redact_header(name, value))
        .collect();
    let kept: Vec<(&str, &[u8])> = kept
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert!(kept.iter().all(|(_, value)| value.len() <= 1024));
    assert_eq!(kept[0], headers[0]);
    let (event, again) = (
        decode(data, &headers, ARRIVAL),
        decode(data, &kept, ARRIVAL),
    );
    assert_eq!(event.unwrap(), again.unwrap());

    let (whole, long) = ([7; 1024], [7; 1025]);
    assert_eq!(&*redact_bytes(&whole), &whole);
    let cut = redact_bytes(&long);
    assert!(cut.len() == 1024 && cut.starts_with(&[7; 1007]) && cut[1007] == b'~');
}

/// Words of a usage object decide its price: what is not kept of them is not read of them either.
#[test]
fn long_words_of_a_usage_object_are_read_as_they_are_kept() {
    for (long, digits) in [("arn:aws:bedrock/", "x"), ("1", "1")] {
        let word = format!("{long}{}", digits.repeat(3_000));
        let event =
            json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s", "id": "i",
            "time": "2026-11-22T10:00:00Z", "data": {"workspace": "w", "provider": "anthropic",
            "model": "m", "usage_format": "anthropic.messages", "usage": {"input_tokens": 5,
            "output_tokens": 1, "service_tier": word, "speed": word, "inference_geo": word,
            "iterations": [{"type": "advisor_message", "model": word, "output_tokens": 3}]}}})
            .to_string();
        let kept = redact(event.as_bytes(), &[]);
        let arrived = decode(event.as_bytes(), &[], ARRIVAL).unwrap();
        assert_eq!(decode(&kept.value, &[], ARRIVAL).unwrap(), arrived);
        let Body::Usage(call) = &arrived.body else {
            panic!("the type says usage");
        };
        for text in [
            &call.service_tier,
            &call.rare.speed,
            &call.rare.sub_calls[0].model,
        ] {
            assert!(text.len() <= MAX_TEXT_BYTES, "{} bytes", text.len());
        }
    }
}

#[test]
fn a_call_has_so_many_parts_at_most() {
    let event = |parts: usize| {
        json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s", "id": "i",
            "time": "2026-11-22T10:00:00Z", "data": {"workspace": "w", "provider": "anthropic",
            "model": "m", "usage_format": "anthropic.messages", "usage": {"input_tokens": 5,
            "output_tokens": 1, "iterations": vec![json!({"type": "compaction"}); parts]}}})
        .to_string()
    };
    assert!(decode(event(256).as_bytes(), &[], ARRIVAL).is_ok());
    let rejection = decode(event(257).as_bytes(), &[], ARRIVAL).unwrap_err();
    assert!(
        rejection.detail.contains("256 parts"),
        "{}",
        rejection.detail
    );
}
