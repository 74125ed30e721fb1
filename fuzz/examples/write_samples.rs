//! Writes what this version stores into `tests/samples/<version>/`, once, before its release.
//!
//! `cargo run --release -p spendfuse-fuzz --example write_samples -- v0.1.0`

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::{Heartbeat, Stage, heartbeat_key};
use spendfuse_engine::codec;
use spendfuse_fuzz::samples::{Story, event};
use spendfuse_loader::checkpoint::Checkpoint;
use spendfuse_pricing::PriceBook;

fn main() -> ExitCode {
    let Some(version) = std::env::args().nth(1).filter(|name| name.starts_with('v')) else {
        eprintln!("name the version, such as v0.1.0");
        return ExitCode::from(2);
    };
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/samples");
    let folder = samples.join(version);
    if folder.exists() {
        eprintln!(
            "{} is there: samples of a release never change",
            folder.display()
        );
        return ExitCode::from(1);
    }
    match write(&Writer { folder }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

struct Writer {
    folder: PathBuf,
}

impl Writer {
    fn put(&self, kind: &str, number: usize, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let folder = self.folder.join(kind);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(format!("{number:02}")), bytes)?)
    }

    /// A record in a file: the key, a line break, the value; a tombstone has neither of both.
    fn records<'r>(
        &self,
        kind: &str,
        records: impl Iterator<Item = (Vec<u8>, Option<&'r [u8]>)>,
    ) -> Result<(), Box<dyn Error>> {
        for (number, (key, value)) in records.enumerate() {
            let bytes = match value {
                Some(value) => [&key, b"\n".as_slice(), value].concat(),
                None => key,
            };
            self.put(kind, number, &bytes)?;
        }
        Ok(())
    }
}

fn write(writer: &Writer) -> Result<(), Box<dyn Error>> {
    let story = Story::new();
    let told = story.tell();
    for number in 0..4 {
        writer.put("events", number, event(number as i64).as_bytes())?;
    }
    let ids = codec::encode(&told.meter.ids);
    let changelog = told.meter.told.changelog.iter();
    let changelog = changelog.map(|(key, value)| (key.clone(), value.as_deref()));
    let with_ids = changelog.chain([(b"ids".to_vec(), Some(ids.as_slice()))]);
    writer.records("meter_changelog", with_ids)?;
    let changelog = told.ledger.told.changelog.iter();
    let changelog = changelog.map(|(key, value)| (key.clone(), value.as_deref()));
    writer.records("ledger_changelog", changelog)?;
    for (number, (_, deltas)) in told.meter.deltas.iter().enumerate() {
        writer.put("deltas", number, &codec::encode(deltas))?;
    }
    for (number, block) in told.row_blocks.iter().enumerate() {
        writer.put("row_blocks", number, block)?;
    }
    let checkpoint = Checkpoint::default().encode();
    writer.put("checkpoints", 0, checkpoint.as_bytes())?;
    writer.put(
        "checkpoints",
        1,
        br#"{"v":1,"intent":{"end":7,"records":2,"hash":"00000000000000ff","at":1795345000000,"inserts":{"spend":3}},"links":[["spend",0,41]]}"#,
    )?;
    followed(writer, &story, &told)?;
    prices(writer)?;
    fs::write(
        writer.folder.join("next.json"),
        serde_json::to_string_pretty(&told.next)?,
    )?;
    Ok(())
}

/// What guards follow, each key with its topic before it.
fn followed(
    writer: &Writer,
    story: &Story,
    told: &spendfuse_fuzz::samples::Told,
) -> Result<(), Box<dyn Error>> {
    let mut records = story.followed(told);
    for stage in [Stage::Meter, Stage::Ledger] {
        let beat = Heartbeat {
            v: 1,
            partition: 0,
            complete_to: UnixMillis(1_795_345_000_000),
            lag_ms: 5,
            version: 1,
            usage_offset: Some(9),
            budget_version: 3,
            openings: Vec::new(),
        };
        let key = format!("blocklist {}", heartbeat_key(stage, 0));
        records.push((key, Some(serde_json::to_vec(&beat)?)));
    }
    let records = records.iter();
    writer.records(
        "followed",
        records.map(|(key, value)| (key.clone().into_bytes(), value.as_deref())),
    )
}

fn prices(writer: &Writer) -> Result<(), Box<dyn Error>> {
    let book = PriceBook::parse(concat!(
        r#"{"spendfuse_prices":1,"label":"sample","source":"test","models":1,"aliases":0}"#,
        "\n",
        r#"{"provider":"openai","model":"gpt-4o","mode":"chat","rates":{"cache_read":1250000000,"input":2500000000,"output":10000000000}}"#,
        "\n",
    ))?;
    let records = book.to_records();
    let records = records.iter();
    writer.records(
        "prices",
        records.map(|record| {
            (
                record.key.clone().into_bytes(),
                Some(record.value.as_slice()),
            )
        }),
    )
}
