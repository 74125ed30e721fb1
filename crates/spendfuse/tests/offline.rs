//! Commands that need nothing but the binary, and what they say where Kafka is missing.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

fn spendfuse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(arguments)
        .env_remove("SPENDFUSE_KAFKA_BROKERS")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_mistake_of_a_budgets_file_is_named_with_its_place_and_what_to_write() {
    let wrong = concat!(
        "budgets:\n",
        "  - id: Acme\n",
        "    scope: {workspace: acme, costumer: \"*\"}\n",
        "    limit: 10 USD\n",
        "    window: dayly\n",
        "  - id: ok\n",
        "    scope: {workspace: acme}\n",
        "    limit: \"5\"\n",
        "    window: rolling:24h\n",
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("wrong.yaml"), wrong).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(["budgets", "validate", "wrong.yaml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let expected = "\
wrong.yaml:2:9: `Acme` cannot be an id; did you mean `acme`?
wrong.yaml:3:30: `costumer` is not a dimension of `scope`; did you mean `customer`?
wrong.yaml:4:12: `limit` cannot be `10 USD`; write `limit: \"10\"`
wrong.yaml:5:13: `window` cannot be `dayly`; did you mean `day`?
wrong.yaml:9:13: windows of kind `rolling` are not supported yet; use one of: session, root_session, hour, day, week, month, quarter, year, lifetime
";
    assert_eq!(stdout(&output), expected);
    assert_eq!(output.status.code(), Some(1));

    let places = "budgets: [{id: cap, scope: {workspace: acme}, limit: \"5\", window: day, alert: [slack-ops]}]";
    fs::write(folder.path().join("places.yaml"), places).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(["budgets", "validate", "places.yaml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = stdout(&output);
    assert!(said.starts_with("places.yaml: alert of cap: "), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_call_is_costed_without_kafka() {
    let usage = r#"{"prompt_tokens":1200,"completion_tokens":380,
        "prompt_tokens_details":{"cached_tokens":800}}"#;
    let output = spendfuse(&[
        "prices",
        "cost",
        "--provider=openai",
        "--model=gpt-4o-2024-08-06",
        "--format=openai.chat",
        "--usage",
        usage,
        "--json",
    ]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // 400 × $2.50 + 800 × $1.25 + 380 × $10.00, per million.
    assert_eq!(answer["cost_usd"], "0.0058");
    assert_eq!(answer["lines"].as_array().unwrap().len(), 3);
}

#[test]
fn events_are_explained_as_their_rows_will_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let event = r#"{"id":"r-1","workspace":"acme","provider":"openai","model":"gpt-4o","usage_format":"openai.chat","usage":{"prompt_tokens":1000,"completion_tokens":100}}"#;
    fs::write(&path, format!("{event}\n{{\"id\":\"r-2\"}}\n\n{event}\n")).unwrap();
    let output = spendfuse(&["prices", "explain", path.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "one line is no event");
    let text = stdout(&output);
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 3);
    assert_eq!(
        (&answers[2]["line"], &answers[2]["id"]),
        (&4.into(), &"r-1".into())
    );
    assert_eq!(answers[2]["cost_usd"], "0.0035");
    let why = "openai/gpt-4o (exact name); input 2.50/M, output 10.00/M";
    assert_eq!(answers[2]["price_detail"], why);
    assert_eq!(answers[1]["rejected"], "missing_field");
    let shown = stdout(&spendfuse(&["prices", "explain", event]));
    assert!(shown.contains(&format!("price    {why}\n")), "{shown}");
}

#[test]
fn an_explanation_says_which_book_it_goes_by() {
    let nobody = ["--set", "kafka.brokers=127.0.0.1:9"];
    let which = |more: &[&str]| {
        let call = ["prices", "cost", "--model=gpt-4o", "--json"];
        let output = spendfuse(&[&call[..], &nobody, more].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), answer["book"].clone())
    };
    let unasked = "inside this program; no Kafka broker answers at 127.0.0.1:9 within a second";
    assert_eq!(which(&[]), (Some(0), unasked.into()));
    let inside = "inside this program";
    assert_eq!(which(&["--book", "snapshot"]), (Some(0), inside.into()));
    assert_ne!(which(&["--from-topic"]).0, Some(0), "nobody answers");
}

#[test]
fn price_files_of_three_sources_make_one_book() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let litellm = r#"{"gpt-a":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":2e-6,"output_cost_per_token":8e-6}}"#;
    let genai = r#"[{"id":"openai","models":[{"id":"gpt-a","match":{"equals":"gpt-a"},"prices":[
        {"prices":{"input_mtok":10,"output_mtok":8}},
        {"constraint":{"start_date":"2025-06-10"},"prices":{"input_mtok":2,"output_mtok":8}}]}]}]"#;
    let models_dev = r#"{"zai":{"models":{"glm-x":{"last_updated":"2026-08-06","cost":{"input":0.5,"output":2}}}}}"#;
    fs::write(path("a"), litellm).unwrap();
    fs::write(path("b"), genai).unwrap();
    fs::write(path("c"), models_dev).unwrap();
    let (files, book) = ([path("a"), path("b"), path("c")], path("book"));
    let mut arguments = vec!["prices", "import", "--out", &book, "--json"];
    arguments.extend(files.iter().map(String::as_str));
    arguments.extend([
        "--date=2026-11-22",
        "--date=2026-11-20",
        "--date=2026-11-25",
    ]);
    let imported = spendfuse(&arguments);
    let answer: Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!(answer["added"][0]["dated"], 1, "{answer}");
    assert_eq!(answer["added"][1]["models"], 1, "{answer}");
    let rate = |model: &str, place: usize| {
        let shown = spendfuse(&["prices", "show", model, "--book", &book, "--json"]);
        let answer: Value = serde_json::from_slice(&shown.stdout).unwrap();
        answer["models"][0]["rates"][place].clone()
    };
    let before = serde_json::json!({
        "rate": "input", "usd": "10.00", "source": "genai-prices", "date": "2026-11-20",
        "effective_from": null, "effective_to": "2025-06-10T00:00:00Z",
    });
    assert_eq!(rate("openai/gpt-a", 0), before);
    assert_eq!(rate("openai/gpt-a", 2)["source"], "litellm");
    assert_eq!(rate("zai/glm-x", 0)["date"], "2026-08-06");

    let diff = |arguments: &[&str]| {
        let all = [&["prices", "diff"], arguments, &["--json"]].concat();
        let answer: Value = serde_json::from_slice(&spendfuse(&all).stdout).unwrap();
        answer
    };
    let sources = diff(&[&files[0], &files[1], "--in", &book]);
    assert_eq!(sources["models"]["in_both"], 1);
    assert_eq!(sources["equal"], 1, "output: {sources}");
    let changed = &sources["rates"][0];
    assert_eq!(
        (&changed["old_usd"], &changed["new_usd"]),
        (&"2.00".into(), &"10.00".into())
    );
    let taken = &changed["chosen"];
    assert_eq!(
        (&taken["usd"], &taken["source"]),
        (&"10.00".into(), &"genai-prices".into())
    );
    let [spring, autumn] = ["2025-03-01", "2025-09-01"].map(|day| format!("{book}@{day}"));
    let days = diff(&[&spring, &autumn]);
    assert_eq!(days["rates"].as_array().unwrap().len(), 1, "{days}");
    assert_eq!(days["rates"][0]["new_usd"], "2.00");
}

