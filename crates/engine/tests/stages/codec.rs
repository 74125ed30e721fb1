//! Internal records: what is written is read again, also by older and newer binaries.

use minicbor::{Decode, Encode};
use proptest::prelude::*;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_engine::codec::{self, CodecError, FORMAT_VERSION};
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::dedupe::{RememberedId, RememberedIds};
use spendfuse_engine::meter::{Meter, MeterConfig};
use spendfuse_testkit::Scenario;

fn entry() -> impl Strategy<Value = DeltaEntry> {
    let numbers = (any::<u32>(), any::<i64>(), any::<i64>(), any::<i64>());
    let money = (any::<i128>(), any::<i128>());
    let texts = (".{0,12}", ".{0,12}", ".{0,12}");
    (numbers, money, texts, any::<i64>()).prop_map(|(numbers, money, texts, time)| DeltaEntry {
        series: numbers.0,
        scope: texts.0,
        minute: numbers.1,
        cost: Nanos::new(money.0),
        unpriced: Nanos::new(money.1),
        tokens: numbers.2,
        calls: numbers.3,
        source: texts.1,
        id: texts.2,
        time: UnixMillis(time),
        is_history: false,
        corrects: None,
    })
}

fn deltas() -> impl Strategy<Value = Deltas> {
    let entries = proptest::collection::vec(entry(), 0..4);
    (any::<u32>(), any::<u64>(), any::<u64>(), entries).prop_map(
        |(partition, prev, seq, entries)| Deltas {
            budget_version: 7,
            through: (seq % 2 == 0).then_some(seq.cast_signed()),
            meter_partition: partition,
            prev,
            seq,
            series: vec!["customer".to_owned()],
            entries,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_round_trip(deltas in deltas(), calls in proptest::collection::vec(any::<u8>(), 0..5), ids in proptest::collection::vec(any::<(u64, u64, u32, u32)>(), 0..5)) {
        prop_assert_eq!(&codec::decode::<Deltas>(&codec::encode(&deltas)).unwrap(), &deltas);
        let ids = ids.into_iter().map(|(high, low, content, minute)| RememberedId { high, low, content, minute });
        let ids = RememberedIds { ids: ids.collect(), calls };
        prop_assert_eq!(codec::decode::<RememberedIds>(&codec::encode(&ids)).unwrap(), ids);
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
        let mut with_version = vec![FORMAT_VERSION];
        with_version.extend(bytes);
        read_as_everything(&with_version);
    }

    #[test]
    fn damaged_records_never_panic(deltas in deltas(), place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = codec::encode(&deltas);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        read_as_everything(&bytes);
        read_as_everything(&bytes[..cut.index(bytes.len())]);
    }
}

fn empty() -> Scenario {
    Scenario {
        partitions: 1,
        log: vec![],
        versions: vec![spendfuse_testkit::BudgetVersion {
            from: 0,
            budgets: vec![],
            rules: vec![],
        }],
        horizon_millis: 60_000,
        dedupe_capacity: 100,
        idle_millis: 60_000,
        grace_millis: 60_000,
    }
}

fn meter(partitions: u32) -> Meter {
    let config = MeterConfig {
        partition: 0,
        partitions,
        dedupe_horizon_millis: 60_000,
        dedupe_capacity: 100,
        session_idle_millis: 60_000,
        session_capacity: 10_000_000,
    };
    Meter::new(config, empty().book(0))
}

fn ledger(partitions: u32) -> Ledger {
    let config = LedgerConfig {
        partition: 0,
        partitions,
        grace_millis: 60_000,
        publish_rate: PUBLISH_RATE,
        account_capacity: 1_000,
    };
    Ledger::new(config, empty().book(0))
}

/// As every kind of record there is; errors are fine, panics are not.
fn read_as_everything(bytes: &[u8]) {
    let _ = codec::decode::<Deltas>(bytes);
    for key in [
        "mark",
        "told|x",
        "session|acme/session=s",
        "evaluated",
        "account|b|0|*",
    ] {
        let _ = meter(1).restore(key.as_bytes(), Some(bytes));
        let _ = ledger(1).restore(key.as_bytes(), Some(bytes));
    }
    let _ = meter(1).restore_ids(bytes);
}

/// [`RememberedIds`] as a later binary may write it.
#[derive(Encode, Decode)]
struct LaterIds {
    #[n(0)]
    ids: Vec<LaterId>,
    #[n(2)]
    note: String,
}

#[derive(Encode, Decode)]
struct LaterId {
    #[n(0)]
    high: u64,
    #[n(1)]
    low: u64,
    #[n(2)]
    content: u32,
    #[n(3)]
    minute: u32,
    #[n(4)]
    region: Option<String>,
}

#[test]
fn fields_that_a_later_binary_appended_are_skipped() {
    let later = LaterIds {
        ids: vec![LaterId {
            high: 1,
            low: 2,
            content: 3,
            minute: 4,
            region: Some("eu".to_owned()),
        }],
        note: "new".to_owned(),
    };
    let known: RememberedIds = codec::decode(&codec::encode(&later)).unwrap();
    let expected = RememberedId {
        high: 1,
        low: 2,
        content: 3,
        minute: 4,
    };
    assert_eq!(known.ids, [expected]);
}

/// A record of deltas with a field behind those that are left out where they have nothing to say.
#[test]
fn what_is_left_out_may_have_fields_behind_it() {
    #[derive(Encode)]
    struct LaterEntry {
        #[n(0)]
        series: u32,
        #[n(1)]
        scope: String,
        #[n(2)]
        minute: i64,
        #[n(3)]
        cost: (i64, u64),
        #[n(4)]
        unpriced: (i64, u64),
        #[n(5)]
        tokens: i64,
        #[n(6)]
        calls: i64,
        #[n(7)]
        source: String,
        #[n(8)]
        id: String,
        #[n(9)]
        time: i64,
        #[n(12)]
        later: u32,
    }
    let later = LaterEntry {
        series: 0,
        scope: "acme".to_owned(),
        minute: 1,
        cost: (0, 5),
        unpriced: (0, 0),
        tokens: 1,
        calls: 1,
        source: "app".to_owned(),
        id: "r-1".to_owned(),
        time: 60_000,
        later: 7,
    };
    let entry: DeltaEntry = codec::decode(&codec::encode(&later)).unwrap();
    assert!(!entry.is_history);
}

#[test]
fn a_newer_version_byte_is_refused_by_name() {
    let mut bytes = codec::encode(&RememberedIds::default());
    bytes[0] = FORMAT_VERSION + 1;
    let error = codec::decode::<RememberedIds>(&bytes).unwrap_err();
    assert!(matches!(error, CodecError::Newer { found } if found == FORMAT_VERSION + 1));
    assert!(
        error.to_string().contains("run a newer spendfuse"),
        "{error}"
    );
    assert!(codec::decode::<RememberedIds>(&[]).is_err());
}

#[test]
fn a_changelog_of_another_partition_count_is_refused() {
    let mut one = meter(2);
    one.begin(1);
    for (key, value) in one.finish().told.changelog {
        let error = meter(3).restore(&key, value.as_deref()).unwrap_err();
        assert!(
            error.to_string().contains("written for 2 partitions"),
            "{error}"
        );
    }
    let mut one = ledger(2);
    one.begin(1);
    for (key, value) in one.finish().told.changelog {
        let error = ledger(3).restore(&key, value.as_deref()).unwrap_err();
        assert!(
            error.to_string().contains("written for 2 partitions"),
            "{error}"
        );
    }
}
