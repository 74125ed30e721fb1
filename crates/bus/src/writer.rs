//! Replaces sets of records in one transaction: `budgets apply`, price book versions.

use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::config::KafkaConfig;
use crate::context::LoggingContext;
use crate::error::BusError;
use crate::outputs::{OutputRecord, OutputSink};
use crate::topics::partition_counts;
use crate::transaction::TransactionalProducer;

const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes all records, or none: readers see them at once. Of two writers with the same
/// `transactional_id` at the same time the earlier one fails. Waits for the brokers at most
/// `patience`.
///
/// # Errors
/// [`BusError::TopicMissing`], [`BusError::PartitionCount`] for a partition that does not exist,
/// [`BusError::TooLarge`], [`BusError::Unreachable`]. After [`BusError::Transaction`] or
/// [`BusError::TimedOut`] the outcome may be unknown; writing the same again is safe for compacted
/// topics.
pub fn write_in_one_transaction(
    kafka: &KafkaConfig,
    transactional_id: &str,
    records: &[OutputRecord],
    patience: Duration,
) -> Result<(), BusError> {
    if records.is_empty() {
        return Ok(());
    }
    check_partitions(kafka, records, patience)?;
    let writer = TransactionalWriter::open(kafka, transactional_id, patience)?;
    writer.write(records).map(drop)
}

/// Writes one transaction after the other, as long as no other writer with its id begins.
pub struct TransactionalWriter(TransactionalProducer);

impl TransactionalWriter {
    /// Takes over from whoever used `transactional_id` before: that one's next transaction fails.
    ///
    /// # Errors
    /// [`BusError::Unreachable`], [`BusError::NotLetIn`].
    pub fn open(
        kafka: &KafkaConfig,
        transactional_id: &str,
        patience: Duration,
    ) -> Result<Self, BusError> {
        TransactionalProducer::open(kafka, transactional_id, TRANSACTION_TIMEOUT, patience)
            .map(Self)
    }

    /// Writes all records, to partitions that exist, or none. After an error there is no writer any
    /// more: what became of the transaction may be unknown.
    ///
    /// # Errors
    /// As [`write_in_one_transaction`].
    pub fn write(mut self, records: &[OutputRecord]) -> Result<Self, BusError> {
        match write(&mut self.0, records) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.0.abandon();
                Err(error)
            }
        }
    }
}

impl std::fmt::Debug for TransactionalWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TransactionalWriter")
    }
}

fn write(producer: &mut TransactionalProducer, records: &[OutputRecord]) -> Result<(), BusError> {
    producer.begin()?;
    for record in records {
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        producer.send(&record.topic, record.partition, key, value, &headers)?;
    }
    producer.commit()
}

fn check_partitions(
    kafka: &KafkaConfig,
    records: &[OutputRecord],
    patience: Duration,
) -> Result<(), BusError> {
    let config = kafka.plain_client()?;
    let client: BaseConsumer<LoggingContext> =
        BaseConsumer::from_config_and_context(&config, LoggingContext::default())
            .map_err(BusError::Client)?;
    let counts = partition_counts(client.client(), &kafka.brokers, patience)?;
    for record in records {
        match counts.get(&record.topic) {
            None => {
                return Err(BusError::TopicMissing {
                    topic: record.topic.clone(),
                });
            }
            Some(&found) if record.partition >= found => {
                return Err(BusError::PartitionCount {
                    topic: record.topic.clone(),
                    found,
                    expected: record.partition + 1,
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}
