//! Which set of topics the processes of an installation work on, and in which format they store:
//! read from topic `installation`, compared with the topics that there are, and written by commands.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use spendfuse_bus::{
    Backoff, BusError, Condition, Health, OutputRecord, Shutdown, log_ends, read_ranges,
    topic_ranges, topics, write_in_one_transaction,
};
use spendfuse_domain::Installation;
use spendfuse_domain::installation::{
    EPOCH_KEY, EpochRecord, FORMAT_KEY, FormatRecord, InstallationError, NEWEST_FORMAT,
};
use spendfuse_warehouse::RowBlock;

use crate::commands::Failure;
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(8);
/// How long a look waits for a broker at all: a role that starts soon says what it waits for.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
/// How often a running role compares again: two questions to the broker.
const EVERY: Duration = Duration::from_secs(15);
/// Offsets at the end of a log among which there is a record, if anything was written lately: each is
/// followed by a marker.
const LAST_OFFSETS: i64 = 20;
/// Rows of the first format have it.
const FIRST_ROWS: u32 = 1;
/// Whoever went on would count into addresses that others have.
const FORGOTTEN: &str = "what was recorded about these topics is gone, because topic `installation` was \
                         deleted or made anew: `spendfuse topics create` records it again";

/// What is recorded, and what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What is recorded.
    pub installation: Installation,
    /// Kafka's ids of the topics that exist, but of budgets and prices.
    pub ids: BTreeMap<String, String>,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// Kafka.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A record.
    #[error(transparent)]
    Record(#[from] InstallationError),
    /// Nothing is recorded, and was.
    #[error("{FORGOTTEN}")]
    Forgotten,
}

/// Looks at the broker.
pub fn look(settings: &Settings) -> Result<Known, Unknown> {
    let (kafka, names) = (settings.kafka(), settings.topics());
    let all = names.all();
    // Who follows budgets and prices copes with topics made anew by itself, and they hold no addresses.
    let is_compared = |name: &str| name != names.budgets && name != names.prices;
    let all: Vec<&str> = all
        .iter()
        .map(|topic| topic.name)
        .filter(|name| is_compared(name))
        .collect();
    let ids = topics::ids(&kafka, &all, FIRST_ANSWER)?;
    let mut records = BTreeMap::new();
    if ids.contains_key(&names.installation) {
        let ranges = topic_ranges(&kafka, &names.installation, None, PATIENCE)?;
        let topic = &names.installation;
        read_ranges(&kafka, topic, &ranges, PATIENCE, &mut |record| {
            let key = record
                .key
                .map(|key| String::from_utf8_lossy(key).into_owned());
            if let (Some(key), Some(value)) = (key, record.value) {
                records.insert(key, value.to_vec());
            }
            ControlFlow::Continue(())
        })?;
    }
    let installation = Installation::of(&records)?;
    Ok(Known { installation, ids })
}

/// The same for who counts or loads: nothing recorded is the first set of topics in the first format
/// only where rows do not say otherwise.
fn look_at_recorded(settings: &Settings) -> Result<Known, Unknown> {
    let known = look(settings)?;
    let has_rows = known.ids.contains_key(&settings.topics().rows);
    let is_recorded = known.installation.topics.is_some();
    match !is_recorded && has_rows && epoch_of_rows(settings)?.is_some() {
        true => Err(Unknown::Forgotten),
        false => Ok(known),
    }
}

