//! A small slice of `make attack`: no honest caller is refused, whatever a hostile one does.

use std::path::Path;
use std::time::Duration;

use spendfuse_tests::attack::{Observer, Plan, columns};
use spendfuse_tests::{Address, Lab, eventually};

/// Beyond this the limits of memory below do not hold.
const MOST_GROWTH: u64 = 150_000_000;
/// Not a figure to be proud of: how long honest questions may take on a busy machine.
const MOST_P99: Duration = Duration::from_secs(1);

#[test]
fn honest_callers_are_answered_while_a_hostile_one_does_what_it_can() {
    let plan = Plan {
        // More than there is room for.
        slow: 150,
        half: 20,
        half_bytes: 4_000_000,
        requests: 1_000,
        rate: 500,
        names: 10_000,
        seconds: 2,
    };
    let lab = Lab::new("attack");
    let (api, admin) = (Address::free(), Address::free());
    let settings = [
        ("admin.listen", &*admin.setting()),
        ("sidecar.listen", &*api.setting()),
        ("sidecar.max_connections", "100"),
        ("sidecar.max_body_memory", "16000000"),
    ];
    let sidecar = lab.role("sidecar", "1", &settings);
    eventually("the sidecar is ready", Duration::from_secs(30), || {
        let ready = admin.get("/readyz").filter(|(status, _)| *status == 200);
        ready.ok_or_else(|| sidecar.log())
    });
    let observer = Observer { api, admin };
    let calm = observer.calm("calm", &plan);
    let attacker = Path::new(env!("CARGO_BIN_EXE_attack"));
    let report = observer.attack(api, attacker, &plan);
    println!("{}\n{calm}\n{report}", columns());
    for phase in report.phases.iter().chain([&calm]) {
        assert_eq!(phase.failures, 0, "{report}");
        assert!(phase.answered > 0, "{report}");
        assert!(phase.p99 < MOST_P99, "{report}");
        assert!(phase.admin < MOST_P99, "{report}");
    }
    assert!(report.growth(&calm) < MOST_GROWTH, "{report}");
    assert_eq!(report.answers.get(&500), None, "{report}");
    assert!(sidecar.is_running(), "{}", sidecar.log());
}
