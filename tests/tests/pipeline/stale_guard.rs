//! Who should have counted is away: the sidecar itself tells people that its guard is stale.

use serde_json::Value;
use spendfuse_tests::{Lab, PATIENCE, eventually};

#[test]
fn people_are_told_of_a_guard_that_stays_stale() {
    let lab = Lab::new("stale_guard");
    let processor = lab.processor("1");
    let settings = [
        ("sidecar.listen", "127.0.0.1:0"),
        ("sidecar.stale_after", "1s"),
    ];
    let sidecar = lab.role("sidecar", "edge-7", &settings);
    sidecar.await_line("the guard has caught up", PATIENCE);
    // Heartbeats have come.
    eventually("a heartbeat is told", PATIENCE, || {
        match lab.table("blocklist").is_empty() {
            true => Err("nothing yet".to_owned()),
            false => Ok(()),
        }
    });
    processor.kill();
    let alert = eventually("people are told", PATIENCE, || {
        let told = lab.table("alerts").into_values();
        let stale = { told }.find(|alert: &Value| alert["kind"] == "stale_guard");
        stale.ok_or_else(|| sidecar.log())
    });
    let message = alert["message"].as_str().expect("it has a message");
    let told = message
        .strip_prefix("the guard of sidecar edge-7 has been stale for ")
        .and_then(|rest| rest.split_once(" s: "));
    let (seconds, _) = told.unwrap_or_else(|| panic!("{message}"));
    // Six times `stale_after`; more where the alert had to be sent again.
    assert!(
        seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 6),
        "{message}"
    );
    assert_eq!(alert["severity"], "critical");
}
