//! A fetched record, read where it lies.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaRespErr;

use super::{Event, Poller};
use crate::headers::Headers;
use crate::runner::InputRecord;

/// A record in librdkafka's memory.
pub(crate) struct Message<'p> {
    pub(super) message: NonNull<sys::rd_kafka_message_t>,
    // Owns the record's memory.
    pub(super) _event: Event,
    pub(super) _poller: PhantomData<&'p Poller>,
}

impl Message<'_> {
    fn native(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: the message lives as long as its event.
        unsafe { self.message.as_ref() }
    }

    pub(crate) fn topic(&self) -> &[u8] {
        // SAFETY: a fetched message has a topic, whose name is NUL-terminated and lives as long.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.native().rkt)).to_bytes() }
    }

    /// The record as the crate's users see it.
    pub(crate) fn as_input(&self, topic_index: usize) -> InputRecord<'_> {
        InputRecord {
            topic_index,
            partition: self.partition().cast_unsigned(),
            offset: self.offset(),
            timestamp_millis: self.timestamp_millis(),
            key: self.key(),
            value: self.value(),
            headers: self.headers(),
        }
    }

    pub(crate) fn partition(&self) -> i32 {
        self.native().partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.native().offset
    }

    /// Milliseconds since 1970; 0 where the log has none.
    pub(crate) fn timestamp_millis(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, the out pointer valid.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &mut kind) };
        millis.max(0)
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        // SAFETY: key and its length describe memory owned by the message.
        unsafe { bytes(self.native().key.cast(), self.native().key_len) }
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        // SAFETY: payload and its length describe memory owned by the message.
        unsafe { bytes(self.native().payload.cast(), self.native().len) }
    }

    pub(crate) fn headers(&self) -> Headers<'_> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; the headers stay owned by it.
        unsafe {
            let result = sys::rd_kafka_message_headers(self.message.as_ptr(), &mut headers);
            if result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                Headers::from_native(headers)
            } else {
                Headers::EMPTY
            }
        }
    }
}

/// # Safety
/// `start` must be null or valid for `length` bytes.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start, length) })
}
