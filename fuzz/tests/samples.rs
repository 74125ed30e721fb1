//! Every released version's records are read by this one, and it goes on where that one was.
//!
//! To add a version: `cargo run --release -p spendfuse-fuzz --example write_samples -- vX.Y.Z` on
//! the commit that is released, and commit `tests/samples/vX.Y.Z`. A folder never changes again.
//! Where a format changes so that an older one cannot be read, that is a breaking release, and its
//! test is removed together with the reason.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use minicbor::Decoder;
use minicbor::data::Type;
use serde_json::Value;
use spendfuse_domain::event::decode;
use spendfuse_domain::{Amount, Attribution, Nanos, UnixMillis, Verdict};
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_fuzz::samples::Story;
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, Now};
use spendfuse_loader::batch::RowsRecord;
use spendfuse_loader::checkpoint::Checkpoint;
use spendfuse_pricing::PriceBook;

const NOW: UnixMillis = UnixMillis(1_795_345_010_000);
/// What the story spends against most of its budgets.
const SPENT: Amount = Amount::Usd(Nanos::new(2_400_000_004));

fn versions() -> Vec<PathBuf> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/samples");
    let folders = fs::read_dir(samples)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// The samples of one kind, in their order.
fn samples(version: &Path, kind: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(version.join(kind)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no {kind}", version.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn record(sample: &[u8]) -> (&[u8], Option<&[u8]>) {
    match sample.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&sample[..end], Some(&sample[end + 1..])),
        None => (sample, None),
    }
}

