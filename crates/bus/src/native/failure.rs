//! What a client says is wrong.

use rdkafka::error::RDKafkaErrorCode;

use super::TopicPartition;
use crate::error::BusError;

/// An error that a poll brought.
#[derive(Debug, Clone)]
pub(crate) struct PollFailure {
    pub(crate) code: RDKafkaErrorCode,
    pub(crate) fatal: bool,
    pub(crate) at: Option<TopicPartition>,
    /// Offset that it is about; negative where none is.
    pub(crate) offset: i64,
    pub(crate) reason: String,
}

impl PollFailure {
    /// Whether librdkafka goes on by itself.
    pub(crate) fn is_transient(&self) -> bool {
        use RDKafkaErrorCode as Code;
        !self.fatal
            && !matches!(
                self.code,
                Code::AutoOffsetReset
                    | Code::PollExceeded
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownTopic
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::FencedInstanceId
                    | Code::InvalidSessionTimeout
                    | Code::InconsistentGroupProtocol
                    | Code::InvalidGroupId
                    | Code::Fatal
            )
    }

    /// The first offset of the batch that it is about, where that cannot be read: its bytes are
    /// damaged, or compressed in a way that this client does not know.
    pub(crate) fn unreadable_batch(&self) -> Option<i64> {
        use RDKafkaErrorCode as Code;
        let is_about_batch = matches!(
            self.code,
            Code::BadMessage | Code::BadCompression | Code::NotImplemented
        );
        (is_about_batch && self.at.is_some() && self.offset >= 0).then_some(self.offset)
    }

    /// The partition that is said to have lost the offset that was asked for. Behind a batch with a
    /// wrong checksum the client may have made that offset up, see [`crate::unreadable`]: whether
    /// the position is lost [is asked](super::Poller::is_gone).
    pub(crate) fn out_of_range(&self) -> Option<&TopicPartition> {
        let at = self.at.as_ref()?;
        (self.code == RDKafkaErrorCode::AutoOffsetReset).then_some(at)
    }

    pub(crate) fn into_error(self) -> BusError {
        BusError::Consume {
            code: self.code,
            reason: self.reason,
        }
    }
}
