//! Internal records: the changelogs of both stages, and deltas.

use std::sync::Arc;

use spendfuse_domain::finding::DetectorRules;
use spendfuse_engine::audit::read_stored;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::{Meter, MeterConfig};

use super::record;
use crate::Target;

/// The meter's changelog, and that of identities (key `ids`).
pub const METER_CHANGELOG: Target = Target {
    name: "meter_changelog",
    examples: &["tests/samples/v0.1.0/meter_changelog"],
    words: &["mark\n\u{1}", "told|", "session|", "ids\n\u{1}"],
    most_bytes: 16 << 20,
    run: run_meter,
};

/// The ledger's changelog.
pub const LEDGER_CHANGELOG: Target = Target {
    name: "ledger_changelog",
    examples: &["tests/samples/v0.1.0/ledger_changelog"],
    words: &[
        "mark\n\u{1}",
        "evaluated\n\u{1}",
        "account|all|0|acme\n\u{1}",
    ],
    most_bytes: 16 << 20,
    run: run_ledger,
};

/// What meters tell ledgers.
pub const DELTAS: Target = Target {
    name: "deltas",
    examples: &["tests/samples/v0.1.0/deltas"],
    words: &[],
    most_bytes: 16 << 20,
    run: run_deltas,
};

fn book() -> Arc<BudgetBook> {
    Arc::new(BudgetBook::compile(1, Vec::new(), DetectorRules::default()))
}

fn run_meter(input: &[u8]) {
    let config = MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: 86_400_000,
        dedupe_capacity: 1_000,
        session_idle_millis: 3_600_000,
        session_capacity: 1_000,
    };
    let mut meter = Meter::new(config, book());
    match record(input) {
        (b"ids", Some(value)) => {
            let _ = meter.restore_ids(value);
        }
        (key, value) => {
            let _ = meter.restore(key, value);
        }
    }
}

fn run_ledger(input: &[u8]) {
    let config = LedgerConfig {
        partition: 0,
        partitions: 1,
        grace_millis: 86_400_000,
        publish_rate: PUBLISH_RATE,
        account_capacity: 10_000_000,
    };
    let mut ledger = Ledger::new(config, book());
    let (key, value) = record(input);
    let _ = ledger.restore(key, value);
    // The audit reads the same records without a ledger.
    let _ = read_stored(key, value);
}

fn run_deltas(input: &[u8]) {
    if let Ok(deltas) = codec::decode::<Deltas>(input) {
        let written = codec::encode(&deltas);
        let again = codec::decode::<Deltas>(&written);
        assert_eq!(again.ok(), Some(deltas), "not as it was written");
    }
}
