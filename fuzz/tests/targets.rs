//! The bounded run over every target, and that it finds what it is meant to find.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use spendfuse_fuzz::targets::{
    BUDGET_RECORD, BUDGETS_FILE, CHECKPOINT, DELTAS, EVENT, LEDGER_CHANGELOG, METER_CHANGELOG,
    REPLICA, ROW_BLOCK, SIDECAR,
};
use spendfuse_fuzz::{Target, explore, seeds};

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[track_caller]
fn withstands(target: &Target, runs: usize) {
    let runs = setting("SPENDFUSE_FUZZ_RUNS").map_or(runs, |runs| runs as usize);
    let seed = setting("SPENDFUSE_FUZZ_SEED").unwrap_or(1);
    if let Err(broken) = explore(target, &seeds(target), runs, seed) {
        let name = format!("{}-{seed}", target.name);
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, broken.input()).unwrap();
        panic!("{broken}\nsaved as {}", file.display());
    }
}

#[test]
fn event() {
    withstands(&EVENT, 150_000);
}

#[test]
fn budgets_file() {
    withstands(&BUDGETS_FILE, 10_000);
}

#[test]
fn budget_record() {
    withstands(&BUDGET_RECORD, 100_000);
}

#[test]
fn meter_changelog() {
    withstands(&METER_CHANGELOG, 50_000);
}

#[test]
fn ledger_changelog() {
    withstands(&LEDGER_CHANGELOG, 50_000);
}

#[test]
fn deltas() {
    withstands(&DELTAS, 100_000);
}

#[test]
fn row_block() {
    withstands(&ROW_BLOCK, 100_000);
}

#[test]
fn checkpoint() {
    withstands(&CHECKPOINT, 100_000);
}

#[test]
fn replica() {
    withstands(&REPLICA, 3_000);
}

#[test]
fn sidecar() {
    withstands(&SIDECAR, 15_000);
}

/// A decoder with mistakes of the usual kinds.
fn careless(input: &[u8]) {
    let text = std::str::from_utf8(input).unwrap_or_default();
    let number = text.split_once("\"n\":").map_or("", |(_, rest)| rest);
    if number.starts_with("-1") {
        std::hint::black_box(Vec::<u8>::with_capacity(1 << 26));
    }
    assert!(!number.starts_with("18446744073709551616"), "too large");
}

#[test]
fn mutations_find_a_panic_and_a_hunger_for_memory() {
    let target = Target {
        name: "careless",
        examples: &[],
        words: &[],
        most_bytes: 1 << 20,
        run: careless,
    };
    let corpus = [br#"{"n":7}"#.to_vec()];
    let mut found = [false; 2];
    for seed in 0..200 {
        if let Err(broken) = explore(&target, &corpus, 2_000, seed) {
            let is_panic = broken.to_string().contains("too large");
            found[usize::from(is_panic)] = true;
        }
    }
    assert_eq!(found, [true; 2]);
}
