//! `spendfuse dlq replay`: events back to the usage topic, each once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use spendfuse_bus::{InputRecord, OutputRecord, topics};
use spendfuse_domain::event::{RejectReason, decode};
use spendfuse_warehouse::EventKey;

use super::super::audit::rows_kept_millis;
use super::super::correct::rest::{once, wait_until_heard};
use super::super::kafka::PATIENCE;
use super::super::output::{self, counted, grouped};
use super::super::signals;
use super::super::warehouse::Connection;
use super::records::{self, OWN_HEADERS, Part, Place};
use super::{Failure, kafka, known_reason};
use crate::settings::Settings;

/// Events in one transaction.
const BATCH: usize = 2000;
/// On late events of which the warehouse knows nothing: the meter counts them all the same.
const VERIFIED_LATE: &str = "spendfuse_verified_late";
/// Their rows would be gone as well.
const TOO_OLD: &str = "older than what ClickHouse keeps (clickhouse.retention_months), so that nobody \
                       can say whether it was counted";

#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// Only events rejected for this reason
    #[arg(long, value_parser = known_reason)]
    reason: Option<String>,
    /// Also replay late events, those that ClickHouse does not know; the others are settled
    #[arg(long)]
    verify: bool,
    /// Only show what would be replayed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ReplayArgs) -> Result<ExitCode, Failure> {
    signals::end_between_transactions()?;
    let mut tally = Tally::default();
    let mut wanted: HashMap<Place, String> = HashMap::new();
    for event in records::read(settings, &Part::all(settings)?)? {
        let is_wanted = args.reason.as_ref().is_none_or(|one| *one == event.reason);
        if event.is_settled || !is_wanted {
            continue;
        }
        if event.reason == RejectReason::Late.name() && !args.verify {
            tally.need_verify += 1;
        } else if event.reason == RejectReason::TooLarge.name() {
            *tally
                .left
                .entry("its value was not kept".to_owned())
                .or_default() += 1;
        } else {
            wanted.insert(event.at, event.reason);
        }
    }
    if !wanted.is_empty() {
        let topics_of = settings.topics();
        let partitions = topics::partition_count(&settings.kafka(), &topics_of.usage, PATIENCE)
            .map_err(|error| kafka::failure(settings, &error))?;
        let mut replay = Replay {
            settings,
            is_dry: args.dry_run,
            usage: topics_of.usage,
            dlq: topics_of.dlq,
            partitions,
            horizon_millis: settings.dedupe_horizon_millis(),
            kept_millis: rows_kept_millis(settings),
            warehouse: match args.verify {
                true => Some(Connection::open(settings)?),
                false => None,
            },
            seen_late: HashSet::new(),
            batch: Vec::new(),
            tally,
        };
        if args.verify {
            // What was counted and is not loaded yet ClickHouse would not know.
            let tell =
                |text: String| output::note(format!("{text}: waiting until ClickHouse has them"));
            wait_until_heard(settings, once(tell))?;
        }
        replay.run(&wanted)?;
        tally = replay.tally;
    }
    tally.print(args);
    Ok(ExitCode::SUCCESS)
}

/// What became of the events.
#[derive(Default)]
struct Tally {
    replayed: u64,
    already_counted: u64,
    need_verify: u64,
    /// Events that stay in the DLQ, by why.
    left: BTreeMap<String, u64>,
}

/// An event on its way.
struct Candidate {
    at: Place,
    record: OutputRecord,
    /// By what the warehouse knows it, where it is late.
    late: Option<EventKey>,
}

struct Replay<'a> {
    settings: &'a Settings,
    is_dry: bool,
    usage: String,
    dlq: String,
    partitions: u32,
    /// Events that are older are late, milliseconds.
    horizon_millis: i64,
    /// Of events that are older nobody knows, milliseconds.
    kept_millis: i64,
    /// Asked about late events, with `--verify`.
    warehouse: Option<Connection>,
    /// Late events of this run: several copies may wait.
    seen_late: HashSet<EventKey>,
    batch: Vec<Candidate>,
    tally: Tally,
}

