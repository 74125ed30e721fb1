//! Explores every interleaving of a few records, inserts and crashes against a model of ClickHouse
//! and of committed offsets: every row must end up in table and view exactly once. Where a loader
//! was away for so long that ClickHouse has forgotten its inserts, the partition may stop instead,
//! but never count a row twice.

#![allow(clippy::unwrap_used)]

mod comparing;
mod explore;
mod rebuilding;
mod warehouse;

use std::collections::BTreeMap;

use bytes::Bytes;
use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::{Batch, RowsRecord, TokenKind};
use spendfuse_loader::checkpoint::{Checkpoint, Links, Unsynced};
use spendfuse_loader::protocol::{Action, PartitionProtocol, StopReason};
use spendfuse_loader::region::Region;
use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

use warehouse::{RULES, log};

#[test]
fn records_that_are_no_longer_those_of_the_intent_stop_the_partition() {
    let log = log();
    let mut loader = PartitionProtocol::start("rows", 0, RULES, 0, Checkpoint::default());
    for (offset, value) in &log[..2] {
        loader.received(
            *offset,
            RowsRecord::read(*offset, UnixMillis(0), value.clone()),
        );
    }
    let due = UnixMillis(RULES.flush_interval);
    let Some(Action::Commit {
        offset: 0,
        metadata,
    }) = loader.next(due, 2, &BTreeMap::new())
    else {
        panic!("an intent comes first");
    };
    // The log lost its first record meanwhile.
    let checkpoint = Checkpoint::decode(&metadata).unwrap();
    let mut successor = PartitionProtocol::start("rows", 0, RULES, 0, checkpoint);
    let (offset, value) = &log[1];
    successor.received(
        *offset,
        RowsRecord::read(*offset, UnixMillis(0), value.clone()),
    );
    assert!(matches!(
        successor.next(due, 2, &BTreeMap::new()),
        Some(Action::Stop(StopReason::Doubt {
            start: 0,
            end: 2,
            ..
        }))
    ));
}

/// After topics were made anew the same range has other rows, and ClickHouse drops what has a token that
/// it knows.
#[test]
fn tokens_of_other_rows_in_the_same_range_are_others() {
    let tokens = |log: &[(i64, Bytes)], kind| {
        let read = |(offset, value): &(i64, Bytes)| {
            RowsRecord::read(*offset, UnixMillis(0), value.clone()).unwrap()
        };
        let records: Vec<RowsRecord> = log.iter().map(read).collect();
        let batch = Batch::of("rows", 0, 0, &records, kind);
        let tokens = batch.tables.into_iter().map(|table| table.token);
        tokens.collect::<Vec<String>>()
    };
    let mut anew = log();
    let first = anew[0].1.to_vec();
    anew[0].1 = Bytes::from([first.as_slice(), b"other"].concat());
    let content = |epoch| TokenKind::Content { epoch };
    assert_eq!(tokens(&log(), content(0)), tokens(&log(), content(0)));
    let (before, after) = (tokens(&log(), content(0)), tokens(&anew, content(0)));
    assert!(
        before.iter().all(|token| !after.contains(token)),
        "{after:?}"
    );
    assert_ne!(before, tokens(&log(), content(1)));
    // The old kind, by which interrupted inserts of older programs are replayed.
    assert_eq!(
        tokens(&anew, TokenKind::Range),
        ["finding_changes:rows:0:0-6", "spend:rows:0:0-6"]
    );
}

/// Retention removes an idle log up to its end: the offset of the last transaction's marker, at which
/// the position stands, is gone then.
#[test]
fn an_idle_partition_moves_to_the_end_of_its_log() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 6, Checkpoint::default());
    let none = BTreeMap::new();
    let next = |protocol: &mut PartitionProtocol, now, read_to| {
        protocol.next(UnixMillis(now), read_to, &none)
    };
    assert!(next(&mut protocol, 0, 6).is_none());
    assert!(next(&mut protocol, 5, 7).is_none());
    assert!(next(&mut protocol, 5_004, 7).is_none());
    let Some(Action::Commit { offset, metadata }) = next(&mut protocol, 5_005, 7) else {
        panic!("the position stays");
    };
    assert_eq!(offset, 7);
    assert_eq!(
        Checkpoint::decode(&metadata).unwrap(),
        Checkpoint::default()
    );
    let (at, value) = (7, log()[0].1.clone());
    let record = RowsRecord::read(at, UnixMillis(5_006), value);
    assert_eq!(protocol.received(at, record), None);
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.position(), 7);
    let flushed = next(&mut protocol, 5_016, 8);
    assert!(matches!(flushed, Some(Action::Commit { offset: 7, .. })));
}

/// A broker was restored, or a replica that lacked records became the leader.
#[test]
fn a_log_that_became_shorter_stops_its_partition_and_never_goes_back_to_its_beginning() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 10, Checkpoint::default());
    protocol.gone(10, 7);
    let Some(Action::Stop(reason)) = protocol.next(UnixMillis(0), 10, &BTreeMap::new()) else {
        panic!("the partition waits");
    };
    let sentence = reason.with_way_out("rows", 0);
    assert!(sentence.contains("the topic ends at offset 7, before what was loaded, up to 10"));
    assert!(sentence.contains("--to 7`"), "{sentence}");
    assert_eq!(
        [0, 6, 7].map(|to| reason.is_accepted_by(to)),
        [false, false, true]
    );
    let action = protocol.go_on_at(7);
    assert!(
        matches!(action, Some(Action::Commit { offset: 7, .. })),
        "{action:?}"
    );
}

