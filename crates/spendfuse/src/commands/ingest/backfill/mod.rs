//! `ingest --backfill`: history, counted once, judged by identity against the warehouse.
//!
//! An event is sent where the warehouse does not know it, and says since when nobody but the meter
//! knows what was counted (`spendfuse_backfill`). Everything of before that time is in the warehouse,
//! everything since then in the meter's memory: so it is counted once, whoever is killed in between,
//! repeated, or run beside it. Where the memory does not reach back so far the meter sets it aside.

mod ending;
mod judgement;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, Event, Flags, RemovedMembers, redact};
use spendfuse_domain::growth::ToldCall;
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_processor::BACKFILL;
use spendfuse_warehouse::EventKey;

use super::super::audit::rows_kept_millis;
use super::super::found_wrong;
use super::super::output::{self, grouped};
use super::super::topics::{looked, topic_set};
use super::super::warehouse::Connection;
use super::dry_run::{Rules, rules};
use super::follow::Follow;
use super::forecast::{Forecast, Met};
use super::loaded::{Mark, STANDS_STILL};
use super::send::{Sending, tell_unreadable};
use super::sent_lately::SentCall;
use super::{Failure, IngestArgs, InputLines, defaults, read_line};
use crate::settings::Settings;
use ending::Ending;
use judgement::Judgement;

/// Events that are judged with one question, or as many as have come within this time.
const PIECE: usize = 50_000;
const PIECE_WITHIN: Duration = Duration::from_secs(1);
/// History that the meter has not counted yet, at most: what happens now waits behind it.
const MOST_AHEAD: u64 = 100_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Begins, sends and ends one run.
pub fn run(settings: &Settings, args: &IngestArgs) -> Result<ExitCode, Failure> {
    let mut lines = InputLines::open(args)?;
    let mut backfill = Backfill::begin(settings, args, &lines)?;
    let defaults = defaults(settings, args);
    let mut line = Vec::new();
    let mut arrival = output::now();
    let mut piece_began = Instant::now();
    while lines.next(&mut line)? {
        let kept = redact(&line, &[]);
        backfill.tally.unknown.add(kept.removed);
        let taken = read_line(&kept.value, &defaults, arrival, |event, bytes| {
            backfill.take(event, bytes)
        });
        match taken {
            Ok(taken) => {
                taken.map_err(|why| Failure::work(format!("line {}: {why}", lines.number)))?
            }
            Err(rejection) => {
                let reason = rejection.reason.name();
                *backfill.tally.unreadable.entry(reason).or_default() += 1;
                let unreadable = backfill.tally.unreadable.values().sum();
                tell_unreadable(&lines, &rejection, unreadable);
            }
        }
        if backfill.piece.len() >= PIECE || piece_began.elapsed() >= PIECE_WITHIN {
            arrival = output::now();
            backfill.judge(&lines)?;
            piece_began = Instant::now();
        }
    }
    backfill.judge(&lines)?;
    backfill.end(args, &lines)
}

/// An event that is to be judged.
struct Candidate {
    identity: Identity,
    home: u32,
    routing: Vec<u8>,
    value: Vec<u8>,
    /// What it tells of its call, where it is one.
    told: Option<ToldCall>,
    spend: Spend,
    at_ceiling: Nanos,
    met: Vec<Met>,
}

impl Candidate {
    fn call(&self) -> Option<SentCall> {
        Some(SentCall {
            told: self.told.clone()?,
            spend: self.spend,
            at_ceiling: self.at_ceiling,
        })
    }
}

/// What became of the lines.
#[derive(Default)]
struct Tally {
    /// Lines that are events.
    events: u64,
    /// Counted before, or in the input before.
    already_counted: u64,
    /// Not known to the warehouse: sent, unless nothing is.
    fresh: u64,
    /// More of calls that this run has sent: the difference is counted.
    grown: u64,
    cost: Nanos,
    /// Of those, calls without a price.
    unpriced: u64,
    /// Older than what the warehouse keeps.
    too_old: u64,
    session_ends: u64,
    unreadable: BTreeMap<&'static str, u64>,
    unknown: RemovedMembers,
}

