//! As much of Kafka's protocol as is needed to know which request a response belongs to.

use std::collections::HashMap;

/// Kafka's number of a kind of request, as in its protocol guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

impl ApiKey {
    /// Records of a producer.
    pub const PRODUCE: Self = Self(0);
    /// Which brokers there are, and which of them leads a partition.
    pub const METADATA: Self = Self(3);
    /// A consumer's commit of offsets.
    pub const OFFSET_COMMIT: Self = Self(8);
    /// What a group has committed.
    pub const OFFSET_FETCH: Self = Self(9);
    /// A member joins its group.
    pub const JOIN_GROUP: Self = Self(11);
    /// A producer gets its id and epoch; older ones are fenced.
    pub const INIT_PRODUCER_ID: Self = Self(22);
    /// A partition becomes part of a transaction.
    pub const ADD_PARTITIONS_TO_TXN: Self = Self(24);
    /// A group's offsets become part of a transaction.
    pub const ADD_OFFSETS_TO_TXN: Self = Self(25);
    /// A transaction ends.
    pub const END_TXN: Self = Self(26);
    /// A transaction's commit of offsets.
    pub const TXN_OFFSET_COMMIT: Self = Self(28);

    /// Its name, or its number.
    pub fn name(self) -> String {
        let name = match self {
            Self::PRODUCE => "Produce",
            Self::METADATA => "Metadata",
            Self::OFFSET_COMMIT => "OffsetCommit",
            Self::OFFSET_FETCH => "OffsetFetch",
            Self::JOIN_GROUP => "JoinGroup",
            Self::INIT_PRODUCER_ID => "InitProducerId",
            Self::ADD_PARTITIONS_TO_TXN => "AddPartitionsToTxn",
            Self::ADD_OFFSETS_TO_TXN => "AddOffsetsToTxn",
            Self::END_TXN => "EndTxn",
            Self::TXN_OFFSET_COMMIT => "TxnOffsetCommit",
            Self(other) => return format!("api {other}"),
        };
        name.to_owned()
    }
}

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked for.
    pub api: ApiKey,
    /// In which version of the protocol; the answer has the same.
    pub version: i16,
    /// Answers carry it.
    pub correlation: i32,
    /// How the client names itself; empty where it does not.
    pub client_id: &'a str,
    /// What follows the head.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request, without the four bytes of its size; `None` where it is too short.
    pub(super) fn read(frame: &'a [u8]) -> Option<Self> {
        let number =
            |from: usize| -> Option<[u8; 2]> { frame.get(from..from + 2)?.try_into().ok() };
        let api = ApiKey(i16::from_be_bytes(number(0)?));
        let version = i16::from_be_bytes(number(2)?);
        let correlation = correlation(frame.get(4..)?)?;
        let length = i16::from_be_bytes(number(8)?);
        let end = 10 + usize::try_from(length).unwrap_or(0);
        let client_id = std::str::from_utf8(frame.get(10..end)?).unwrap_or_default();
        Some(Self {
            api,
            version,
            correlation,
            client_id,
            body: &frame[end..],
        })
    }

    /// Whether a text, such as a group's name, stands in the body.
    pub fn mentions(&self, text: &str) -> bool {
        let mut windows = self.body.windows(text.len().max(1));
        windows.any(|window| window == text.as_bytes())
    }
}

/// The correlation id at the beginning of a response.
pub(super) fn correlation(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// Requests of one connection that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<i32, (ApiKey, i16)>);

impl Waiting {
    pub(super) fn asked(&mut self, request: &Request<'_>) {
        self.0
            .insert(request.correlation, (request.api, request.version));
    }

    /// Which request, of which version, a response (without its size) answers.
    pub(super) fn answered(&mut self, frame: &[u8]) -> Option<(ApiKey, i16)> {
        self.0.remove(&correlation(frame)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_told_by_its_request() {
        // EndTxn, version 3, correlation id 7, client id "p1", then a body.
        let frame = [0, 26, 0, 3, 0, 0, 0, 7, 0, 2, b'p', b'1', 9, b'g', b'r'];
        let request = Request::read(&frame).unwrap();
        assert_eq!((request.api, request.client_id), (ApiKey::END_TXN, "p1"));
        assert!(request.mentions("gr") && !request.mentions("p1"));
        let mut waiting = Waiting::default();
        waiting.asked(&request);
        assert_eq!(waiting.answered(&[0, 0, 0, 8, 1]), None);
        assert_eq!(
            waiting.answered(&[0, 0, 0, 7, 1]),
            Some((ApiKey::END_TXN, 3))
        );
        assert_eq!(waiting.answered(&[0, 0, 0, 7, 1]), None, "answered once");
        assert_eq!(Request::read(&frame[..9]), None);
    }
}
