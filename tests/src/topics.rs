//! What topics hold, read with the bus's plain reader.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use spendfuse_bus::{read_ranges, topic_ranges};
use spendfuse_devstack::Kafka;

use crate::lab::Lab;
use crate::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(20);

/// A record as it lies in a topic.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Stored {
    /// The value of a header as text, empty where there is none.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or_else(String::new, |(_, value)| {
            String::from_utf8_lossy(value).into_owned()
        })
    }
}

impl Lab {
    /// Every committed record that a topic (such as `usage.dlq`) holds now.
    ///
    /// # Panics
    /// Where the broker does not answer within 20 s.
    pub fn read(&self, topic: &str) -> Vec<Stored> {
        let (kafka, topic) = (self.kafka_config(), self.topic(topic));
        let ranges = topic_ranges(&kafka, &topic, None, PATIENCE)
            .unwrap_or_else(|error| panic!("the ends of {topic}: {error}"));
        let mut records = Vec::new();
        read_ranges(&kafka, &topic, &ranges, PATIENCE, &mut |record| {
            records.push(Stored {
                partition: record.partition,
                offset: record.offset,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.to_vec()))
                    .collect(),
            });
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|error| panic!("reading {topic}: {error}"));
        records
    }

    /// Removes every record that a partition holds now, as retention does in time.
    ///
    /// # Panics
    /// Where the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: u32) {
        let file = self.file("delete-records.json");
        let wanted = serde_json::json!({
            "version": 1,
            "partitions": [{"topic": topic, "partition": partition, "offset": -1}],
        });
        fs::write(&file, wanted.to_string()).expect("the folder can be written");
        let said = Kafka::tool("org.apache.kafka.tools.DeleteRecordsCommand")
            .expect("the jars are set up")
            .args(["--bootstrap-server", &self.kafka().brokers()])
            .arg("--offset-json-file")
            .arg(file)
            .output()
            .expect("the tool starts");
        assert!(said.status.success(), "{said:?}");
    }

    /// Deletes a topic and creates it again, empty, under the same name.
    ///
    /// # Panics
    /// Where the broker refuses.
    pub fn make_anew(&self, topic: &str) {
        let name = self.topic(topic);
        let said = Kafka::tool("org.apache.kafka.tools.TopicCommand")
            .expect("the jars are set up")
            .args(["--bootstrap-server", &self.kafka().brokers()])
            .args(["--delete", "--topic", &name])
            .output()
            .expect("the tool starts");
        assert!(said.status.success(), "{said:?}");
        eventually("the topic is there again", PATIENCE, || {
            let said = self.run(&["topics", "create"]);
            let ranges = topic_ranges(&self.kafka_config(), &name, None, PATIENCE);
            let ranges = ranges.map_err(|error| format!("{error}; {said:?}"))?;
            match ranges.iter().all(|range| range.to == 0) {
                true => Ok(()),
                false => Err(format!("{ranges:?}")),
            }
        });
    }

    /// The last value of every key of a compacted topic, as JSON.
    ///
    /// # Panics
    /// As [`Lab::read`]; where a value is not JSON.
    pub fn table(&self, topic: &str) -> BTreeMap<String, serde_json::Value> {
        let mut table = BTreeMap::new();
        for record in self.read(topic) {
            let key = String::from_utf8_lossy(&record.key.unwrap_or_default()).into_owned();
            match record.value {
                None => table.remove(&key),
                Some(value) => {
                    let value = serde_json::from_slice(&value)
                        .unwrap_or_else(|error| panic!("{topic} {key}: {error}"));
                    table.insert(key, value)
                }
            };
        }
        table
    }
}
