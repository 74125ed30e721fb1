//! Requests to the broker about topics, as blocking calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::{Settings, TopicSpec};
use crate::config::KafkaConfig;
use crate::context::{LoggingContext, Refused};
use crate::error::BusError;
use crate::native::hear_errors;

/// Number of partitions by topic.
pub(crate) type Partitions = BTreeMap<String, u32>;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const FENCED_PATIENCE: Duration = Duration::from_secs(5);

/// An admin client that has seen the broker.
pub(super) struct Admin {
    client: AdminClient<LoggingContext>,
    brokers: String,
    patience: Duration,
}

impl Admin {
    pub(super) fn connect(kafka: &KafkaConfig, patience: Duration) -> Result<Self, BusError> {
        let config = kafka.questioner()?;
        let client = AdminClient::from_config_and_context(&config, LoggingContext::default())
            .map_err(BusError::Client)?;
        Ok(Self {
            client,
            brokers: kafka.brokers.clone(),
            patience,
        })
    }

    pub(super) fn topics(&self) -> Result<Partitions, BusError> {
        partition_counts(self.client.inner(), &self.brokers, self.patience)
    }

    pub(super) fn metadata(&self) -> Result<Metadata, BusError> {
        let client = self.client.inner();
        let metadata = client.fetch_metadata(None, self.patience);
        metadata.map_err(|error| unreachable(client, &self.brokers, error))
    }

    /// Settings of a broker by name.
    pub(super) fn broker_settings(
        &self,
        broker: i32,
    ) -> Result<BTreeMap<String, String>, BusError> {
        let failed = |error| BusError::Request {
            doing: format!("reading the settings of broker {broker}"),
            error,
        };
        let resource = ResourceSpecifier::Broker(broker);
        let described = block_on(self.client.describe_configs([&resource], &options()));
        let mut settings = BTreeMap::new();
        for resource in described.map_err(failed)? {
            let resource = resource.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let entries = resource.entries.into_iter();
            settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(settings)
    }

    /// Returns whether the topic is new; it may have been created by somebody else meanwhile.
    ///
    /// A broker that has just started, or stood still for longer than its session, is fenced for a
    /// moment: until it is back, Kafka 4.3.1 answers that there are too few brokers for replicas.
    pub(super) fn create(
        &self,
        spec: &TopicSpec,
        replication: Option<u16>,
    ) -> Result<bool, BusError> {
        let deadline = Instant::now() + FENCED_PATIENCE;
        loop {
            match self.create_once(spec, replication) {
                Err(BusError::Request {
                    error: KafkaError::AdminOp(RDKafkaErrorCode::InvalidReplicationFactor),
                    ..
                }) if Instant::now() < deadline => {
                    thread::park_timeout(Duration::from_millis(100));
                }
                outcome => return outcome,
            }
        }
    }

    fn create_once(&self, spec: &TopicSpec, replication: Option<u16>) -> Result<bool, BusError> {
        let failed = |error| BusError::Request {
            doing: format!("creating topic `{}`", spec.name),
            error,
        };
        // -1 is the broker's default.
        let replicas = replication.map_or(-1, i32::from);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let replication = TopicReplication::Fixed(replicas);
        let mut topic = NewTopic::new(&spec.name, partitions, replication);
        for (name, value) in &spec.config {
            topic = topic.set(name, value);
        }
        let results = block_on(self.client.create_topics([&topic], &options())).map_err(failed)?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(failed(KafkaError::AdminOp(code))),
            _ => Ok(true),
        }
    }

    /// The broker acknowledges a creation before every partition has a leader.
    pub(super) fn wait_for_leaders(&self, topics: &[String]) -> Result<(), BusError> {
        let deadline = Instant::now() + self.patience;
        for topic in topics {
            while !self.has_leaders(topic)? {
                if Instant::now() >= deadline {
                    return Err(BusError::TimedOut {
                        doing: format!("waiting for the leaders of topic `{topic}`"),
                        after: self.patience,
                    });
                }
                thread::park_timeout(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn has_leaders(&self, topic: &str) -> Result<bool, BusError> {
        let metadata = self
            .client
            .inner()
            .fetch_metadata(Some(topic), self.patience)
            .map_err(|error| unreachable(self.client.inner(), &self.brokers, error))?;
        Ok(metadata.topics().iter().all(|found| {
            found.error().is_none()
                && !found.partitions().is_empty()
                && found.partitions().iter().all(|one| one.leader() >= 0)
        }))
    }

    pub(super) fn settings(&self, specs: &[TopicSpec]) -> Result<Settings, BusError> {
        if specs.is_empty() {
            return Ok(Settings::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> = specs
            .iter()
            .map(|spec| ResourceSpecifier::Topic(&spec.name))
            .collect();
        let doing = || "reading topic settings".to_owned();
        let described = block_on(self.client.describe_configs(&resources, &options()));
        let described = described.map_err(|error| BusError::Request {
            doing: doing(),
            error,
        })?;
        let mut settings = Settings::new();
        // Answers come in the order of the questions.
        for (spec, result) in specs.iter().zip(described) {
            let resource = result.map_err(|code| BusError::Request {
                doing: doing(),
                error: KafkaError::AdminOp(code),
            })?;
            for entry in resource.entries {
                if let Some(value) = entry.value {
                    settings.insert((spec.name.clone(), entry.name), value);
                }
            }
        }
        Ok(settings)
    }

    pub(super) fn delete(&self, names: &[&str]) -> Result<(), BusError> {
        let deleting = self.client.delete_topics(names, &options());
        let results = block_on(deleting).map_err(|error| BusError::Request {
            doing: "deleting topics".to_owned(),
            error,
        })?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => {
                    return Err(BusError::Request {
                        doing: format!("deleting topic `{topic}`"),
                        error: KafkaError::AdminOp(code),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The partitions of every topic the client may see.
pub(crate) fn partition_counts<C: Refused>(
    client: &Client<C>,
    brokers: &str,
    patience: Duration,
) -> Result<Partitions, BusError> {
    let metadata = client
        .fetch_metadata(None, patience)
        .map_err(|error| unreachable(client, brokers, error))?;
    client.context().logging().forget_refusal();
    Ok(metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none())
        .map(|topic| {
            let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
            (topic.name().to_owned(), partitions)
        })
        .collect())
}

/// Why no broker answered, as far as the client knows.
fn unreachable<C: Refused>(client: &Client<C>, brokers: &str, error: KafkaError) -> BusError {
    if !C::IS_POLLED {
        hear_errors(client);
    }
    let brokers = brokers.to_owned();
    match client.context().logging().refusal() {
        Some(reason) => BusError::NotLetIn { brokers, reason },
        None => BusError::Unreachable { brokers, error },
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Waits for an admin request; rdkafka answers it from a thread of its own.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
