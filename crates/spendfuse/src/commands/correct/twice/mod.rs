//! A call that several instruments report, of which not all know its session, is counted in several
//! partitions. The loader finds that out; here all of its entries but one are taken back, and that one
//! learns what only the others tell.
//!
//! Done beside the loader by the same rows and records as `spendfuse correct`: what was sent is judged
//! anew until one entry stands, so that nothing depends on an answer, and a process that dies in the
//! middle leaves it to the next one. Entries of one partition are left to people: its memory has failed.

mod judge;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use spendfuse_bus::{OutputRecord, Shutdown, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_loader::{CallName, LoaderNews, NewsSink, SameId};
use spendfuse_warehouse::client::quoted;

use super::Failure;
use super::change::with_ceiling;
use super::entry::Entry;
use super::ingest::Mark;
use super::kafka::{self, PATIENCE};
use super::record::{Stood, Told, correction_of, output_of};
use super::rest::{Heard, Silence};
use super::rows::by_entry;
use super::warehouse::Connection;
use crate::metrics::{COUNTED_TWICE_SETTLED, VOID_LAG};
use crate::settings::Settings;
use judge::Candidate;
use waiting::Waiting;

/// Calls that wait to be settled, at most; people are told of more.
const MOST_WAITING: usize = 20_000;
/// Calls that are settled together.
const TOGETHER: usize = 200;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Until what was sent is looked for, and until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// People are told of a call that is not settled after this time.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(15 * 60);
/// Until when a call is kept that nobody can look at, because Kafka, ClickHouse or a role is away.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
const DAY_MILLIS: i64 = 24 * 3_600_000;
const TOLD: Told<'_> = Told {
    job: "",
    by: "spendfuse",
    reason: "one call was counted in two partitions",
};

/// The sink of a loader whose calls that were counted twice are settled before people hear of them.
/// The epoch is that of the topics.
pub fn settling(
    settings: &Settings,
    epoch: u32,
    people: NewsSink,
    shutdown: &Shutdown,
) -> NewsSink {
    counter!(COUNTED_TWICE_SETTLED).increment(0);
    let (sender, found) = sync_channel(MOST_WAITING);
    let (settings, shutdown, told) = (settings.clone(), shutdown.clone(), Arc::clone(&people));
    let settle = move || Settling::new(&settings, epoch, found, told).until(&shutdown);
    let spawned = thread::Builder::new().name("settle".to_owned());
    if let Err(error) = spawned.spawn(settle) {
        tracing::warn!(%error, "calls that were counted twice are not settled");
        return people;
    }
    Arc::new(move |news| tell_or_settle(news, &sender, &people))
}

fn tell_or_settle(news: LoaderNews, found: &SyncSender<Found>, people: &NewsSink) {
    let one = match news {
        LoaderNews::SameId(pair) if pair.is_counted_twice() => Found {
            call: pair.call(),
            pair: Some(pair),
        },
        LoaderNews::ToldAgain(call) => Found { call, pair: None },
        other => return people(other),
    };
    let sent = found.try_send(one);
    if let Err(TrySendError::Full(one) | TrySendError::Disconnected(one)) = sent
        && let Some(pair) = one.pair
    {
        people(LoaderNews::SameId(pair));
    }
}

/// What the loader has found.
struct Found {
    call: CallName,
    /// The two entries of which people are told where nobody settles them.
    pair: Option<Box<SameId>>,
}

/// What came of a look at a call.
enum Outcome {
    /// One entry stands, with all that is known, so long after the last one came.
    Settled { after_millis: i64 },
    /// It is looked at again.
    Later,
    /// So it is, however long it takes until everything is loaded that may tell more of it.
    Unheard,
    /// It was corrected, and is looked at again.
    Corrected,
    /// Only people can settle it.
    Never(String),
}

struct Settling<'s> {
    settings: &'s Settings,
    epoch: u32,
    found: Receiver<Found>,
    people: NewsSink,
    waiting: BTreeMap<CallName, Waiting>,
    connection: Option<Connection>,
    heard: Heard<'s>,
    /// Why the last look failed: told once, not every few seconds.
    told: Option<String>,
}

impl<'s> Settling<'s> {
    fn new(settings: &'s Settings, epoch: u32, found: Receiver<Found>, people: NewsSink) -> Self {
        Self {
            settings,
            epoch,
            found,
            people,
            waiting: BTreeMap::new(),
            connection: None,
            heard: Heard::default(),
            told: None,
        }
    }

