//! Runs a stage: one OS thread, one consumer, one transactional producer.
//!
//! In: co-partitioned input topics. Out: whatever the stage's logic writes, together with its
//! changed state (the changelog) and the input offsets, in one transaction a batch. The life of a
//! worker is always the same: check topics → join the group → restore the assigned partitions →
//! batches, until a rebalance, an error or a shutdown. After an error of any kind nothing is
//! repaired: clients and state are dropped and the life begins again, so the path of recovery is
//! the one that always runs.

mod assignment;
mod batch;
mod broken;
mod clock;
mod config;
mod kept;
mod logic;
mod membership;
mod observer;
mod position;
mod progress;
mod restore;
mod standing;
mod suspicion;
mod worker;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::backoff::Backoff;
use crate::error::{BusError, LogicError};
use crate::metrics::{STAGE_REJECTED, STAGE_RESTARTS, UNREADABLE_BATCHES};
use crate::native::keep_free_memory;
use crate::place::Place;
use crate::shutdown::Shutdown;
use crate::takeover::Takeovers;
use clock::LogClock;
use suspicion::Suspicion;

pub use config::{HistoryTopic, StageConfig};
pub use logic::{
    InputProgress, InputRecord, InputState, PartitionLogic, RestoreSource, StageLogic,
};
pub use observer::{StageEvent, StageObserver};

const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// The same error is written again after this time.
const REPEAT_LINE: Duration = Duration::from_secs(30);

/// Runs a worker of a stage on the calling thread until `shutdown`. Errors that trying again can
/// help against (broker away, transaction fenced or timed out, a panic) start the worker again,
/// after a pause that grows up to 5 s. A record that makes its batch fail is found and rejected.
///
/// A worker that another process of the group can stand in for leaves the group at the end, so that
/// its partitions move at once.
///
/// # Errors
/// Only what needs a person; see [`BusError::can_retry`]. [`BusError::PlaceTaken`] where another
/// process lives that has the instance id.
pub fn run_stage<L: StageLogic>(
    config: &StageConfig,
    logic: &mut L,
    shutdown: &Shutdown,
    observer: &dyn StageObserver,
) -> Result<(), BusError> {
    keep_free_memory();
    let place = Place::claim(&config.kafka, &config.group_id, &config.instance_id)?;
    let mut suspicion = Suspicion::new(config.inputs.len(), config.partitions);
    let mut clock = LogClock::default();
    let mut takeovers = Takeovers::default();
    let mut restarts = Restarts::new(config.stage);
    show_what_must_stay_0(config);
    loop {
        if shutdown.is_requested() {
            return Ok(());
        }
        observer.stage_event(StageEvent::Starting);
        // Unwind safety: nothing of a life is used after it, except `suspicion` and `clock`, whose
        // updates are single assignments, and the stage, which makes new partitions.
        let life = catch_unwind(AssertUnwindSafe(|| {
            worker::live(
                config,
                &place,
                logic,
                &mut suspicion,
                &mut clock,
                shutdown,
                observer,
            )
        }));
        let error = match life {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(BusError::Stopped)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(panic) => BusError::Panicked {
                message: panic_message(panic.as_ref()),
            },
        };
        let culprit_found = suspicion.blame(&error);
        if !culprit_found && !error.can_retry() && !takeovers.forgive(&error) {
            return Err(error);
        }
        if culprit_found || suspicion.take_progress() {
            restarts.backoff.reset();
        }
        let pause = restarts.note(&error);
        config.health.not_ready(format!("starts again: {error}"));
        observer.stage_event(StageEvent::Restarting {
            reason: reason(&error),
            error: error.to_string(),
        });
        shutdown.wait(pause);
    }
}

/// A series that begins with its first increase shows no increase.
fn show_what_must_stay_0(config: &StageConfig) {
    metrics::counter!(STAGE_REJECTED, "stage" => config.stage).increment(0);
    for topic in &config.inputs {
        metrics::counter!(UNREADABLE_BATCHES, "topic" => topic.clone()).increment(0);
    }
}

/// Pauses between lives, and the lines about them.
struct Restarts {
    stage: &'static str,
    backoff: Backoff,
    last_line: Option<(&'static str, Instant)>,
}

impl Restarts {
    fn new(stage: &'static str) -> Self {
        Self {
            stage,
            backoff: PAUSES,
            last_line: None,
        }
    }

    /// Counts a restart, writes a line where it is news, and returns the pause before it.
    fn note(&mut self, error: &BusError) -> Duration {
        let (stage, reason) = (self.stage, reason(error));
        metrics::counter!(STAGE_RESTARTS, "stage" => stage, "reason" => reason).increment(1);
        let is_known = self
            .last_line
            .is_some_and(|(last, at)| last == reason && at.elapsed() < REPEAT_LINE);
        if is_known {
            tracing::debug!(stage, reason, error = %error, "worker starts again");
        } else {
            tracing::warn!(stage, reason, error = %error, "worker starts again");
            self.last_line = Some((reason, Instant::now()));
        }
        self.backoff.pause()
    }
}

/// One word for the metric.
fn reason(error: &BusError) -> &'static str {
    match error {
        BusError::Unreachable { .. } | BusError::NotLetIn { .. } => "unreachable",
        BusError::Transaction { error, .. } | BusError::Send { error, .. } if is_fenced(error) => {
            "fenced"
        }
        BusError::Transaction { error, .. } => match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            ) => "moved",
            Some(RDKafkaErrorCode::OperationTimedOut) => "timeout",
            _ => "transaction",
        },
        BusError::DuplicateInstance { .. } => "fenced",
        BusError::TimedOut { .. } => "timeout",
        BusError::Panicked { .. } => "panic",
        BusError::TooLarge { .. } => "too_large",
        BusError::Logic(LogicError::Output(inner)) => reason(inner),
        BusError::Logic(_) => "logic",
        BusError::Send { .. } => "send",
        BusError::ForeignAssignment { .. } => "moved",
        BusError::Consume { .. } => "consume",
        _ => "request",
    }
}

/// Whether somebody else has taken the worker's place: a commit is told so, or a record already.
fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::FencedInstanceId,
        )
    )
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
