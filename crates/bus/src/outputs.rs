//! Where a stage's logic writes what belongs into the transaction of its batch.

use crate::error::BusError;

/// Takes records: the transaction of a batch, or a collection in tests.
pub trait OutputSink {
    /// Takes one record; a `value` of `None` is a tombstone.
    ///
    /// # Errors
    /// [`BusError::TooLarge`], [`BusError::Send`].
    fn send(
        &mut self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<(), BusError>;
}

/// The outputs of one partition's batch: all of them become visible together, or none.
pub struct Outputs<'a> {
    sink: &'a mut dyn OutputSink,
    changelog: &'a str,
    partition: u32,
}

impl<'a> Outputs<'a> {
    /// Outputs of `partition` whose state goes to the topic `changelog`.
    pub fn new(sink: &'a mut dyn OutputSink, changelog: &'a str, partition: u32) -> Self {
        Self {
            sink,
            changelog,
            partition,
        }
    }

    /// Writes a record to any topic; `None` as `value` is a tombstone. The bytes are copied.
    ///
    /// # Errors
    /// [`BusError::TooLarge`] for a record that the client refuses, [`BusError::Send`] otherwise.
    pub fn send(
        &mut self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<(), BusError> {
        self.sink.send(topic, partition, key, value, headers)
    }

    /// Writes a state record to the partition's changelog; `None` deletes the key. Keys that
    /// begin with a zero byte are the runner's own.
    ///
    /// # Errors
    /// As [`Outputs::send`].
    pub fn changelog(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), BusError> {
        debug_assert!(
            key.first() != Some(&0),
            "changelog keys beginning with a zero byte are reserved"
        );
        self.sink
            .send(self.changelog, self.partition, Some(key), value, &[])
    }
}

/// A record to be written, as a value: what [`crate::writer`] takes, and what a test of a stage's
/// logic collects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Key, if any.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OutputSink for Vec<OutputRecord> {
    fn send(
        &mut self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<(), BusError> {
        self.push(OutputRecord {
            topic: topic.to_owned(),
            partition,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
        });
        Ok(())
    }
}
