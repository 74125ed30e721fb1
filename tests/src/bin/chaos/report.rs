//! What a run found, for people and for programs.

use serde_json::{Value, json};

use crate::run::{Outcome, RunOptions};

/// The report as text.
pub fn text(options: &RunOptions, outcome: &Outcome) -> String {
    let mut lines = vec![format!(
        "seed {}: {} faults in {} s, {} node{} of Kafka",
        options.seed,
        outcome.fault_count(),
        options.length.as_secs(),
        options.nodes,
        if options.nodes == 1 { "" } else { "s" }
    )];
    for (kind, count) in &outcome.faults {
        lines.push(format!("  {count:>6}  {kind}"));
    }
    for (figure, count) in &outcome.figures {
        lines.push(format!("  {count:>6}  {figure}"));
    }
    for check in &outcome.checks {
        let result = if check.differences.is_empty() {
            "ok"
        } else {
            "WRONG"
        };
        lines.push(format!("{result:<5}  {} ({})", check.name, check.compared));
        lines.extend(
            check
                .differences
                .iter()
                .map(|one| format!("         {one}")),
        );
    }
    lines.join("\n")
}

/// The report as JSON.
pub fn json(options: &RunOptions, outcome: &Outcome) -> Value {
    let checks: Vec<Value> = outcome
        .checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "compared": check.compared,
                "differences": check.differences,
            })
        })
        .collect();
    let figures: serde_json::Map<String, Value> = outcome
        .figures
        .iter()
        .map(|(name, count)| ((*name).to_owned(), json!(count)))
        .collect();
    json!({
        "seed": options.seed,
        "seconds": options.length.as_secs(),
        "nodes": options.nodes,
        "faults": outcome.fault_count(),
        "faults_by_kind": outcome.faults,
        "figures": figures,
        "checks": checks,
        "ok": outcome.is_right(),
    })
}
