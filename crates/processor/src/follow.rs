//! Keeps the tables up to date: follows the topics of budgets and prices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_bus::{BusError, Condition, Health, InputRecord, KafkaConfig, Part, topic_ranges};
use spendfuse_domain::budget::{BudgetsRecord, FollowedBudgets};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::topics::TOMBSTONE_MILLIS;
use spendfuse_domain::{BudgetId, Topics};
use spendfuse_engine::book::BudgetBook;
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::book::records::FollowedBooks;

use crate::made_anew::Lookout;
use crate::metrics::{BUDGETS_UNREADABLE, TABLE_BAD_RECORDS};
use crate::tables::Tables;

const BUDGETS: usize = 0;
const PRICES: usize = 1;
const NAMES: [&str; 2] = ["budgets", "prices"];
/// How long one question for the end of the budgets topic may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Follows both topics until the follower is dropped.
///
/// # Errors
/// [`BusError::Property`] for client settings that cannot be used.
pub fn follow_tables(
    kafka: &KafkaConfig,
    topics: &Topics,
    tables: Arc<Tables>,
    health: &Health,
) -> Result<Follower, BusError> {
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "tables",
        topics: vec![topics.budgets.clone(), topics.prices.clone()],
        partition: None,
        tombstones: Duration::from_millis(TOMBSTONE_MILLIS.unsigned_abs()),
    };
    let (asked, topic) = (kafka.clone(), topics.budgets.clone());
    let end = move || {
        let ranges = topic_ranges(&asked, &topic, None, PATIENCE)?;
        Ok(ranges.first().map_or(0, |range| range.to))
    };
    let part = health.part("budgets topic");
    part.ready();
    tables.set_lookout(Lookout::new(&topics.budgets, part, end));
    let mut feed = TableFeed::new(tables, health.part("tables"));
    Follower::start(config, move |event| feed.handle(event))
}

/// A record of the budgets topic, and the version of the budgets that it made.
#[derive(Debug)]
struct Recorded {
    version: u64,
    record: BudgetsRecord,
}

/// Takes what the follower of both topics tells. While topics are read, from the beginning or again,
/// what was in force stays: a log that is half read says what was true once.
pub struct TableFeed {
    tables: Arc<Tables>,
    budgets: FollowedBudgets<Recorded>,
    prices: FollowedBooks,
    is_live: bool,
    is_failing: bool,
    health: Part,
}

impl TableFeed {
    /// A feed of `tables` that has read nothing; `health` is told what people should know.
    pub fn new(tables: Arc<Tables>, health: Part) -> Self {
        for topic in NAMES {
            counter!(TABLE_BAD_RECORDS, "topic" => topic).increment(0);
        }
        Self {
            tables,
            budgets: FollowedBudgets::default(),
            prices: FollowedBooks::default(),
            is_live: false,
            is_failing: false,
            health,
        }
    }

    /// Takes an event; topic 0 is that of budgets, 1 that of prices.
    pub fn handle(&mut self, event: FollowerEvent<'_>) {
        match event {
            FollowerEvent::Record(record) => self.take(&record),
            FollowerEvent::Partitions { .. } | FollowerEvent::Drained => {}
            FollowerEvent::EndOfPartition {
                topic_index,
                offset,
                ..
            } => {
                if topic_index == BUDGETS {
                    self.budgets.reached(offset.unsigned_abs());
                }
                if self.is_live {
                    self.publish_budgets();
                }
                self.tell();
            }
            FollowerEvent::CaughtUp => self.caught_up(),
            FollowerEvent::Reset => {
                tracing::warn!("budgets and prices are read again; what was in force stays");
                self.is_live = false;
                self.budgets.begin_again();
                self.prices.begin_again();
            }
            // The follower logs it.
            FollowerEvent::Failed(error) => {
                self.is_failing = true;
                let note = format!("cannot be followed, what was in force stays: {error}");
                self.health.tell(Condition::ReadyBut(note));
            }
            FollowerEvent::Recovered => {
                self.is_failing = false;
                self.tell();
            }
        }
    }

