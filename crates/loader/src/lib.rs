//! Row blocks from Kafka into ClickHouse, exactly once.
//!
//! In: the topics `spendfuse.rows` and `spendfuse.rows.ledger`. Out: inserts, and the group's
//! committed offsets with their metadata. Called by `spendfuse loader` and `spendfuse up`.
//! [`protocol`] and [`recovery`] decide what is done and in which order, without I/O; [`run`] reads
//! Kafka and carries the decisions out.

pub mod batch;
mod broken;
pub mod checkpoint;
mod content;
mod healing;
mod id_search;
mod identity_watch;
mod inserting;
mod lane;
pub mod metrics;
mod openings;
mod present;
pub mod protocol;
pub mod recovery;
pub mod region;
mod same_id;
mod session;
mod settled;
mod standing;
mod sums;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use spendfuse_bus::{
    Backoff, BusError, Health, KafkaConfig, Part, Place, Shutdown, Takeovers, Unreadable,
};
use spendfuse_domain::Topics;
use spendfuse_warehouse::{TopicSet, Warehouse, WarehouseError};

use batch::BatchLimits;
use checkpoint::BrokenLink;
use protocol::StopReason;

pub use present::WriterStage;
pub use same_id::{CallName, CountedAt, SameId};
use standing::Parts;

/// How the loader works.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// Consumer group.
    pub group_id: String,
    /// Different for every loader, the same after a restart.
    pub instance_id: String,
    /// The meter's rows, `spendfuse.rows`.
    pub rows_topic: String,
    /// The ledger's rows, `spendfuse.rows.ledger`.
    pub ledger_rows_topic: String,
    /// Where people are told, `spendfuse.alerts`.
    pub alerts_topic: String,
    /// Heartbeats, `spendfuse.blocklist`.
    pub blocklist_topic: String,
    /// `spendfuse.budgets`
    pub budgets_topic: String,
    /// Where the ledger is told what was spent before budgets counted, `spendfuse.deltas`.
    pub deltas_topic: String,
    /// Whether it may be told: older programs cannot read that.
    pub computes_openings: bool,
    /// How long meters remember identities, milliseconds.
    pub dedupe_horizon_millis: i64,
    /// How long rows wait for more before they are inserted.
    pub flush_interval: Duration,
    /// How large batches get.
    pub limits: BatchLimits,
    /// The set of topics that is read.
    pub epoch: u32,
    /// The same with its topics, to be compared with what the warehouse knows of the epoch.
    pub topic_set: Option<TopicSet>,
    /// Whether inserts get tokens that name their content. Older programs leave a partition alone that
    /// was interrupted at such an insert.
    pub content_tokens: bool,
    /// A loader that is gone is replaced after this time.
    pub session_timeout: Duration,
    /// A loader that hangs is replaced after this time.
    pub max_poll_interval: Duration,
    /// Where the loader tells how it is.
    pub health: Health,
}

impl LoaderConfig {
    /// The defaults; the group's name begins with `id_prefix`.
    pub fn new(kafka: KafkaConfig, topics: &Topics, id_prefix: &str, instance_id: &str) -> Self {
        Self {
            kafka,
            group_id: format!("{id_prefix}-loader"),
            instance_id: instance_id.to_owned(),
            rows_topic: topics.rows.clone(),
            ledger_rows_topic: topics.rows_ledger.clone(),
            alerts_topic: topics.alerts.clone(),
            blocklist_topic: topics.blocklist.clone(),
            budgets_topic: topics.budgets.clone(),
            deltas_topic: topics.deltas.clone(),
            computes_openings: false,
            dedupe_horizon_millis: 24 * 3_600_000,
            flush_interval: Duration::from_millis(200),
            limits: BatchLimits::default(),
            epoch: 0,
            topic_set: None,
            content_tokens: false,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(60),
            health: Health::default(),
        }
    }
}

/// Something that a person has to know, or that somebody may set right.
#[derive(Debug, Clone)]
pub enum LoaderNews {
    /// A partition is not loaded any more.
    Stopped {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Why, and what to do.
        reason: StopReason,
    },
    /// Row blocks cannot be read by any client and were passed by.
    Unreadable(Unreadable),
    /// Two rows have one source and id.
    SameId(Box<SameId>),
    /// An event told what else is known of a call that was counted.
    ToldAgain(CallName),
    /// Blocks of a writer are missing or come again.
    BrokenLink {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset of the block that does not fit.
        offset: i64,
        /// What does not fit.
        broken: BrokenLink,
    },
}

