//! Identities that were counted twice, looked for among the rows that arrived last.
//!
//! A meter partition remembers what it counted itself. An event that is sent again with another
//! session, or without the one it had, is at home in another partition, whose memory does not know
//! it. Only the warehouse sees both rows. What is found is told to people, each pair once: what was
//! told before this process began stands in the alerts topic.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use spendfuse_bus::{BusError, KafkaConfig, read_ranges, topic_ranges};
use spendfuse_warehouse::query::cell;
use spendfuse_warehouse::{Table, Warehouse, WarehouseError};

/// Begins the keys of these alerts.
const KEY_PREFIX: &str = "counted_twice|";
/// Commits of a meter partition that are looked at again after a start: minutes of a busy one, all
/// of a quiet one's day.
const COMMITS_AT_START: u64 = 100_000;
/// A pair may be met again in the two looks after the one that found it.
const LOOKS_REMEMBERED: u64 = 3;
/// What was told longer ago cannot be met again.
const TOLD_SINCE: Duration = Duration::from_secs(2 * 24 * 3600);
const TOPIC_PATIENCE: Duration = Duration::from_secs(10);
/// So many pairs are named by one look; more are met by an audit.
const MOST_PAIRS: usize = 1_000;
const MINUTE_MILLIS: i64 = 60_000;
const DAY_MILLIS: i64 = 24 * 60 * MINUTE_MILLIS;
/// An event's time may lie behind its arrival by the horizon, and by this where clocks differ.
const SLACK_MILLIS: i64 = 6 * MINUTE_MILLIS;
/// A look must not take the server from those who ask it something.
const BOUNDS: &str = "SETTINGS max_threads = 2, max_memory_usage = 1000000000, max_execution_time = 30, priority = 9";

/// One row of an identity that has two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedAt {
    /// The meter's: partition, commit and index in it.
    pub address: String,
    /// Where the event lies: topic, partition and offset.
    pub event: String,
    /// Empty where it had none.
    pub session: String,
    /// Dollars.
    pub cost: String,
}

impl fmt::Display for CountedAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            event,
            session,
            cost,
        } = self;
        match &**session {
            "" => write!(formatter, "{event} without a session")?,
            session => write!(formatter, "{event} of session {session}")?,
        }
        write!(formatter, " (row {address}, ${cost})")
    }
}

/// An identity with two rows in the warehouse.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CountedTwice {
    pub workspace: String,
    pub source: String,
    pub id: String,
    /// By arrival.
    pub first: CountedAt,
    /// Spend that did not happen.
    pub later: CountedAt,
}

impl CountedTwice {
    /// What makes it the same news.
    pub fn key(&self) -> String {
        let Self {
            workspace,
            source,
            id,
            later,
            ..
        } = self;
        format!("{KEY_PREFIX}{workspace}|{id}|{source}|{}", later.address)
    }
}

/// Why a look could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error("reading what people were told: {0}")]
    Told(#[from] BusError),
}

/// The last commit of each meter partition.
type Commits = BTreeMap<u32, u64>;

/// Looks at what arrived since the last look.
#[derive(Debug)]
pub(crate) struct Search {
    horizon_millis: i64,
    /// Up to where the last look went. Rows of one insert need not be seen all at once, so what
    /// arrived between the last two looks is looked at again.
    seen: Commits,
    seen_before: Commits,
    looks: u64,
    /// Keys of alerts, and the look that found them last.
    told: HashMap<String, u64>,
}

impl Search {
    /// Begins a little before what the warehouse has now.
    pub(crate) async fn begin(
        warehouse: &Warehouse,
        kafka: &KafkaConfig,
        alerts_topic: &str,
        horizon_millis: i64,
    ) -> Result<Self, LookError> {
        let (kafka, topic) = (kafka.clone(), alerts_topic.to_owned());
        let told = tokio::task::spawn_blocking(move || told_keys(&kafka, &topic));
        // The runtime drops such work only when it goes down itself.
        let told = told.await.unwrap_or(Err(BusError::Stopped))?;
        let mut search = Self {
            horizon_millis,
            seen: Commits::new(),
            seen_before: Commits::new(),
            looks: 0,
            told: told.into_iter().map(|key| (key, 0)).collect(),
        };
        let last = search.commits(warehouse).await?;
        let earlier = last.into_iter();
        let earlier = earlier.map(|(at, seq)| (at, seq.saturating_sub(COMMITS_AT_START)));
        search.seen = earlier.collect();
        search.seen_before = search.seen.clone();
        Ok(search)
    }

    /// Pairs of which nobody was told yet.
    pub(crate) async fn look(
        &mut self,
        warehouse: &Warehouse,
    ) -> Result<Vec<CountedTwice>, LookError> {
        let newest = self.commits(warehouse).await?;
        if newest.is_empty() {
            return Ok(Vec::new());
        }
        let pairs = self.pairs(warehouse).await?;
        self.looks += 1;
        self.seen_before = std::mem::take(&mut self.seen);
        self.seen = self.seen_before.clone();
        self.seen.extend(newest);
        let looks = self.looks;
        let is_news = |pair: &CountedTwice| self.told.insert(pair.key(), looks).is_none();
        let news = pairs.into_iter().filter(is_news).collect();
        self.told
            .retain(|_, look| *look + LOOKS_REMEMBERED >= looks);
        Ok(news)
    }

