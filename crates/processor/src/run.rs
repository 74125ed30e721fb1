//! Starts the workers of one process and waits for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use spendfuse_bus::topics;
use spendfuse_bus::{
    Backoff, BusError, Health, HistoryTopic, KafkaConfig, Shutdown, StageConfig, StageEvent,
    StageLogic, run_stage,
};
use spendfuse_domain::Topics;
use spendfuse_domain::event::RejectReason;
use spendfuse_engine::ledger::{LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::MeterConfig;

use crate::follow::follow_tables;
use crate::ledger::LedgerStage;
use crate::meter::MeterStage;
use crate::metrics::{
    BROKEN_LINKS, BUDGETS_UNREADABLE, EVENTS_CONFLICT, EVENTS_DUPLICATE, EVENTS_REJECTED,
    MEMBERS_REMOVED, SESSION_ACCOUNTS_GIVEN_UP, SESSIONS_ENDED_EARLY, WITHOUT_ACCOUNT,
};
use crate::tables::Tables;
use crate::topics::{ids_retention_millis, specs};

/// How long one look at the topics may take.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
const HOUR_MILLIS: i64 = 60 * 60 * 1000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// The settings of a processor process.
#[derive(Clone, Debug)]
pub struct ProcessorConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// Names of the topics.
    pub topics: Topics,
    /// Partitions of every stage topic.
    pub partitions: u32,
    /// Begins consumer groups and transactional ids.
    pub id_prefix: String,
    /// This process's name, different for each process of the group.
    pub instance_id: String,
    /// Workers (threads) of the meter.
    pub meter_workers: u32,
    /// Workers (threads) of the ledger.
    pub ledger_workers: u32,
    /// How long identities are remembered, milliseconds.
    pub dedupe_horizon_millis: i64,
    /// How many identities a partition remembers at most.
    pub dedupe_capacity: usize,
    /// A session without events for this long has ended, milliseconds.
    pub session_idle_millis: i64,
    /// How many figures that moved by spend alone a ledger partition tells a second, at most.
    pub publish_rate: u32,
    /// How many sessions are live in a partition at most.
    pub session_capacity: usize,
    /// How many accounts of budgets a partition holds at most.
    pub account_capacity: usize,
    /// A batch is committed no earlier than this after its first event, unless it is full.
    pub commit_min: Duration,
    /// A batch is committed at the latest this long after its first event.
    pub commit_interval: Duration,
    /// A batch with this many events is full.
    pub batch_max_events: usize,
    /// How often partitions with nothing to do tell how far they have come.
    pub heartbeat: Duration,
    /// Where the workers tell how they are.
    pub health: Health,
}

impl ProcessorConfig {
    /// The defaults of the design for one process.
    pub fn new(kafka: KafkaConfig, topics: Topics, partitions: u32) -> Self {
        Self {
            kafka,
            topics,
            partitions,
            id_prefix: "spendfuse".to_owned(),
            instance_id: "processor-1".to_owned(),
            meter_workers: 1,
            ledger_workers: 1,
            dedupe_horizon_millis: DAY_MILLIS,
            dedupe_capacity: 20_000_000,
            session_idle_millis: HOUR_MILLIS,
            publish_rate: PUBLISH_RATE,
            session_capacity: 500_000,
            account_capacity: 2_000_000,
            commit_min: Duration::from_millis(5),
            commit_interval: Duration::from_millis(20),
            batch_max_events: 40_000,
            heartbeat: Duration::from_secs(1),
            health: Health::default(),
        }
    }
}

