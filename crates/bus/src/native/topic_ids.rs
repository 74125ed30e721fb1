//! Kafka's ids of topics: a topic that was deleted and made anew has another one. rdkafka (0.39) does
//! not tell them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use super::{Event, Poller};
use crate::error::BusError;

impl Poller {
    /// The ids of those of `topics` that exist.
    pub(crate) fn topic_ids(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, BusError> {
        let names: Vec<CString> = topics
            .iter()
            .filter_map(|name| CString::new(*name).ok())
            .collect();
        let described = self.describe_topics(&names, timeout);
        let described = described.ok_or(BusError::TimedOut {
            doing: "asking for the ids of topics".to_owned(),
            after: timeout,
        })?;
        let failed = |error: RDKafkaRespErr| BusError::Request {
            doing: "asking for the ids of topics".to_owned(),
            error: KafkaError::AdminOp(error.into()),
        };
        // SAFETY: the event is alive until the end of this function, and with it all that is read
        // here; texts are NUL-terminated and copied.
        unsafe {
            let error = sys::rd_kafka_event_error(described.0.as_ptr());
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(failed(error));
            }
            let result = sys::rd_kafka_event_DescribeTopics_result(described.0.as_ptr());
            let mut count = 0;
            let found = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            let mut ids = BTreeMap::new();
            if found.is_null() || count == 0 {
                return Ok(ids);
            }
            for description in slice::from_raw_parts(found, count) {
                let error = sys::rd_kafka_TopicDescription_error(*description);
                match sys::rd_kafka_error_code(error) {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => continue,
                    other => return Err(failed(other)),
                }
                let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*description));
                let id = sys::rd_kafka_TopicDescription_topic_id(*description);
                let id = CStr::from_ptr(sys::rd_kafka_Uuid_base64str(id));
                let text = |text: &CStr| text.to_string_lossy().into_owned();
                ids.insert(text(name), text(id));
            }
            Ok(ids)
        }
    }

    fn describe_topics(&self, names: &[CString], timeout: Duration) -> Option<Event> {
        let client = self.consumer().client().native_ptr();
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut texts: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the client is alive; queue, options and collection are made here and given back
        // here; names are NUL-terminated and copied by librdkafka.
        unsafe {
            let queue = sys::rd_kafka_queue_new(client);
            let api = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = sys::rd_kafka_AdminOptions_new(client, api);
            let (none, nothing) = (ptr::null_mut(), 0);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, none, nothing);
            let topics =
                sys::rd_kafka_TopicCollection_of_topic_names(texts.as_mut_ptr(), texts.len());
            sys::rd_kafka_DescribeTopics(client, topics, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, millis);
            sys::rd_kafka_TopicCollection_destroy(topics);
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_queue_destroy(queue);
            NonNull::new(event).map(Event)
        }
    }
}
