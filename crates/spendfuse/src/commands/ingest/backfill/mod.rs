//! `ingest --backfill`: history, counted once, judged by identity against the warehouse.
//!
//! An event is sent where the warehouse does not know it, and says since when nobody but the meter
//! knows what was counted (`spendfuse_backfill`). Everything of before that time is in the warehouse,
//! everything since then in the meter's memory: so it is counted once, whoever is killed in between,
//! repeated, or run beside it. Where the memory does not reach back so far the meter sets it aside.
//!
//! Three pieces of the input are under way: one is read and priced ([`pieces`]), one is asked about
//! ([`asking`]), one is sent here. Each is judged by what the warehouse had when it was asked.

mod asking;
mod ending;
mod judgement;
mod pieces;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use spendfuse_domain::Nanos;
use spendfuse_processor::BACKFILL;

use super::super::audit::rows_kept_millis;
use super::super::found_wrong;
use super::super::output::{self, counted, grouped};
use super::super::topics::{looked, topic_set};
use super::super::warehouse::Connection;
use super::dry_run::rules;
use super::follow::{Follow, Stillness};
use super::forecast::Forecast;
use super::loaded::{Mark, STANDS_STILL};
use super::send::Sending;
use super::sent_lately::Grown;
use super::{Failure, IngestArgs, InputLines, defaults};
use crate::settings::Settings;
use asking::{Asked, Asking, ask_ahead};
use ending::Ending;
use judgement::Judgement;
use pieces::{Bare, Pricing, ReadLines, read_ahead};

/// History that the meter has not counted yet, at most: what happens now waits behind it.
const MOST_AHEAD: u64 = 100_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The meter is given up where it does not move for so long: whoever takes over restores its memory
/// first.
const METER_STANDS_STILL: Duration = Duration::from_secs(120);

/// Begins, sends and ends one run.
pub fn run(settings: &Settings, args: &IngestArgs) -> Result<ExitCode, Failure> {
    let mut lines = InputLines::open(args)?;
    lines.is_ahead = true;
    let progress = lines.progress.clone();
    let connection = Connection::open(settings)?;
    let rules = rules(settings, args)?;
    let now = output::now();
    let forecast = Forecast::read(settings, &rules.budgets, now)?;
    let judgement = Judgement::begin(settings, &progress)?;
    await_own_rows(settings, &connection, &progress)?;
    let road = match args.dry_run {
        true => None,
        false => Some(Road::open(settings, args)?),
    };
    let defaults = defaults(settings, args);
    let bare = Bare {
        source: defaults.source.to_owned(),
        workspace: defaults.workspace.to_owned(),
        now: defaults.now,
    };
    let pricing = Pricing {
        pricer: rules.pricer,
        windows: forecast.open_windows(),
        kept_from: now.plus(-rows_kept_millis(settings)),
        partitions: road.as_ref().map_or(1, |road| road.sending.partitions),
    };
    let told = Arc::clone(&judgement.told);
    let mut backfill = Backfill {
        settings,
        forecast,
        began: Instant::now(),
        road,
        judgement,
        tally: Tally::default(),
        progress,
    };
    let pieces = read_ahead(lines, bare, pricing)?;
    match backfill.judge_all(ask_ahead(pieces, connection, told)?) {
        Ok(()) => backfill.end(args),
        Err(failure) => {
            // Whoever wrote into a pipe may not do so again.
            if let Some(road) = &backfill.road {
                let _ = road.sending.wait_for_all();
            }
            Err(failure)
        }
    }
}

/// What became of the lines.
#[derive(Default)]
struct Tally {
    read: ReadLines,
    /// Counted before, or in the input before.
    already_counted: u64,
    /// Not known to the warehouse: sent, unless nothing is.
    fresh: u64,
    /// More of calls that this run has sent: the difference is counted.
    grown: u64,
    cost: Nanos,
}

struct Backfill<'s> {
    settings: &'s Settings,
    forecast: Forecast,
    began: Instant,
    /// Where events go to; `None` in a dry run.
    road: Option<Road<'s>>,
    judgement: Judgement<'s>,
    tally: Tally,
    progress: ProgressBar,
}

/// How events reach the meter.
struct Road<'s> {
    sending: Sending<'s>,
    /// `None` where nobody waits for what becomes of them.
    follow: Option<Follow<'s>>,
    /// Events that the meter has passed, at the least.
    passed: u64,
}