    fn until(&mut self, shutdown: &Shutdown) {
        let mut pause = LOOK_EVERY;
        while !shutdown.wait(pause) {
            let now = Instant::now();
            let room = MOST_WAITING - self.waiting.len();
            for Found { call, pair } in self.found.try_iter().take(room) {
                let waiting = self.waiting.entry(call);
                let waiting = waiting.or_insert_with(|| Waiting::found(now));
                waiting.pair = pair.or(waiting.pair.take());
            }
            let due = self.waiting.iter().filter(|(_, one)| one.due <= now);
            let due: Vec<CallName> = due.map(|(call, _)| call.clone()).take(TOGETHER).collect();
            pause = match due.len() {
                TOGETHER => Duration::ZERO,
                _ => LOOK_EVERY,
            };
            if due.is_empty() {
                continue;
            }
            match self.look(&due) {
                Ok(outcomes) => {
                    self.told = None;
                    for (call, outcome) in due.into_iter().zip(outcomes) {
                        self.note(call, &outcome);
                    }
                }
                Err(failure) => {
                    pause = AGAIN;
                    self.postpone(&failure);
                }
            }
        }
    }

    fn postpone(&mut self, failure: &Failure) {
        let failure = Some(failure.to_string());
        if let Some(error) = failure.as_ref().filter(|_| failure != self.told) {
            tracing::warn!(error, "calls that were counted twice are not settled yet");
        }
        self.told = failure;
        let now = Instant::now();
        for waiting in self.waiting.values_mut() {
            if let Some(pair) = waiting.postpone(now) {
                (self.people)(LoaderNews::SameId(pair));
            }
        }
        self.waiting
            .retain(|_, one| now.duration_since(one.found_at) < KEPT_FOR);
    }

    fn note(&mut self, call: CallName, outcome: &Outcome) {
        let Some(waiting) = self.waiting.get_mut(&call) else {
            return;
        };
        waiting.due = Instant::now() + AGAIN;
        waiting.is_corrected |= matches!(outcome, Outcome::Corrected);
        let why = match outcome {
            Outcome::Settled { after_millis } => {
                if waiting.is_corrected {
                    counter!(COUNTED_TWICE_SETTLED).increment(1);
                    gauge!(VOID_LAG).set(*after_millis as f64 / 1000.0);
                }
                self.waiting.remove(&call);
                return;
            }
            Outcome::Unheard => {
                let now = Instant::now();
                if let Some(pair) = waiting.postpone(now) {
                    (self.people)(LoaderNews::SameId(pair));
                }
                if now.duration_since(waiting.found_at) >= KEPT_FOR {
                    self.waiting.remove(&call);
                }
                return;
            }
            Outcome::Later | Outcome::Corrected if waiting.since.elapsed() < GIVEN_UP_AFTER => {
                return;
            }
            Outcome::Later | Outcome::Corrected => "that was not done within 15 minutes",
            Outcome::Never(why) => why,
        };
        let CallName { source, id, .. } = &call;
        tracing::warn!(
            source,
            id,
            why,
            "not all that was told of a call is settled"
        );
        if let Some(pair) = self.waiting.remove(&call).and_then(|one| one.pair) {
            (self.people)(LoaderNews::SameId(pair));
        }
    }

