//! A log that is compared with the warehouse, because offsets or inserts may be lost.

use std::collections::BTreeMap;

use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::BatchLimits;
use spendfuse_loader::checkpoint::{Checkpoint, Links, Unsynced};
use spendfuse_loader::protocol::{Action, PartitionProtocol, ProtocolRules, StopReason};
use spendfuse_loader::recovery::TableFacts;
use spendfuse_loader::region::Region;

use crate::rebuilding::chain_of_spend;
use crate::row_of_commit;
use crate::warehouse::RULES;

/// What a loader had not loaded when its group's offsets were lost: everything from one record on.
#[test]
fn rows_that_are_missing_up_to_the_end_are_found_in_few_looks() {
    const RECORDS: i64 = 512;
    const THERE: i64 = 300;
    let rules = ProtocolRules {
        limits: BatchLimits {
            rows: 10_000,
            bytes: 1 << 20,
        },
        ..RULES
    };
    let unsynced = Unsynced {
        server_run: 1,
        from: 0,
    };
    let region = Region::after_restart(RECORDS, unsynced);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, rules, 0, region, nothing);
    for offset in 0..RECORDS {
        let commit = offset as u64;
        let record = row_of_commit(offset, commit, commit + 1);
        assert_eq!(protocol.received(offset, record), None);
    }
    let (mut looks, mut restored) = (0, 0);
    loop {
        match protocol.next(UnixMillis(0), RECORDS, &BTreeMap::new()) {
            None => {}
            Some(Action::Inspect(batch)) => {
                looks += 1;
                let facts = TableFacts {
                    found: (THERE.clamp(batch.start, batch.end) - batch.start) as u64,
                    inserts: 0,
                    others: 0,
                    views_agree: true,
                    is_detached: false,
                };
                if let Some(Action::Restore(batch)) = protocol.inspected(UnixMillis(0), &[facts]) {
                    restored += batch.records;
                    assert!(protocol.inserted().is_none());
                }
            }
            Some(Action::Commit { offset, .. }) => {
                assert_eq!(offset, RECORDS);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(i64::from(restored), RECORDS - THERE);
    assert!(looks < 60, "{looks} looks");
}

/// Offsets were lost, and while the log is compared its beginning is removed.
#[test]
fn a_log_whose_retention_moves_while_it_is_compared_is_compared_from_there_on() {
    const LOADED_COMMIT: u64 = 12;
    let compared = || {
        let ends = Links::new([(chain_of_spend(0), LOADED_COMMIT)]);
        let region = Region::without_offsets(0, 20, ends, false);
        let nothing = Checkpoint::default();
        let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
        assert_eq!(protocol.received(0, row_of_commit(0, 4, 5)), None);
        assert!(protocol.gone(1, 8), "what the log has is compared");
        protocol
    };
    // The warehouse has what was removed, since it has what comes behind it.
    let mut goes_on = compared();
    assert_eq!(goes_on.received(8, row_of_commit(8, 9, 10)), None);
    assert_eq!(goes_on.received(9, row_of_commit(9, 10, 11)), None);
    assert!(goes_on.received(10, row_of_commit(10, 13, 14)).is_some());
    assert!(!goes_on.gone(11, 8), "a log that became shorter");

    // The warehouse ends at the gap.
    let mut just_missing = compared();
    let first_new = row_of_commit(8, LOADED_COMMIT, LOADED_COMMIT + 1);
    assert_eq!(just_missing.received(8, first_new), None);

    // Commits between the warehouse and the log were removed.
    let mut lost = compared();
    let behind = row_of_commit(8, LOADED_COMMIT + 1, LOADED_COMMIT + 2);
    assert_eq!(lost.received(8, behind), None);
    let looks = lost.next(UnixMillis(0), 20, &BTreeMap::new());
    assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");
    let there = TableFacts {
        found: 1,
        inserts: 0,
        others: 0,
        views_agree: true,
        is_detached: false,
    };
    assert!(lost.inspected(UnixMillis(0), &[there]).is_none());
    let stopped = lost.next(UnixMillis(0), 20, &BTreeMap::new());
    assert!(
        matches!(stopped, Some(Action::Stop(StopReason::Lost { .. }))),
        "{stopped:?}"
    );

    // Retention is even behind what had to be compared.
    assert!(!compared().gone(8, 21));
}

/// Offsets were lost, and retention has removed the whole log: what comes next says whether all of it
/// had been loaded.
#[test]
fn an_empty_log_is_compared_with_what_it_goes_on_with() {
    let loaded = || Links::new([(chain_of_spend(0), 12)]);
    let emptied = |accepts_loss| {
        let region = Region::without_offsets(20, 20, loaded(), accepts_loss);
        let nothing = Checkpoint::default();
        PartitionProtocol::start_with("rows", 0, RULES, 20, region, nothing)
    };
    let next = |protocol: &mut PartitionProtocol, read_to| {
        protocol.next(UnixMillis(0), read_to, &BTreeMap::new())
    };
    let mut waits = emptied(false);
    assert!(next(&mut waits, 20).is_none());
    assert!(next(&mut waits, 23).is_none(), "markers say nothing");
    assert_eq!(waits.received(23, row_of_commit(23, 12, 13)), None);
    let looks = next(&mut waits, 24);
    assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");

    let mut lost = emptied(false);
    assert_eq!(lost.received(23, row_of_commit(23, 40, 41)), None);
    let stopped = next(&mut lost, 24);
    assert!(
        matches!(stopped, Some(Action::Stop(StopReason::Lost { .. }))),
        "{stopped:?}"
    );

    let mut accepted = emptied(true);
    let ends = next(&mut accepted, 20);
    assert!(matches!(ends, Some(Action::Commit { .. })), "{ends:?}");
}