struct Backfill<'s> {
    settings: &'s Settings,
    connection: Connection,
    rules: Rules,
    forecast: Forecast,
    /// Older events may have been removed from the warehouse.
    kept_from: UnixMillis,
    began: Instant,
    /// Where events go to; `None` in a dry run.
    road: Option<Road<'s>>,
    judgement: Judgement<'s>,
    piece: Vec<(EventKey, Candidate)>,
    tally: Tally,
}

/// How events reach the meter.
struct Road<'s> {
    sending: Sending<'s>,
    /// `None` where nobody waits for what becomes of them.
    follow: Option<Follow<'s>>,
}

impl<'s> Backfill<'s> {
    fn begin(
        settings: &'s Settings,
        args: &IngestArgs,
        lines: &InputLines,
    ) -> Result<Self, Failure> {
        let connection = Connection::open(settings)?;
        let rules = rules(settings, args)?;
        let now = output::now();
        let forecast = Forecast::read(settings, &rules.budgets, now)?;
        let judgement = Judgement::begin(settings, lines)?;
        await_own_rows(settings, &connection, lines)?;
        let road = match args.dry_run {
            true => None,
            false => Some(Road {
                sending: Sending::open(settings)?,
                follow: match args.no_wait {
                    true => None,
                    false => Some(Follow::begin(settings)?),
                },
            }),
        };
        Ok(Self {
            settings,
            connection,
            rules,
            forecast,
            kept_from: now.plus(-rows_kept_millis(settings)),
            began: Instant::now(),
            road,
            judgement,
            piece: Vec::with_capacity(PIECE),
            tally: Tally::default(),
        })
    }

    /// Prices an event and puts it to those that are judged next.
    fn take(&mut self, event: &Event<'_>, bytes: &[u8]) -> Result<(), String> {
        self.tally.events += 1;
        if event.body == Body::SessionEnd {
            self.tally.session_ends += 1;
            return Ok(());
        }
        if event.time < self.kept_from {
            self.tally.too_old += 1;
            return Ok(());
        }
        let who = &event.attribution;
        let mut spend = Spend::default();
        let mut at_ceiling = Nanos::ZERO;
        let mut met = Vec::new();
        if let Body::Usage(call) = &event.body {
            let pricer = &mut self.rules.pricer;
            let priced = pricer
                .price(&who.provider, &who.account, call, &who.model, event.time)
                .map_err(|error| error.to_string())?;
            spend = Spend::of_call(priced.parts.total(), call.tokens.total());
            at_ceiling = priced.at_ceiling;
            self.tally.unpriced += u64::from(priced.flags.contains(Flags::UNPRICED));
            met = self.forecast.met(event);
        }
        let identity = event.identity.0.to_be_bytes();
        let routing = event.session_key().map_or(&identity[..], str::as_bytes);
        let partitions = self.road.as_ref().map_or(1, |road| road.sending.partitions);
        let key = EventKey {
            workspace: who.workspace.clone().into_owned(),
            source: event.source.clone().into_owned(),
            id: event.id.clone().into_owned(),
        };
        let candidate = Candidate {
            identity: event.identity,
            home: event.home(partitions),
            routing: routing.to_vec(),
            value: bytes.to_vec(),
            told: ToldCall::of(event),
            spend,
            at_ceiling,
            met,
        };
        self.piece.push((key, candidate));
        Ok(())
    }

    /// Sends what neither the warehouse nor this run knows.
    fn judge(&mut self, lines: &InputLines) -> Result<(), Failure> {
        let piece = std::mem::take(&mut self.piece);
        let (keys, piece): (Vec<EventKey>, Vec<Candidate>) = piece.into_iter().unzip();
        let known = self.connection.warehouse.contains_events(&keys);
        let known = self.connection.wait(known)?;
        let judged_at = self.judgement.since.0.to_string();
        let headers: [(&str, &[u8]); 1] = [(BACKFILL, judged_at.as_bytes())];
        for (key, one) in keys.iter().zip(piece) {
            // What this run sent a moment ago the meter remembers, with its counts.
            let call = one.call();
            let grown = self.judgement.lately.growth(one.identity, call.as_ref());
            let is_sent = known.contains(key) || self.judgement.has_sent(one.identity);
            if grown.is_none() && is_sent {
                self.tally.already_counted += 1;
                continue;
            }
            let (spend, at_ceiling) = grown.unwrap_or((one.spend, one.at_ceiling));
            self.judgement.after_next.insert(one.identity);
            self.judgement.lately.note(one.identity, call);
            self.tally.fresh += u64::from(grown.is_none());
            self.tally.grown += u64::from(grown.is_some());
            self.tally.cost += spend.cost;
            self.forecast.add(one.met, spend, at_ceiling);
            if let Some(road) = &mut self.road {
                if let Some(follow) = &mut road.follow {
                    follow.add(one.identity);
                }
                let (home, key) = (Some(one.home), Some(&*one.routing));
                road.sending.send(home, key, &one.value, &headers)?;
            }
        }
        self.tell(lines);
        if let Some(road) = &self.road {
            road.sending.wait_for_all()?;
            road.let_the_meter_come()?;
            self.judgement.go_on(lines)?;
        }
        Ok(())
    }