#[test]
fn an_interrupted_insert_whose_records_are_gone_stops_its_partition() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 0, Checkpoint::default());
    let (offset, value) = &log()[0];
    let record = RowsRecord::read(*offset, UnixMillis(0), value.clone());
    assert_eq!(protocol.received(*offset, record), None);
    let due = UnixMillis(RULES.flush_interval);
    let Some(Action::Commit { metadata, .. }) = protocol.next(due, 1, &BTreeMap::new()) else {
        panic!("an intent comes first");
    };
    for (to, end) in [(5, 5), (1, 1)] {
        let checkpoint = Checkpoint::decode(&metadata).unwrap();
        let mut successor = PartitionProtocol::start("rows", 0, RULES, 0, checkpoint);
        successor.gone(0, to);
        let stopped = successor.next(due, 0, &BTreeMap::new());
        let Some(Action::Stop(reason)) = stopped else {
            panic!("{stopped:?}");
        };
        assert_eq!(reason.end(), Some(end));
    }
}

/// What somebody accepted for another partition and typed the wrong number for.
#[test]
fn only_the_end_of_what_is_wrong_accepts_it_where_good_rows_follow() {
    let detail = String::new;
    let (start, end) = (2, 5);
    for reason in [
        StopReason::Poison {
            offset: 4,
            detail: detail(),
        },
        StopReason::Refused {
            start,
            end,
            detail: detail(),
        },
        StopReason::Doubt {
            start,
            end,
            detail: detail(),
        },
    ] {
        assert_eq!(
            [4, 5, 900].map(|to| reason.is_accepted_by(to)),
            [false, true, false]
        );
    }
    let lost = StopReason::Lost {
        from: 2,
        to: 5,
        detail: detail(),
    };
    assert_eq!(
        [4, 5, 900].map(|to| lost.is_accepted_by(to)),
        [false, true, true]
    );
}

/// Stopped in order soon after the last records, and started again behind the retention.
#[test]
fn a_partition_that_is_given_up_moves_to_the_end_of_its_log_at_once() {
    let start = || PartitionProtocol::start("rows", 0, RULES, 6, Checkpoint::default());
    let mut protocol = start();
    assert!(protocol.leave(6).is_none());
    let left = protocol.leave(7);
    assert!(
        matches!(left, Some(Action::Commit { offset: 7, .. })),
        "{left:?}"
    );
    assert!(protocol.leave(8).is_none(), "under way");
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.position(), 7);

    // Records wait, or are gone.
    let mut waits = start();
    let record = RowsRecord::read(6, UnixMillis(0), log()[0].1.clone());
    assert_eq!(waits.received(6, record), None);
    assert!(waits.leave(8).is_none());
    let mut gone = start();
    gone.gone(6, 9);
    assert!(gone.leave(9).is_none());
}

/// A table without a column that the block has, say.
#[test]
fn rows_that_clickhouse_refuses_while_they_are_looked_for_stop_their_partition() {
    let region = Region::without_offsets(0, 1, Links::default(), true);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
    let record = RowsRecord::read(0, UnixMillis(0), log()[0].1.clone());
    assert_eq!(protocol.received(0, record), None);
    let looks = protocol.next(UnixMillis(0), 1, &BTreeMap::new());
    assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");
    let stopped = protocol.refused("no such column".to_owned());
    let Some(Action::Stop(reason)) = stopped else {
        panic!("{stopped:?}");
    };
    assert!(matches!(
        reason,
        StopReason::Refused {
            start: 0,
            end: 1,
            ..
        }
    ));
    assert!(reason.with_way_out("rows", 0).contains("--to 1`"));
}

/// ClickHouse was restarted before a bad record was accepted, and is compared after that.
#[test]
fn a_bad_record_that_was_accepted_does_not_stop_a_comparison() {
    let unsynced = Unsynced {
        server_run: 1,
        from: 0,
    };
    let region = Region::after_restart(1, unsynced);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
    assert_eq!(protocol.received(0, Err("no block".to_owned())), None);
    let end = protocol.next(UnixMillis(0), 1, &BTreeMap::new());
    assert!(
        matches!(end, Some(Action::Commit { offset: 1, .. })),
        "{end:?}"
    );
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.received(1, Err("no block".to_owned())), None);
    let stopped = protocol.next(UnixMillis(0), 2, &BTreeMap::new());
    assert!(matches!(
        stopped,
        Some(Action::Stop(StopReason::Poison { offset: 1, .. }))
    ));
}

/// One row of `spend`, which its writer wrote as commit `seq` after `previous`.
fn row_of_commit(offset: i64, previous: u64, seq: u64) -> Result<RowsRecord, String> {
    row_of_epoch(0, offset, previous, seq)
}

fn row_of_epoch(epoch: u32, offset: i64, previous: u64, seq: u64) -> Result<RowsRecord, String> {
    let block = RowBlock {
        table: "spend".to_owned(),
        schema_version: 1,
        rows: 1,
        epoch,
        link: Link {
            partition: 0,
            previous,
            seq,
        },
        indexes: IndexRange { first: 0, last: 0 },
        native: Bytes::from_static(b"row"),
    };
    RowsRecord::read(offset, UnixMillis(0), Bytes::from(block.encode()))
}