/// Where news goes, besides the log and the metrics.
pub type NewsSink = Arc<dyn Fn(LoaderNews) + Send + Sync>;

/// Why the loader ended.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// Kafka, where trying again does not help.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// ClickHouse, where trying again does not help.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// The database was made anew, or restored, while rows were loaded.
    #[error("ClickHouse has another database under this name than a moment ago")]
    OtherDatabase,
}

/// Loads until `shutdown` is requested: migrates the database, checks that its tables deduplicate,
/// then reads and inserts. Blocks its thread; inserts run on `runtime`.
///
/// A ClickHouse or Kafka that is away is waited for, with one line in the log.
///
/// # Errors
/// [`LoaderError`] where trying again cannot help: a database of a newer program, a table that
/// forgets tokens too early, a topic that is missing, another loader with the same instance id.
pub fn run(
    config: &LoaderConfig,
    warehouse: &Warehouse,
    runtime: &tokio::runtime::Handle,
    shutdown: &Shutdown,
    alerts: &NewsSink,
) -> Result<(), LoaderError> {
    let place = Place::claim(&config.kafka, &config.group_id, &config.instance_id)?;
    let mut takeovers = Takeovers::default();
    let parts = Parts::of(&config.health);
    while !shutdown.is_requested() {
        wait_for_warehouse(config, warehouse, runtime, shutdown, &parts.clickhouse)?;
        let ended = session::run(config, &place, warehouse, runtime, shutdown, alerts, &parts);
        let Err(error) = ended else { break };
        if matches!(error, LoaderError::Bus(BusError::Stopped)) {
            break;
        }
        if !error.can_retry() && !error.is_forgiven(&mut takeovers) {
            return Err(error);
        }
        tracing::warn!(%error, "loader starts again from what is committed");
        parts.kafka.not_ready(format!("starts again: {error}"));
        shutdown.wait(Duration::from_secs(1));
    }
    Ok(())
}

impl LoaderError {
    fn is_forgiven(&self, takeovers: &mut Takeovers) -> bool {
        matches!(self, Self::Bus(error) if takeovers.forgive(error))
    }

    /// Whether a new start can help.
    fn can_retry(&self) -> bool {
        match self {
            Self::Bus(error) => error.can_retry(),
            Self::OtherDatabase => true,
            Self::Warehouse(error) => matches!(
                error,
                WarehouseError::Unreachable { .. }
                    | WarehouseError::Refused { .. }
                    | WarehouseError::UnexpectedAnswer { .. }
            ),
        }
    }
}

/// Epochs whose rows the topics may hold; the one that is read is recorded.
async fn known_epochs(
    config: &LoaderConfig,
    warehouse: &Warehouse,
) -> Result<BTreeSet<u32>, WarehouseError> {
    let Some(topics) = &config.topic_set else {
        return Ok(BTreeSet::new());
    };
    warehouse.claim_epoch(topics).await?;
    warehouse.epochs_of(topics).await
}

fn wait_for_warehouse(
    config: &LoaderConfig,
    warehouse: &Warehouse,
    runtime: &tokio::runtime::Handle,
    shutdown: &Shutdown,
    health: &Part,
) -> Result<(), LoaderError> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
    let mut reported = false;
    while !shutdown.is_requested() {
        let prepared = runtime.block_on(async {
            warehouse.migrate().await?;
            warehouse.check_deduplication().await?;
            known_epochs(config, warehouse).await
        });
        match prepared {
            Ok(_) => {
                if reported {
                    tracing::info!("ClickHouse answers");
                }
                health.ready();
                return Ok(());
            }
            Err(error @ WarehouseError::Unreachable { .. }) => {
                if !reported {
                    tracing::warn!(%error, "waiting for ClickHouse; rows wait in Kafka");
                    reported = true;
                }
                health.not_ready(error.to_string());
                shutdown.wait(backoff.pause());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
