//! Sends the lines, each to its event's home partition.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use spendfuse_bus::{BusError, Delivered, EventProducer, EventRecord, ProducerOptions};
use spendfuse_domain::event::{Rejection, RemovedMembers, redact};

use super::super::found_wrong;
use super::super::kafka::{self, PATIENCE};
use super::super::output::{self, counted, grouped};
use super::follow::{Follow, Outcome, Places};
use super::{Failure, IngestArgs, InputLines, defaults, read_line, unknown_members};
use crate::settings::Settings;

/// How long an acknowledgement may take before a record counts as failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines between two looks at the clock and the progress bar's text.
const TELL_EVERY: u64 = 4096;
/// Unreadable lines that are told one by one.
const TOLD_ONE_BY_ONE: u64 = 5;

/// What the broker has said so far.
#[derive(Default)]
pub(super) struct Acknowledged {
    pub(super) sent: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
    pub(super) places: Mutex<Places>,
}

/// The way to the usage topic.
pub(super) struct Sending<'a> {
    settings: &'a Settings,
    producer: EventProducer,
    topic: String,
    pub(super) partitions: u32,
    pub(super) acknowledged: Arc<Acknowledged>,
}

pub fn run(settings: &Settings, args: &IngestArgs) -> Result<ExitCode, Failure> {
    let mut lines = InputLines::open(args)?;
    let sending = Sending::open(settings)?;
    let mut follow = match args.no_wait {
        true => None,
        false => Some(Follow::begin(settings)?),
    };
    let defaults = defaults(settings, args);
    let began = Instant::now();
    let mut line = Vec::new();
    let mut unreadable: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut unreadable_lines = 0;
    let mut unknown = RemovedMembers::default();
    // Usage is read as if it arrived now: a clock that is ahead is mended by the meter, not here.
    let mut arrival = output::now();
    while lines.next(&mut line)? {
        if lines.number.is_multiple_of(TELL_EVERY) {
            arrival = output::now();
            let sent = sending.acknowledged.sent.load(Ordering::Relaxed);
            let rate = sent as f64 / began.elapsed().as_secs_f64();
            lines.progress.set_message(format!(
                "{} events, {}/s",
                grouped(sent),
                grouped(rate as u64)
            ));
        }
        // Prompts never enter, from files neither.
        let kept = redact(&line, &[]);
        unknown.add(kept.removed);
        let sent = read_line(&kept.value, &defaults, arrival, |event, bytes| {
            let identity = event.identity.0.to_be_bytes();
            let key = event.session_key().map_or(&identity[..], str::as_bytes);
            if let Some(follow) = &mut follow {
                follow.add(event.identity);
            }
            sending.send(Some(event.home(sending.partitions)), Some(key), bytes, &[])
        });
        match sent {
            Ok(sent) => sent?,
            Err(rejection) => {
                unreadable_lines += 1;
                *unreadable.entry(rejection.reason.name()).or_default() += 1;
                tell_unreadable(&lines, &rejection, unreadable_lines);
                if !args.strict {
                    sending.send(None, None, &kept.value, &[])?;
                }
            }
        }
    }
    sending.wait_for_all()?;
    let seconds = began.elapsed().as_secs_f64();
    let sent = sending.acknowledged.sent.load(Ordering::Relaxed);
    let outcome = match follow {
        None => None,
        Some(follow) => {
            let places = sending.acknowledged.places.lock();
            let places = places.unwrap_or_else(PoisonError::into_inner);
            let progress = &lines.progress;
            let tell =
                |waiting| progress.set_message(format!("{} not counted yet", grouped(waiting)));
            follow.outcome(&places, sent, tell)?
        }
    };
    lines.progress.finish_and_clear();
    let summary = Summary {
        sent,
        failed: sending.acknowledged.failed.load(Ordering::Relaxed),
        unreadable,
        unknown,
        seconds,
        outcome,
    };
    summary.print(args);
    if let Some(failure) = sending.failure() {
        return Err(failure);
    }
    let outcome = summary.outcome.unwrap_or_default();
    // What cannot be read is left out, or ends in the DLQ even where nobody waits for it.
    let not_counted = unreadable_lines + outcome.late + outcome.rejected;
    Ok(match not_counted {
        0 => ExitCode::SUCCESS,
        _ => found_wrong(),
    })
}

pub(super) fn tell_unreadable(lines: &InputLines, rejection: &Rejection, count: u64) {
    let text = match count {
        1..=TOLD_ONE_BY_ONE => format!(
            "{}:{}: {}: {}",
            lines.name, lines.number, rejection.reason, rejection.detail
        ),
        _ if count == TOLD_ONE_BY_ONE + 1 => {
            "further lines that cannot be read are only counted".to_owned()
        }
        _ => return,
    };
    lines.progress.suspend(|| output::note(text));
}

