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

use crate::commands::Failure;
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(8);
/// How long a look waits for a broker at all: a role that starts soon says what it waits for.
const FIRST_ANSWER: Duration = Duration::from_secs(4);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
/// How often a running role compares again: two questions to the broker.
const EVERY: Duration = Duration::from_secs(15);

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
        match look(settings) {
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
                    Ok(now) => match now.complaint() {
                        Some(complaint) => Seen::Strangers(complaint),
                        None if now.installation != known => Seen::Changed,
                        None => Seen::Same,
                    },
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
