//! A ledger's partition: chains of what it reads and writes, and the budgets that it uses.

use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_bus::{LogicError, OutputRecord, PartitionLogic, StageLogic};
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::{DeltaEntry, Deltas};

use super::{
    Incoming, NOW, Stages, batch, blocks, call, deltas_of, of, process, restore_changelog,
    with_record,
};
use crate::ledger::LedgerStage;

#[test]
fn deltas_of_many_scopes_are_several_records_and_one_unbroken_chain() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let calls: Vec<Incoming> = (0..9_000)
        .map(|number| call(&format!("r-{number}"), &format!("c-{number}"), 0, number))
        .collect();
    let written = batch(&mut stages.meter(0), 0, 3, &calls);
    let to_first: Vec<OutputRecord> = written
        .into_iter()
        .filter(|record| record.topic == topics.deltas && record.partition == 0)
        .collect();
    let chain: Vec<(u64, u64)> = to_first
        .iter()
        .map(|record| codec::decode(record.value.as_deref().unwrap()).unwrap())
        .map(|deltas: Deltas| (deltas.prev, deltas.seq))
        .collect();
    assert_eq!(chain, [(0, 3), (3, 3)]);

    let told = batch(&mut stages.ledger(0), 0, 1, &deltas_of(&to_first, topics));
    let alerts = of(&told, &topics.alerts);
    let is_broken = |record: &&OutputRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap()).contains("delta_chain")
    };
    assert_eq!(alerts.into_iter().filter(is_broken).count(), 0);
    let blocked = of(&told, &topics.blocklist).len();
    assert!((4_001..9_000).contains(&blocked), "{blocked} scopes");
}

#[test]
fn an_entry_near_its_limit_says_which_events_it_counts_also_after_a_restart() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let through = |written: &[OutputRecord]| -> Vec<BTreeMap<u32, i64>> {
        let told = of(written, &topics.blocklist).into_iter();
        let entries =
            told.filter_map(|record| serde_json::from_slice(record.value.as_deref()?).ok());
        entries.map(|entry: BlocklistEntry| entry.through).collect()
    };
    let mut meter = stages.meter(0);
    let told = batch(&mut meter, 0, 1, &[call("r-1", "c-1", 0, 41)]);
    let home = of(&told, &topics.deltas)[0].partition;
    let mut ledger = stages.ledger(home);
    let first = batch(&mut ledger, 0, 1, &deltas_of(&told, topics));
    assert_eq!(through(&first), [BTreeMap::from([(0, 41)])]);

    let mut successor = stages.ledger(home);
    restore_changelog(&mut successor, &first);
    successor.restored(1).unwrap();
    // Of another meter partition, which says nothing: what is known of the first stays.
    let told = batch(&mut meter, 0, 2, &[call("r-2", "c-1", 0, 43)]);
    let mut deltas: Deltas =
        codec::decode(of(&told, &topics.deltas)[0].value.as_deref().unwrap()).unwrap();
    (deltas.meter_partition, deltas.prev, deltas.through) = (1, 0, None);
    let incoming = Incoming {
        value: codec::encode(&deltas),
        // Figures are told ten times a second at most.
        stamp_ahead: 10_000,
        ..Incoming::default()
    };
    let second = batch(&mut successor, 0, 2, &[incoming]);
    assert_eq!(through(&second), [BTreeMap::from([(0, 41)])]);
}