    fn tell(&self, lines: &InputLines) {
        let Tally {
            events,
            fresh,
            already_counted,
            ..
        } = &self.tally;
        let rate = *events as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        lines.progress.set_message(format!(
            "{} events, {}/s: {} not counted yet, {} counted already",
            grouped(*events),
            grouped(rate as u64),
            grouped(*fresh),
            grouped(*already_counted)
        ));
    }

    /// Waits until the meter has counted what was sent and the warehouse has it, and says what became
    /// of the events.
    fn end(self, args: &IngestArgs, lines: &InputLines) -> Result<ExitCode, Failure> {
        let mut ending = Ending {
            rate: self.tally.events as f64 / self.began.elapsed().as_secs_f64().max(0.001),
            ..Ending::default()
        };
        let progress = &lines.progress;
        if let Some(Road { sending, follow }) = self.road {
            let sent = sending.acknowledged.sent.load(Ordering::Relaxed);
            ending.failure = sending.failure();
            if let Some(follow) = follow {
                let places = sending.acknowledged.places.lock();
                let places = places.unwrap_or_else(PoisonError::into_inner);
                let tell =
                    |waiting| progress.set_message(format!("{} not counted yet", grouped(waiting)));
                ending.outcome = follow.outcome(&places, sent, tell)?;
                drop(places);
                if ending
                    .outcome
                    .as_ref()
                    .is_some_and(|outcome| outcome.waiting == 0)
                {
                    Mark::now(self.settings)?.wait(|text| progress.set_message(text))?;
                    ending.is_loaded = true;
                }
            }
        }
        ending.seconds = self.began.elapsed().as_secs_f64();
        progress.finish_and_clear();
        ending.print(args, &self.tally, &self.forecast);
        if let Some(failure) = ending.failure {
            return Err(failure);
        }
        let outcome = ending.outcome.unwrap_or_default();
        let left_out = self.tally.too_old + self.tally.unreadable.values().sum::<u64>();
        let is_complete = left_out + outcome.late + outcome.rejected + outcome.waiting == 0;
        Ok(match is_complete {
            true => ExitCode::SUCCESS,
            false => found_wrong(),
        })
    }
}

impl Road<'_> {
    /// Waits until the meter is near the end of what was sent: calls of now are counted behind it.
    fn let_the_meter_come(&self) -> Result<(), Failure> {
        let Some(follow) = &self.follow else {
            return Ok(());
        };
        loop {
            let places = self.sending.acknowledged.places.lock();
            let places = places.unwrap_or_else(PoisonError::into_inner);
            if follow.waiting(&places)? <= MOST_AHEAD {
                return Ok(());
            }
            drop(places);
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// Waits until a loader has begun here, which may have been started a moment ago. Another database
/// than the loader's does not know what was counted.
fn await_own_rows(
    settings: &Settings,
    connection: &Connection,
    lines: &InputLines,
) -> Result<(), Failure> {
    let topics = topic_set(settings, &looked(settings)?);
    let begin = Instant::now();
    while begin.elapsed() < STANDS_STILL {
        let of_these = connection.wait(connection.warehouse.epochs_of(&topics))?;
        if of_these.contains(&topics.epoch) {
            return Ok(());
        }
        let waiting = "no loader has loaded anything here yet";
        lines.progress.set_message(waiting);
        thread::park_timeout(LOOK_EVERY);
    }
    Err(Failure::work(format!(
        "database {} has no rows of these topics, so it cannot say what was counted: no loader has \
         begun there, or clickhouse.url or clickhouse.database name another one than the loader's",
        settings.warehouse().database
    )))
}
