//! `spendfuse rerate`: calls of a model without a price are charged at a ceiling and block; once their
//! price is known they get it, exactly and once, whoever is killed in between.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use spendfuse_tests::lab::spendfuse;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, Role, eventually};

const BUDGETS: &str = r#"
budgets:
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "0.02", window: day, count_unpriced: block}
  - {id: everything, scope: {}, limit: "500", window: lifetime}
"#;
/// What a call costs at 1 USD a million tokens, nano-dollars.
const PRICED: i128 = 2_400_000;

/// A call of 2,400 tokens.
fn event(id: &str, customer: &str, model: &str) -> String {
    json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": id,
        "time": now().to_string(),
        "data": {"workspace": "acme", "customer": customer, "tags": {"team": "growth"},
                 "provider": "openai", "model": model, "usage": {"input_tokens": 2400}},
    })
    .to_string()
}

fn send(lab: &Lab, lines: &[String]) {
    let file = lab.file("events.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    lab.must(&["ingest", file.to_str().unwrap()]);
}

fn rerate(lab: &Lab, arguments: &[&str]) -> Value {
    let said = lab.must(&[&["rerate", "--by", "tester", "--json"], arguments].concat());
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn set_price(lab: &Lab, model: &str) -> String {
    let said = lab.must(&[
        "prices",
        "set",
        model,
        "input=1.00",
        "output=2.00",
        "--json",
    ]);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    answer["version"].as_str().unwrap().to_owned()
}

fn await_calls(lab: &Lab, customer: &str, calls: i128) {
    eventually("calls are rows", PATIENCE, || {
        match lab.sums_of(customer)[0] {
            found if found == calls => Ok(()),
            found => Err(format!("{found}")),
        }
    });
}

/// Rows of kind `rerate`, and what they change calls, tokens and nano-dollars by.
fn rerated(lab: &Lab) -> Vec<i128> {
    let sql = "SELECT count(), sum(calls), sum(input_tokens), toInt64(sum(cost) * 1000000000) \
         FROM spend WHERE kind = 'rerate'";
    lab.warehouse().numbers(sql).unwrap()
}

#[test]
fn a_block_at_a_ceiling_is_lifted_once_the_price_is_known() {
    let lab = Lab::new("rerate");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let calls: Vec<String> = (0..3)
        .map(|n| event(&format!("r-{n}"), "c-1", "gpt-nova-9"))
        .collect();
    send(&lab, &calls);
    lab.await_decision(&["--customer", "c-1"], "block", PATIENCE);
    await_calls(&lab, "c-1", 3);
    let at_ceiling = lab.sums_of("c-1")[2];
    assert!(at_ceiling > 20_000_000, "{at_ceiling}");

    let at = ["--where", "priced=ceiling", "--where", "tags.team=growth"];
    let without = rerate(&lab, &[&at[..], &["--dry-run"]].concat());
    assert_eq!(without["matched"], 3, "{without:#}");
    assert_eq!(without["left_out"]["no_price"], 3, "{without:#}");
    assert_eq!(without["changed"], 0, "{without:#}");

    let book = set_price(&lab, "openai/gpt-nova-9");
    let shown = rerate(&lab, &[&at[..], &["--dry-run"]].concat());
    assert_eq!(shown["outcome"], "dry_run", "{shown:#}");
    assert_eq!(shown["book"], book, "{shown:#}");
    assert_eq!(shown["changed"], 3, "{shown:#}");
    assert_eq!(shown["after_usd"], "0.0072", "{shown:#}");
    assert_eq!(shown["by_model"][0]["model"], "gpt-nova-9", "{shown:#}");
    assert_eq!(shown["windows"].as_array().unwrap().len(), 2, "{shown:#}");
    let verdict = &shown["verdicts"][0];
    assert_eq!(verdict["from"], "block", "{shown:#}");
    assert_eq!(verdict["to"], "ok", "{shown:#}");
    assert_eq!(rerated(&lab)[0], 0, "nothing was done");

    let done = rerate(&lab, &[&at[..], &["--yes"]].concat());
    assert_eq!(done["outcome"], "applied", "{done:#}");
    assert_eq!(done["applied"], 3, "{done:#}");
    assert_eq!(done["job"], shown["job"], "{done:#}");
    lab.await_decision(&["--customer", "c-1"], "allow", PATIENCE);
    assert_eq!(lab.sums_of("c-1"), [3, 7200, 3 * PRICED]);
    // Of each call what stood at a ceiling goes, and what costs by the book comes.
    assert_eq!(rerated(&lab), [6, 0, 0, 3 * PRICED - at_ceiling]);
    let unpriced =
        "SELECT sum(u.calls), toInt64(sum(u.charged) * 1000000000) FROM unpriced_models AS u";
    assert_eq!(lab.warehouse().numbers(unpriced).unwrap(), [0, 0]);
    let by_book = format!(
        "SELECT sum(calls), toInt64(sum(cost) * 1000000000) FROM spend \
         WHERE priced = 'book' AND price_version = '{book}'"
    );
    assert_eq!(lab.warehouse().numbers(&by_book).unwrap(), [3, 3 * PRICED]);
    lab.assert_no_drift();

    // The first rows of the calls still say that they were at a ceiling; what stands does not.
    let again = rerate(&lab, &[&at[..], &["--yes"]].concat());
    assert_eq!(again["outcome"], "nothing_to_do", "{again:#}");
    assert_eq!(again["done_before"], 3, "{again:#}");
    let another = rerate(&lab, &[&at[..], &["--yes", "--job", "another"]].concat());
    assert_eq!(another["matched"], 0, "{another:#}");
    assert_eq!(rerated(&lab)[0], 6, "nothing twice");

    // One of them is taken back, by the address of its row.
    let job = done["job"].as_str().unwrap();
    let said = lab.must(&["correct", "list", "--json", "--job", job]);
    let listed: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed:#}");
    let why = format!("tester: price book {book} (job {job})");
    assert_eq!(listed[0]["why"], why, "{listed:#}");
    let address = listed[1]["address"].as_str().unwrap();
    lab.must(&[
        "correct",
        "void",
        "--address",
        address,
        "--reason",
        "a test",
        "--by",
        "tester",
    ]);
    assert_eq!(lab.sums_of("c-1"), [3, 7200, 2 * PRICED + at_ceiling / 3]);
    let once = rerate(&lab, &[&at[..], &["--yes"]].concat());
    assert_eq!(
        once["done_before"], 3,
        "what was taken back stays so: {once:#}"
    );
    let other = rerate(&lab, &[&at[..], &["--yes", "--job", "another"]].concat());
    assert_eq!(other["applied"], 1, "{other:#}");
    assert_eq!(lab.sums_of("c-1"), [3, 7200, 3 * PRICED]);
    lab.assert_no_drift();
}

#[test]
fn a_job_that_is_killed_goes_on_where_it_was() {
    const CALLS: i128 = 600;
    let lab = Lab::new("rerate_killed");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let calls = (0..CALLS).map(|n| event(&format!("r-{n}"), "c-2", "gpt-nova-9"));
    send(&lab, &calls.collect::<Vec<_>>());
    await_calls(&lab, "c-2", CALLS);
    lab.must(&[
        "correct",
        "void",
        "--workspace",
        "acme",
        "--source",
        "app",
        "--id",
        "r-7",
        "--reason",
        "a test",
        "--by",
        "tester",
    ]);
    set_price(&lab, "openai/gpt-nova-9");

    let at = [
        "rerate",
        "--where",
        "model=gpt-nova-9",
        "--since",
        "2026-01-01",
        "--by",
        "tester",
    ];
    let slowly = |more: &[&str], log: &str| {
        let all = [&at[..], &["--yes", "--rate", "20"], more].concat();
        let arguments = all.into_iter().map(str::to_owned);
        let arguments = arguments.chain(lab.setting_arguments()).collect();
        Role::start("rerate", spendfuse(), arguments, lab.file(log))
    };
    let stopped = slowly(&["--job", "stopped"], "stopped.log");
    eventually("some are done", PATIENCE, || match rerated(&lab)[0] {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    let killed = slowly(&[], "killed.log");
    eventually(
        "the later job stops the one before",
        PATIENCE,
        || match stopped.is_running() {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        },
    );
    let why = stopped.log();
    assert!(why.contains("another spendfuse correct or rerate"), "{why}");
    let by_first = rerated(&lab)[0];
    eventually("more are done", PATIENCE, || match rerated(&lab)[0] {
        rows if rows == by_first => Err(format!("{rows}")),
        _ => Ok(()),
    });
    killed.kill();
    let done = rerated(&lab)[0] / 2;
    assert!((2..CALLS - 1).contains(&done), "{done}");

    let rest = rerate(&lab, &[&at[1..5], &["--yes"]].concat());
    assert_eq!(rest["outcome"], "applied", "{rest:#}");
    assert_eq!(rest["left_out"], json!({"void": 1}), "{rest:#}");
    let count = |name: &str| i128::from(rest[name].as_i64().unwrap());
    let (by_stopped, before) = (count("same"), count("done_before"));
    assert!(by_stopped > 0 && before > 0, "{rest:#}");
    assert!(by_stopped + before >= done, "{rest:#}");
    let calls = CALLS - 1;
    assert_eq!(count("applied"), calls - before - by_stopped, "{rest:#}");
    assert_eq!(lab.sums_of("c-2"), [calls, calls * 2400, calls * PRICED]);
    assert_eq!(rerated(&lab)[0], 2 * calls);
    lab.assert_no_drift();
}

/// What a job has sent and not committed when it was killed; open for a minute, or until somebody of
/// its name begins.
fn leave_open(lab: &Lab) -> BaseProducer {
    let topic = lab.topic("corrections");
    let job: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.kafka().brokers())
        .set(
            "transactional.id",
            topic.replace(".corrections", "-correct"),
        )
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    job.init_transactions(PATIENCE).unwrap();
    job.begin_transaction().unwrap();
    let record: BaseRecord<'_, str, str> = BaseRecord::to(&topic).partition(0);
    job.send(record.key("1/0/0/0").payload("left open"))
        .map_err(|(error, _)| error)
        .unwrap();
    job.flush(PATIENCE).unwrap();
    job
}

#[test]
fn what_a_killed_job_left_open_is_not_waited_for() {
    let lab = Lab::new("rerate_left_open");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    send(&lab, &[event("r-1", "c-1", "gpt-nova-9")]);
    await_calls(&lab, "c-1", 1);
    set_price(&lab, "openai/gpt-nova-9");
    let _killed = leave_open(&lab);
    let begin = Instant::now();
    let done = rerate(&lab, &["--where", "model=gpt-nova-9", "--yes"]);
    assert_eq!(done["applied"], 1, "{done:#}");
    let _killed = leave_open(&lab);
    let entry = ["--workspace", "acme", "--source", "app", "--id", "r-1"];
    let void = ["correct", "void", "--reason", "a test", "--by", "tester"];
    lab.must(&[&void[..], &entry].concat());
    // One alone would be waited for until the broker ends it.
    assert!(begin.elapsed() < Duration::from_secs(60));
    assert_eq!(lab.sums_of("c-1"), [0, 0, 0]);
    lab.assert_no_drift();
}

#[test]
fn the_loader_prices_what_is_at_a_ceiling_where_it_is_told_to() {
    let lab = Lab::new("rerate_by_itself");
    let _processor = lab.processor("1");
    let loader = lab.loader();
    let calls = (0..5).map(|n| event(&format!("r-{n}"), "c-3", "gpt-nova-9"));
    send(&lab, &calls.collect::<Vec<_>>());
    await_calls(&lab, "c-3", 5);
    set_price(&lab, "openai/gpt-nova-9");
    loader.stop();
    let _plain = lab.role("loader", "2", &[]);
    let more = (5..7).map(|n| event(&format!("r-{n}"), "c-3", "gpt-nova-8"));
    send(&lab, &more.collect::<Vec<_>>());
    await_calls(&lab, "c-3", 7);
    assert_eq!(rerated(&lab)[0], 0, "nobody has said that it should");

    let told = lab.role("loader", "3", &[("pricing.rerate_ceilings", "true")]);
    told.await_line("calls at a ceiling re-rated", PATIENCE);
    assert_eq!(rerated(&lab)[..3], [10, 0, 0]);
    let known =
        "SELECT sum(calls), toInt64(sum(cost) * 1000000000) FROM spend WHERE model = 'gpt-nova-9'";
    assert_eq!(lab.warehouse().numbers(known).unwrap(), [5, 5 * PRICED]);
    lab.assert_no_drift();
}

/// Runs a command that may take minutes; how long it took, and what it said.
fn at_length(lab: &Lab, arguments: &[&str], log: &str) -> (Duration, String) {
    let all = arguments.iter().map(|one| (*one).to_owned());
    let all = all.chain(lab.setting_arguments()).collect();
    let begin = Instant::now();
    let command = Role::start(log, spendfuse(), all, lab.file(log));
    eventually("it ends", Duration::from_secs(1800), || {
        match command.is_running() {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        }
    });
    (begin.elapsed(), command.log())
}

/// `cargo test --release -p spendfuse-tests --test pipeline -- --ignored --nocapture many_calls`
#[test]
#[ignore = "a measurement of minutes, for a quiet machine"]
fn many_calls_are_re_rated_exactly() {
    const CALLS: i128 = 1_000_000;
    let lab = Lab::for_measurement("rerate_many");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let calls =
        (0..CALLS).map(|n| event(&format!("r-{n}"), &format!("c-{}", n % 1000), "gpt-nova-9"));
    let file = lab.file("events.ndjson");
    std::fs::write(&file, calls.collect::<Vec<_>>().join("\n")).unwrap();
    at_length(&lab, &["ingest", file.to_str().unwrap()], "ingest.log");
    eventually("calls are rows", Duration::from_secs(600), || {
        match lab
            .warehouse()
            .numbers("SELECT count() FROM spend")
            .unwrap()[0]
        {
            CALLS => Ok(()),
            rows => Err(format!("{rows}")),
        }
    });
    set_price(&lab, "openai/gpt-nova-9");
    let at = ["rerate", "--where", "priced=ceiling", "--by", "tester"];
    let (shown, _) = at_length(&lab, &[&at[..], &["--dry-run"]].concat(), "dry.log");
    let all = [&at[..], &["--yes", "--rate", "1000000"]].concat();
    let (done, said) = at_length(&lab, &all, "rerate.log");
    let (again, _) = at_length(&lab, &all, "again.log");
    println!(
        "{CALLS} calls: shown in {shown:.1?}, re-rated in {done:.1?}, once more in {again:.1?}"
    );
    println!("{said}");
    let sums = "SELECT sum(calls), toInt64(sum(cost) * 1000000000) FROM spend";
    assert_eq!(
        lab.warehouse().numbers(sums).unwrap(),
        [CALLS, CALLS * PRICED]
    );
    assert_eq!(rerated(&lab)[..3], [2 * CALLS, 0, 0]);
    lab.assert_no_drift();
}

#[test]
fn what_cannot_be_re_rated_is_said() {
    let lab = Lab::new("rerate_refused");
    let refused = |arguments: &[&str], wanted: &str| {
        let said = lab.run(&[&["rerate", "--by", "tester"], arguments].concat());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains(wanted), "{wanted}: {said:?}");
    };
    refused(&["--where", "model=gpt-9"], "--yes does it");
    refused(&["--dry-run"], "nothing says which entries");
    refused(&["--where", "cost > 1 OR 1=1", "--yes"], "entries have no");
    refused(&["--where", "priced=reported", "--yes"], "never re-rated");
    refused(&["--since", "yesterday", "--yes"], "2026-11-01");
    refused(
        &["--since", "2026-11-01", "--yes", "--job", "a b"],
        "a job's name",
    );
    let book = ["--since", "2026-11-01", "--yes", "--at-book"];
    refused(
        &[&book[..], &["no-such-book"]].concat(),
        "no-such-book is neither",
    );
    refused(&[&book[..], &["topic@2026-11-01"]].concat(), "names a day");
}
