//! Two events with one identity: people are told where both lie, as far as that is known.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{Origin, SpendRow};
use spendfuse_domain::{Identity, UnixMillis};
use spendfuse_engine::alert::AlertKind;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::meter::dedupe::RememberedIds;
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, Rows};

struct Nowhere;

impl Rows for Nowhere {
    fn push(&mut self, _row: &SpendRow<'_>) {}
}

const HOUR: i64 = 3_600_000;

fn meter() -> Meter {
    let config = MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: 24 * HOUR,
        dedupe_capacity: 1_000,
        session_idle_millis: HOUR,
        session_capacity: 10,
    };
    let book = BudgetBook::compile(1, Vec::new(), DetectorRules::default());
    Meter::new(config, Arc::new(book))
}

fn count(meter: &mut Meter, content: u32, partition: u32, offset: i64) -> Counted {
    count_of("acme", meter, content, partition, offset)
}

fn count_of(
    workspace: &str,
    meter: &mut Meter,
    content: u32,
    partition: u32,
    offset: i64,
) -> Counted {
    let arrival = UnixMillis(1_795_348_800_000);
    let event = Event {
        identity: Identity::of(workspace, "app", "id-1", "final"),
        content,
        source: Cow::Borrowed("app"),
        id: Cow::Borrowed("id-1"),
        time: arrival,
        flags: Flags::default(),
        attribution: Attribution {
            workspace: Cow::Borrowed(workspace),
            customer: Cow::Owned(format!("c-{content}")),
            ..Attribution::default()
        },
        body: Body::Usage(Call::default()),
    };
    let origin = Origin {
        partition,
        offset,
        arrival,
        ..Origin::default()
    };
    meter.begin(1);
    meter.count(&event, &Charge::default(), origin, &mut Nowhere)
}

/// What people are told of a conflict by the running commit, and the identities that it remembers.
fn told(meter: &mut Meter) -> (String, RememberedIds) {
    let outputs = meter.finish();
    let mut alerts = outputs.told.alerts.into_iter();
    let conflict = alerts.find(|alert| alert.kind == AlertKind::Conflict);
    (
        conflict.map_or(String::new(), |alert| alert.message),
        outputs.ids,
    )
}

#[test]
fn a_conflict_names_both_places_and_after_a_restore_says_that_one_is_forgotten() {
    let mut first = meter();
    assert!(matches!(count(&mut first, 1, 2, 40), Counted::AtAddress(_)));
    let (_, ids) = told(&mut first);
    assert_eq!(count(&mut first, 2, 3, 50), Counted::Conflict);
    let (message, _) = told(&mut first);
    assert!(message.contains("usage 2@40 is counted"), "{message}");
    assert!(message.contains("usage 3@50 is not"), "{message}");

    let mut successor = meter();
    let restored = successor.restore_ids(&codec::encode(&ids));
    restored.expect("the identities can be read");
    successor.restored();
    assert_eq!(count(&mut successor, 2, 3, 50), Counted::Conflict);
    let (message, _) = told(&mut successor);
    assert!(message.contains("2026-11-22T12:00:00Z"), "{message}");
    assert!(message.contains("not remembered"), "{message}");
    assert!(message.contains("usage 3@50 is not"), "{message}");
}

#[test]
fn equal_ids_of_two_workspaces_are_two_events() {
    let mut meter = meter();
    for (workspace, offset) in [("acme", 40), ("globex", 41)] {
        let counted = count_of(workspace, &mut meter, 1, 2, offset);
        assert!(matches!(counted, Counted::AtAddress(_)), "{workspace}");
        assert_eq!(told(&mut meter).0, "", "people are told by the loader");
        let again = count_of(workspace, &mut meter, 1, 2, offset + 10);
        assert_eq!(again, Counted::Duplicate, "{workspace}");
        told(&mut meter);
    }
}
