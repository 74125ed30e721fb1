//! A refusal in a sentence for the person whose call was refused.

use spendfuse_guard::{BudgetLine, CheckResponse, CountLine, Warning};

use crate::percent;

pub(super) fn amounts_known(line: &BudgetLine) -> bool {
    line.limit_usd.is_some() || line.counts.is_some()
}

/// Spent and limit, for people.
pub(super) fn amounts(line: &BudgetLine) -> (Option<String>, Option<String>) {
    let dollars = |text: &String| format!("${text}");
    match &line.counts {
        None => (
            line.spent_usd.as_ref().map(dollars),
            line.limit_usd.as_ref().map(dollars),
        ),
        Some(CountLine::Tokens {
            spent_tokens,
            limit_tokens,
            ..
        }) => (
            Some(format!("{spent_tokens} tokens")),
            Some(format!("{limit_tokens} tokens")),
        ),
        Some(CountLine::Calls {
            spent_calls,
            limit_calls,
            ..
        }) => (
            Some(format!("{spent_calls} calls")),
            Some(format!("{limit_calls} calls")),
        ),
    }
}

/// The budget's own words, else `customer c-42 has reached its daily budget ($5.00)`.
pub(super) fn message(line: &BudgetLine, answer: &CheckResponse) -> String {
    if let Some(message) = &line.message {
        return message.clone();
    }
    let mut warnings = answer.warnings.iter();
    let about_line = |budget: &Option<String>| budget.as_deref() == Some(&*line.budget);
    let is_stale = |warning: &Warning| warning.kind == "stale" && about_line(&warning.budget);
    if let Some(stale) = warnings.find(|warning| is_stale(warning)) {
        return stale.message.clone();
    }
    let kind = line.window.split(':').next().unwrap_or_default();
    let kind = match kind {
        "hour" => "hourly",
        "day" => "daily",
        "week" => "weekly",
        "month" => "monthly",
        "quarter" => "quarterly",
        "year" => "yearly",
        "root_session" => "session",
        other => other,
    };
    let limit = amounts(line).1.unwrap_or_default();
    let who = subject(&line.scope);
    if has_remainder(line) {
        format!("this call would take {who} over its {kind} budget ({limit})")
    } else {
        format!("{who} has reached its {kind} budget ({limit})")
    }
}

fn has_remainder(line: &BudgetLine) -> bool {
    match &line.counts {
        None => line.remaining_usd.as_deref() != Some("0.00"),
        Some(CountLine::Tokens {
            remaining_tokens: remaining,
            ..
        })
        | Some(CountLine::Calls {
            remaining_calls: remaining,
            ..
        }) => *remaining > 0,
    }
}

/// A scope for people: `customer c-42`, `customer c-42, feature agent`, `workspace acme`.
fn subject(scope: &str) -> String {
    let mut parts = scope.split('/');
    let workspace = parts.next().unwrap_or_default();
    let named = parts.filter_map(|part| {
        let (dimension, value) = part.split_once('=')?;
        let dimension = dimension.replace('_', " ");
        Some(format!(
            "{dimension} {}",
            percent::decoded(value.as_bytes())
        ))
    });
    let named: Vec<_> = named.collect();
    match (named.is_empty(), workspace) {
        (false, _) => named.join(", "),
        (true, "*") => "everything together".to_owned(),
        (true, workspace) => format!("workspace {}", percent::decoded(workspace.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_named_for_people() {
        for (scope, words) in [
            ("acme/customer=c-42", "customer c-42"),
            (
                "acme/customer=c%2042/feature=agent",
                "customer c 42, feature agent",
            ),
            ("gr%C3%B6%C3%9Fe", "workspace größe"),
            ("*", "everything together"),
        ] {
            assert_eq!(subject(scope), words);
        }
    }
}
