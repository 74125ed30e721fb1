//! `/readyz` tells the truth about each role, and `/healthz` only that the process lives.

use std::time::Duration;

use serde_json::Value;
use spendfuse_tests::{Address, Lab, eventually};

/// A broker that comes back is found again after pauses of up to ten seconds, and its groups form anew.
const WAIT: Duration = Duration::from_secs(90);

/// Status, and the role's own part of the answer.
fn role(admin: Address, name: &str) -> Option<(u16, Value)> {
    let (status, body) = admin.get("/readyz")?;
    let body: Value = serde_json::from_str(&body).ok()?;
    let roles = body["roles"].as_array()?.iter();
    let found = roles.into_iter().find(|role| role["role"] == name)?;
    Some((status, found.clone()))
}

fn is_ready(admin: Address, name: &str) -> bool {
    role(admin, name).is_some_and(|(_, role)| role["ready"] == true)
}

fn reasons(admin: Address, name: &str) -> String {
    role(admin, name).map_or_else(String::new, |(_, role)| role["reasons"].to_string())
}

/// Waits until `condition` holds; else says what `/readyz` says.
fn await_that(admin: Address, what: &str, condition: impl Fn() -> bool) {
    eventually(what, WAIT, || {
        let holds = condition().then_some(());
        holds.ok_or_else(|| format!("{:?}", admin.get("/readyz")))
    });
}

/// What must be there before anything has happened.
const FROM_THE_START: [&str; 10] = [
    "spendfuse_build_info{version=",
    "process_resident_memory_bytes ",
    "process_cpu_seconds_total ",
    "spendfuse_events_rejected_total{reason=\"late\"} 0",
    "spendfuse_events_conflict_total 0",
    "spendfuse_stage_rejected_total{stage=\"meter\"} 0",
    "spendfuse_sidecar_failed_logins_total{reason=\"wrong\"} 0",
    "spendfuse_loader_lag_seconds{",
    "spendfuse_guard_state{state=\"live\"}",
    "spendfuse_guard_bad_records_total{topic=\"budgets\"} 0",
];

/// The metrics of the roles of which the page about operations says that they stay 0.
fn that_stay_0() -> Vec<&'static str> {
    let page = include_str!("../../../docs/operations.md");
    let rows = page.lines().filter(|line| {
        let says = ["**must stay 0**", "**must be 0**", "**should stay 0**"];
        line.starts_with("| `spendfuse_") && says.iter().any(|words| line.contains(words))
    });
    let of_roles = rows.filter(|row| !row.contains("spendfuse_audit_"));
    of_roles.filter_map(|row| row.split('`').nth(1)).collect()
}

/// Waits for [`FROM_THE_START`] and what must stay 0; every series has its `HELP` and `TYPE`.
fn await_metrics(admin: Address) {
    let text = eventually("what must stay 0 is shown", WAIT, || {
        let (_, text) = admin.get("/metrics").unwrap_or_default();
        let shown = |beginning: &str| text.lines().any(|line| line.starts_with(beginning));
        let is_0 = |name: &str| {
            let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
            let mut series = text.lines().filter(of_name).peekable();
            series.peek().is_some() && series.all(|line| line.ends_with(" 0"))
        };
        let missing = FROM_THE_START.iter().find(|beginning| !shown(beginning));
        let of_page = that_stay_0();
        assert!(of_page.len() >= 10, "{of_page:?}");
        match missing.or_else(|| of_page.iter().find(|name| !is_0(name))) {
            None => Ok(text),
            Some(missing) => Err(format!("no {missing} in {text}")),
        }
    });
    for line in text
        .lines()
        .filter(|line| line.starts_with(char::is_alphabetic))
    {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let parts = ["_bucket", "_sum", "_count"];
        let histogram = parts.iter().find_map(|part| name.strip_suffix(part));
        let is_described = |name: &str| {
            ["HELP", "TYPE"]
                .iter()
                .all(|what| text.contains(&format!("# {what} {name} ")))
        };
        assert!(
            is_described(name) || histogram.is_some_and(is_described),
            "{line}"
        );
    }
}

#[test]
fn each_role_says_whether_it_works_and_why_not_and_recovers() {
    let lab = Lab::for_kills_of_the_broker("readiness");
    lab.create_topics();
    lab.migrate();
    let (admin, api) = (Address::free(), Address::free());
    let settings = [
        ("admin.listen", &*admin.setting()),
        ("sidecar.listen", &*api.setting()),
        ("sidecar.stale_after", "2s"),
    ];
    let up = lab.role("up", "1", &settings);
    let all_ready = || {
        let all = ["processor", "loader", "sidecar", "notifier"];
        all.iter().all(|name| is_ready(admin, name))
    };
    await_that(admin, "all roles are ready", all_ready);
    assert_eq!(status(admin), 200);
    await_metrics(admin);

    lab.clickhouse().kill();
    await_that(admin, "the loader misses ClickHouse", || {
        !is_ready(admin, "loader") && reasons(admin, "loader").contains("ClickHouse")
    });
    assert!(is_ready(admin, "processor") && is_ready(admin, "sidecar"));
    assert_eq!(status(admin), 503);
    lab.clickhouse().restart().expect("ClickHouse starts");
    await_that(admin, "the loader is back", || is_ready(admin, "loader"));

    lab.kafka().stop(0);
    await_that(admin, "processor and loader miss Kafka", || {
        !is_ready(admin, "processor") && reasons(admin, "loader").contains("Kafka")
    });
    println!("{:?}", admin.get("/readyz"));
    await_that(admin, "the sidecar answers from memory and says so", || {
        is_ready(admin, "sidecar") && reasons(admin, "sidecar").contains("stale")
    });
    assert_eq!(status(api), 200, "{:?}", api.get("/readyz"));
    let (alive, _) = admin.get("/healthz").expect("the admin address answers");
    assert_eq!(alive, 200);

    // One that starts now knows nothing to answer by.
    let cold = Address::free();
    let socket = lab.file("cold.sock");
    let settings = [
        ("admin.listen", &*cold.setting()),
        ("sidecar.listen", ""),
        ("sidecar.socket", &*socket.to_string_lossy()),
        ("partitions", "2"),
    ];
    let sidecar = lab.role("sidecar", "2", &settings);
    await_that(cold, "a cold sidecar says so", || {
        reasons(cold, "sidecar").contains("cold")
    });
    assert_eq!(status(cold), 503);

    lab.kafka().restart(0).expect("Kafka starts");
    lab.kafka().wait_ready().expect("Kafka gets ready");
    await_that(admin, "all roles are ready again", || {
        all_ready() && is_ready(cold, "sidecar")
    });
    // Nobody writes budgets or prices meanwhile.
    await_that(admin, "nobody complains any more", || {
        let all = ["processor", "sidecar"];
        all.iter()
            .all(|name| !reasons(admin, name).contains("cannot be followed"))
    });
    // It was set to half of the partitions, and is live by all of them.
    await_that(
        cold,
        "the sidecar says how many partitions there are",
        || reasons(cold, "sidecar").contains("set to 2 partitions, but the stage topics have 4"),
    );
    assert!(up.is_running() && sidecar.is_running());
}

fn status(admin: Address) -> u16 {
    admin.get("/readyz").map_or(0, |(status, _)| status)
}
