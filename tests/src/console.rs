//! Kafka's own console tools.

use std::fs;
use std::time::Duration;

use spendfuse_devstack::Kafka;

use crate::lab::{Lab, run_to_end};

const PATIENCE: Duration = Duration::from_secs(40);

impl Lab {
    /// Sends lines with Kafka's console producer, keys before a tab.
    ///
    /// # Panics
    /// Where the tool fails or does not end within 40 s.
    pub fn console_produce(&self, topic: &str, lines: &[String]) {
        let mut command = tool("org.apache.kafka.tools.ConsoleProducer");
        command
            .args(["--bootstrap-server", &self.kafka().brokers()])
            .args(["--topic", &self.topic(topic)])
            .args(["--reader-property", "parse.key=true"]);
        let output = self.file("console-producer");
        fs::write(output.with_extension("in"), lines.join("\n") + "\n")
            .expect("the folder can be written");
        let said = run_to_end(command, &output, PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    /// Reads `count` records with Kafka's console consumer: keys, a tab, values.
    ///
    /// # Panics
    /// Where the tool fails or does not end within 40 s.
    pub fn console_consume(&self, topic: &str, count: usize) -> Vec<(String, String)> {
        let mut command = tool("org.apache.kafka.tools.consumer.ConsoleConsumer");
        command
            .args(["--bootstrap-server", &self.kafka().brokers()])
            .args(["--topic", &self.topic(topic)])
            .args(["--from-beginning", "--timeout-ms", "20000"])
            .args(["--max-messages", &count.to_string()])
            .args(["--isolation-level", "read_committed"])
            .args(["--formatter-property", "print.key=true"]);
        let said = run_to_end(command, &self.file("console-consumer"), PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        let pair = |line: &str| {
            line.split_once('\t')
                .map(|(key, value)| (key.into(), value.into()))
        };
        said.stdout.lines().filter_map(pair).collect()
    }
}

fn tool(class: &str) -> std::process::Command {
    Kafka::tool(class).expect("the jars are set up")
}
