//! Slack's incoming webhooks: blocks, and the text that notifications show.

use serde_json::{Value, json};
use spendfuse_domain::Severity;

use super::cut;
use crate::letter::{Letter, What};
use crate::text::words;

/// Slack's limits, characters and fields, with room for what escaping adds.
const MOST_OF_SECTION: usize = 2_900;
const MOST_OF_FIELD: usize = 1_900;
const MOST_FIELDS: usize = 10;
const MOST_OF_TEXT: usize = 3_000;

pub(super) fn body(letter: &Letter) -> Value {
    let words = words(letter);
    let sign = match (letter.what, letter.severity()) {
        (What::Resolved, _) => ":white_check_mark:",
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
    for note in &words.notes {
        let text = cut(&escaped(note), MOST_OF_FIELD);
        blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}));
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
