//! Hands what is brought back to the meters, and sees whether they have taken it.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_bus::{OutputRecord, TransactionalWriter, log_ends};
use spendfuse_domain::correction::EntryPlace;
use spendfuse_domain::recovered::{RECOVERED_KEY, RecoveredCall, RecoveredId, RecoveredRecord};

use super::super::Failure;
use super::super::kafka::{self, PATIENCE};
use super::super::signals;
use crate::settings::Settings;

/// Identities in a record, about 50 bytes each.
const MOST_IDS: usize = 2_000;
/// Calls in a record, about 2 KB each.
const MOST_CALLS: usize = 50;
/// Records in a transaction, about 100 KB each.
const TRANSACTION: usize = 50;
/// How long the meters may take without taking more.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// On its way to the meters.
pub struct Sending<'s> {
    settings: &'s Settings,
    epoch: u32,
    /// `None` where nothing is sent.
    writer: Option<TransactionalWriter>,
    open: BTreeMap<u32, RecoveredRecord>,
    records: Vec<OutputRecord>,
    /// Calls that were sent by the same command before.
    sent_before: HashSet<EntryPlace>,
}

/// Whether the meters have what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    ByAll,
    NotAsked,
    Partly {
        partitions: usize,
        of: usize,
        within: Duration,
    },
}

impl Taken {
    pub fn name(self) -> &'static str {
        match self {
            Self::ByAll => "recovered",
            Self::NotAsked => "sent",
            Self::Partly { .. } => "sent_not_taken",
        }
    }
}

impl<'s> Sending<'s> {
    /// `is_dry`: nothing is sent.
    pub fn open(settings: &'s Settings, epoch: u32, is_dry: bool) -> Result<Self, Failure> {
        let open = || kafka::correcting(settings);
        Ok(Self {
            settings,
            epoch,
            writer: (!is_dry).then(open).transpose()?,
            open: BTreeMap::new(),
            records: Vec::new(),
            sent_before: match is_dry {
                true => HashSet::new(),
                false => calls_sent(settings, epoch)?,
            },
        })
    }

    /// Whether nothing is sent.
    pub fn is_dry(&self) -> bool {
        self.writer.is_none()
    }

    /// An event that `partition` is to remember.
    pub fn add_id(&mut self, partition: u32, id: RecoveredId) -> Result<(), Failure> {
        self.add(partition, |record| record.ids.push(id))
    }

    /// A call of a session of `partition`. One that was sent before is not sent again: the meters
    /// recognize it only within the horizon of their memory, and a session may be older.
    pub fn add_call(&mut self, partition: u32, call: RecoveredCall) -> Result<(), Failure> {
        match self.sent_before.contains(&call.entry) {
            true => Ok(()),
            false => self.add(partition, |record| record.calls.push(call)),
        }
    }

    fn add(
        &mut self,
        partition: u32,
        add: impl FnOnce(&mut RecoveredRecord),
    ) -> Result<(), Failure> {
        if self.is_dry() {
            return Ok(());
        }
        let epoch = self.epoch;
        let record = self
            .open
            .entry(partition)
            .or_insert_with(|| RecoveredRecord {
                v: 1,
                epoch,
                calls: Vec::new(),
                ids: Vec::new(),
            });
        add(record);
        if record.ids.len() >= MOST_IDS || record.calls.len() >= MOST_CALLS {
            self.close(partition)?;
        }
        match self.records.len() {
            TRANSACTION.. => self.write(),
            _ => Ok(()),
        }
    }

    fn close(&mut self, partition: u32) -> Result<(), Failure> {
        if let Some(record) = self.open.remove(&partition) {
            self.records.push(OutputRecord {
                topic: self.settings.topics().corrections,
                partition,
                key: Some(RECOVERED_KEY.to_vec()),
                value: Some(serde_json::to_vec(&record).map_err(Failure::work)?),
                headers: Vec::new(),
            });
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let open = signals::in_transaction();
        let written = writer.write(&self.records);
        drop(open);
        self.writer = Some(written.map_err(|error| {
            let failure = kafka::failure(self.settings, &error);
            Failure::work(format!(
                "{failure}; a spendfuse correct or rerate that begins meanwhile stops this one. The same \
                 command again brings back what is missing"
            ))
        })?);
        self.records.clear();
        Ok(())
    }

    /// Tells whoever watches how far it is.
    pub fn say(&self, what: impl Display) {
        if !self.is_dry() && stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K{what}");
        }
    }

    /// Sends the rest, and waits for the meters where that `is_awaited`.
    pub fn finish(mut self, is_awaited: bool) -> Result<Taken, Failure> {
        let open: Vec<u32> = self.open.keys().copied().collect();
        open.into_iter()
            .try_for_each(|partition| self.close(partition))?;
        if !self.records.is_empty() {
            self.write()?;
        }
        self.say("");
        match is_awaited && !self.is_dry() {
            true => self.wait(),
            false => Ok(Taken::NotAsked),
        }
    }

    fn wait(&self) -> Result<Taken, Failure> {
        let settings = self.settings;
        let topic = settings.topics().corrections;
        let ends = log_ends(&settings.kafka(), &topic, PATIENCE);
        let mut ends = ends.map_err(|error| kafka::failure(settings, &error))?;
        let group = kafka::transactional_id(settings, "meter");
        let (mut least, mut last_news) = (u64::MAX, Instant::now());
        loop {
            let unread = kafka::unread(settings, &group, &topic, &mut ends)?;
            if unread.is_empty() {
                return Ok(Taken::ByAll);
            }
            let records = unread.iter().map(|(_, records)| records).sum();
            if records < least {
                (least, last_news) = (records, Instant::now());
            }
            if last_news.elapsed() > TAKEN_WITHIN {
                return Ok(Taken::Partly {
                    partitions: ends.len() - unread.len(),
                    of: ends.len(),
                    within: TAKEN_WITHIN,
                });
            }
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// The calls that the topic has already for these topics. What cannot be read no meter has taken.
fn calls_sent(settings: &Settings, epoch: u32) -> Result<HashSet<EntryPlace>, Failure> {
    let mut sent = HashSet::new();
    kafka::read_topic(settings, &settings.topics().corrections, |record| {
        if record.key != Some(RECOVERED_KEY) {
            return;
        }
        let read = RecoveredRecord::parse(record.value.unwrap_or_default());
        if let Some(read) = read.ok().filter(|read| read.epoch == epoch) {
            sent.extend(read.calls.into_iter().map(|call| call.entry));
        }
    })?;
    Ok(sent)
}
