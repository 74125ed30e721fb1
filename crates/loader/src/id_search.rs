//! Rows with one source and id, looked for among those that arrived last: identities that were
//! counted twice, and ids that two workspaces share.
//!
//! A meter partition remembers what it counted itself. An event that is sent again with another
//! session, or without the one it had, is at home in another partition, whose memory does not know
//! it; so mostly is the event of another workspace. Only the warehouse sees both rows. What is found
//! is news once: what people were told before this process began stands in the alerts topic.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use spendfuse_bus::{BusError, KafkaConfig, read_ranges, topic_ranges};
use spendfuse_warehouse::client::quoted;
use spendfuse_warehouse::query::cell;
use spendfuse_warehouse::{Table, Warehouse, WarehouseError};

use crate::same_id::{CallName, CountedAt, SameId, is_key};

/// Commits of a meter partition that are looked at again after a start: minutes of a busy one, hours
/// of a quiet one.
const COMMITS_AT_START: u64 = 10_000;
/// About so many new rows are looked at at once; where there are more, the next looks go on.
const MOST_FRESH: u64 = 300_000;
/// A pair may be met again in the two looks after the one that found it.
const LOOKS_REMEMBERED: u64 = 3;
/// What was told longer ago cannot be met again.
const TOLD_SINCE: Duration = Duration::from_secs(2 * 24 * 3600);
const TOPIC_PATIENCE: Duration = Duration::from_secs(10);
/// So many pairs are named by one look; more are met by an audit.
const MOST_PAIRS: usize = 1_000;
/// So many calls of which more is told are named by one look.
const MOST_TOLD_AGAIN: usize = 20_000;
/// Keeps a statement far below ClickHouse's limit of 256 KiB.
const IDS_A_QUERY: usize = 200;
const MINUTE_MILLIS: i64 = 60_000;
const DAY_MILLIS: i64 = 24 * 60 * MINUTE_MILLIS;
/// An event's time may lie behind its arrival by the horizon, and by this where clocks differ.
const SLACK_MILLIS: i64 = 6 * MINUTE_MILLIS;
/// Corrections carry the identity of what they correct.
const COUNTED: &str = "kind IN ('usage', 'revenue')";
/// A look must not take the server from those who ask it something.
const BOUNDS: &str = "SETTINGS max_threads = 2, max_memory_usage = 1000000000, max_execution_time = 30, priority = 9";

/// Why a look could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookError {
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    #[error("reading what people were told: {0}")]
    Told(#[from] BusError),
}

/// The order of arrival.
const ARRIVAL: &str = "(received_at, epoch, meter_partition, meter_seq, meter_index)";
/// A row as [`CountedAt`].
const SHOWN: &str = "[workspace, \
    concat(toString(epoch), '/', toString(meter_partition), '/', toString(meter_seq), '/', toString(meter_index)), \
    concat(src_topic, ' ', toString(src_partition), '@', toString(src_offset)), \
    session, toString(cost)]";
/// The columns that [`pair`] reads, of an aggregation that has `source`, `event_id`, `first`, `later`
/// and `counted`.
const PAIR: &str = "source, event_id, first[1], first[2], first[3], first[4], first[5], \
    later[1], later[2], later[3], later[4], later[5], counted";