impl Replay<'_> {
    fn run(&mut self, wanted: &HashMap<Place, String>) -> Result<(), Failure> {
        let (settings, dlq) = (self.settings, self.dlq.clone());
        let ranges = kafka::ranges(settings, &dlq)?;
        let mut failed = None;
        kafka::read(settings, &dlq, &ranges, &mut |record| {
            let Some(reason) = wanted.get(&(record.partition, record.offset)) else {
                return ControlFlow::Continue(());
            };
            self.take(record, reason == RejectReason::Late.name());
            if self.batch.len() < BATCH {
                return ControlFlow::Continue(());
            }
            match self.send_batch() {
                Ok(()) => ControlFlow::Continue(()),
                Err(failure) => {
                    failed = Some(failure);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or_else(|| self.send_batch(), Err)
    }

    /// Takes an event into the batch, unless it would only come back.
    fn take(&mut self, record: &InputRecord<'_>, is_late: bool) {
        let own = |name: &str| name.starts_with(OWN_HEADERS);
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .filter(|(name, _)| !own(name))
            .collect();
        let value = record.value.unwrap_or_default();
        let event = match decode(value, &headers, output::now()) {
            Ok(event) => event,
            Err(rejection) => {
                let why = format!("would be rejected again: {}", rejection.reason);
                *self.tally.left.entry(why).or_default() += 1;
                return;
            }
        };
        // What was rejected for something else may have become late in the DLQ.
        let age = output::now().since(event.time);
        let is_late = is_late || age > self.horizon_millis;
        if is_late && age > self.kept_millis {
            *self.tally.left.entry(TOO_OLD.to_owned()).or_default() += 1;
            return;
        }
        if is_late && self.warehouse.is_none() {
            self.tally.need_verify += 1;
            return;
        }
        let mut headers: Vec<(String, Vec<u8>)> = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect();
        let late = is_late.then(|| EventKey {
            workspace: event.attribution.workspace.clone().into_owned(),
            source: event.source.clone().into_owned(),
            id: event.id.clone().into_owned(),
        });
        if is_late {
            headers.push((VERIFIED_LATE.to_owned(), b"1".to_vec()));
        }
        let home = event.home(self.partitions);
        self.batch.push(Candidate {
            at: (record.partition, record.offset),
            record: OutputRecord {
                topic: self.usage.clone(),
                partition: home,
                key: record.key.map(<[u8]>::to_vec),
                value: Some(value.to_vec()),
                headers,
            },
            late,
        });
    }

    fn send_batch(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        let late: Vec<EventKey> = batch.iter().filter_map(|one| one.late.clone()).collect();
        let known = match &self.warehouse {
            Some(connection) if !late.is_empty() => {
                connection.wait(connection.warehouse.contains_events(&late))?
            }
            _ => HashSet::new(),
        };
        let mut settled = Vec::with_capacity(batch.len());
        let mut records = Vec::with_capacity(batch.len() + 1);
        for candidate in batch {
            settled.push(candidate.at);
            let is_counted = candidate
                .late
                .is_some_and(|key| known.contains(&key) || !self.seen_late.insert(key));
            if is_counted {
                self.tally.already_counted += 1;
            } else {
                self.tally.replayed += 1;
                records.push(candidate.record);
            }
        }
        if self.is_dry || settled.is_empty() {
            return Ok(());
        }
        records.push(records::note(&self.dlq, settled));
        kafka::write_together(self.settings, "dlq-replay", &records)
    }
}

impl Tally {
    fn print(&self, args: &ReplayArgs) {
        if args.json {
            output::json(&json!({
                "dry_run": args.dry_run,
                "replayed": self.replayed,
                "already_counted": self.already_counted,
                "need_verify": self.need_verify,
                "left": self.left,
            }));
            return;
        }
        let done = if args.dry_run {
            "would be replayed"
        } else {
            "replayed"
        };
        output::line(format!("{} {done}", counted(self.replayed, "event")));
        if self.already_counted > 0 {
            output::line(format!(
                "{} counted already, according to ClickHouse",
                counted(self.already_counted, "late event")
            ));
        }
        if self.need_verify > 0 {
            output::line(format!(
                "{} left: --verify asks ClickHouse which are not counted yet",
                counted(self.need_verify, "late event")
            ));
        }
        for (why, count) in &self.left {
            output::line(format!("{} left: {why}", grouped(*count)));
        }
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_bus::Headers;

    use super::*;
    use crate::settings::resolve;

    #[test]
    fn what_the_warehouse_has_forgotten_is_not_counted_for_its_ignorance() {
        // Lines of budget windows may go sooner than rows.
        let given = ["clickhouse.history_retention_months=1".to_owned()];
        let resolved = resolve(None, &BTreeMap::<String, String>::new(), &given).unwrap();
        let settings = Settings::new(resolved).unwrap();
        let mut replay = Replay {
            settings: &settings,
            is_dry: true,
            usage: "usage".to_owned(),
            dlq: "usage.dlq".to_owned(),
            partitions: 4,
            horizon_millis: settings.dedupe_horizon_millis(),
            kept_millis: rows_kept_millis(&settings),
            warehouse: None,
            seen_late: HashSet::new(),
            batch: Vec::new(),
            tally: Tally::default(),
        };
        for days in [3, 300, 500] {
            let time = output::now().plus(-days * 24 * 3_600_000);
            let value = json!({
                "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": "1",
                "time": time,
                "data": {"workspace": "acme", "model": "m", "usage": {"input_tokens": 1}},
            })
            .to_string();
            let record = InputRecord {
                topic_index: 0,
                partition: 0,
                offset: days,
                timestamp_millis: output::now().0,
                key: None,
                value: Some(value.as_bytes()),
                headers: Headers::from_slice(&[]),
            };
            replay.take(&record, true);
        }
        assert_eq!(replay.tally.need_verify, 2);
        assert_eq!(replay.tally.left, BTreeMap::from([(TOO_OLD.to_owned(), 1)]));
    }
}