#[test]
fn a_dry_run_adds_up_only_what_would_be_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let budgets = "budgets: [{id: cap, scope: {}, limit: \"5\", window: day}]";
    fs::write(path("budgets.yaml"), budgets).unwrap();
    let event = |tokens: u32, more: &str| {
        format!(
            "{{\"id\":\"r-1\",\"workspace\":\"acme\",\"provider\":\"openai\",\"model\":\"gpt-4o\",\
             \"usage\":{{\"input_tokens\":{tokens}}}{more}}}"
        )
    };
    let lines = [
        event(1000, ""),
        event(1000, ",\"custommer\":\"c-1\""),
        event(2000, ""),
        event(5, ""),
        event(3000, "").replace("gpt-4o", "gpt-4.1"),
        event(
            1000,
            ",\"source\":\"old\",\"time\":\"2020-01-01T00:00:00Z\"",
        ),
    ];
    fs::write(path("events.ndjson"), lines.join("\n")).unwrap();
    let (events, budgets) = (path("events.ndjson"), path("budgets.yaml"));
    let dry_run = ["ingest", &events, "--dry-run", "--budgets", &budgets];
    let output = spendfuse(&dry_run);
    assert_eq!(output.status.code(), Some(1), "one is late");
    let shown = stdout(&output);
    let unknown = "1 member unknown and not sent: `custommer` (customer?)\n";
    assert!(shown.contains(unknown), "{shown}");
    let last = shown.lines().last().unwrap_or_default();
    assert!(last.starts_with("6 events, $0.005 by price book"), "{last}");
    assert!(
        last.contains("1 too old to be counted at once (late)"),
        "{last}"
    );
    assert!(last.contains("4 with the identity of one before"), "{last}");
    let json = stdout(&spendfuse(&[&dry_run[..], &["--json"]].concat()));
    let views = json.lines().map(|line| serde_json::from_str(line).unwrap());
    let told: Vec<(Value, usize)> = views
        .map(|view: Value| {
            (
                view["flags"].clone(),
                view["budgets"].as_array().unwrap().len(),
            )
        })
        .collect();
    let flags = |flag: &str| serde_json::json!([flag]);
    assert_eq!(
        told,
        [
            (serde_json::json!([]), 1),
            (flags("duplicate"), 0),
            (flags("grown"), 1),
            (flags("echo"), 0),
            (flags("conflict"), 0),
            (flags("late"), 0),
        ]
    );
    // A file with mistakes ends it as it ends `budgets apply`, all of them named.
    fs::write(&budgets, "budgets: [{id: X!, limt: 5}]").unwrap();
    let refused = spendfuse(&dry_run);
    let named = String::from_utf8(refused.stderr.clone()).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{named}");
    for mistake in ["`X!` cannot be an id", "`limt` is not a field"] {
        assert!(named.contains(mistake), "{named}");
    }
}

