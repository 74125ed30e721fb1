//! `kill -9` under load: the same totals everywhere, nothing twice.

use std::time::Duration;

use spendfuse_tests::deliveries::BROKER_AWAY;
use spendfuse_tests::ledger::{FIRST_LIMIT, watching_budgets};
use spendfuse_tests::{Lab, Load, PATIENCE, Traffic, pause};

const RECORDS: u64 = 66_000;
const PER_SECOND: u64 = 4_000;

#[test]
fn kills_of_processor_loader_and_clickhouse_change_no_total() {
    let lab = Lab::new("kills");
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    let mut processor = lab.processor("1");
    let mut loader = lab.loader();
    let load = Load::start(&lab, Traffic::new(&lab, 2), PER_SECOND, RECORDS);

    for round in 1..=3 {
        load.await_sent(round * RECORDS / 4);
        processor.kill();
        loader.kill();
        pause(Duration::from_millis(150 * round));
        loader.restart();
        processor.restart();
        pause(Duration::from_secs(1));
        lab.clickhouse().kill();
        pause(Duration::from_millis(300 * round));
        lab.clickhouse().restart().expect("ClickHouse starts");
        lab.clickhouse()
            .wait_ready()
            .expect("ClickHouse gets ready");
        // In the middle of the inserts that had waited.
        loader.kill();
        loader.restart();
    }
    let expected = load.finish();
    assert!(expected.events >= 60_000, "{expected:?}");
    assert!(expected.duplicates > 1000 && expected.rejected > 100);
    lab.settle(&expected, Duration::from_secs(60));
    lab.settle_ledger(&expected, PATIENCE);
}

#[test]
fn a_killed_broker_comes_back_and_everything_goes_on_by_itself() {
    let lab = Lab::for_kills_of_the_broker("broker");
    lab.create_topics();
    lab.migrate();
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    let processor = lab.processor("1");
    let loader = lab.loader();
    let load = Load::start(&lab, Traffic::new(&lab, 3), 2_000, 20_000);

    load.await_sent(5_000);
    lab.kafka().kill(0);
    pause(BROKER_AWAY);
    lab.kafka().restart(0).expect("Kafka starts");
    lab.kafka().wait_ready().expect("Kafka gets ready");

    let expected = load.finish();
    lab.settle(&expected, Duration::from_secs(150));
    lab.settle_ledger(&expected, PATIENCE);
    assert!(processor.is_running(), "{}", processor.log());
    assert!(loader.is_running(), "{}", loader.log());
}