impl<'a> Sending<'a> {
    pub(super) fn open(settings: &'a Settings) -> Result<Self, Failure> {
        let options = ProducerOptions {
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerOptions::default()
        };
        let failure = |error: BusError| kafka::failure(settings, &error);
        let producer = EventProducer::open(&settings.kafka(), &options).map_err(failure)?;
        let topic = settings.topics().usage;
        let partitions = producer
            .partition_count(&topic, PATIENCE)
            .map_err(failure)?;
        Ok(Self {
            settings,
            producer,
            topic,
            partitions,
            acknowledged: Arc::default(),
        })
    }

    pub(super) fn send(
        &self,
        partition: Option<u32>,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &[(&str, &[u8])],
    ) -> Result<(), Failure> {
        let record = EventRecord {
            topic: &self.topic,
            partition,
            key,
            value: Some(value),
            headers,
        };
        loop {
            let acknowledged = Arc::clone(&self.acknowledged);
            let result = self.producer.send(&record, move |result| match result {
                Ok(delivered) => acknowledged.take(delivered),
                Err(error) => acknowledged.fail(&error),
            });
            match result {
                Ok(()) => return Ok(()),
                Err(BusError::QueueFull { .. }) => thread::park_timeout(Duration::from_millis(2)),
                // One record's trouble is not the others'.
                Err(error @ BusError::TooLarge { .. }) => {
                    self.acknowledged.fail(&error);
                    return Ok(());
                }
                Err(error) => return Err(kafka::failure(self.settings, &error)),
            }
        }
    }

    /// What Kafka has not taken, if anything.
    pub(super) fn failure(&self) -> Option<Failure> {
        let first = self.acknowledged.first_failure.lock();
        let first = first.unwrap_or_else(PoisonError::into_inner);
        let error = first.as_ref()?;
        let failed = self.acknowledged.failed.load(Ordering::Relaxed);
        Some(Failure::work(format!(
            "{} not taken by Kafka, first: {error}; send the file again, what has arrived is not \
             counted twice",
            counted(failed, "event")
        )))
    }

    /// Events that wait for their acknowledgement.
    pub(super) fn queued(&self) -> u64 {
        self.producer.queued() as u64
    }

    pub(super) fn wait_for_all(&self) -> Result<(), Failure> {
        self.producer
            .flush(DELIVERY_TIMEOUT + PATIENCE)
            .map_err(|error| kafka::failure(self.settings, &error))
    }
}

impl Acknowledged {
    fn take(&self, delivered: Delivered) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.add(delivered);
    }

    fn fail(&self, error: &BusError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.to_string());
    }
}

struct Summary {
    sent: u64,
    failed: u64,
    unreadable: BTreeMap<&'static str, u64>,
    unknown: RemovedMembers,
    seconds: f64,
    /// What became of the events, where that is known.
    outcome: Option<Outcome>,
}

impl Summary {
    fn print(&self, args: &IngestArgs) {
        let rate = self.sent as f64 / self.seconds.max(0.001);
        let unreadable: u64 = self.unreadable.values().sum();
        if args.json {
            output::json(&json!({
                "sent": self.sent,
                "failed": self.failed,
                "unreadable": {"lines": unreadable, "by_reason": self.unreadable},
                "left_out": if args.strict { unreadable } else { 0 },
                "unknown_members": {"count": self.unknown.count, "names": self.unknown.names},
                "seconds": (self.seconds * 1000.0).round() / 1000.0,
                "events_per_second": rate.round(),
                "outcome": self.outcome,
            }));
            return;
        }
        output::line(format!(
            "{} sent in {:.1} s ({}/s)",
            counted(self.sent, "event"),
            self.seconds,
            grouped(rate as u64)
        ));
        if unreadable > 0 {
            let reasons: Vec<String> = self
                .unreadable
                .iter()
                .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
                .collect();
            let (lines, reasons) = (counted(unreadable, "line"), reasons.join(", "));
            output::line(if args.strict {
                format!("{lines} left out ({reasons})")
            } else {
                format!("{} of them cannot be read ({reasons})", grouped(unreadable))
            });
        }
        if let Some(unknown) = unknown_members(&self.unknown) {
            output::line(unknown);
        }
        match &self.outcome {
            Some(outcome) => outcome.print(),
            None if args.no_wait => output::line(
                "what became of them was not awaited: `spendfuse dlq list` shows what was set aside",
            ),
            None => output::line(
                "too many to follow each: `spendfuse dlq list` shows what was set aside, `spendfuse \
                 audit` whether all else is counted",
            ),
        }
    }
}
