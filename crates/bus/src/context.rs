//! Sends what librdkafka says to `tracing`, without letting an absent broker flood the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::error::BusError;
use crate::native::answer_while_closing;

/// One line of each kind in this time; the next one tells how many were left out.
const QUIET: Duration = Duration::from_secs(10);

/// The context of every client that needs no delivery reports.
#[derive(Default)]
pub(crate) struct LoggingContext {
    kinds: Mutex<HashMap<String, Kind>>,
    refusal: Mutex<Option<String>>,
}

struct Kind {
    last_line: Instant,
    left_out: u64,
}

impl LoggingContext {
    /// Whether to write a line of this kind now, and how many were left out before it.
    fn admit(&self, kind: &str) -> Option<u64> {
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = kinds.get_mut(kind) else {
            let first = Kind {
                last_line: now,
                left_out: 0,
            };
            kinds.insert(kind.to_owned(), first);
            return Some(0);
        };
        if now.duration_since(known.last_line) < QUIET {
            known.left_out += 1;
            return None;
        }
        known.last_line = now;
        Some(std::mem::take(&mut known.left_out))
    }
}

/// A client that remembers why it was not let in.
pub(crate) trait Refused: ClientContext {
    /// Whether somebody polls the client's events all the time.
    const IS_POLLED: bool;

    /// Where that is remembered.
    fn logging(&self) -> &LoggingContext;
}

impl Refused for LoggingContext {
    const IS_POLLED: bool = false;

    fn logging(&self) -> &LoggingContext {
        self
    }
}

impl LoggingContext {
    /// What the client said last about a certificate or login that was refused, or a protocol that
    /// is not the broker's.
    pub(crate) fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.clone()
    }

    /// The client was let in.
    pub(crate) fn forget_refusal(&self) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn remember(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let is_refusal = match error.rdkafka_error_code() {
            Some(Code::SSL | Code::Authentication | Code::SaslAuthenticationFailed) => true,
            Some(Code::BrokerTransportFailure) => reason.contains("security.protocol"),
            _ => false,
        };
        if is_refusal {
            self.keep_refusal(reason.to_owned());
        }
    }

    /// What librdkafka (2.12) takes for no error: that a broker hangs up on the first request, and that
    /// it does not like our certificate.
    fn remember_failure(&self, message: &str) {
        let said = without_thread(message);
        if said.contains("SSL alert") {
            self.keep_refusal(said.to_owned());
        } else if said.contains("Disconnected") && said.contains("APIVERSION_QUERY") {
            let reason = "it hangs up on the first request: it is just starting, or this port wants \
                          TLS (security.protocol)";
            self.keep_refusal(reason.to_owned());
        }
    }

    fn keep_refusal(&self, reason: String) {
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        *refusal = Some(reason);
    }
}

/// librdkafka puts the name of its thread before what it says.
fn without_thread(message: &str) -> &str {
    message.split_once("]: ").map_or(message, |(_, said)| said)
}

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, message: &str) {
        match kind {
            "FAIL" => self.remember_failure(message),
            "OIDC" => self.keep_refusal(without_thread(message).to_owned()),
            _ => {}
        }
        // One set of properties goes to all clients; that a consumer does not need `acks` is
        // no news.
        let is_news = kind != "CONFWARN";
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
                if is_news =>
            {
                if let Some(left_out) = self.admit(kind) {
                    tracing::warn!(target: "librdkafka", kind, left_out, "{message}");
                }
            }
            _ => tracing::debug!(target: "librdkafka", kind, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // `PartitionEOF` and other per-partition states arrive here too, as no error.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        self.remember(&error, reason);
        let code = format!("{error}");
        if let Some(left_out) = self.admit(&code) {
            tracing::warn!(target: "librdkafka", error = code, left_out, "{reason}");
        }
    }
}

impl ConsumerContext for LoggingContext {
    /// Only a client that is being dropped polls by rdkafka's loop; see [`crate::native::Poller`].
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        answer_while_closing(consumer, error, partitions);
    }
}

/// The context of a transactional producer: remembers the first record that failed.
#[derive(Default)]
pub(crate) struct FailureContext {
    logging: LoggingContext,
    first_failure: Mutex<Option<BusError>>,
}

impl FailureContext {
    /// The first failed delivery since the client was made.
    pub(crate) fn take_failure(&self) -> Option<BusError> {
        let mut failure = self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }
}

impl ClientContext for FailureContext {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, message: &str) {
        self.logging.log(level, kind, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logging.error(error, reason);
    }
}

impl ProducerContext for FailureContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let Err((error, message)) = result else {
            return;
        };
        let mut failure = self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            *failure = Some(delivery_error(
                error,
                message.topic(),
                message.partition(),
                0,
            ));
        }
    }
}

/// The typed error of a record that was not taken or not acknowledged.
pub(crate) fn delivery_error(
    error: &KafkaError,
    topic: &str,
    partition: i32,
    bytes: usize,
) -> BusError {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageBatchTooLarge, MessageSizeTooLarge};
    match error.rdkafka_error_code() {
        Some(MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize) => {
            BusError::TooLarge {
                topic: topic.to_owned(),
                partition,
                bytes,
            }
        }
        _ => BusError::Send {
            topic: topic.to_owned(),
            partition,
            error: error.clone(),
        },
    }
}
