//! Brokers and client properties, and the settings each kind of client gets on top.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::error::BusError;

/// How to reach Kafka.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Bootstrap servers, `host:port` by commas.
    pub brokers: String,
    /// Any librdkafka setting; replaces ours, except for those that exactly-once depends on,
    /// which are refused.
    pub properties: BTreeMap<String, String>,
    /// How the clients name themselves to the broker.
    pub client_id: String,
}

/// Settings that exactly-once depends on, with what to use instead.
const RESERVED: [(&str, &str); 21] = [
    ("bootstrap.servers", "set the brokers in [kafka]"),
    ("metadata.broker.list", "set the brokers in [kafka]"),
    ("client.id", "it is made from the instance id"),
    ("group.id", "it is made from the stage's name"),
    ("group.instance.id", "set `instance_id`"),
    ("group.protocol", "the stages need the classic protocol"),
    (
        "partition.assignment.strategy",
        "inputs are co-partitioned by the range assignor",
    ),
    (
        "transactional.id",
        "set `transactional_id_prefix` and `instance_id`",
    ),
    (
        "transaction.timeout.ms",
        "it is tied to the session time-out",
    ),
    (
        "session.timeout.ms",
        "it is tied to the transaction time-out",
    ),
    ("max.poll.interval.ms", "it is tied to the session time-out"),
    (
        "enable.auto.commit",
        "offsets are committed with what they produced",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed with what they produced",
    ),
    (
        "auto.offset.reset",
        "a lost position must be an error, not a gap",
    ),
    ("isolation.level", "aborted records must not be seen"),
    (
        "enable.partition.eof",
        "the ends of partitions are always needed",
    ),
    ("enable.idempotence", "retries must not duplicate"),
    (
        "acks",
        "an acknowledged record must survive the loss of a broker",
    ),
    (
        "request.required.acks",
        "an acknowledged record must survive the loss of a broker",
    ),
    (
        "allow.auto.create.topics",
        "a topic nobody created is a mistake that must show",
    ),
    (
        "delivery.report.only.error",
        "each producer sets what it needs",
    ),
];

/// Everything but the values of properties: some are passwords.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<&String> = self.properties.keys().collect();
        formatter
            .debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("properties", &properties)
            .finish()
    }
}