    /// Looks at the entries of these calls, and sends what settles them. An outcome for each.
    fn look(&mut self, calls: &[CallName]) -> Result<Vec<Outcome>, Failure> {
        let settings = self.settings;
        // Before ClickHouse is asked: of what comes later nothing is claimed.
        let mut mark = Mark::of_corrections(settings)?;
        mark.wait(|text| tracing::debug!("{text}"))?;
        // That may have taken long.
        let heard_to = self.heard.to(settings)?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(settings)?,
        };
        let mut entries = self.entries(&connection, calls)?;
        let mut records = Vec::new();
        let mut outcomes = Vec::with_capacity(calls.len());
        for call in calls {
            let entries = entries.remove(call).unwrap_or_default();
            outcomes.push(self.settle(entries, (&mark, heard_to), &mut records));
        }
        let id = kafka::transactional_id(settings, "counted-twice");
        write_in_one_transaction(&settings.kafka(), &id, &records, PATIENCE)
            .map_err(|error| kafka::failure(settings, &error))?;
        self.connection = Some(connection);
        Ok(outcomes)
    }

    /// What ClickHouse has of each call, entry by entry.
    fn entries(
        &self,
        connection: &Connection,
        calls: &[CallName],
    ) -> Result<HashMap<CallName, Vec<Entry>>, Failure> {
        let ids: Vec<String> = calls.iter().map(|call| quoted(&call.id)).collect();
        let ids = ids.join(",");
        let condition = format!(
            "time > now64(3) - toIntervalMillisecond({}) AND kind IN ('usage', 'correction', 'rerate') \
             AND (event_id IN ({ids}) OR amends_id IN ({ids})) \
             ORDER BY epoch, meter_partition, meter_seq, meter_index",
            self.horizon_millis() + DAY_MILLIS
        );
        let rows = by_entry(connection, self.settings, &condition)?;
        let mut entries: HashMap<CallName, Vec<Entry>> = HashMap::new();
        for rows in rows.into_values() {
            let Some(own) = rows.first() else { continue };
            let call = CallName {
                workspace: own.attribution.workspace.to_string(),
                source: own.source.clone(),
                id: own.event_id.clone(),
            };
            let entry = Entry::of(rows, None);
            entries.entry(call).or_default().extend(entry);
        }
        Ok(entries)
    }

    /// Two events of one identity that came further apart than this are two calls.
    fn horizon_millis(&self) -> i64 {
        self.settings.remembered_millis()
    }

    /// What settles a call is added to `records`, once it is at rest by all that arrived before `heard_to`.
    fn settle(
        &self,
        mut entries: Vec<Entry>,
        (mark, heard_to): (&Mark<'_>, UnixMillis),
        records: &mut Vec<OutputRecord>,
    ) -> Outcome {
        let heard = |entry: &Entry| entry.last_received_at();
        let Some(last) = entries.iter().map(heard).max() else {
            return Outcome::Later;
        };
        let horizon = self.horizon_millis();
        entries.retain(|entry| last.since(entry.received_at) <= horizon);
        let rest = entries.iter().map(Entry::rest_millis).max();
        let rest = rest.unwrap_or_default();
        let after_millis = mark.made_at().since(last);
        match self.try_to_settle(&entries, mark.at) {
            Ok(found) if found.is_empty() => Outcome::Settled { after_millis },
            Ok(found) => match Silence::since(last, rest, (heard_to, mark.made_at())) {
                Silence::Long => {
                    records.extend(found);
                    Outcome::Corrected
                }
                Silence::Short => Outcome::Later,
                Silence::Unheard => Outcome::Unheard,
            },
            Err(why) => Outcome::Never(why),
        }
    }

    /// The corrections after which one of these entries stands, with all that is told; none where that
    /// is so.
    fn try_to_settle(
        &self,
        entries: &[Entry],
        judged_at: UnixMillis,
    ) -> Result<Vec<OutputRecord>, String> {
        let (counted, candidates) = self.candidates(entries)?;
        let Some(stands) = judge::stands(&candidates, self.epoch) else {
            return Ok(Vec::new());
        };
        // What a person has decided stays.
        let mut all = entries.iter();
        if all.any(|entry| entry.is_corrected_by_others(TOLD.by)) {
            return match candidates.len() {
                1 => Ok(Vec::new()),
                _ => Err("a person has corrected one of its entries".to_owned()),
            };
        }
        let standing = &candidates[stands].standing;
        let is_other = |at: &usize| *at != stands;
        let others = (0..candidates.len()).filter(is_other);
        let others = others.map(|at| &candidates[at].standing);
        if (others.clone()).any(|other| judge::contradict(standing, other)) {
            return Err("its entries contradict each other".to_owned());
        }
        let told_again = entries.iter().flat_map(|entry| &entry.told_again);
        let enriched = judge::enriched(standing, others, told_again);
        let mut records = Vec::new();
        for (at, (entry, candidate)) in counted.into_iter().zip(&candidates).enumerate() {
            let after = enriched.as_ref().filter(|_| at == stands);
            let stays = at == stands && after.is_none();
            // Meters of these topics have no other epoch's entries in their sums.
            if stays || candidate.place.epoch != self.epoch {
                continue;
            }
            let stood = Stood {
                before: Some(&candidate.standing),
                after,
            };
            let (record, written) = correction_of(entry, TOLD, judged_at, stood)?;
            records.push(output_of(self.settings, record.entry, written));
        }
        Ok(records)
    }

    /// Those of the entries that are not void, each of another partition.
    fn candidates<'e>(
        &self,
        entries: &'e [Entry],
    ) -> Result<(Vec<&'e Entry>, Vec<Candidate>), String> {
        let (mut counted, mut candidates): (Vec<&Entry>, _) = (Vec::new(), Vec::new());
        for entry in entries {
            let stands = entry.standing().map_err(|error| error.to_string())?;
            let Some(stands) = stands else { continue };
            let home = |entry: &Entry| (entry.place.epoch, entry.place.partition);
            if counted.iter().any(|other| home(other) == home(entry)) {
                return Err("one partition has counted it twice".to_owned());
            }
            let standing = with_ceiling(self.settings, stands);
            counted.push(entry);
            candidates.push(Candidate {
                place: entry.place,
                received_at: entry.received_at,
                standing: standing.map_err(|error| error.to_string())?,
            });
        }
        Ok((counted, candidates))
    }
}
