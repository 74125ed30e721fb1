//! `/openapi.json`: whole, true of what is served, and in the eyes of others valid.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{Bench, bench, config};

async fn document() -> Value {
    let answer = bench(config(), None).get("/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.json
}

/// Every `$ref` in a document.
fn references<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|one| references(one, found));
        }
        Value::Array(elements) => elements.iter().for_each(|one| references(one, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_refers_to_nothing_that_is_not_in_it() {
    let document = document().await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for target in found {
        let pointer = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{target}"));
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(!document.to_string().contains("x-spendfuse-parameters"));
}

#[tokio::test]
async fn the_document_names_the_paths_and_methods_that_are_served() {
    let document = document().await;
    let paths = document["paths"].as_object().unwrap();
    let bench = bench(config(), None);
    for (path, operations) in paths {
        for method in ["GET", "POST", "DELETE"] {
            let request = Request::builder()
                .method(method)
                .uri(path.replace("{path}", "v1/chat/completions"))
                .header("content-type", "application/json");
            let answer = bench.ask(request.body(Body::from("{}")).unwrap()).await;
            let named = operations.get(method.to_lowercase()).is_some();
            let takes_any = path.starts_with("/v1/authz");
            let served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(
                served,
                named || takes_any,
                "{method} {path}: {}",
                answer.status
            );
            assert_ne!(answer.json["error"]["code"], "not_found", "{path}");
            if named {
                let status = answer.status.as_str();
                let answers = &operations[method.to_lowercase()]["responses"];
                assert!(answers.get(status).is_some(), "{method} {path}: {status}");
            }
        }
    }
    // The other way round: what is served is named.
    let routes = include_str!("../../src/http/mod.rs");
    let routes = routes.split(".route(\"").skip(1);
    let mut served: BTreeSet<String> = routes
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    // Answered without the router.
    let questions = ["/v1/check", "/v1/authz", "/v1/authz/{path}"];
    served.extend(questions.map(str::to_owned));
    assert_eq!(served, paths.keys().cloned().collect());
    let missing = bench.get("/v1/chek").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(
        missing.json["error"]["message"]
            .to_string()
            .contains("/openapi.json")
    );
}

#[tokio::test]
async fn bodies_are_as_the_document_says() {
    let document = document().await;
    let conforms = |name: &str, body: &Value| {
        let schema = json!({
            "$ref": format!("#/components/schemas/{name}"),
            "components": document["components"],
        });
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let faults = validator.iter_errors(body).map(|fault| fault.to_string());
        let faults: Vec<String> = faults.collect();
        assert!(faults.is_empty(), "{name}: {faults:?} in {body}");
        assert!(
            !validator.is_valid(&json!({"error": 1, "estimate": 1})),
            "{name}"
        );
    };
    let bench = Bench::with_a_blocked_customer(config());
    let question = json!({"customer": "c-42", "custommer": 7});
    conforms("check-request", &question);
    let check = bench.post("/v1/check", question.to_string()).await;
    conforms("check-response", &check.json);
    conforms("error", &bench.post("/v1/check", "[]").await.json);
    conforms("error", &bench.get("/nothing").await.json);
    conforms(
        "authz-error",
        &bench.get("/v1/authz?customer=c-42").await.json,
    );
    conforms(
        "state-response",
        &bench.get("/v1/state?customer=c-42").await.json,
    );
    conforms("blocklist-page", &bench.get("/v1/blocklist").await.json);
    let standings = bench.get("/v1/blocklist?view=standings").await;
    conforms("blocklist-standings", &standings.json);
    let event = crate::support::call("r-1");
    let usage = bench.post("/v1/usage", event.to_string()).await;
    assert_eq!(usage.status, StatusCode::ACCEPTED);
    conforms("usage-response", &usage.json);
}

#[tokio::test]
async fn a_validator_that_is_not_ours_finds_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document().await.to_string()).unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let installed = Command::new(repository.join("scripts/python-venv"))
        .arg(repository.join("tests/clients/requirements.txt"))
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "{why}");
    let environment = String::from_utf8(installed.stdout).unwrap();
    let validated = Command::new(Path::new(environment.trim()).join("bin/python"))
        .args(["-m", "openapi_spec_validator"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(validated.status.success(), "{validated:?}");
}