/// The last commit of each meter partition, by epoch and partition.
type Commits = BTreeMap<(u32, u32), u64>;

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) pairs: Vec<SameId>,
    /// Some of them were found by the look before.
    pub(crate) told_again: Vec<CallName>,
}

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
        let (last, _) = search.commits(warehouse).await?;
        let earlier = last.into_iter();
        let earlier = earlier.map(|(at, seq)| (at, seq.saturating_sub(COMMITS_AT_START)));
        search.seen = earlier.collect();
        search.seen_before = search.seen.clone();
        Ok(search)
    }

    /// What nobody was told of yet. Where it fails, the next look has the same to do.
    pub(crate) async fn look(&mut self, warehouse: &Warehouse) -> Result<Found, LookError> {
        let (newest, fresh) = self.commits(warehouse).await?;
        let mut upto = self.seen.clone();
        for (partition, newest) in newest {
            let seen = upto.entry(partition).or_default();
            *seen += part_of(newest - *seen, fresh);
        }
        let mut found = Found::default();
        if let Some(condition) = between(&self.seen_before, &upto) {
            found.pairs = self.pairs(warehouse, &condition).await?;
            found.told_again = self.told_again(warehouse, &condition).await?;
        }
        self.looks += 1;
        self.seen_before = std::mem::replace(&mut self.seen, upto);
        let looks = self.looks;
        let pairs = &mut found.pairs;
        pairs.retain(|pair| self.told.insert(pair.key(), looks).is_none());
        self.told
            .retain(|_, look| *look + LOOKS_REMEMBERED >= looks);
        Ok(found)
    }

    /// Calls of which a row that `fresh` holds for tells more, and counts nothing.
    async fn told_again(
        &self,
        warehouse: &Warehouse,
        fresh: &str,
    ) -> Result<Vec<CallName>, WarehouseError> {
        let table = warehouse
            .query_table(&format!(
                "SELECT DISTINCT workspace, source, amends_id FROM spend \
                 WHERE time > {} AND {fresh} AND has(flags, 'told_again') LIMIT {MOST_TOLD_AGAIN} {BOUNDS}",
                self.since()
            ))
            .await?;
        let text = |row, column| cell::<String>(&table, row, column);
        let rows = 0..table.rows.len();
        rows.map(|row| {
            Ok(CallName {
                workspace: text(row, 0)?,
                source: text(row, 1)?,
                id: text(row, 2)?,
            })
        })
        .collect()
    }

    /// The last commits of those partitions that have new rows, and how many rows are new.
    async fn commits(&self, warehouse: &Warehouse) -> Result<(Commits, u64), WarehouseError> {
        let table = warehouse
            .query_table(&format!(
                "SELECT epoch, meter_partition, max(meter_seq), count() FROM spend \
                 WHERE time > {} AND {} GROUP BY epoch, meter_partition {BOUNDS}",
                self.since(),
                newer_than(&self.seen)
            ))
            .await?;
        let (mut commits, mut fresh) = (Commits::new(), 0);
        for row in 0..table.rows.len() {
            let at = (cell(&table, row, 0)?, cell(&table, row, 1)?);
            commits.insert(at, cell(&table, row, 2)?);
            fresh += cell::<u64>(&table, row, 3)?;
        }
        Ok((commits, fresh))
    }

    /// Rows that `fresh` holds for, with other rows of the same source and id. Where there are too
    /// many, identities that were counted twice come first: they are money.
    async fn pairs(
        &self,
        warehouse: &Warehouse,
        fresh: &str,
    ) -> Result<Vec<SameId>, WarehouseError> {
        let since = self.since();
        // By hashes: the texts of a few hundred thousand would take far more memory.
        let candidates = warehouse
            .query_table(&format!(
                "SELECT any(id) FROM (\
                   SELECT any(event_id) AS id, any(cityHash64(source, event_id)) AS same, count() AS counted \
                   FROM spend WHERE time > {since} AND {COUNTED} AND event_id IN (\
                     SELECT event_id FROM spend WHERE time > {since} AND {fresh}) \
                   GROUP BY cityHash64(workspace, source, event_id)) \
                 GROUP BY same HAVING max(counted) > 1 OR count() > 1 \
                 ORDER BY max(counted) > 1 DESC LIMIT {MOST_PAIRS} {BOUNDS}"
            ))
            .await?;
        let ids: Vec<String> = candidates
            .rows
            .iter()
            .flatten()
            .map(|id| quoted(id))
            .collect();
        let mut pairs = Vec::new();
        for some in ids.chunks(IDS_A_QUERY) {
            // The index on ids leads to them.
            let of_these = format!(
                "FROM spend WHERE time > {since} AND {COUNTED} AND event_id IN ({})",
                some.join(", ")
            );
            for query in [self.counted_twice(&of_these), in_two_workspaces(&of_these)] {
                let table = warehouse.query_table(&query).await?;
                let found = (0..table.rows.len()).map(|row| pair(&table, row));
                pairs.extend(found.collect::<Result<Vec<_>, _>>()?);
            }
        }
        Ok(pairs)
    }

    /// Identities with two rows within a horizon.
    fn counted_twice(&self, of_these: &str) -> String {
        let apart = self.horizon_millis + SLACK_MILLIS;
        format!(
            "SELECT {PAIR} FROM (\
               SELECT source, event_id, argMin({SHOWN}, {ARRIVAL}) AS first, \
                 argMax({SHOWN}, {ARRIVAL}) AS later, count() AS counted {of_these} \
               GROUP BY workspace, source, event_id \
               HAVING first[2] != later[2] AND max(received_at) - min(received_at) <= {apart} / 1000) \
             {BOUNDS}"
        )
    }

    /// Rows of events before this are of no interest, and their parts need not be read.
    fn since(&self) -> String {
        let millis = self.horizon_millis + SLACK_MILLIS + DAY_MILLIS;
        format!("now64(3) - toIntervalMillisecond({millis})")
    }
}

