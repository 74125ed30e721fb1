//! Usage objects as the providers document them, and what they must become.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use spendfuse_domain::event::usage_format::{Reading, read};
use spendfuse_domain::event::{RejectReason, UsageFormat};
use spendfuse_domain::{TokenClass, TokenClasses, UnitKind};

#[derive(Deserialize)]
struct Golden {
    name: String,
    usage_format: String,
    usage: Value,
    tokens: BTreeMap<String, u64>,
    #[serde(default)]
    web_searches: u64,
    #[serde(default)]
    disputed: bool,
}

fn by_name(tokens: &TokenClasses) -> BTreeMap<String, u64> {
    TokenClass::ALL
        .into_iter()
        .map(|class| (class.name().to_owned(), tokens[class]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[test]
fn every_documented_payload_becomes_its_disjoint_classes() {
    let goldens: Vec<Golden> =
        serde_json::from_str(include_str!("../golden/usage_formats.json")).unwrap();
    let mut formats: Vec<UsageFormat> = Vec::new();
    for golden in goldens {
        let format = UsageFormat::from_name(&golden.usage_format).unwrap();
        formats.push(format);
        let usage = golden.usage.to_string();
        let reading = read(format, &usage, false)
            .unwrap_or_else(|rejection| panic!("{}: {rejection}", golden.name));
        assert_eq!(by_name(&reading.tokens), golden.tokens, "{}", golden.name);
        assert_eq!(reading.web_searches, golden.web_searches, "{}", golden.name);
        assert_eq!(reading.disputed, golden.disputed, "{}", golden.name);
    }
    for format in UsageFormat::ALL {
        assert!(
            formats.contains(&format),
            "no golden payload for {}",
            format.name()
        );
    }
}

/// Real Gemini counts: the classes must add up to the provider's own total.
#[test]
fn real_gemini_calls_add_up_to_their_total() {
    let mut lines = include_str!("../golden/agent_runs.csv").lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let mut calls_with_cache = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let count = |name: &str| fields[column(name)].parse::<u64>().unwrap();
        let without_total = serde_json::json!({
            "promptTokenCount": count("input"),
            "cachedContentTokenCount": count("cached"),
            "candidatesTokenCount": count("output"),
            "thoughtsTokenCount": count("thoughts"),
            "toolUsePromptTokenCount": count("tool"),
        });
        let mut with_total = without_total.clone();
        with_total["totalTokenCount"] = count("total").into();
        let (without_total, with_total) = (without_total.to_string(), with_total.to_string());
        let reading = read(UsageFormat::Gemini, &without_total, false).unwrap();
        assert_eq!(reading.tokens.total(), count("total"), "{line}");
        assert_eq!(reading.tokens.context(), count("input"), "{line}");
        let same = read(UsageFormat::Gemini, &with_total, false).unwrap();
        assert_eq!(
            same,
            Reading {
                disputed: false,
                ..reading
            },
            "{line}"
        );
        calls_with_cache += u32::from(reading.tokens.cache_read > 0);
    }
    assert!(calls_with_cache > 5, "the rows must exercise the cache");
}

#[test]
fn counts_out_of_range_are_named_by_their_path() {
    let detail = |format, json: &str| read(format, json, false).unwrap_err().detail;
    let anthropic = detail(
        UsageFormat::AnthropicMessages,
        r#"{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":"x"}}"#,
    );
    assert!(anthropic.contains("data.usage.cache_creation.ephemeral_1h_input_tokens is a text"));
    let gemini = detail(
        UsageFormat::Gemini,
        r#"{"promptTokensDetails":[{"modality":"AUDIO","tokenCount":-3}]}"#,
    );
    assert!(
        gemini.contains("data.usage.promptTokensDetails.[] is a negative number"),
        "{gemini}"
    );
    // Each count is within its bound, their sum is not.
    let sum = r#"{"promptTokenCount":900000000,"toolUsePromptTokenCount":900000000}"#;
    assert!(read(UsageFormat::Gemini, sum, false).is_err());
}

#[test]
fn a_call_without_tokens_needs_an_empty_object_or_units() {
    let nothing = Reading::default();
    assert_eq!(
        read(UsageFormat::Spendfuse, "{}", false),
        Ok(nothing.clone())
    );
    let foreign = r#"{"type":"frames","duration":12}"#;
    assert_eq!(read(UsageFormat::OpenAiChat, foreign, true), Ok(nothing));
    assert!(read(UsageFormat::OpenAiChat, foreign, false).is_err());
}

#[test]
fn a_refusal_names_the_format_that_reads_all_of_it() {
    for (given, json, advice) in [
        (
            UsageFormat::Gemini,
            r#"{"input_tokens":10,"cache_read_input_tokens":80,"output_tokens":3}"#,
            "anthropic.messages",
        ),
        (
            UsageFormat::BedrockConverse,
            r#"{"input_tokens":90,"input_tokens_details":{"cached_tokens":80},"output_tokens":3,"total_tokens":93}"#,
            "openai.chat",
        ),
        (
            UsageFormat::Spendfuse,
            r#"{"inputTokens":90,"cachedInputTokens":80,"outputTokens":3,"totalTokens":93}"#,
            "otel",
        ),
        (
            UsageFormat::OpenAiChat,
            r#"{"inputTokens":10,"cacheReadInputTokens":80,"outputTokens":3,"totalTokens":93}"#,
            "bedrock.converse",
        ),
    ] {
        let detail = read(given, json, false).unwrap_err().detail;
        let expected = format!("it looks like \"{advice}\"");
        assert!(detail.contains(&expected), "{json}: {detail}");
    }
    let total = read(UsageFormat::Gemini, r#"{"count":3,"total":93}"#, false).unwrap_err();
    assert!(!total.detail.contains("looks like"), "{total:?}");
}

/// Cached tokens of sound and images are told besides, never more of them than were cached, and at least
/// those that have no place beside the cached ones.
#[test]
fn cached_sound_and_images_are_units_besides() {
    for (format, json, expected) in [
        (
            UsageFormat::OpenAiResponses,
            r#"{"input_tokens":90,"input_tokens_details":{"audio_tokens":60,"cached_tokens":50,"cached_tokens_details":{"audio_tokens":40,"image_tokens":7}}}"#,
            vec![
                (UnitKind::CachedAudioTokens, 40_u64),
                (UnitKind::CachedImageTokens, 7),
            ],
        ),
        (
            UsageFormat::Otel,
            r#"{"gen_ai.usage.input_tokens":90,"gen_ai.usage.audio.cache_read.input_tokens":40}"#,
            vec![(UnitKind::CachedAudioTokens, 40_u64)],
        ),
        (
            UsageFormat::Gemini,
            r#"{"promptTokenCount":90,"cacheTokensDetails":[{"modality":"TEXT","tokenCount":9}]}"#,
            vec![],
        ),
        (
            UsageFormat::Gemini,
            r#"{"promptTokenCount":90,"cachedContentTokenCount":80,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":85},{"modality":"TEXT","tokenCount":5}]}"#,
            vec![(UnitKind::CachedAudioTokens, 75_u64)],
        ),
    ] {
        let reading = read(format, json, false).unwrap();
        assert_eq!(reading.units, expected, "{json}");
        assert_eq!(reading.tokens.context(), 90, "{json}");
    }
}

/// Many counts of one thing add up, and no sum is more than one count may be.
#[test]
fn searches_that_add_up_to_too_many_are_refused() {
    let search = r#"{"type":"google_search","count":1000000000}"#;
    let list = |times: usize| {
        let searches = vec![search; times].join(",");
        format!(r#"{{"total_input_tokens":1,"grounding_tool_count":[{searches}]}}"#)
    };
    let format = UsageFormat::GeminiInteractions;
    let single = list(1);
    let one = read(format, &single, false).unwrap();
    assert_eq!(one.web_searches, 1_000_000_000);
    for times in [2, 20] {
        let refused = read(format, &list(times), false).unwrap_err();
        assert_eq!(refused.reason, RejectReason::BadUsage, "{times}");
    }
}

/// A list that is not empty is no object, nor is an empty one deep inside, where nobody knows what was
/// in it before the event was kept.
#[test]
fn only_an_empty_list_is_an_object_without_members() {
    let details = |json: &str| {
        let json = format!(r#"{{"prompt_tokens":10,"prompt_tokens_details":{json}}}"#);
        read(UsageFormat::OpenAiChat, &json, false).is_ok()
    };
    assert!(details("[]") && details("[ ]"));
    assert!(!details("[0]") && !details("[{}]") && !details("\"\""));
    let written = |json: &str| details(&format!(r#"{{"cache_creation":{json}}}"#));
    assert!(written("[]") && written("[ ]") && !written("[7]"));
    let deep = format!("{}[]{}", r#"{"usage":"#.repeat(20), "}".repeat(20));
    assert!(read(UsageFormat::BedrockConverse, &deep, false).is_err());
}
