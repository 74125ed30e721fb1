//! Regions that are about the whole warehouse: epochs after one another, a warehouse that was set back,
//! one that is rebuilt.

use std::collections::BTreeMap;

use spendfuse_domain::UnixMillis;
use spendfuse_loader::checkpoint::{Chain, Checkpoint, Links, Unsynced};
use spendfuse_loader::protocol::{Action, PartitionProtocol, StopReason};
use spendfuse_loader::recovery::TableFacts;
use spendfuse_loader::region::Region;

use crate::warehouse::RULES;
use crate::{row_of_commit, row_of_epoch};

pub(crate) fn chain_of_spend(epoch: u32) -> Chain {
    Chain {
        table: "spend".to_owned(),
        partition: 0,
        epoch,
    }
}

/// Other topics of the set were made anew while those of rows stayed: they hold rows of two epochs.
#[test]
fn without_offsets_the_chains_of_every_epoch_in_the_topic_are_known() {
    let ends = Links::new([(chain_of_spend(0), 39)]);
    for begins_anew in [true, false] {
        let region = Region::without_offsets(5, 9, ends.clone(), false);
        let nothing = Checkpoint::default();
        let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 5, region, nothing);
        assert_eq!(protocol.received(5, row_of_epoch(0, 5, 37, 38)), None);
        assert_eq!(protocol.received(6, row_of_epoch(0, 6, 38, 40)), None);
        // Its writer kept its state, or began with none.
        let (previous, seq) = if begins_anew { (0, 1) } else { (40, 41) };
        assert_eq!(
            protocol.received(7, row_of_epoch(1, 7, previous, seq)),
            None
        );
        let (previous, seq) = (seq, seq + 1);
        assert_eq!(
            protocol.received(8, row_of_epoch(1, 8, previous, seq)),
            None
        );
        let looks = protocol.next(UnixMillis(0), 9, &BTreeMap::new());
        assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");
    }
    // A commit of the new epoch that nobody has.
    let region = Region::without_offsets(5, 9, ends, false);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 5, region, nothing);
    assert_eq!(protocol.received(5, row_of_epoch(1, 5, 3, 4)), None);
    let stops = protocol.next(UnixMillis(0), 9, &BTreeMap::new());
    assert!(
        matches!(stops, Some(Action::Stop(StopReason::Lost { .. }))),
        "{stops:?}"
    );
}

/// A snapshot of the disk from before the last ten minutes was put back, say.
#[test]
fn a_warehouse_that_lost_more_than_a_restart_explains_stops_its_partition() {
    let unsynced = Unsynced {
        server_run: 1,
        from: 4,
    };
    let after = |is_detached: bool| {
        let region = Region::after_restart(6, unsynced);
        let loaded = Checkpoint {
            links: Links::new([(chain_of_spend(0), 12)]),
            ..Checkpoint::default()
        };
        let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 4, region, loaded);
        assert_eq!(protocol.received(4, row_of_commit(4, 10, 11)), None);
        assert_eq!(protocol.received(5, row_of_commit(5, 11, 12)), None);
        let looks = protocol.next(UnixMillis(0), 6, &BTreeMap::new());
        assert!(matches!(looks, Some(Action::Inspect(_))), "{looks:?}");
        let nothing = TableFacts {
            views_agree: true,
            is_detached,
            ..TableFacts::default()
        };
        protocol.inspected(UnixMillis(0), &[nothing])
    };
    let lost_the_last = after(false);
    assert!(matches!(lost_the_last, Some(Action::Restore(_))));
    let Some(Action::Stop(reason)) = after(true) else {
        panic!("goes on over what is lost");
    };
    assert!(matches!(reason, StopReason::Behind { .. }), "{reason:?}");
    let sentence = reason.with_way_out("rows", 0);
    assert!(
        sentence.contains("`spendfuse warehouse rebuild`"),
        "{sentence}"
    );
    assert!(!reason.is_accepted_by(6), "nobody goes on behind it");
}

/// The insert of the last commit was under way when ClickHouse lost its disk.
#[test]
fn a_rebuild_looks_for_everything_and_goes_on_with_its_chains() {
    let loaded = Checkpoint {
        links: Links::new([(chain_of_spend(0), 12)]),
        warehouse: Some("new".to_owned()),
        ..Checkpoint::default()
    };
    let region = Region::rebuilding(6, 7);
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 4, region, loaded);
    // Retention removed what came before, a break was told when it was loaded, and what was accepted
    // then is passed by.
    assert_eq!(protocol.received(4, row_of_commit(4, 9, 10)), None);
    assert_eq!(protocol.received(5, Err("no block".to_owned())), None);
    assert_eq!(protocol.received(6, row_of_commit(6, 12, 13)), None);
    assert_eq!(protocol.received(7, row_of_commit(7, 13, 14)), None);
    let mut restored = 0;
    let metadata = loop {
        match protocol.next(UnixMillis(0), 8, &BTreeMap::new()) {
            Some(Action::Compare(batch)) => {
                let nothing = TableFacts {
                    views_agree: true,
                    is_detached: true,
                    ..TableFacts::default()
                };
                let restores = protocol.inspected(UnixMillis(0), &[nothing]);
                assert!(matches!(restores, Some(Action::Restore(_))), "{restores:?}");
                restored += batch.records;
                assert!(protocol.inserted().is_none(), "nothing is committed");
            }
            Some(Action::Commit { offset, metadata }) => {
                assert_eq!((offset, restored), (7, 2));
                break metadata;
            }
            other => panic!("{other:?}"),
        }
    };
    let kept = Checkpoint::decode(&metadata).unwrap();
    assert_eq!(kept.links, Links::new([(chain_of_spend(0), 13)]));
    assert_eq!(kept.warehouse.as_deref(), Some("new"));
    assert!(protocol.committed().is_none());
    let goes_on = protocol.next(UnixMillis(100), 8, &BTreeMap::new());
    assert!(
        matches!(goes_on, Some(Action::Commit { offset: 7, .. })),
        "{goes_on:?}"
    );
}
