//! A consumer's queue, polled without rdkafka's own poll loop.
//!
//! `BaseConsumer::poll` cannot say of which topic a partition's end was reached, hides rebalances
//! in a callback, and costs an allocation and a clock reading a record (rdkafka 0.39). Here every
//! event is a value in the order in which librdkafka queued it, so the callers are plain loops.

mod closing;
mod commit;
mod failure;
mod group;
mod kept;
mod leader_news;
mod memory;
mod message;
mod patient;
mod topic_ids;

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;
use std::{slice, thread};

use rdkafka::bindings as sys;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaRespErr, RDKafkaTopicPartitionList};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::context::LoggingContext;
use crate::error::BusError;

pub(crate) use closing::answer as answer_while_closing;
pub(crate) use failure::PollFailure;
pub(crate) use group::Member;
pub(crate) use kept::keep;
pub(crate) use memory::keep_free_memory;
pub(crate) use message::Message;
pub(crate) use patient::PatientCaller;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A topic and one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

/// What a poll brought.
pub(crate) enum Polled<'p> {
    /// Nothing within the time-out.
    Nothing,
    /// A record.
    Record(Message<'p>),
    /// The end of a partition: the next record will have this offset or a later one.
    End { at: TopicPartition, offset: i64 },
    /// The group assigned these partitions; answer with [`Poller::assign`].
    Assigned(Vec<TopicPartition>),
    /// The group takes all partitions back; answer with [`Poller::unassign`].
    Revoked,
    /// The client reports an error. Those about brokers are transient.
    Failed(PollFailure),
}

/// A consumer together with its queue.
pub(crate) struct Poller {
    consumer: Arc<BaseConsumer<LoggingContext>>,
    queue: NonNull<sys::rd_kafka_queue_t>,
}

impl Poller {
    /// Creates the client. `config` has a group id, so that all events go to one queue.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, BusError> {
        debug_assert!(config.get("group.id").is_some());
        let consumer = BaseConsumer::from_config_and_context(config, LoggingContext::default())
            .map_err(BusError::Client)?;
        let consumer = keep(consumer, config)?;
        // SAFETY: the client is alive; the queue is a counted reference, released in `drop`.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| {
            BusError::Client(KafkaError::ClientCreation("no consumer queue".to_owned()))
        })?;
        Ok(Self { consumer, queue })
    }

    /// Closes the client on a thread of its own: rdkafka's consumers take 100 ms to be dropped
    /// (0.39), which would be added to every take-over. Not for members of a group.
    pub(crate) fn drop_later(self) {
        let dropping = thread::Builder::new().name("close-reader".to_owned());
        if let Err(error) = dropping.spawn(move || drop(self)) {
            // The closure, and with it the client, has been dropped in place.
            tracing::debug!(error = %error, "no thread to close a reader on");
        }
    }

    /// The client, for everything but polling.
    pub(crate) fn consumer(&self) -> &BaseConsumer<LoggingContext> {
        &self.consumer
    }

    /// Waits for the next event, at most `timeout` (rounded up to milliseconds).
    pub(crate) fn poll(&self, timeout: Duration) -> Polled<'_> {
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        loop {
            // SAFETY: the queue is alive as long as `self`.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis) };
            let Some(event) = NonNull::new(event).map(Event) else {
                return Polled::Nothing;
            };
            if let Some(polled) = self.read(event) {
                return polled;
            }
        }
    }

    /// Replaces what is read: each partition from an offset. An empty list reads nothing.
    pub(crate) fn assign(&self, partitions: &[(&str, i32, Offset)]) -> Result<(), BusError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition, offset) in partitions {
            list.add_partition_offset(topic, *partition, *offset)
                .map_err(request("choosing where to read"))?;
        }
        self.consumer
            .assign(&list)
            .map_err(request("assigning partitions"))
    }

    /// Whether the log does not have an offset any more (or not yet).
    pub(crate) fn is_gone(&self, at: &TopicPartition, offset: i64) -> Result<bool, BusError> {
        let (first, end) = self.bounds(at)?;
        Ok(!(first..=end).contains(&offset))
    }

    /// First offset of a log, and the one after its last committed record.
    pub(crate) fn bounds(&self, at: &TopicPartition) -> Result<(i64, i64), BusError> {
        self.consumer
            .fetch_watermarks(&at.topic, at.partition, REQUEST_TIMEOUT)
            .map_err(request(&format!(
                "asking for the ends of topic `{}` partition {}",
                at.topic, at.partition
            )))
    }

    /// Reads nothing any more, and answers a revocation.
    pub(crate) fn unassign(&self) -> Result<(), BusError> {
        self.consumer
            .unassign()
            .map_err(request("giving partitions back"))
    }

    /// `None` for events that are no business of the caller.
    fn read(&self, event: Event) -> Option<Polled<'_>> {
        // SAFETY: `event` is alive, and each accessor is called on the type it is made for.
        unsafe {
            match sys::rd_kafka_event_type(event.ptr()) {
                sys::RD_KAFKA_EVENT_FETCH => {
                    let message = sys::rd_kafka_event_message_next(event.ptr());
                    let message = NonNull::new(message.cast_mut())?;
                    Some(Polled::Record(Message {
                        message,
                        _event: event,
                        _poller: PhantomData,
                    }))
                }
                sys::RD_KAFKA_EVENT_REBALANCE => Some(rebalance(&event)),
                sys::RD_KAFKA_EVENT_ERROR => self.failure(&event),
                sys::RD_KAFKA_EVENT_LOG => {
                    log(&**self.consumer.context(), &event);
                    None
                }
                _ => None,
            }
        }
    }

    fn failure(&self, event: &Event) -> Option<Polled<'static>> {
        // SAFETY: `event` is an alive error event; its strings live as long as it does.
        let (error, fatal, at, reason) = unsafe {
            let error = sys::rd_kafka_event_error(event.ptr());
            let fatal = sys::rd_kafka_event_error_is_fatal(event.ptr()) != 0;
            let reason = text(sys::rd_kafka_event_error_string(event.ptr()));
            let native = sys::rd_kafka_event_topic_partition(event.ptr());
            let at = native.as_ref().map(|native| {
                let at = TopicPartition {
                    topic: text(native.topic),
                    partition: native.partition,
                };
                (at, native.offset)
            });
            if !native.is_null() {
                sys::rd_kafka_topic_partition_destroy(native);
            }
            (error, fatal, at, reason)
        };
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF {
            let (at, offset) = at?;
            return Some(Polled::End { at, offset });
        }
        let code = RDKafkaErrorCode::from(error);
        self.consumer
            .context()
            .error(KafkaError::Global(code), &reason);
        Some(Polled::Failed(PollFailure {
            code,
            fatal,
            offset: at.as_ref().map_or(-1, |(_, offset)| *offset),
            at: at.map(|(at, _)| at),
            reason,
        }))
    }
}

