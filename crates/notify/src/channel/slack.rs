//! Slack's incoming webhooks: blocks, and the text that notifications show.

use serde_json::{Value, json};
use spendfuse_domain::Severity;

use super::cut;
use crate::letter::Letter;
use crate::text::words;

/// Slack's limits, characters and fields, with room for what escaping adds.
const MOST_OF_SECTION: usize = 2_900;
const MOST_OF_FIELD: usize = 1_900;
const MOST_FIELDS: usize = 10;
const MOST_NOTES: usize = 10;
const MOST_OF_TEXT: usize = 3_000;

pub(super) fn body(letter: &Letter) -> Value {
    let words = words(letter);
    let sign = match (letter.is_all_over(), letter.severity()) {
        (true, _) => ":white_check_mark:",
        (_, Severity::Critical) => ":rotating_light:",
        (_, Severity::Warning) => ":warning:",
        (_, Severity::Info) => ":information_source:",
    };
    let headline = escaped(&words.headline);
    let mut blocks = vec![section(&format!("{sign} *{headline}*"))];
    let fields: Vec<Value> = words
        .facts
        .iter()
        .take(MOST_FIELDS)
        .map(|(name, value)| {
            let text = format!("*{name}*\n{}", escaped(value));
            json!({"type": "mrkdwn", "text": cut(&text, MOST_OF_FIELD)})
        })
        .collect();
    if !fields.is_empty() {
        blocks.push(json!({"type": "section", "fields": fields}));
    }
    if !words.lines.is_empty() {
        let lines: Vec<String> = words.lines.iter().map(|line| escaped(line)).collect();
        blocks.push(section(&lines.join("\n")));
    }
    blocks.push(section(&escaped(&words.advice)));
    let notes = words.notes.iter().take(MOST_NOTES);
    let notes: Vec<Value> = notes
        .map(|note| json!({"type": "mrkdwn", "text": cut(&escaped(note), MOST_OF_FIELD)}))
        .collect();
    if !notes.is_empty() {
        blocks.push(json!({"type": "context", "elements": notes}));
    }
    json!({"text": cut(&headline, MOST_OF_TEXT), "blocks": blocks})
}

fn section(text: &str) -> Value {
    let text = cut(text, MOST_OF_SECTION);
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

/// Without what Slack takes for markup: mentions and links, and characters that format.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // A word joiner keeps them from beginning or ending bold, italic, struck and code text.
            '*' | '_' | '~' | '`' => escaped.extend(['\u{2060}', one, '\u{2060}']),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use spendfuse_domain::UnixMillis;
    use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};

    use super::*;
    use crate::letter::{Passed, What};

    const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let text = include_str!("../../tests/slack/message.schema.json");
        let schema = serde_json::from_str(text).expect("the schema is JSON");
        jsonschema::draft7::new(&schema).expect("it is a schema")
    });

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,40}",
            "\\PC{0,600}",
            "[*_~`<>&\u{0}\n\u{202e}]{0,9000}"
        ]
    }

    prop_compose! {
        fn an_alert()(
            key in text(), scope in text(), message in text(), subject in text(),
            budget in proptest::option::of(text()), model in proptest::option::of(text()),
            count in proptest::option::of(any::<u64>()),
        ) -> Alert {
            Alert {
                v: 1,
                key,
                kind: AlertKind::Finding,
                severity: Severity::Critical,
                scope,
                subject,
                message,
                at: NOON,
                count,
                details: AlertDetails {
                    budget,
                    model,
                    action: Some("block".to_owned()),
                    window: Some("day:2026-11-22".to_owned()),
                    ends_at: Some(NOON),
                    ..AlertDetails::default()
                },
            }
        }
    }

    prop_compose! {
        fn a_letter()(
            what in proptest::sample::select(vec![
                What::New, What::Reminder, What::Resolved, What::Again, What::Digest,
                What::Summary, What::Test,
            ]),
            alerts in proptest::collection::vec(an_alert(), 1..8),
            passed in proptest::collection::vec((text(), text()), 0..60),
        ) -> Letter {
            let passed = passed.into_iter().map(|(to, reason)| Passed { to, reason });
            Letter {
                id: "8f2b6c1d0e9a7743".to_owned(),
                what,
                route: "all".to_owned(),
                to: "ops".to_owned(),
                alerts,
                over: BTreeSet::new(),
                passed: passed.collect(),
                created_at: NOON,
            }
        }
    }

    /// Characters of every text object in `value`, with the field that holds it.
    fn texts<'v>(value: &'v Value, field: &'v str, found: &mut Vec<(&'v str, usize)>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| texts(item, field, found)),
            Value::Object(members) => {
                if let (Some("mrkdwn"), Some(text)) =
                    (value["type"].as_str(), value["text"].as_str())
                {
                    found.push((field, text.chars().count()));
                }
                members
                    .iter()
                    .for_each(|(name, item)| texts(item, name, found));
            }
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Slack refuses a message as a whole where one block of it breaks a rule. Lengths are those of
        /// its reference, <https://docs.slack.dev/reference/block-kit/blocks>.
        #[test]
        fn every_message_is_one_that_slack_takes(letter in a_letter()) {
            let body = body(&letter);
            let wrong: Vec<String> = SCHEMA.iter_errors(&body).map(|error| error.to_string()).collect();
            prop_assert!(wrong.is_empty(), "{wrong:?}");

            let blocks = body["blocks"].as_array().unwrap();
            prop_assert!(blocks.len() <= 50, "{} blocks", blocks.len());
            let mut found = Vec::new();
            texts(&body["blocks"], "", &mut found);
            for (field, length) in found {
                let most = if field == "text" { 3_000 } else { 2_000 };
                prop_assert!((1..=most).contains(&length), "{field} has {length} characters");
            }
            let fields = blocks.iter().filter_map(|block| block["fields"].as_array());
            prop_assert!(fields.into_iter().all(|fields| fields.len() <= 10));
        }
    }
}
