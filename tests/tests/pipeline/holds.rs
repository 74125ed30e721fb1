//! Holds while sidecars are killed, for some seconds; `make chaos` does it for a minute.

use std::time::Duration;

use spendfuse_tests::Lab;
use spendfuse_tests::holds::{Options, run};

#[test]
fn no_limit_is_passed_by_more_than_no_hold_could_show_though_sidecars_are_killed() {
    let options = Options {
        seed: 1,
        length: Duration::from_secs(15),
        clients: 60,
        is_exact: false,
    };
    let outcome = run(&Lab::empty("holds"), options);
    println!("{outcome}");
    assert!(outcome.is_right(), "{outcome}");
    let (admitted, refused) = outcome.calls;
    assert!(
        admitted > 50 && refused > 0 && outcome.kills > 0,
        "{outcome}"
    );
}