/// The epoch of the newest rows, where they are of a later format than the first.
pub fn epoch_of_rows(settings: &Settings) -> Result<Option<u32>, BusError> {
    let (kafka, topic) = (settings.kafka(), settings.topics().rows);
    let mut last = topic_ranges(&kafka, &topic, None, PATIENCE)?;
    for range in &mut last {
        range.from = range.from.max(range.to - LAST_OFFSETS);
    }
    let mut newest = None;
    read_ranges(&kafka, &topic, &last, PATIENCE, &mut |record| {
        let block = RowBlock::decode(&record.value.unwrap_or_default().to_vec().into());
        if let Ok(block) = block
            && block.schema_version > FIRST_ROWS
        {
            newest = newest.max(Some(block.epoch));
        }
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

impl Known {
    /// One sentence where topics are not those of the epoch.
    pub fn complaint(&self) -> Option<String> {
        let strangers = self.installation.strangers(&self.ids);
        let gone = strangers
            .iter()
            .filter(|name| !self.ids.contains_key(*name));
        let gone: Vec<&str> = gone.map(String::as_str).collect();
        if !gone.is_empty() {
            return Some(format!(
                "topics of epoch {} are gone: {}; `spendfuse topics create` makes them anew",
                self.installation.epoch(),
                gone.join(", ")
            ));
        }
        (!strangers.is_empty()).then(|| {
            format!(
                "topics are not those of epoch {}, they were made anew: {}; if nothing of what they \
                 held is needed, `spendfuse topics new-epoch` begins the next one",
                self.installation.epoch(),
                strangers.join(", ")
            )
        })
    }
}

/// Waits for a broker, and refuses topics that are not those of the epoch.
pub fn wait_for(
    settings: &Settings,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Option<Known>, Failure> {
    let part = health.part("installation");
    let mut backoff = PAUSES;
    while !shutdown.is_requested() {
        match look_at_recorded(settings) {
            Ok(known) => {
                if let Some(complaint) = known.complaint() {
                    return Err(Failure::work(complaint));
                }
                if known.installation.topics.is_none() {
                    tracing::warn!(
                        "nothing is recorded about the topics, so they are epoch 0; `spendfuse topics create` records them"
                    );
                }
                part.ready();
                return Ok(Some(known));
            }
            Err(Unknown::Bus(error)) if error.can_retry() => {
                tracing::warn!(%error, "waiting for Kafka");
                part.not_ready(format!("waiting for Kafka: {error}"));
                shutdown.wait(backoff.pause());
            }
            Err(error) => return Err(Failure::work(error)),
        }
    }
    Ok(None)
}

/// What a [`Watch`] has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Everything is as it was.
    #[default]
    Same,
    /// Something else is recorded now: the role begins again with it.
    Changed,
    /// Topics are not those of the epoch any more.
    Strangers(String),
}

/// Compares again and again while a role runs.
pub struct Watch {
    shutdown: Shutdown,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Stops a role by its `shutdown` where it would work on other topics than `known` ones.
    pub fn start(settings: &Settings, known: Installation, role: Shutdown) -> Self {
        let (settings, shutdown) = (settings.clone(), role.child());
        let seen = Arc::new(Mutex::new(Seen::Same));
        let (stop, tell) = (shutdown.clone(), Arc::clone(&seen));
        let watching = move || {
            while !stop.wait(EVERY) {
                let found = match look(&settings) {
                    Ok(now) => compared(&known, &now),
                    // Whoever needs the broker says so.
                    Err(_) => Seen::Same,
                };
                if found != Seen::Same {
                    *tell
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner) = found;
                    role.request();
                }
            }
        };
        Self {
            shutdown,
            seen,
            thread: thread::spawn(watching),
        }
    }

    /// Ends it.
    pub fn stop(self) -> Seen {
        self.shutdown.request();
        let _ = self.thread.join();
        let seen = self.seen.lock();
        seen.unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

fn compared(known: &Installation, now: &Known) -> Seen {
    let is_forgotten = known.topics.is_some() && now.installation.topics.is_none();
    match now.complaint() {
        Some(complaint) => Seen::Strangers(complaint),
        None if is_forgotten => Seen::Strangers(FORGOTTEN.to_owned()),
        None if now.installation != *known => Seen::Changed,
        None => Seen::Same,
    }
}

/// Enforcement goes on with what is known: a sidecar only says that topics are not those of the epoch.
pub fn tell_of_strangers(settings: &Settings, health: &Health, shutdown: &Shutdown) {
    let (settings, stop) = (settings.clone(), shutdown.clone());
    let part = health.part("installation");
    part.ready();
    let watching = move || {
        loop {
            match look(&settings).ok().map(|now| now.complaint()) {
                Some(Some(complaint)) => {
                    tracing::error!("{complaint}");
                    part.tell(Condition::ReadyBut(complaint));
                }
                Some(None) => part.ready(),
                None => {}
            }
            if stop.wait(EVERY) {
                return;
            }
        }
    };
    thread::spawn(watching);
}

/// Records the topics that there are as those of `epoch`; with `is_new` also the newest format.
pub fn record(
    settings: &Settings,
    known: &Known,
    epoch: u32,
    format: Option<u32>,
) -> Result<(), BusError> {
    let mut topics = EpochRecord {
        v: 1,
        epoch,
        partitions: settings.partitions(),
        topics: known.ids.clone(),
    };
    topics.topics.remove(&settings.topics().installation);
    let mut records = vec![(EPOCH_KEY, json(&topics))];
    records.extend(format.map(|format| (FORMAT_KEY, json(&FormatRecord { v: 1, format }))));
    write(settings, records)
}

/// Records that records may be stored in the newest format.
pub fn record_format(settings: &Settings) -> Result<(), BusError> {
    let format = NEWEST_FORMAT;
    write(
        settings,
        vec![(FORMAT_KEY, json(&FormatRecord { v: 1, format }))],
    )
}

fn write(settings: &Settings, records: Vec<(&str, Vec<u8>)>) -> Result<(), BusError> {
    let topic = settings.topics().installation;
    let records = records.into_iter().map(|(key, value)| OutputRecord {
        topic: topic.clone(),
        partition: 0,
        key: Some(key.as_bytes().to_vec()),
        value: Some(value),
        headers: Vec::new(),
    });
    let records: Vec<OutputRecord> = records.collect();
    let id = format!("{}-installation", settings.values.transactional_id_prefix);
    write_in_one_transaction(&settings.kafka(), &id, &records, PATIENCE)
}

fn json<T: serde::Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys only")
}

/// Whether nothing was ever counted here, so that no older program can have a part in it.
pub fn is_new(settings: &Settings) -> Result<bool, BusError> {
    let topics = settings.topics();
    for topic in [&topics.meter_changelog, &topics.rows] {
        let ends = log_ends(&settings.kafka(), topic, PATIENCE)?;
        if ends.iter().any(|end| *end > 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Epoch 0 and the first format would be taken up, beside rows of another epoch.
    #[test]
    fn what_is_recorded_no_more_is_not_taken_for_a_change() {
        let topics = EpochRecord {
            v: 1,
            epoch: 3,
            partitions: 4,
            topics: BTreeMap::from([("rows".to_owned(), "1".to_owned())]),
        };
        let known = Installation {
            topics: Some(topics),
            format: NEWEST_FORMAT,
        };
        let now = |installation: Installation| Known {
            installation,
            ids: BTreeMap::from([("rows".to_owned(), "1".to_owned())]),
        };
        let seen = |installation| compared(&known, &now(installation));
        assert_eq!(seen(known.clone()), Seen::Same);
        let gone = seen(Installation::default());
        assert_eq!(gone, Seen::Strangers(FORGOTTEN.to_owned()));
        let finalized = Installation {
            format: 1,
            ..known.clone()
        };
        assert_eq!(compared(&finalized, &now(known.clone())), Seen::Changed);
        // A release before recorded nothing; that is recorded meanwhile is news.
        let unrecorded = Installation::default();
        assert_eq!(compared(&unrecorded, &now(known)), Seen::Changed);
    }
}
