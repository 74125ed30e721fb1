//! `schemas/decision-vectors.json`: pages of standings, calls, and what the guard decides of them.
//! Followers in other languages must decide the same. The file is what this test makes of the guard:
//! where it differs the test fails, and says how it is written anew.

#![allow(clippy::unwrap_used)]

mod scene;
mod scopes;
mod verdicts;

use serde_json::json;
use spendfuse_guard::ColdStart;

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../schemas/decision-vectors.json"
);

#[test]
fn the_vectors_are_what_the_guard_decides() {
    let cases = vec![
        scopes::templates_exact_values_and_everything(),
        scopes::names_that_must_be_escaped(),
        verdicts::steps_and_the_strictest(),
        verdicts::sessions(),
        scopes::conditions(),
        verdicts::windows_that_end(),
        verdicts::old_state(),
        verdicts::cold_state("cold, where cold_start is allow", ColdStart::Allow),
        verdicts::cold_state("cold, where cold_start is block", ColdStart::Block),
        verdicts::changes(),
        scopes::keys(),
        verdicts::ceilings(),
        scopes::every_combination(),
    ];
    let description = "Test vectors of mode=\"watch\": what followers of GET /v1/blocklist?view=standings decide by themselves. Each case is played in order: a step with `page` is an answer that arrives `at_ms` after the first one, in the same moment in which it was made; a page with `rules` replaces everything known before. A step with `call` is a call at that time, and what the guard decides of it without an estimate: `budgets` are the lines whose verdict is not `ok`, strictest first, then by id.";
    let mut text = format!("{{\"description\": {}, \"cases\": [", json!(description));
    let count = cases.len();
    let mut calls = 0;
    for (index, case) in cases.iter().enumerate() {
        text.push_str(&format!("\n {{\"name\": {}, \"steps\": [", case["name"]));
        let steps = case["steps"].as_array().unwrap();
        calls += steps
            .iter()
            .filter(|step| step.get("call").is_some())
            .count();
        let lines: Vec<_> = steps.iter().map(|step| format!("\n  {step}")).collect();
        text.push_str(&lines.join(","));
        text.push_str(if index + 1 == count {
            "\n ]}"
        } else {
            "\n ]},"
        });
    }
    text.push_str("\n]}\n");
    assert!(calls > 300, "{calls}");
    for shown in [
        r#""state":"live"}"#,
        r#""state":"stale"}"#,
        r#""state":"cold"}"#,
        r#""decision":"downgrade""#,
    ] {
        assert!(text.contains(shown), "{shown}");
    }
    if std::env::var_os("SPENDFUSE_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    let differs = text
        .lines()
        .zip(written.lines())
        .find(|(made, written)| made != written);
    assert!(
        text == written,
        "schemas/decision-vectors.json is not what the guard decides, first here: {differs:?}; where that is meant, run `SPENDFUSE_WRITE_VECTORS=1 cargo test --workspace --test vectors`"
    );
}