#[test]
fn an_event_of_several_lines_is_told_how_to_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("event.json");
    fs::write(&file, "{\n  \"id\": \"a\"\n}\n").unwrap();
    let output = spendfuse(&["prices", "explain", file.to_str().unwrap()]);
    let said = stdout(&output);
    let first = said.lines().next().unwrap_or_default();
    assert!(
        first.ends_with("one event a line: `jq -c . FILE`"),
        "{said}"
    );
}

#[test]
fn a_dry_run_names_the_scope_that_the_meter_would_count_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (events, budgets) = (path("events.ndjson"), path("budgets.yaml"));
    let scope = "{workspace: acme, root_session: \"s-1\"}";
    let budget =
        format!("budgets: [{{id: cap, scope: {scope}, limit: \"5\", window: root_session}}]");
    fs::write(&budgets, budget).unwrap();
    let event = "{\"id\":\"r-1\",\"workspace\":\"acme\",\"session\":\"s-1\",\"model\":\"gpt-4o\",\"usage\":{}}";
    fs::write(&events, event).unwrap();
    let dry_run = [
        "ingest",
        &events,
        "--dry-run",
        "--budgets",
        &budgets,
        "--json",
    ];
    let view: Value = serde_json::from_str(&stdout(&spendfuse(&dry_run))).unwrap();
    // A session without a root is its own root session.
    let met = serde_json::json!([{"budget": "cap", "scope": "acme/root_session=s-1"}]);
    assert_eq!(view["budgets"], met);
}

#[test]
fn fingerprints_are_those_of_the_test_vectors() {
    let vectors = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schemas/fingerprint-vectors.json"
    );
    let vectors: Value = serde_json::from_str(&fs::read_to_string(vectors).unwrap()).unwrap();
    let prompt = &vectors["prompt"][0];
    let setting = format!("fingerprint.key={}", prompt["key"].as_str().unwrap());
    let (system, message) = (&prompt["system"], &prompt["last_user"]);
    let output = spendfuse(&[
        "fingerprint",
        "prompt",
        "--set",
        &setting,
        "--system",
        system.as_str().unwrap(),
        message.as_str().unwrap(),
    ]);
    assert_eq!(stdout(&output).trim_end(), prompt["fingerprint"]);
}

#[test]
fn a_missing_broker_is_one_clear_line_within_ten_seconds() {
    let began = Instant::now();
    let output = spendfuse(&["budgets", "status", "--set", "kafka.brokers=127.0.0.1:1"]);
    assert!(began.elapsed() < Duration::from_secs(12));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: no Kafka broker answers at 127.0.0.1:1 (kafka.brokers, --set)"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn with_json_an_error_is_json_and_the_exit_code_says_whose_fault_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let budgets = "budgets:\n  - id: caps\n    scope: {workspace: acme}\n    limit: \"5\"\n    window: dayly\n";
    fs::write(folder.path().join("wrong.yaml"), budgets).unwrap();
    fs::write(folder.path().join("keys.toml"), "[keys]\nname = \"a\"\n").unwrap();
    let example = |name: &str| -> Value {
        let file = format!("../../schemas/examples/{name}.json");
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    };
    let nowhere = "--set=kafka.brokers=127.0.0.1:1";
    let cases: [(&[&str], i32, &str); 14] = [
        (&["budgets", "apply", "wrong.yaml"], 1, "wrong_budgets_file"),
        (&["config", "--set", "kafka.broker=x"], 2, "wrong_settings"),
        (&["config", "--config", "missing.toml"], 2, "wrong_settings"),
        (&["budget", "list"], 2, "wrong_usage"),
        (&["findings", "list", "--severity", "bad"], 2, "wrong_usage"),
        (&["budgets", "apply", "missing.yaml"], 2, "wrong_usage"),
        (&["budgets", "list", nowhere], 1, "kafka_unreachable"),
        (
            &["migrate", "--set=clickhouse.url=http://127.0.0.1:1"],
            1,
            "clickhouse_unreachable",
        ),
        (
            &["correct", "list", "--set=clickhouse.url=clickhouse:8123"],
            2,
            "wrong_settings",
        ),
        (
            &["validate-config", "--set=clickhouse.database=spend-fuse"],
            2,
            "wrong_settings",
        ),
        (
            &["validate-config", "--set=clickhouse.retention_months=0"],
            2,
            "wrong_settings",
        ),
        (
            &["validate-config", "--set=topic_prefix=prod eu."],
            2,
            "wrong_settings",
        ),
        (
            &["validate-config", "--set=log.level=inof"],
            2,
            "wrong_settings",
        ),
        (&["config", "--config", "keys.toml"], 2, "wrong_settings"),
    ];
    for (arguments, exit_code, code) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
            .args(arguments)
            .arg("--json")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(
            output.status.code(),
            Some(exit_code),
            "{arguments:?}: {said}"
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
        let lines: Vec<Value> = said
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {said}"))
            })
            .collect();
        let error = lines.last().unwrap();
        assert_eq!(error["error"]["code"], code, "{arguments:?}: {said}");
        match code {
            "wrong_budgets_file" => assert_eq!(*error, example("cli-error.details")),
            "wrong_settings" if arguments.contains(&"--set") => {
                assert_eq!(*error, example("cli-error"));
            }
            _ => assert!(error["error"]["message"].is_string(), "{said}"),
        }
    }
}

