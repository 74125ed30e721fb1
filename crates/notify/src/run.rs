//! Runs the notifier's worker until it is stopped.

use std::sync::Arc;

use metrics::counter;
use spendfuse_bus::{BusError, Health, KafkaConfig, Shutdown, StageConfig, StageEvent, run_stage};
use spendfuse_domain::Topics;
use tokio::runtime::Handle;

use crate::channel::{ChannelError, Channels};
use crate::dispatch::Dispatch;
use crate::metrics::FAILED_MESSAGES;
use crate::route::Routes;
use crate::stage::NotifierStage;

/// The settings of a notifier process.
#[derive(Clone, Debug)]
pub struct NotifierConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// Names of the topics.
    pub topics: Topics,
    /// Partitions of every stage topic.
    pub partitions: u32,
    /// Begins the consumer group and the transactional id.
    pub id_prefix: String,
    /// This process's name, different for each process of the group.
    pub instance_id: String,
    /// Which alerts go where.
    pub routes: Routes,
    /// Where the worker tells how it is.
    pub health: Health,
}

/// Why a notifier stopped by itself: something that needs a person.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// Kafka, where trying again does not help.
    #[error("notifier: {0}")]
    Bus(#[from] BusError),
    /// Channels that cannot be used.
    #[error("notifier: {0}")]
    Channel(#[from] ChannelError),
}

const STAGE: &str = "notifier";

/// Tells people until `shutdown`; requests run on `runtime`.
///
/// # Errors
/// [`NotifierError`] for what needs a person.
pub fn run(
    config: &NotifierConfig,
    channels: Channels,
    runtime: &Handle,
    shutdown: &Shutdown,
) -> Result<(), NotifierError> {
    // Shown before anything fails, so that an increase can be seen.
    counter!(FAILED_MESSAGES).increment(0);
    let dispatch = Arc::new(Dispatch::new(channels, runtime.clone()));
    let asked = Arc::clone(&dispatch);
    config.health.ask("channels", move || asked.condition());
    let mut stage = NotifierStage {
        routes: Arc::new(config.routes.clone()),
        dispatch,
    };
    let observer = |event: StageEvent| match event {
        StageEvent::Running { partitions, .. } => {
            tracing::info!(stage = STAGE, ?partitions, "running");
        }
        other => tracing::debug!(stage = STAGE, event = ?other, "worker"),
    };
    run_stage(&config.stage(), &mut stage, shutdown, &observer)?;
    Ok(())
}

impl NotifierConfig {
    fn stage(&self) -> StageConfig {
        let topics = &self.topics;
        let group = format!("{}-{STAGE}", self.id_prefix);
        let instance = format!("{}-0", self.instance_id);
        StageConfig {
            inputs: vec![
                topics.alerts.clone(),
                topics.findings.clone(),
                topics.notifier_requests.clone(),
            ],
            changelog: topics.notifier_changelog.clone(),
            partitions: self.partitions,
            health: self.health.part("notifier worker"),
            ..StageConfig::new(self.kafka.clone(), STAGE, &group, &instance)
        }
    }
}
