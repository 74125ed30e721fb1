//! Who is a member of a group, and leaving it.

use std::ffi::{CStr, CString};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::{Event, Polled, Poller, TopicPartition, request, text};
use crate::error::BusError;

/// How long leaving a group may take.
const LEAVE: Duration = Duration::from_secs(5);

/// A member of a consumer group, as the broker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// `group.instance.id`; empty for members that are not static.
    pub(crate) instance_id: String,
    pub(crate) client_id: String,
    /// Where it is, as the broker sees it.
    pub(crate) host: String,
    /// What it reads at the moment, once for each partition.
    pub(crate) topics: Vec<String>,
}

/// # Safety
/// `member` must be alive.
unsafe fn assigned_topics(member: *const sys::rd_kafka_MemberDescription_t) -> Vec<String> {
    // SAFETY: the member is alive, and what it is asked for lives as long; the list has `cnt`
    // elements.
    unsafe {
        let assignment = sys::rd_kafka_MemberDescription_assignment(member);
        if assignment.is_null() {
            return Vec::new();
        }
        let list = sys::rd_kafka_MemberAssignment_partitions(assignment);
        if list.is_null() {
            return Vec::new();
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let element = |index| text((*(*list).elems.add(index)).topic);
        (0..count).map(element).collect()
    }
}

impl Poller {
    /// The members of a group. None where the broker does not let us look.
    pub(crate) fn members(&self, group: &str, timeout: Duration) -> Result<Vec<Member>, BusError> {
        let doing = format!("asking for the members of group `{group}`");
        let Ok(name) = CString::new(group) else {
            return Ok(Vec::new());
        };
        let event = self.describe_group(&name, timeout);
        let timed_out = || BusError::TimedOut {
            doing: doing.clone(),
            after: timeout,
        };
        let event = event.ok_or_else(timed_out)?;
        let failed = |error: RDKafkaRespErr| {
            let code = RDKafkaErrorCode::from(error);
            if code == RDKafkaErrorCode::GroupAuthorizationFailed {
                return Ok(Vec::new());
            }
            Err(request(&doing)(KafkaError::AdminOp(code)))
        };
        // SAFETY: `event` is alive for the whole block; each accessor is called on the type that it is
        // made for, and what they return lives as long as the event.
        unsafe {
            let error = sys::rd_kafka_event_error(event.ptr());
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return failed(error);
            }
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event.ptr());
            if result.is_null() {
                return Err(timed_out());
            }
            let mut count = 0;
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
            if count == 0 || groups.is_null() {
                return Ok(Vec::new());
            }
            let description = *groups;
            let error = sys::rd_kafka_ConsumerGroupDescription_error(description);
            let error = sys::rd_kafka_error_code(error);
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return failed(error);
            }
            let count = sys::rd_kafka_ConsumerGroupDescription_member_count(description);
            let member = |index| {
                let member = sys::rd_kafka_ConsumerGroupDescription_member(description, index);
                Member {
                    instance_id: text(sys::rd_kafka_MemberDescription_group_instance_id(member)),
                    client_id: text(sys::rd_kafka_MemberDescription_client_id(member)),
                    host: text(sys::rd_kafka_MemberDescription_host(member)),
                    topics: assigned_topics(member),
                }
            };
            Ok((0..count).map(member).collect())
        }
    }

    fn describe_group(&self, group: &CStr, timeout: Duration) -> Option<Event> {
        let client = self.consumer().client().native_ptr();
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client is alive; queue and options are made here and given back here; the name
        // is NUL-terminated and copied by librdkafka.
        unsafe {
            let queue = sys::rd_kafka_queue_new(client);
            let api = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
            let options = sys::rd_kafka_AdminOptions_new(client, api);
            let (none, nothing) = (ptr::null_mut(), 0);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, none, nothing);
            let mut name = group.as_ptr();
            sys::rd_kafka_DescribeConsumerGroups(client, &mut name, 1, options, queue);
            let event = sys::rd_kafka_queue_poll(queue, millis);
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_queue_destroy(queue);
            NonNull::new(event).map(Event)
        }
    }

    /// Leaves the group for good; returns whether that was told to the broker in time. Static members
    /// that are only closed stay in it until their session ends; librdkafka (2.12) lets them leave
    /// where they unsubscribe before.
    pub(crate) fn leave(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.consumer().unsubscribe();
        while self.is_member() {
            match self.poll(Duration::from_millis(10)) {
                Polled::Assigned(_) | Polled::Revoked => {
                    let answered = self.unassign();
                    if answered.is_err() {
                        return false;
                    }
                }
                _ if Instant::now() >= deadline => return false,
                _ => {}
            }
        }
        true
    }

    /// Refuses an assignment of topics that this member has not asked for, and leaves the group, so
    /// that it gives a new one. Static members that come back within the session time-out are given
    /// what they had, whatever they ask for now (seen with Kafka 4.3).
    pub(crate) fn refuse_foreign(
        &self,
        group: &str,
        topics: &[String],
        assigned: &[TopicPartition],
    ) -> Result<(), BusError> {
        let foreign = assigned.iter().find(|at| !topics.contains(&at.topic));
        let Some(foreign) = foreign else {
            return Ok(());
        };
        self.refuse_assignment(group)?;
        Err(BusError::ForeignAssignment {
            group: group.to_owned(),
            topic: foreign.topic.clone(),
        })
    }

    /// Leaves the group instead of taking an assignment that was just given.
    pub(crate) fn refuse_assignment(&self, group: &str) -> Result<(), BusError> {
        // Librdkafka (2.12) does not leave before the assignment is answered.
        self.assign(&[])?;
        if !self.leave(LEAVE) {
            tracing::warn!(group, "the group could not be left in time");
        }
        Ok(())
    }

    /// Librdkafka forgets its member id in the moment in which it says that it leaves.
    fn is_member(&self) -> bool {
        let client = self.consumer().client().native_ptr();
        // SAFETY: the client is alive; the text is ours to give back.
        unsafe {
            let id = sys::rd_kafka_memberid(client);
            let is_member = !text(id).is_empty();
            if !id.is_null() {
                sys::rd_kafka_mem_free(client, id.cast());
            }
            is_member
        }
    }
}