/// Without it a broker that comes back can crash the program, once in many thousand times.
#[test]
#[cfg(target_os = "linux")]
fn the_linker_has_replaced_the_function_that_reads_unwritten_memory() {
    let program = fs::read(env!("CARGO_BIN_EXE_spendfuse")).unwrap();
    let name = b"__wrap_rd_kafka_metadata_update_op";
    assert!(program.windows(name.len()).any(|bytes| bytes == name));
}

#[test]
fn secrets_come_from_variables_and_are_never_printed_and_a_typo_is_told() {
    let said = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
            .args(arguments)
            .env("SPENDFUSE_KAFKA_PROPERTIES_SASL_MECHANISM", "PLAIN")
            .env("SPENDFUSE_KAFKA_PROPERTIES_SASL_PASSWORD", "hunter2")
            .env("SPENDFUSE_CLICKHOUSE_URL", "http://bob:hunter2@db:8123")
            .env("SPENDFUSE_SIDECAR_TOKEN", "hunter2")
            .env("SPENDFUSE_CLICKHOUS_PASSWORD", "hunter2")
            .env("SPENDFUSE_PORT", "tcp://10.0.0.1:4117")
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .output()
            .unwrap();
        (stdout(&output), String::from_utf8(output.stderr).unwrap())
    };
    let (table, told) = said(&["config"]);
    assert_eq!(
        told,
        "warning: $SPENDFUSE_CLICKHOUS_PASSWORD is no setting; did you mean $SPENDFUSE_CLICKHOUSE_PASSWORD?\n"
    );
    let (json, _) = said(&["config", "--json"]);
    let (_, wrong) = said(&[
        "config",
        "--set",
        "kafka.properties.sasl.mechanism=",
        "--set",
        "partitions=x",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spendfuse.toml");
    fs::write(&file, "[clickhouse]\npassword = \"hunter2\n").unwrap();
    let (_, broken) = said(&["config", "--config", file.to_str().unwrap()]);
    assert!(broken.contains("spendfuse.toml: line 2: "), "{broken}");
    let misspelt = "kafka.properties.sasl.passwrd=hunter2";
    let (_, misspelt) = said(&["config", "--set", misspelt]);
    assert!(misspelt.contains("sasl.passwrd"), "{misspelt}");
    for text in [&table, &json, &told, &wrong, &broken, &misspelt] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["clickhouse.url"]["value"],
        "http://bob:(hidden)@db:8123"
    );
    let password = &json["kafka.properties.sasl.password"];
    assert_eq!(password["value"], "(hidden)");
    assert_eq!(
        password["source"],
        "$SPENDFUSE_KAFKA_PROPERTIES_SASL_PASSWORD"
    );
}

#[test]
fn without_the_executable_of_the_demo_it_is_said_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("spendfuse");
    fs::copy(env!("CARGO_BIN_EXE_spendfuse"), &alone).unwrap();
    let output = Command::new(&alone).arg("demo").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    let beside = folder.path().canonicalize().unwrap().join("spendfuse-demo");
    let place = format!("not at {}", beside.display());
    assert!(told.contains(&place), "{told}");
    assert!(told.contains("make demo"), "{told}");
}
