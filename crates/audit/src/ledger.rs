//! The ledger's accounts against the rows of the warehouse, and the blocklist against the accounts.
//!
//! The cut is exact though nothing stands still: the changelog says, with every state, up to which
//! commit of each meter partition deltas are in it. Rows up to there are what the accounts must
//! come to.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::{BlocklistEntry, BlocklistKey};
use spendfuse_engine::audit::{
    LedgerMark, Published, StoredAccount, StoredRecord, Told, read_stored,
};
use spendfuse_engine::ledger::CountRecord;

use crate::context::Context;
use crate::deltas::DeltaLog;
use crate::error::AuditError;
use crate::tail::Tail;

const POLL: Duration = Duration::from_millis(50);
/// How long the ledger may need to apply deltas that are in its log.
const PATIENCE: Duration = Duration::from_secs(15);

/// An account as the changelog has it.
#[derive(Debug)]
pub struct Account {
    /// The ledger partition.
    pub partition: u32,
    /// The count that it belongs to.
    pub count: spendfuse_domain::budget::CountId,
    /// What was spent.
    pub spend: spendfuse_domain::budget::Spend,
    /// What of it was spent before the count began.
    pub opening: spendfuse_domain::budget::Spend,
    /// What was published last.
    pub published: Option<Published>,
    /// The look in which it was compared last.
    pub looked: u64,
}

/// Scope text and start of the window.
pub type WindowKey = (String, i64);

/// What the blocklist says of one key.
#[derive(Debug)]
pub struct Entry {
    /// The ledger partition.
    pub partition: u32,
    /// What it says.
    pub told: Told,
}

/// A copy of the ledger's state and of its part of the blocklist.
#[derive(Debug)]
pub struct LedgerReplica {
    changelog: Tail,
    blocklist: Tail,
    /// By budget.
    pub accounts: HashMap<String, HashMap<WindowKey, Account>>,
    /// By budget and ledger partition, where its count begins.
    pub counts: HashMap<String, HashMap<u32, CountRecord>>,
    /// By ledger partition.
    pub marks: Vec<LedgerMark>,
    /// By key of the blocklist.
    pub entries: HashMap<String, Entry>,
    /// What became of keys while the state was read, by ledger partition: any of it may be what the
    /// state knows.
    pub changes: HashMap<String, Vec<(u32, Option<Told>)>>,
    /// Keys that could not be read, each told once.
    complained: BTreeSet<String>,
}

impl LedgerReplica {
    /// Nothing read yet.
    pub fn new(context: &Context<'_>) -> Result<Self, AuditError> {
        let topics = &context.topics;
        let changelog = Tail::new(context, &topics.ledger_changelog, None)?;
        Ok(Self {
            marks: vec![LedgerMark::default(); changelog.partitions()],
            changelog,
            blocklist: Tail::new(context, &topics.blocklist, None)?,
            accounts: HashMap::new(),
            counts: HashMap::new(),
            entries: HashMap::new(),
            changes: HashMap::new(),
            complained: BTreeSet::new(),
        })
    }

    /// Reads on, until the state holds all deltas that `deltas` has read. `false`: it does not in
    /// time.
    pub fn catch_up(
        &mut self,
        context: &Context<'_>,
        deltas: &DeltaLog,
    ) -> Result<bool, AuditError> {
        self.read_blocklist(context, false)?;
        let begin = Instant::now();
        loop {
            self.read_changelog(context)?;
            if self.has_applied(deltas) {
                break;
            }
            if begin.elapsed() > PATIENCE {
                return Ok(false);
            }
            context.pause(POLL);
        }
        self.read_blocklist(context, true)?;
        Ok(true)
    }

    fn has_applied(&self, deltas: &DeltaLog) -> bool {
        let partitions = self.marks.len() as u32;
        let told = |ledger: u32, meter: u32| {
            let chains = &self.marks[ledger as usize].chains;
            chains.get(meter as usize).copied().unwrap_or(0) >= deltas.last_told(meter, ledger)
        };
        (0..partitions).all(|ledger| (0..partitions).all(|meter| told(ledger, meter)))
    }