/// Why a processor stopped by itself: something that needs a person.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A worker gave up.
    #[error("{stage} worker {worker}: {error}")]
    Worker {
        /// "meter" or "ledger".
        stage: &'static str,
        /// Number of the thread.
        worker: u32,
        /// Why.
        #[source]
        error: Box<BusError>,
    },
    /// Topics are missing or set to something that would break a guarantee.
    #[error(
        "topics are not as they must be: {0}; `spendfuse topics check` shows all, and Kafka's kafka-configs changes settings"
    )]
    Topics(String),
    /// The broker's topics could not be looked at.
    #[error("cannot check the topics: {0}")]
    Check(#[source] Box<BusError>),
    /// The followers of budgets and prices could not be started.
    #[error("cannot follow budgets and prices: {0}")]
    Tables(#[source] Box<BusError>),
}

/// Shows what should stay 0 before there is anything to count: a series that begins with its first
/// increase shows no increase.
fn show_metrics() {
    for name in [
        BROKEN_LINKS,
        EVENTS_CONFLICT,
        EVENTS_DUPLICATE,
        SESSIONS_ENDED_EARLY,
        SESSION_ACCOUNTS_GIVEN_UP,
        WITHOUT_ACCOUNT,
        MEMBERS_REMOVED,
    ] {
        metrics::counter!(name).increment(0);
    }
    metrics::gauge!(BUDGETS_UNREADABLE).set(0);
    for reason in RejectReason::ALL {
        metrics::counter!(EVENTS_REJECTED, "reason" => reason.name()).increment(0);
    }
}

/// Runs all workers until `shutdown`; the first that gives up stops the others.
///
/// # Errors
/// [`ProcessorError`] where a worker met something that needs a person.
pub fn run(
    config: &ProcessorConfig,
    tables: &Arc<Tables>,
    shutdown: &Shutdown,
) -> Result<(), ProcessorError> {
    show_metrics();
    check_topics(config, shutdown)?;
    find_added_topics(config, tables, shutdown);
    let topics = Arc::new(config.topics.clone());
    let follower = follow_tables(
        &config.kafka,
        &config.topics,
        Arc::clone(tables),
        &config.health,
    )
    .map_err(|error| ProcessorError::Tables(Box::new(error)))?;
    let meter = || MeterStage {
        config: config.meter(),
        topics: Arc::clone(&topics),
        tables: Arc::clone(tables),
    };
    let ledger = || LedgerStage {
        config: config.ledger(),
        topics: Arc::clone(&topics),
        tables: Arc::clone(tables),
    };
    let result = thread::scope(|scope| {
        let mut workers = Vec::new();
        for worker in 0..config.meter_workers {
            let takes_corrections = tables.takes_corrections.load(Ordering::Relaxed);
            let stage = config.meter_stage(worker, takes_corrections);
            let logic = meter();
            workers.push(scope.spawn(move || work(&stage, worker, logic, shutdown)));
        }
        for worker in 0..config.ledger_workers {
            let stage = config.ledger_stage(worker);
            let logic = ledger();
            workers.push(scope.spawn(move || work(&stage, worker, logic, shutdown)));
        }
        let outcomes = workers.into_iter().map(|worker| match worker.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        outcomes.fold(Ok(()), Result::and)
    });
    follower.stop();
    result
}

/// Arrival times, dedupe and restore rely on the topics' settings, so nothing starts on wrong ones.
/// A broker that is away is waited for.
fn check_topics(config: &ProcessorConfig, shutdown: &Shutdown) -> Result<(), ProcessorError> {
    let horizon = config.dedupe_horizon_millis;
    let mut specs = specs(&config.topics, config.partitions, horizon);
    // An installation of an older release has none of these until `topics create` is run again, and
    // a processor works without them.
    let added_later = [
        &config.topics.installation,
        &config.topics.notifier_changelog,
        &config.topics.notifier_requests,
        &config.topics.inflight,
        &config.topics.corrections,
    ];
    specs.retain(|spec| !added_later.contains(&&spec.name));
    let mut backoff = PAUSES;
    let health = config.health.part("topics");
    while !shutdown.is_requested() {
        match topics::check(&config.kafka, &specs, PATIENCE) {
            Ok(mismatches) if mismatches.is_empty() => {
                health.ready();
                return Ok(());
            }
            Ok(mismatches) => {
                let texts: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
                return Err(ProcessorError::Topics(texts.join("; ")));
            }
            Err(error) if error.can_retry() => {
                tracing::warn!(error = %error, "waiting for Kafka");
                health.not_ready(format!("waiting for Kafka: {error}"));
                shutdown.wait(backoff.pause());
            }
            Err(error) => return Err(ProcessorError::Check(Box::new(error))),
        }
    }
    Ok(())
}

/// Which topics are there that an installation of an older release lacks.
fn find_added_topics(config: &ProcessorConfig, tables: &Tables, shutdown: &Shutdown) {
    let topics = &config.topics;
    for (topic, is_used, lacks) in [
        (
            &topics.inflight,
            &tables.tells_settled,
            "reservations end only with events that come through the sidecar that gave them",
        ),
        (
            &topics.corrections,
            &tables.takes_corrections,
            "entries cannot be corrected",
        ),
    ] {
        let is_usable = has_partitions(config, topic, shutdown);
        is_used.store(is_usable, Ordering::Relaxed);
        if !is_usable {
            tracing::warn!(
                topic,
                "the topic is missing or has fewer partitions than the others: {lacks}; run `spendfuse topics create`, then start again"
            );
        }
    }
}

fn has_partitions(config: &ProcessorConfig, topic: &str, shutdown: &Shutdown) -> bool {
    let mut backoff = PAUSES;
    loop {
        match topics::partition_count(&config.kafka, topic, PATIENCE) {
            Err(error) if error.can_retry() && !shutdown.is_requested() => {
                shutdown.wait(backoff.pause());
            }
            count => return count.is_ok_and(|count| count >= config.partitions),
        }
    }
}

fn work<L: StageLogic>(
    stage: &StageConfig,
    worker: u32,
    mut logic: L,
    shutdown: &Shutdown,
) -> Result<(), ProcessorError> {
    let name = stage.stage;
    let observer = move |event: StageEvent| match event {
        StageEvent::Running {
            partitions,
            restore,
        } => {
            tracing::info!(
                stage = name,
                worker,
                ?partitions,
                restore_ms = restore.as_millis() as u64,
                "running"
            );
        }
        StageEvent::Revoked => tracing::info!(stage = name, worker, "partitions moved"),
        other => tracing::debug!(stage = name, worker, event = ?other, "worker"),
    };
    run_stage(stage, &mut logic, shutdown, &observer).map_err(|error| {
        // One worker down means partitions without an owner: the process ends and is restarted.
        shutdown.request();
        ProcessorError::Worker {
            stage: name,
            worker,
            error: Box::new(error),
        }
    })
}

impl ProcessorConfig {
    fn meter(&self) -> MeterConfig {
        MeterConfig {
            partition: 0,
            partitions: self.partitions,
            dedupe_horizon_millis: self.dedupe_horizon_millis,
            dedupe_capacity: self.dedupe_capacity,
            session_idle_millis: self.session_idle_millis,
            session_capacity: self.session_capacity,
        }
    }

    fn ledger(&self) -> LedgerConfig {
        LedgerConfig {
            partition: 0,
            partitions: self.partitions,
            grace_millis: self.dedupe_horizon_millis + DAY_MILLIS,
            publish_rate: self.publish_rate,
            account_capacity: self.account_capacity,
        }
    }

    fn meter_stage(&self, worker: u32, takes_corrections: bool) -> StageConfig {
        let topics = &self.topics;
        let attached = takes_corrections.then(|| topics.corrections.clone());
        let attached = Vec::from_iter(attached);
        let inputs = [topics.usage.clone(), topics.rerouted.clone()];
        let outputs = [
            &topics.rerouted,
            &topics.dlq,
            &topics.deltas,
            &topics.rows,
            &topics.findings,
            &topics.blocklist,
            &topics.alerts,
        ];
        StageConfig {
            inputs: inputs.into_iter().chain(attached.clone()).collect(),
            attached,
            changelog: topics.meter_changelog.clone(),
            history: vec![HistoryTopic {
                topic: topics.meter_ids.clone(),
                since_millis: self.dedupe_horizon_millis + HOUR_MILLIS,
                retention_millis: ids_retention_millis(self.dedupe_horizon_millis),
            }],
            outputs: outputs.into_iter().cloned().collect(),
            ..self.stage("meter", worker)
        }
    }

    fn ledger_stage(&self, worker: u32) -> StageConfig {
        let topics = &self.topics;
        let outputs = [
            &topics.rows_ledger,
            &topics.findings,
            &topics.blocklist,
            &topics.alerts,
        ];
        StageConfig {
            inputs: vec![topics.deltas.clone()],
            changelog: topics.ledger_changelog.clone(),
            outputs: outputs.into_iter().cloned().collect(),
            // The meter has gathered already.
            commit_min: self.commit_min / 5,
            ..self.stage("ledger", worker)
        }
    }

    fn stage(&self, stage: &'static str, worker: u32) -> StageConfig {
        let group = format!("{}-{stage}", self.id_prefix);
        let instance = format!("{}-{worker}", self.instance_id);
        StageConfig {
            partitions: self.partitions,
            commit_min: self.commit_min,
            commit_interval: self.commit_interval,
            batch_max_events: self.batch_max_events,
            tick_every: self.heartbeat,
            health: self.health.part(format!("{stage} worker {worker}")),
            ..StageConfig::new(self.kafka.clone(), stage, &group, &instance)
        }
    }
}