    fn take(&mut self, record: &InputRecord<'_>) {
        let topic = NAMES[record.topic_index];
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let taken = match (key, record.topic_index, record.value) {
            (None, _, _) => Err("the key is absent or not UTF-8".to_owned()),
            (Some(key), BUDGETS, value) => self.take_budget(record.offset, key, value),
            (Some(_), _, None) => Ok(()),
            (Some(key), _, Some(value)) => {
                debug_assert_eq!(record.topic_index, PRICES);
                let completed = self.prices.accept(key, value);
                completed
                    .map(|book| self.publish_prices(book))
                    .map_err(|error| error.to_string())
            }
        };
        if let Err(error) = taken {
            let offset = record.offset;
            tracing::error!(
                topic,
                key,
                offset,
                error,
                "record ignored: it cannot be read"
            );
            counter!(TABLE_BAD_RECORDS, "topic" => topic).increment(1);
        }
    }

    fn take_budget(&mut self, offset: i64, key: &str, value: Option<&[u8]>) -> Result<(), String> {
        let version = offset.unsigned_abs() + 1;
        let record = value.map(|value| {
            let record = BudgetsRecord::parse(key, value)?;
            Ok(Some(Recorded { version, record }))
        });
        let taken = self.budgets.accept(version, key, record);
        if taken.is_err() && is_broken(Break::UnreadableBudgetRemoved) {
            let _ = self.budgets.accept(version, key, None);
        }
        taken.map_err(|error| error.to_string())
    }

    fn caught_up(&mut self) {
        self.is_live = true;
        self.is_failing = false;
        if let Some(gone) = self.budgets.caught_up() {
            self.tables.accept_loss(gone);
            tracing::error!(
                version = gone,
                end = self.budgets.end(),
                "the budgets topic was made anew"
            );
        }
        self.publish_budgets();
        let newest = self.prices.caught_up();
        self.publish_prices(newest);
        self.tables.set_caught_up();
        self.tell();
    }

    fn publish_budgets(&mut self) {
        if self.budgets.take_change() {
            let book = book_of(&self.budgets).succeeding(&self.tables.budgets.load());
            gauge!(BUDGETS_UNREADABLE).set(self.budgets.unreadable().len() as f64);
            tracing::info!(
                version = book.version,
                budgets = book.budgets.len(),
                "budgets in force"
            );
            self.tables.budgets.store(Arc::new(book));
        }
        if !self.budgets.holds_former() {
            self.tables.set_budgets_end(self.budgets.end());
        }
    }

    fn publish_prices(&self, book: Option<PriceBook>) {
        let Some(book) = book else { return };
        if book.version() == self.tables.prices.load().version() {
            return;
        }
        tracing::info!(version = book.version(), "price book in force");
        self.tables.prices.store(Arc::new(book));
    }

    /// Tells people what is not as it should be.
    fn tell(&self) {
        if self.is_failing || !self.is_live {
            return;
        }
        let mut notes = Vec::new();
        if self.budgets.holds_former() {
            notes.push(
                "the budgets topic was made anew and is empty; the budgets from before stay in force until `spendfuse budgets apply FILE` writes others"
                    .to_owned(),
            );
        }
        if let Some((key, error)) = self.budgets.unreadable().first_key_value() {
            let count = self.budgets.unreadable().len();
            notes.push(format!(
                "{count} records of budgets cannot be read, the first is {key}: {error}; what was known of them stays, and what nobody here knew stands still; update spendfuse, or write them again with `spendfuse budgets apply FILE`"
            ));
        }
        self.health.tell(match notes.is_empty() {
            true => Condition::Ready,
            false => Condition::ReadyBut(notes.join("; ")),
        });
    }
}

/// Asked at the end of the log, so that an `apply`, which is one transaction, takes effect as a whole.
fn book_of(followed: &FollowedBudgets<Recorded>) -> BudgetBook {
    let mut budgets = Vec::new();
    let mut rules = Vec::new();
    let mut versions = BTreeMap::new();
    for Recorded { version, record } in followed.in_force() {
        match record {
            BudgetsRecord::Budget(budget) => {
                versions.insert(budget.id.clone(), *version);
                budgets.push(budget.clone());
            }
            BudgetsRecord::Detector(rule) => rules.push(rule.clone()),
        }
    }
    let unreadable = followed.unreadable().keys();
    let unreadable = unreadable.filter_map(|key| BudgetId::new(key));
    BudgetBook::compile(followed.version(), budgets, DetectorRules::new(rules))
        .recorded(&versions)
        .with_unreadable(unreadable)
}