    fn read_changelog(&mut self, context: &Context<'_>) -> Result<(), AuditError> {
        let (accounts, marks) = (&mut self.accounts, &mut self.marks);
        let counts = &mut self.counts;
        self.changelog.read(context, None, |record, _| {
            let key = record.key.unwrap_or_default();
            let stored =
                read_stored(key, record.value).map_err(|source| AuditError::Changelog {
                    partition: record.partition,
                    offset: record.offset,
                    source,
                })?;
            match stored {
                StoredRecord::Mark(mark) => marks[record.partition as usize] = mark,
                StoredRecord::Account(account) => keep(accounts, record.partition, account),
                StoredRecord::Gone(budget, scope, start) => {
                    if let Some(of_budget) = accounts.get_mut(&budget) {
                        of_budget.remove(&(scope, start.0));
                    }
                }
                StoredRecord::Count(budget, count) => {
                    let of_budget = counts.entry(budget).or_default();
                    of_budget.insert(record.partition, count);
                }
                StoredRecord::CountGone(budget) => {
                    if let Some(of_budget) = counts.get_mut(&budget) {
                        of_budget.remove(&record.partition);
                    }
                }
                StoredRecord::Other => {}
            }
            Ok(())
        })
    }

    /// Reads the blocklist before or after the state. What came in between was published by the
    /// state or by one before or after it.
    fn read_blocklist(&mut self, context: &Context<'_>, is_after: bool) -> Result<(), AuditError> {
        let (entries, changes) = (&mut self.entries, &mut self.changes);
        if !is_after {
            for (key, mut told) in changes.drain() {
                if let Some((partition, told)) = told.pop() {
                    apply(entries, key, partition, told);
                }
            }
        }
        let complained = &mut self.complained;
        self.blocklist.read(context, None, |record, _| {
            let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key else { return Ok(()) };
            let Some(BlocklistKey::Budget { .. }) = BlocklistKey::parse(key) else {
                return Ok(());
            };
            let told = match record.value.map(serde_json::from_slice::<BlocklistEntry>) {
                None => None,
                Some(Ok(entry)) if is_of_session(&entry) => return Ok(()),
                Some(Ok(entry)) => Told::of(&entry),
                Some(Err(error)) => {
                    if complained.insert(key.to_owned()) {
                        (context.warn)(&format_args!("blocklist entry {key}: {error}"));
                    }
                    return Ok(());
                }
            };
            match is_after {
                true => changes
                    .entry(key.to_owned())
                    .or_default()
                    .push((record.partition, told)),
                false => apply(entries, key.to_owned(), record.partition, told),
            }
            Ok(())
        })
    }

    /// Per meter partition, the last commit of which any ledger partition has applied deltas.
    pub fn latest_applied(&self) -> Vec<u64> {
        let meters = 0..self.marks.len();
        meters
            .map(|meter| {
                let applied = self.marks.iter().map(|mark| mark.chains.get(meter));
                applied.flatten().copied().max().unwrap_or(0)
            })
            .collect()
    }

    /// The latest engine time of all partitions.
    pub fn now(&self) -> UnixMillis {
        let times = self.marks.iter().map(|mark| mark.now);
        times.max().unwrap_or_default()
    }

    /// Number of accounts.
    pub fn len(&self) -> usize {
        self.accounts.values().map(HashMap::len).sum()
    }
}

fn apply(entries: &mut HashMap<String, Entry>, key: String, partition: u32, told: Option<Told>) {
    match told {
        Some(told) => {
            entries.insert(key, Entry { partition, told });
        }
        None => {
            entries.remove(&key);
        }
    }
}

fn keep(
    accounts: &mut HashMap<String, HashMap<WindowKey, Account>>,
    partition: u32,
    stored: StoredAccount,
) {
    let account = Account {
        partition,
        count: stored.count,
        spend: stored.spend,
        opening: stored.opening,
        published: stored.published,
        looked: 0,
    };
    let of_budget = accounts.entry(stored.budget).or_default();
    of_budget.insert((stored.scope, stored.start.0), account);
}

/// Windows of sessions are counted by the meter.
fn is_of_session(entry: &BlocklistEntry) -> bool {
    let kinds = ["session:", "root_session:", "cooldown:"];
    kinds.iter().any(|kind| entry.window.starts_with(kind))
}