// SAFETY: librdkafka's clients and queues may be used from any thread.
unsafe impl Send for Poller {}

impl Drop for Poller {
    fn drop(&mut self) {
        // SAFETY: the reference was taken in `new`, and the client is dropped only after this.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// An event that is given back when dropped.
struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    fn ptr(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event came from `rd_kafka_queue_poll` and nobody else frees it.
        unsafe { sys::rd_kafka_event_destroy(self.ptr()) }
    }
}

fn rebalance(event: &Event) -> Polled<'static> {
    // SAFETY: `event` is an alive rebalance event and owns its list.
    unsafe {
        let error = sys::rd_kafka_event_error(event.ptr());
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let list = sys::rd_kafka_event_topic_partition_list(event.ptr());
            Polled::Assigned(partitions(list))
        } else {
            Polled::Revoked
        }
    }
}

/// # Safety
/// `list` must be null or valid.
unsafe fn partitions(list: *const RDKafkaTopicPartitionList) -> Vec<TopicPartition> {
    // SAFETY: as promised by the caller; librdkafka keeps `cnt` valid elements.
    unsafe {
        let Some(list) = list.as_ref() else {
            return Vec::new();
        };
        if list.elems.is_null() {
            return Vec::new();
        }
        let count = usize::try_from(list.cnt).unwrap_or(0);
        slice::from_raw_parts(list.elems, count)
            .iter()
            .map(|element| TopicPartition {
                topic: text(element.topic),
                partition: element.partition,
            })
            .collect()
    }
}

/// # Safety
/// `start` must be null or a NUL-terminated string.
unsafe fn text(start: *const std::ffi::c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: as promised by the caller.
    unsafe { CStr::from_ptr(start).to_string_lossy().into_owned() }
}

/// Waits until every record of a producer is acknowledged or has failed; returns whether. Only
/// for producers with `delivery.report.only.error`: it returns the moment the last one is
/// acknowledged, while rdkafka's `flush` polls in steps of up to 100 ms.
pub(crate) fn flush<C: rdkafka::producer::ProducerContext>(
    producer: &rdkafka::producer::BaseProducer<C>,
    timeout: Duration,
) -> bool {
    use rdkafka::producer::Producer;
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive.
    let result = unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), millis) };
    result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

fn log(context: &impl ClientContext, event: &Event) {
    let mut kind = ptr::null();
    let mut message = ptr::null();
    let mut level = 0;
    // SAFETY: `event` is an alive log event; its strings live as long as it does.
    unsafe {
        if sys::rd_kafka_event_log(event.ptr(), &mut kind, &mut message, &mut level) == 0 {
            let level = match level {
                0..=3 => RDKafkaLogLevel::Error,
                4 => RDKafkaLogLevel::Warning,
                5 | 6 => RDKafkaLogLevel::Info,
                _ => RDKafkaLogLevel::Debug,
            };
            context.log(level, text(kind).trim(), text(message).trim());
        }
    }
}

/// Hands what a client has said about its brokers so far to its context. Only for clients whose
/// events nobody polls yet.
pub(crate) fn hear_errors<C: ClientContext>(client: &rdkafka::client::Client<C>) {
    // SAFETY: the client is alive; the queue is a counted reference that is given back, and so is
    // every event, whose strings live as long as it does.
    unsafe {
        let queue = sys::rd_kafka_queue_get_main(client.native_ptr());
        while let Some(event) = NonNull::new(sys::rd_kafka_queue_poll(queue, 0)).map(Event) {
            match sys::rd_kafka_event_type(event.ptr()) {
                sys::RD_KAFKA_EVENT_ERROR => {
                    let code = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event.ptr()));
                    let reason = text(sys::rd_kafka_event_error_string(event.ptr()));
                    client.context().error(KafkaError::Global(code), &reason);
                }
                sys::RD_KAFKA_EVENT_LOG => log(&**client.context(), &event),
                _ => {}
            }
        }
        sys::rd_kafka_queue_destroy(queue);
    }
}

pub(crate) fn request(doing: &str) -> impl FnOnce(KafkaError) -> BusError + use<> {
    let doing = doing.to_owned();
    move |error| BusError::Request { doing, error }
}