impl Backfill<'_> {
    fn judge_all(&mut self, pieces: Receiver<Result<Asked, Failure>>) -> Result<(), Failure> {
        for asked in pieces {
            let asked = asked?;
            let is_last = asked.piece.is_last;
            self.judge(asked)?;
            if is_last {
                return Ok(());
            }
        }
        Err(Failure::work(
            "the input was not read to its end, see above; run the same command again: nothing is counted twice",
        ))
    }

    /// The piece, asked about again where that was long ago.
    fn renewed(&mut self, asked: Asked) -> Result<Asked, Failure> {
        let Some(road) = &self.road else {
            return Ok(asked);
        };
        let (sending, progress) = (&road.sending, &self.progress);
        if !self.judgement.is_outdated(asked.as_of, sending, progress)? {
            return Ok(asked);
        }
        let connection = Connection::open(self.settings)?;
        Asking::new(connection, Arc::clone(&self.judgement.told)).ask(asked.piece)
    }

    /// Sends what neither the warehouse nor this run knows.
    fn judge(&mut self, asked: Asked) -> Result<(), Failure> {
        // Before it is renewed: the pieces behind it may have been asked about as long ago.
        self.judgement.begin_piece(asked.as_of);
        let mut asked = self.renewed(asked)?;
        for mut one in std::mem::take(&mut asked.piece.candidates) {
            // What this run sent a moment ago the meter remembers, with its counts.
            let call = one.take_call();
            let grown = self.judgement.lately.growth(one.identity, call.as_ref());
            if grown.is_none() && (asked.knows(&one) || self.judgement.has_sent(one.identity)) {
                self.tally.already_counted += 1;
                continue;
            }
            self.tally.fresh += u64::from(grown.is_none());
            self.tally.grown += u64::from(grown.is_some());
            let Grown {
                spend,
                at_ceiling,
                judged_at,
            } = grown.unwrap_or(Grown {
                spend: one.spend,
                at_ceiling: one.at_ceiling,
                judged_at: asked.as_of.since,
            });
            self.judgement.note_sent(one.identity);
            self.judgement.lately.note(one.identity, call, judged_at);
            self.tally.cost += spend.cost;
            self.forecast.add(one.met, spend, at_ceiling);
            if let Some(road) = &mut self.road {
                if let Some(follow) = &mut road.follow {
                    follow.add(one.identity);
                }
                let identity = one.identity.0.to_be_bytes();
                let key = one.routing.as_deref().unwrap_or(&identity);
                let told = judged_at.0.to_string();
                let headers: [(&str, &[u8]); 1] = [(BACKFILL, told.as_bytes())];
                let home = Some(one.home);
                road.sending.send(home, Some(key), &one.value, &headers)?;
            }
        }
        self.tally.read.add(asked.piece.read);
        self.progress.set_position(asked.piece.position);
        self.tell();
        if let Some(road) = &mut self.road {
            road.let_the_meter_come()?;
            self.judgement.go_on(&road.sending, &self.progress)?;
        }
        Ok(())
    }

    fn tell(&self) {
        let Tally {
            read,
            fresh,
            already_counted,
            ..
        } = &self.tally;
        let rate = read.events as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        self.progress.set_message(format!(
            "{} events, {}/s: {} not counted yet, {} counted already",
            grouped(read.events),
            grouped(rate as u64),
            grouped(*fresh),
            grouped(*already_counted)
        ));
    }

    /// Waits until the meter has counted what was sent and the warehouse has it, and says what became
    /// of the events.
    fn end(self, args: &IngestArgs) -> Result<ExitCode, Failure> {
        if let Some(road) = &self.road {
            road.sending.wait_for_all()?;
        }
        let events = self.tally.read.events as f64;
        let mut ending = Ending {
            rate: events / self.began.elapsed().as_secs_f64().max(0.001),
            ..Ending::default()
        };
        let progress = &self.progress;
        if let Some(Road {
            sending, follow, ..
        }) = self.road
        {
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
        let read = &self.tally.read;
        let left_out = read.too_old + read.unreadable.values().sum::<u64>();
        let is_complete = left_out + outcome.late + outcome.rejected + outcome.waiting == 0;
        Ok(match is_complete {
            true => ExitCode::SUCCESS,
            false => found_wrong(),
        })
    }
}

impl<'s> Road<'s> {
    fn open(settings: &'s Settings, args: &IngestArgs) -> Result<Self, Failure> {
        Ok(Self {
            sending: Sending::open(settings)?,
            follow: match args.no_wait {
                true => None,
                false => Some(Follow::begin(settings)?),
            },
            passed: 0,
        })
    }

    /// Waits until the meter is near the end of what was sent: calls of now are counted behind it.
    fn let_the_meter_come(&mut self) -> Result<(), Failure> {
        let Some(follow) = &self.follow else {
            return Ok(());
        };
        let mut stillness = Stillness::since(Instant::now());
        loop {
            let acknowledged = &self.sending.acknowledged;
            // In this order: what is acknowledged meanwhile is taken for unread.
            let queued = self.sending.queued();
            let handed = queued + acknowledged.sent.load(Ordering::Relaxed);
            if handed.saturating_sub(self.passed) <= MOST_AHEAD {
                return Ok(());
            }
            let positions = follow.positions()?;
            let places = acknowledged.places.lock();
            let unread = places
                .unwrap_or_else(PoisonError::into_inner)
                .beyond(&positions);
            let ahead = queued + unread;
            self.passed = handed.saturating_sub(ahead);
            if stillness.with(ahead, Instant::now()) >= METER_STANDS_STILL {
                return Err(Failure::work(format!(
                    "the processor stands still with {} to go; see to it (spendfuse doctor), then run \
                     the command again: nothing is counted twice",
                    counted(ahead, "event")
                )));
            }
            if ahead > MOST_AHEAD {
                thread::park_timeout(LOOK_EVERY);
            }
        }
    }
}

/// Waits until a loader has begun here, which may have been started a moment ago. Another database
/// than the loader's does not know what was counted.
fn await_own_rows(
    settings: &Settings,
    connection: &Connection,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let topics = topic_set(settings, &looked(settings)?);
    let begin = Instant::now();
    while begin.elapsed() < STANDS_STILL {
        let of_these = connection.wait(connection.warehouse.epochs_of(&topics))?;
        if of_these.contains(&topics.epoch) {
            return Ok(());
        }
        let waiting = "no loader has loaded anything here yet";
        progress.set_message(waiting);
        thread::park_timeout(LOOK_EVERY);
    }
    Err(Failure::work(format!(
        "database {} has no rows of these topics, so it cannot say what was counted: no loader has \
         begun there, or clickhouse.url or clickhouse.database name another one than the loader's",
        settings.warehouse().database
    )))
}
