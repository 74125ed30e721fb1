//! Questions that were misspelt: what would be refused is not allowed without a word.

use serde_json::Value;
use spendfuse_tests::{PATIENCE, eventually};

use crate::refusing::{REFUSED, Refusing, ask_at, start_sidecar};

/// The refused question with a typo in it.
const MISSPELT: &str = "workspace=acme&custommer=c-1";

#[test]
fn a_typo_is_told_and_counted_and_a_strict_sidecar_refuses_it() {
    let lenient = Refusing::new("misspelt", &[]);
    let told = lenient.ask(&format!("/v1/authz?{MISSPELT}"));
    let warnings = told.header("x-spendfuse-warnings").unwrap_or_default();
    assert_eq!(told.status, 200, "{told:?}");
    assert!(warnings.contains("did you mean `customer`?"), "{told:?}");
    let nothing = lenient.ask("/v1/authz");
    let warnings = nothing.header("x-spendfuse-warnings").unwrap_or_default();
    assert!(warnings.contains("no_workspace"), "{nothing:?}");
    let metrics = lenient.ask("/metrics").body;
    for fault in ["unknown_field", "no_workspace"] {
        let series = "spendfuse_check_faults_total{";
        let counted = |line: &&str| {
            line.starts_with(series) && line.contains(fault) && line.contains("authz")
        };
        let line = metrics.lines().find(counted);
        assert!(
            line.is_some_and(|line| line.ends_with(" 1")),
            "{fault}: {metrics}"
        );
    }

    // So does the command, which has no sidecar to be strict.
    let said = lenient.lab.must(&["check", "--customer", "c-1", "--json"]);
    let answer: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(answer["warnings"][0]["type"], "no_workspace", "{answer}");
    // It answers as a sidecar does, estimates included.
    let unknown = ["--model", "no-such-model", "--input-tokens", "10"];
    let asked = [&["check", "--customer", "c-1", "--json"], &unknown[..]].concat();
    let said = lenient.lab.must(&asked);
    let answer: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("unknown_model"), "{answer}");

    let settings = [("sidecar.strict", "true")];
    let (_role, strict) = start_sidecar(&lenient.lab, "2", &settings);
    for (question, status) in [
        (MISSPELT, 400),
        ("", 400),
        ("workspace=acme&custommer=c-1&deny_status=403", 403),
        ("workspace=acme&customer=c-2", 200),
        (REFUSED, 429),
    ] {
        let path = format!("/v1/authz?{question}");
        eventually(question, PATIENCE, || {
            let answer = ask_at(strict, &path);
            match answer.status == status {
                true => Ok(()),
                false => Err(format!("{answer:?}")),
            }
        });
    }
}
