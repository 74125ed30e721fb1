//! Teams: an adaptive card for a workflow "post to a channel when a webhook request is received".

use serde_json::{Value, json};

use super::cut;
use crate::letter::Letter;
use crate::text::words;
use spendfuse_domain::Severity;

/// Far below the 28 KB that a card may have.
const MOST_OF_TEXT: usize = 2_000;

pub(super) fn body(letter: &Letter) -> Value {
    let words = words(letter);
    let colour = match (letter.is_all_over(), letter.severity()) {
        (true, _) => "Good",
        (_, Severity::Critical) => "Attention",
        (_, Severity::Warning) => "Warning",
        (_, Severity::Info) => "Default",
    };
    let mut card = vec![json!({
        "type": "TextBlock", "text": escaped(&words.headline), "weight": "Bolder", "size": "Medium",
        "color": colour, "wrap": true,
    })];
    let facts = words.facts.iter();
    let facts: Vec<Value> = facts
        .map(|(name, value)| json!({"title": name, "value": escaped(value)}))
        .collect();
    if !facts.is_empty() {
        card.push(json!({"type": "FactSet", "facts": facts}));
    }
    let lines = words.lines.iter().map(|line| paragraph(line, false));
    card.extend(lines);
    card.extend(words.advice.lines().map(|line| paragraph(line, false)));
    card.extend(words.notes.iter().map(|note| paragraph(note, true)));
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": card,
            },
        }],
    })
}

fn paragraph(text: &str, is_subtle: bool) -> Value {
    json!({"type": "TextBlock", "text": escaped(text), "wrap": true, "isSubtle": is_subtle})
}

/// Without what Teams takes for Markdown.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in cut(text, MOST_OF_TEXT).chars() {
        if matches!(
            one,
            '\\' | '*' | '_' | '[' | ']' | '(' | ')' | '`' | '#' | '<' | '>'
        ) {
            escaped.push('\\');
        }
        escaped.push(one);
    }
    escaped
}
