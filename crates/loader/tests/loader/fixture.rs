//! A real Kafka, a real ClickHouse, and loaders between them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use spendfuse_bus::topics::TopicSpec;
use spendfuse_bus::{
    AcceptedGap, AcceptedGaps, EventProducer, EventRecord, KafkaConfig, ProducerOptions, Shutdown,
};
use spendfuse_devstack::{DevStack, DevStackOptions, Kafka, wait_until};
use spendfuse_domain::Topics;
use spendfuse_loader::{self as loader, LoaderConfig, LoaderError, LoaderNews, NewsSink};
use spendfuse_warehouse::{Link, SpendBlock, Warehouse};
use tokio::runtime::Runtime;

use crate::common::{call_event, row, warehouse};

/// Each insert waits for the disk, which others may keep busy.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const ROWS_A_BLOCK: u32 = 50;

pub struct Fixture {
    pub stack: DevStack,
    pub kafka: KafkaConfig,
    pub warehouse: Warehouse,
    pub runtime: Runtime,
    pub producer: EventProducer,
    pub alerts: Arc<Mutex<Vec<LoaderNews>>>,
    /// Last commit number of each partition.
    pub seqs: BTreeMap<u32, u64>,
    /// Of the calls that are counted from now on.
    pub customer: &'static str,
    pub group_id: &'static str,
}

pub struct RunningLoader {
    pub shutdown: Shutdown,
    pub thread: JoinHandle<Result<(), LoaderError>>,
}

impl RunningLoader {
    pub fn end(self) {
        self.shutdown.request();
        self.thread.join().unwrap().unwrap();
    }
}

impl Fixture {
    pub fn start() -> Self {
        // What the loader says is all there is to explain a failure with.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let stack = DevStack::start(DevStackOptions::default()).unwrap();
        let kafka = KafkaConfig::new(&stack.kafka.brokers(), "loader-test");
        create_topics(&kafka);
        Self {
            warehouse: warehouse(&stack.clickhouse),
            producer: EventProducer::open(&kafka, &ProducerOptions::default()).unwrap(),
            stack,
            kafka,
            runtime: Runtime::new().unwrap(),
            alerts: Arc::default(),
            seqs: BTreeMap::new(),
            customer: "steady",
            group_id: "spendfuse-loader",
        }
    }

    pub fn start_loader(&self) -> RunningLoader {
        self.start_loader_as("loader-1")
    }

    pub fn start_loader_as(&self, instance_id: &str) -> RunningLoader {
        let mut config = LoaderConfig::new(
            self.kafka.clone(),
            &Topics::new("spendfuse."),
            "spendfuse",
            instance_id,
        );
        config.group_id = self.group_id.to_owned();
        config.content_tokens = true;
        config.flush_interval = Duration::from_millis(50);
        config.session_timeout = Duration::from_secs(6);
        let (warehouse, runtime) = (self.warehouse.clone(), self.runtime.handle().clone());
        let shutdown = Shutdown::new();
        let alerts = Arc::clone(&self.alerts);
        let sink: NewsSink = Arc::new(move |alert| alerts.lock().unwrap().push(alert));
        let requested = shutdown.clone();
        let thread = std::thread::spawn(move || {
            loader::run(&config, &warehouse, &runtime, &requested, &sink)
        });
        RunningLoader { shutdown, thread }
    }

    pub fn send(&self, partition: u32, value: &[u8]) {
        let record = EventRecord {
            topic: "spendfuse.rows",
            partition: Some(partition),
            key: None,
            value: Some(value),
            headers: &[],
        };
        self.producer
            .send(&record, |acknowledged| {
                acknowledged.unwrap();
            })
            .unwrap();
    }

    /// Sends the blocks of `commits` commits of the meter of `partition`.
    pub fn count_calls(&mut self, partition: u32, commits: u64) {
        let mut block = SpendBlock::new("spendfuse.usage");
        for _ in 0..commits {
            let last = self.seqs.entry(partition).or_default();
            let link = Link {
                partition,
                previous: *last,
                seq: *last + 1,
            };
            *last += 1;
            for index in 0..ROWS_A_BLOCK {
                let id = format!("{}-{partition}-{}-{index}", self.customer, link.seq);
                let mut event = call_event(&id);
                event.attribution.customer = self.customer.into();
                event.time = event
                    .time
                    .plus(i64::from(index % 2) * 31 * 24 * 3600 * 1000);
                let mut written = row(&event, link.seq, index);
                written.address.partition = partition;
                block.push(&written);
            }
            let record = block.finish_record(link).unwrap();
            self.send(partition, &record);
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// What retention does, at once.
    pub fn delete_before(&self, partition: u32, offset: i64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wanted = format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"spendfuse.rows\",\"partition\":{partition},\"offset\":{offset}}}]}}"
        );
        std::fs::write(file.path(), wanted).unwrap();
        let said = Kafka::tool("org.apache.kafka.tools.DeleteRecordsCommand")
            .unwrap()
            .args(["--bootstrap-server", &self.stack.kafka.brokers()])
            .arg("--offset-json-file")
            .arg(file.path())
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
    }

    pub fn accept(&self, partition: u32, from: i64, to: i64) {
        let gaps = AcceptedGaps::open(&self.kafka, self.group_id).unwrap();
        let gap = AcceptedGap { from, to };
        gaps.accept("spendfuse.rows", partition, gap).unwrap();
    }

    pub fn wait_for_alert(&self, wanted: impl Fn(&LoaderNews) -> bool) {
        let raised = || {
            self.alerts
                .lock()
                .unwrap()
                .iter()
                .any(&wanted)
                .then_some(())
        };
        wait_until("an alert", PATIENCE, raised).unwrap();
    }

    pub fn execute(&self, sql: &str) {
        let done = self.warehouse.execute(sql, "a test's statement");
        self.runtime.block_on(done).unwrap();
    }

    pub fn query(&self, sql: &str) -> Option<Vec<String>> {
        let table = self
            .runtime
            .block_on(self.warehouse.query_table(sql))
            .ok()?;
        table.rows.into_iter().next()
    }

    /// Waits until `spend` has as many rows as were sent; then no row may be there twice, and the
    /// rollups must agree.
    pub fn wait_for_rows(&self, commits: u64) {
        let expected = (commits * u64::from(ROWS_A_BLOCK)).to_string();
        let all = vec![expected.clone(); 5];
        let arrived = || (self.query(COUNTS).as_ref() == Some(&all)).then_some(());
        if wait_until("rows", PATIENCE, arrived).is_err() {
            panic!("{:?} of {expected} rows", self.query(COUNTS));
        }
        // Nothing comes after it either.
        pause(300);
        assert_eq!(self.query(COUNTS), Some(all));
    }
}

pub fn create_topics(kafka: &KafkaConfig) {
    let topic = |name: &str, partitions| TopicSpec {
        name: name.to_owned(),
        partitions,
        config: BTreeMap::new(),
        least_retention_millis: None,
    };
    let topics = [
        topic("spendfuse.rows", 2),
        topic("spendfuse.rows.ledger", 1),
    ];
    spendfuse_bus::topics::create(kafka, &topics, None, PATIENCE).unwrap();
}

/// Rows, different rows, and what the rollups say.
pub const COUNTS: &str = "SELECT count(), uniqExact(meter_partition, meter_seq, meter_index), \
    (SELECT sum(entries) FROM spend_hourly), (SELECT sum(entries) FROM spend_daily), \
    (SELECT sum(count) FROM spend_audit) FROM spend";

/// Time for something that must not happen, or that cannot be seen from outside.
#[allow(clippy::disallowed_methods)]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
