//! Staying a member of the group, and noticing that one is not any more.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::assignment::Interrupt;
use super::config::StageConfig;
use crate::error::BusError;
use crate::native::{PollFailure, Polled, Poller};
use crate::shutdown::Shutdown;

/// Polls the group's consumer while nothing is assigned to it, so that it stays a member.
pub(super) fn keep_alive(
    config: &StageConfig,
    poller: &Poller,
    shutdown: &Shutdown,
    timeout: Duration,
) -> Result<(), Interrupt> {
    if shutdown.is_requested() {
        return Err(BusError::Stopped.into());
    }
    match poller.poll(timeout) {
        Polled::Assigned(assigned) => Err(Interrupt::Assigned(assigned)),
        Polled::Revoked => {
            poller.unassign()?;
            Err(Interrupt::Revoked)
        }
        Polled::Failed(failure) => Ok(check_failure(config, poller, &failure)?),
        Polled::Nothing | Polled::Record(_) | Polled::End { .. } => Ok(()),
    }
}

/// Tells errors that librdkafka gets over by itself from those that end the life.
pub(super) fn check_failure(
    config: &StageConfig,
    poller: &Poller,
    failure: &PollFailure,
) -> Result<(), BusError> {
    // A fatal error arrives under a code of its own; the cause must be asked for.
    let cause = poller.consumer().client().fatal_error();
    let code = cause.map_or(failure.code, |(code, _)| code);
    match code {
        RDKafkaErrorCode::FencedInstanceId => Err(duplicate_instance(config)),
        _ if failure.is_transient() => Ok(()),
        _ => Err(failure.clone().into_error()),
    }
}

/// The commit may notice before the consumer does that somebody else has our instance id. Starting
/// again takes it back: once that is right, see [`Takeovers`](crate::Takeovers), not for ever.
pub(super) fn taken_over(config: &StageConfig, error: BusError) -> BusError {
    match &error {
        BusError::Transaction { error: cause, .. }
            if cause.rdkafka_error_code() == Some(RDKafkaErrorCode::FencedInstanceId) =>
        {
            duplicate_instance(config)
        }
        _ => error,
    }
}

fn duplicate_instance(config: &StageConfig) -> BusError {
    BusError::DuplicateInstance {
        group: config.group_id.clone(),
        instance: config.instance_id.clone(),
    }
}