    /// The last commits of those partitions that have new rows.
    async fn commits(&self, warehouse: &Warehouse) -> Result<Commits, WarehouseError> {
        let table = warehouse
            .query_table(&format!(
                "SELECT meter_partition, max(meter_seq) FROM spend \
                 WHERE time > {} AND {} GROUP BY meter_partition {BOUNDS}",
                self.since(),
                newer_than(&self.seen)
            ))
            .await?;
        let rows = 0..table.rows.len();
        rows.map(|row| Ok((cell(&table, row, 0)?, cell(&table, row, 1)?)))
            .collect()
    }

    async fn pairs(&self, warehouse: &Warehouse) -> Result<Vec<CountedTwice>, WarehouseError> {
        // The identity's hash is the key of the sums: half a million identities take 100 MB.
        let at = "(received_at, meter_partition, meter_seq, meter_index)";
        let shown = "[concat(toString(meter_partition), '/', toString(meter_seq), '/', toString(meter_index)), \
             concat(src_topic, ' ', toString(src_partition), '@', toString(src_offset)), \
             session, toString(cost)]";
        let (since, fresh) = (self.since(), newer_than(&self.seen_before));
        let apart = self.horizon_millis + SLACK_MILLIS;
        let twice = format!(
            "SELECT cityHash64(workspace, source, event_id) FROM spend WHERE time > {since} \
             AND kind IN ('usage', 'revenue') AND event_id IN (\
               SELECT event_id FROM spend WHERE time > {since} AND {fresh}) \
             GROUP BY cityHash64(workspace, source, event_id) \
             HAVING min((meter_partition, meter_seq, meter_index)) != max((meter_partition, meter_seq, meter_index)) \
             AND max(received_at) - min(received_at) <= {apart} / 1000"
        );
        let table = warehouse
            .query_table(&format!(
                "SELECT any(workspace), any(source), any(event_id), \
                   argMin({shown}, {at}) AS first, argMax({shown}, {at}) AS later, \
                   first[1], first[2], first[3], first[4], later[1], later[2], later[3], later[4] \
                 FROM spend WHERE time > {since} AND kind IN ('usage', 'revenue') \
                 AND cityHash64(workspace, source, event_id) IN ({twice}) \
                 GROUP BY cityHash64(workspace, source, event_id) LIMIT {MOST_PAIRS} {BOUNDS}"
            ))
            .await?;
        (0..table.rows.len()).map(|row| pair(&table, row)).collect()
    }

    /// Rows of events before this are of no interest, and their parts need not be read.
    fn since(&self) -> String {
        let millis = self.horizon_millis + SLACK_MILLIS + DAY_MILLIS;
        format!("now64(3) - toIntervalMillisecond({millis})")
    }
}

/// A condition on rows: they are of later commits than `seen`.
fn newer_than(seen: &Commits) -> String {
    let later = seen
        .iter()
        .map(|(partition, seq)| format!("meter_partition = {partition} AND meter_seq > {seq}"));
    let known: Vec<String> = seen.keys().map(u32::to_string).collect();
    let others = match known.is_empty() {
        true => "true".to_owned(),
        false => format!("meter_partition NOT IN ({})", known.join(", ")),
    };
    let any: Vec<String> = later.chain([others]).collect();
    format!("({})", any.join(" OR "))
}

fn pair(table: &Table, row: usize) -> Result<CountedTwice, WarehouseError> {
    let text = |column| cell::<String>(table, row, column);
    let counted = |first| {
        Ok::<_, WarehouseError>(CountedAt {
            address: text(first)?,
            event: text(first + 1)?,
            session: text(first + 2)?,
            cost: text(first + 3)?,
        })
    };
    Ok(CountedTwice {
        workspace: text(0)?,
        source: text(1)?,
        id: text(2)?,
        first: counted(5)?,
        later: counted(9)?,
    })
}

/// Keys of alerts of this kind that people were told lately.
fn told_keys(kafka: &KafkaConfig, topic: &str) -> Result<Vec<String>, BusError> {
    let since = Timestamp::now().as_millisecond() - TOLD_SINCE.as_millis() as i64;
    let ranges = topic_ranges(kafka, topic, Some(since), TOPIC_PATIENCE)?;
    let mut keys = Vec::new();
    read_ranges(kafka, topic, &ranges, TOPIC_PATIENCE, &mut |record| {
        let key = record.key.map(String::from_utf8_lossy);
        keys.extend(
            key.filter(|key| key.starts_with(KEY_PREFIX))
                .map(Into::into),
        );
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}