#[test]
fn rows_of_many_scopes_are_several_records_and_one_unbroken_chain() {
    const CUSTOMERS: u32 = 8_000;
    let stages = Stages::new();
    let topics = &stages.topics;
    let entry = |number: u32| DeltaEntry {
        series: 0,
        scope: format!("acme/customer={}{number}", "c".repeat(200)),
        minute: NOW / 60_000,
        cost: Nanos::from_dollars(1),
        unpriced: Nanos::ZERO,
        tokens: 1,
        calls: 1,
        source: "app".to_owned(),
        id: "r".repeat(256),
        time: UnixMillis(NOW),
        is_history: false,
        corrects: None,
    };
    let deltas = Deltas {
        seq: 1,
        series: vec!["/workspace=/customer=".to_owned()],
        entries: (0..CUSTOMERS).map(entry).collect(),
        ..Deltas::default()
    };
    let incoming = Incoming {
        value: codec::encode(&deltas),
        ..Incoming::default()
    };
    let written = batch(&mut stages.ledger(0), 0, 3, &[incoming]);
    let largest = written
        .iter()
        .filter_map(|record| Some(record.value.as_ref()?.len()))
        .max();
    assert!(largest < Some(1024 * 1024), "{largest:?} bytes");
    let mut chains: BTreeMap<String, Vec<(u64, u64, u32)>> = BTreeMap::new();
    for block in blocks(&written, &topics.rows_ledger) {
        let link = (block.link.previous, block.link.seq, block.rows);
        chains
            .entry(block.table.to_string())
            .or_default()
            .push(link);
    }
    let tables: Vec<&str> = chains.keys().map(String::as_str).collect();
    assert_eq!(tables, ["budget_windows", "finding_changes", "verdicts"]);
    for chain in chains.values() {
        assert!(chain.len() > 1, "{chain:?}");
        assert_eq!((chain[0].0, chain[0].1), (0, 3));
        assert!(
            chain[1..]
                .iter()
                .all(|(previous, seq, _)| (*previous, *seq) == (3, 3))
        );
        assert_eq!(chain.iter().map(|(.., rows)| rows).sum::<u32>(), CUSTOMERS);
    }
}

#[test]
fn a_ledger_asks_for_newer_budgets_and_takes_them_between_batches_only() {
    let stages = Stages::new();
    let mut stage = LedgerStage {
        config: stages.ledger_config(0),
        topics: Arc::clone(&stages.topics),
        tables: Arc::clone(&stages.tables),
    };
    let mut ledger = stage.open(0).unwrap();
    let told = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let [told] = &of(&told, &stages.topics.deltas)[..] else {
        panic!("told once");
    };
    let mut deltas: Deltas = codec::decode(told.value.as_deref().unwrap()).unwrap();
    deltas.budget_version += 1;
    let incoming = Incoming {
        value: codec::encode(&deltas),
        ..Incoming::default()
    };
    ledger.begin(1, NOW);
    let refused = process(&mut ledger, 0, &incoming);
    assert!(matches!(refused, Err(LogicError::NotYet(_))), "{refused:?}");
    let mut newer = BudgetBook::clone(&stages.tables.budgets.load());
    newer.version = deltas.budget_version;
    stages.tables.budgets.store(Arc::new(newer));
    // In the middle of a batch nothing changes.
    assert!(process(&mut ledger, 0, &incoming).is_err());
    stage.between_batches(&mut std::iter::once((0, &mut ledger)));
    ledger.begin(1, NOW);
    process(&mut ledger, 0, &incoming).unwrap();
}

#[test]
fn other_budgets_are_taken_also_where_their_version_is_the_same() {
    let stages = Stages::new();
    let (topics, tables) = (Arc::clone(&stages.topics), Arc::clone(&stages.tables));
    let config = stages.ledger_config(0);
    let mut stage = LedgerStage {
        config,
        topics,
        tables,
    };
    let (mut ledger, mut meter) = (stage.open(0).unwrap(), stages.meter(0));
    // The topic was made anew and has as many records.
    let other = BudgetBook::clone(&stages.tables.budgets.load());
    stages.tables.budgets.store(Arc::new(other));
    let in_force = stages.tables.budgets.load_full();
    stage.between_batches(&mut std::iter::once((0, &mut ledger)));
    meter.use_tables(&in_force, &stages.tables.prices.load_full());
    assert!(Arc::ptr_eq(ledger.ledger().book(), &in_force));
    assert!(Arc::ptr_eq(meter.meter().book(), &in_force));
}

#[test]
fn the_ledger_stops_rather_than_lose_spend() {
    let stages = Stages::new();
    let mut ledger = stages.ledger(0);
    ledger.begin(1, NOW);
    let garbage = Incoming {
        value: vec![0xff; 9],
        ..Incoming::default()
    };
    let refused = process(&mut ledger, 0, &garbage);
    assert!(matches!(refused, Err(LogicError::Input(_))), "{refused:?}");
    let stopped = with_record(0, &garbage, |record| ledger.reject(record, "garbage"));
    assert!(matches!(stopped, Err(LogicError::Fatal(_))), "{stopped:?}");
}