/// In which order a commit publishes is no part of what is stored.
fn sorted(mut outputs: Value) -> Value {
    for list in outputs
        .as_object_mut()
        .into_iter()
        .flat_map(|all| all.values_mut())
    {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    outputs
}

#[test]
fn stored_state_is_restored_and_counted_on() {
    for version in versions() {
        let story = Story::new();
        let (mut meter, mut ledger) = (story.meter(), story.ledger());
        for sample in samples(&version, "meter_changelog") {
            match record(&sample) {
                (b"ids", Some(value)) => meter.restore_ids(value).unwrap(),
                (key, value) => meter.restore(key, value).unwrap(),
            }
        }
        for sample in samples(&version, "ledger_changelog") {
            let (key, value) = record(&sample);
            ledger.restore(key, value).unwrap();
        }
        meter.restored();
        ledger.restored();
        let then: Value =
            serde_json::from_slice(&fs::read(version.join("next.json")).unwrap()).unwrap();
        let now = story.goes_on(&mut meter, &mut ledger);
        assert_eq!(sorted(now), sorted(then), "{}", version.display());
    }
}

/// Fields may have been appended since; what was there is written as then: keys, names of series,
/// numbers of counts and revisions, hashes of identities and of contents, places of enums.
#[test]
fn what_a_release_wrote_is_written_the_same() {
    for version in versions() {
        let story = Story::new();
        let told = story.tell();
        // Heartbeats are written for the samples only.
        let mut followed: Vec<_> = story.followed(&told);
        let mut samples_followed: Vec<_> = samples(&version, "followed")
            .iter()
            .map(|sample| record(sample))
            .map(|(key, value)| (text(key), value.map(<[u8]>::to_vec)))
            .filter(|(key, _)| !key.starts_with("blocklist heartbeat|"))
            .collect();
        followed.sort();
        samples_followed.sort();
        assert_eq!(followed, samples_followed);
        let ids = (b"ids".to_vec(), Some(codec::encode(&told.meter.ids)));
        let meter: Vec<_> = told.meter.told.changelog.into_iter().chain([ids]).collect();
        for (kind, written) in [
            ("meter_changelog", meter),
            ("ledger_changelog", told.ledger.told.changelog),
        ] {
            let samples = samples(&version, kind);
            assert_eq!(samples.len(), written.len(), "{kind}");
            for (sample, (key, value)) in samples.iter().zip(&written) {
                let (old_key, old_value) = record(sample);
                assert_eq!(old_key, key);
                let (old, new) = (old_value.unwrap(), value.as_deref().unwrap());
                let key = text(key);
                assert!(says_as_much(old, new), "{key}\n{old:02x?}\n{new:02x?}");
            }
        }
        let deltas = told.meter.deltas.iter();
        let deltas: Vec<_> = deltas.map(|(_, deltas)| codec::encode(deltas)).collect();
        assert_eq!(deltas, samples(&version, "deltas"));
        assert_eq!(told.row_blocks, samples(&version, "row_blocks"));
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Whether a record says what an older one says, and perhaps more in fields that were appended.
fn says_as_much(old: &[u8], new: &[u8]) -> bool {
    // The first byte is the version of the format.
    let mut decoders = [&old[1..], &new[1..]].map(Decoder::new);
    let [old_value, new_value] = &mut decoders;
    old[0] == new[0] && extends(old_value, new_value)
}

fn extends<'b>(old: &mut Decoder<'b>, new: &mut Decoder<'b>) -> bool {
    let types = [&*old, &*new].map(|value| value.datatype().unwrap());
    if types == [Type::Array; 2] {
        let [fields, more] = [&mut *old, &mut *new].map(|list| list.array().unwrap().unwrap());
        let is_same = (0..fields).all(|_| extends(old, new));
        (fields..more).for_each(|_| new.skip().unwrap());
        return is_same && fields <= more;
    }
    let [old, new] = [old, new].map(|value| {
        let start = value.position();
        value.skip().unwrap();
        &value.input()[start..value.position()]
    });
    old == new
}

#[test]
fn deltas_of_an_older_meter_are_counted_by_todays_ledger() {
    for version in versions() {
        let mut ledger = Story::new().ledger();
        ledger.restored();
        ledger.begin(1);
        for sample in samples(&version, "deltas") {
            let deltas: Deltas = codec::decode(&sample).unwrap();
            ledger.apply(&deltas, NOW);
        }
        let judged = ledger.finish();
        assert_eq!(judged.broken_links, 0);
        let spent = judged.told.blocklist.iter().find_map(|(key, entry)| {
            let entry = entry.as_ref()?;
            (key == "customer|acme/customer=c-42").then_some(entry.figures.spent)
        });
        assert_eq!(spent.flatten(), Some(SPENT));
    }
}

#[test]
fn events_row_blocks_checkpoints_and_prices_are_read() {
    for version in versions() {
        for sample in samples(&version, "events") {
            let event = decode(&sample, &[], NOW).unwrap();
            assert_eq!(event.attribution.tags[0].1, "größe");
        }
        let blocks = samples(&version, "row_blocks");
        let tables: Vec<_> = blocks
            .into_iter()
            .map(|sample| RowsRecord::read(0, NOW, sample.into()).unwrap().block)
            .map(|block| (block.table, block.rows, block.link.seq))
            .collect();
        assert_eq!(tables[0], ("spend".to_owned(), 4, 1));
        for sample in samples(&version, "checkpoints") {
            Checkpoint::decode(std::str::from_utf8(&sample).unwrap()).unwrap();
        }
        let prices = samples(&version, "prices");
        let records = prices.iter().map(|sample| {
            let (key, value) = record(sample);
            (std::str::from_utf8(key).unwrap(), value.unwrap())
        });
        assert!(
            PriceBook::from_records(records)
                .unwrap()
                .version()
                .starts_with("sample")
        );
    }
}

#[test]
fn a_guard_decides_by_what_an_older_version_published() {
    for version in versions() {
        let (mut writer, guard) = Guard::new(GuardConfig::new(1));
        let now = Now {
            wall: NOW,
            monotonic_millis: 0,
        };
        for sample in samples(&version, "followed") {
            let (key, value) = record(&sample);
            let key = std::str::from_utf8(key).unwrap();
            let (topic, key) = key.split_once(' ').unwrap();
            let applied = match topic {
                "budgets" => writer.apply_budget(key, value, 1),
                "findings" => writer.apply_finding(key, value),
                _ => writer.apply(key, value, NOW, now),
            };
            applied.unwrap();
        }
        writer.caught_up();
        writer.publish(NOW);
        let request = CheckRequest {
            attribution: Attribution {
                workspace: "acme".into(),
                customer: "c-42".into(),
                session: "s-1".into(),
                plan: "free".into(),
                ..Attribution::default()
            },
            ..CheckRequest::default()
        };
        let decision = guard.check(&request, now);
        assert_eq!(decision.verdict(), Verdict::Block);
        let answer = guard.check_with_reasons(&request, now).explain();
        let line = |budget| {
            let line = answer.budgets.iter().find(|line| line.budget == budget);
            line.map(|line| (line.verdict, line.figures.spent)).unwrap()
        };
        assert_eq!(line("customer"), (Verdict::Block, Some(SPENT)));
        assert_eq!(line("session"), (Verdict::Block, Some(SPENT)));
        assert_eq!(line("loops").0, Verdict::Block);
        assert_eq!(line("tokens").0, Verdict::Warn);
    }
}