impl KafkaConfig {
    /// Brokers with no further properties.
    pub fn new(brokers: &str, client_id: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            properties: BTreeMap::new(),
            client_id: client_id.to_owned(),
        }
    }

    /// Refuses properties that would break what the clients promise, and those that librdkafka does
    /// not know or whose values it cannot read.
    ///
    /// # Errors
    /// [`BusError::Property`] for the first of them.
    pub fn validate(&self) -> Result<(), BusError> {
        if self.brokers.trim().is_empty() {
            return Err(BusError::Property {
                name: "brokers".to_owned(),
                reason: "no broker is given; set SPENDFUSE_KAFKA_BROKERS or [kafka] brokers"
                    .to_owned(),
            });
        }
        for (name, instead) in RESERVED {
            if self.properties.contains_key(name) {
                return Err(BusError::Property {
                    name: name.to_owned(),
                    reason: format!("cannot be set by hand: {instead}"),
                });
            }
        }
        for (name, value) in &self.properties {
            let mut alone = ClientConfig::new();
            alone.set(name, value);
            if let Err(error) = alone.create_native_config() {
                let reason = match error {
                    KafkaError::ClientConfig(_, reason, _, _) => reason,
                    other => other.to_string(),
                };
                return Err(BusError::Property {
                    name: name.clone(),
                    reason: format!("{reason}; see librdkafka's list of settings"),
                });
            }
        }
        Ok(())
    }

    /// Settings of an admin or metadata client.
    pub(crate) fn plain_client(&self) -> Result<ClientConfig, BusError> {
        self.validate()?;
        let mut client = ClientConfig::new();
        client
            .set_log_level(RDKafkaLogLevel::Info)
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            // Closed idle connections are not worth a line.
            .set("log.connection.close", "false");
        // OpenSSL is built in, and looks for certificates where nobody keeps them.
        self.set_unless_given(&mut client, "ssl.ca.location", "probe");
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        Ok(client)
    }

    /// Settings of a client that is made for one question: it says why it is hung up on, which often is
    /// the wrong `security.protocol`.
    pub(crate) fn questioner(&self) -> Result<ClientConfig, BusError> {
        let mut client = self.plain_client()?;
        client.set("log.connection.close", "true");
        Ok(client)
    }

    /// Settings of a consumer that is assigned its partitions by hand and commits nothing.
    pub(crate) fn reader(&self, isolation: Isolation) -> Result<ClientConfig, BusError> {
        let mut client = self.plain_client()?;
        // librdkafka wants a group id before it lets partitions be assigned, even if no group is
        // ever joined; nothing is committed under it.
        self.set_consumer_defaults(&mut client, isolation);
        client.set("group.id", "spendfuse-reader");
        Ok(client)
    }

    /// Settings of a consumer that is a static member of a group.
    pub(crate) fn member(&self, membership: &Membership<'_>) -> Result<ClientConfig, BusError> {
        let mut client = self.plain_client()?;
        self.set_consumer_defaults(&mut client, Isolation::ReadCommitted);
        // Members learn by their heartbeats that another one has left.
        let heartbeat = membership.session_timeout / 25;
        client
            .set("group.id", membership.group_id)
            .set("group.instance.id", membership.instance_id)
            // Eager and by range: all topics' partition p go to one member.
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", millis(membership.session_timeout))
            .set("heartbeat.interval.ms", millis(heartbeat))
            .set("max.poll.interval.ms", millis(membership.max_poll_interval));
        // A fetch brings thousands of records. The default of 100,000 beside them is memory, which
        // has left the processor's caches when its turn comes.
        self.set_unless_given(&mut client, "queued.min.messages", "10000");
        Ok(client)
    }

    fn set_consumer_defaults(&self, client: &mut ClientConfig, isolation: Isolation) {
        client
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation.name());
        // A flipped bit in an amount must not be counted. Costs next to nothing: processors have an
        // instruction for it.
        self.set_unless_given(client, "check.crcs", "true");
        self.set_unless_given(client, "fetch.min.bytes", "1");
        // The broker answers as soon as there is something. Long waits delay what follows a seek or
        // an assignment, short ones cost the broker and an idle process CPU.
        self.set_unless_given(client, "fetch.wait.max.ms", "100");
        // The default of one second stalls a consumer whose queue is full (librdkafka 2.12.1).
        self.set_unless_given(client, "fetch.queue.backoff.ms", "2");
        self.set_unless_given(client, "fetch.error.backoff.ms", "50");
    }

    /// Settings of an idempotent producer.
    pub(crate) fn producer(&self) -> Result<ClientConfig, BusError> {
        let mut client = self.plain_client()?;
        client.set("enable.idempotence", "true").set("acks", "all");
        self.set_unless_given(&mut client, "compression.type", "lz4");
        self.set_unless_given(&mut client, "linger.ms", "1");
        self.set_unless_given(&mut client, "message.max.bytes", "16777216");
        Ok(client)
    }

    /// Settings of a transactional producer.
    pub(crate) fn transactional(
        &self,
        transactional_id: &str,
        timeout: Duration,
    ) -> Result<ClientConfig, BusError> {
        let mut client = self.producer()?;
        client
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", millis(timeout))
            // Reports of what went well are not needed (the commit tells) and cost CPU; without
            // them `rd_kafka_flush` returns the moment the last record is acknowledged.
            .set("delivery.report.only.error", "true");
        self.set_unless_given(&mut client, "queue.buffering.max.messages", "2000000");
        self.set_unless_given(&mut client, "queue.buffering.max.kbytes", "1048576");
        // Back-to-back transactions meet CONCURRENT_TRANSACTIONS and then sleep this long; with
        // the default of 100 ms a hop takes 25 ms at the median instead of 8.
        self.set_unless_given(&mut client, "retry.backoff.ms", "2");
        self.set_unless_given(&mut client, "retry.backoff.max.ms", "20");
        Ok(client)
    }

    pub(crate) fn set_unless_given(&self, client: &mut ClientConfig, name: &str, value: &str) {
        if !self.properties.contains_key(name) {
            client.set(name, value);
        }
    }
}

/// Which records a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Up to the first open transaction, without aborted ones.
    ReadCommitted,
    /// Everything: to learn where a log ends, or without waiting for transactions.
    ReadUncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// A static member of a consumer group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership<'a> {
    pub(crate) group_id: &'a str,
    pub(crate) instance_id: &'a str,
    pub(crate) session_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_exactly_once_depends_on_is_refused() {
        let mut config = KafkaConfig::new("localhost:9092", "test");
        config.properties.insert("linger.ms".into(), "7".into());
        let client = config.transactional("t", Duration::from_secs(5)).unwrap();
        assert_eq!(client.get("linger.ms"), Some("7"));

        let name = "isolation.level".to_owned();
        config.properties.insert(name, "read_uncommitted".into());
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains("isolation.level"), "{error}");
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_or_cannot_read_is_refused_by_name() {
        for (name, value) in [("linger.millis", "7"), ("linger.ms", "soon")] {
            let mut config = KafkaConfig::new("localhost:9092", "test");
            config.properties.insert(name.into(), value.into());
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
