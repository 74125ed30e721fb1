//! A refusal in a sentence for the person whose call was refused.

use spendfuse_domain::Amount;
use spendfuse_domain::scope::ScopeText;
use spendfuse_guard::{BudgetLine, CheckResponse, Warning};

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
    let limit = line.figures.limit;
    let limit = limit.map_or_else(String::new, |limit| limit.to_string());
    let who = subject(&line.scope);
    if line.is_held_up {
        let shown = |amount: Option<Amount>| amount.map_or_else(String::new, |one| one.to_string());
        let (spent, reserved) = (shown(line.figures.spent), shown(line.figures.reserved));
        let pending = shown(line.figures.pending);
        return format!(
            "this call and those under way would take {who} over its {kind} budget ({limit}): {spent} is spent, {reserved} reserved, {pending} about to be counted"
        );
    }
    let remaining = line.figures.remaining();
    if remaining.is_some_and(|remaining| remaining.number() > 0) {
        format!("this call would take {who} over its {kind} budget ({limit})")
    } else {
        format!("{who} has reached its {kind} budget ({limit})")
    }
}

/// A scope for people: `customer c-42`, `customer c-42, feature agent`, `workspace acme`.
fn subject(scope: &str) -> String {
    let Some(scope) = ScopeText::parse(scope) else {
        return scope.to_owned();
    };
    let named = scope.parts.iter().map(|(dimension, value)| {
        let dimension = dimension.name().replace('_', " ");
        format!("{dimension} {value}")
    });
    let named: Vec<_> = named.collect();
    match (named.is_empty(), scope.workspace) {
        (false, _) => named.join(", "),
        (true, None) => "everything together".to_owned(),
        (true, Some(workspace)) => format!("workspace {workspace}"),
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
            ("acme/tags.te%20am=a%2Fb", "tags.te am a/b"),
            ("gr%C3%B6%C3%9Fe", "workspace größe"),
            ("*", "everything together"),
        ] {
            assert_eq!(subject(scope), words);
        }
    }
}