/// Of that many new commits the part that is looked at now, where all partitions together have
/// `fresh` new rows.
fn part_of(commits: u64, fresh: u64) -> u64 {
    match fresh {
        0..=MOST_FRESH => commits,
        _ => (commits * MOST_FRESH / fresh).max(1),
    }
}

/// A condition on rows: they are of commits after `from` up to `upto`. `None` where there are none.
fn between(from: &Commits, upto: &Commits) -> Option<String> {
    let ranges: Vec<String> = upto
        .iter()
        .map(|(at, last)| (at, from.get(at).copied().unwrap_or(0), last))
        .filter(|(_, first, last)| first < last)
        .map(|((epoch, partition), first, last)| {
            format!(
                "epoch = {epoch} AND meter_partition = {partition} \
                 AND meter_seq > {first} AND meter_seq <= {last}"
            )
        })
        .collect();
    (!ranges.is_empty()).then(|| format!("({})", ranges.join(" OR ")))
}

/// A condition on rows: they are of later commits than `seen`.
fn newer_than(seen: &Commits) -> String {
    let later = seen.iter().map(|((epoch, partition), seq)| {
        format!("epoch = {epoch} AND meter_partition = {partition} AND meter_seq > {seq}")
    });
    let known: Vec<String> = seen
        .keys()
        .map(|(epoch, partition)| format!("({epoch}, {partition})"))
        .collect();
    let others = match known.is_empty() {
        true => "true".to_owned(),
        false => format!("(epoch, meter_partition) NOT IN ({})", known.join(", ")),
    };
    let any: Vec<String> = later.chain([others]).collect();
    format!("({})", any.join(" OR "))
}

/// The first rows of the first and the last workspace that have a source and id in common.
fn in_two_workspaces(of_these: &str) -> String {
    format!(
        "SELECT {PAIR} FROM (\
           SELECT source, event_id, argMin(own, came) AS first, argMax(own, came) AS later, count() AS counted FROM (\
             SELECT source, event_id, argMin({SHOWN}, {ARRIVAL}) AS own, min({ARRIVAL}) AS came \
             {of_these} GROUP BY workspace, source, event_id) \
           GROUP BY source, event_id HAVING count() > 1) \
         {BOUNDS}"
    )
}

fn pair(table: &Table, row: usize) -> Result<SameId, WarehouseError> {
    let text = |column| cell::<String>(table, row, column);
    let counted = |first| {
        Ok::<_, WarehouseError>(CountedAt {
            workspace: text(first)?,
            address: text(first + 1)?,
            event: text(first + 2)?,
            session: text(first + 3)?,
            cost: text(first + 4)?,
        })
    };
    Ok(SameId {
        source: text(0)?,
        id: text(1)?,
        first: counted(2)?,
        later: counted(7)?,
        rows: cell(table, row, 12)?,
    })
}

/// Keys of such alerts that people were told lately.
fn told_keys(kafka: &KafkaConfig, topic: &str) -> Result<Vec<String>, BusError> {
    let since = Timestamp::now().as_millisecond() - TOLD_SINCE.as_millis() as i64;
    let ranges = topic_ranges(kafka, topic, Some(since), TOPIC_PATIENCE)?;
    let mut keys = Vec::new();
    read_ranges(kafka, topic, &ranges, TOPIC_PATIENCE, &mut |record| {
        let key = record.key.map(String::from_utf8_lossy);
        keys.extend(key.filter(|key| is_key(key)).map(Into::into));
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_each_other_without_a_gap_and_none_is_too_large() {
        let from = Commits::from([((0, 0), 10), ((0, 1), 7)]);
        let upto = Commits::from([((0, 0), 12), ((0, 1), 7), ((1, 0), 3)]);
        assert_eq!(
            between(&from, &upto).as_deref(),
            Some(
                "(epoch = 0 AND meter_partition = 0 AND meter_seq > 10 AND meter_seq <= 12 \
                 OR epoch = 1 AND meter_partition = 0 AND meter_seq > 0 AND meter_seq <= 3)"
            )
        );
        assert_eq!(between(&upto, &upto), None);
        assert_eq!(part_of(40, MOST_FRESH), 40);
        assert_eq!(part_of(40, MOST_FRESH * 4), 10);
        assert_eq!(part_of(1, MOST_FRESH * 4), 1);
    }
}
