//! How Java is called for Kafka.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::ClassArchive;
use super::{KafkaOptions, Purpose};
use crate::error::{DevStackError, while_doing};
use crate::locate;

/// 16 bytes in the URL-safe base64 that Kafka wants; any value does.
const CLUSTER_ID: &str = "c3BlbmRmdXNlLWRldnN0YQ";
pub(super) const QUICK_START: &[&str] = &["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// How Java is called.
pub(super) struct JavaCommand {
    pub(super) program: PathBuf,
    class_path: String,
    heap: &'static str,
    /// For the broker; the storage tool is always started quickly.
    quick_start: &'static [&'static str],
    broker_archive: Option<String>,
    tool_archive: Option<String>,
}

impl JavaCommand {
    pub(super) fn new(
        options: &KafkaOptions,
        class_archive: &ClassArchive,
    ) -> Result<Self, DevStackError> {
        Ok(Self {
            program: locate::java(),
            class_path: format!("{}/*", locate::kafka_jars()?.display()),
            heap: match (options.purpose, options.nodes) {
                (Purpose::Benchmarks, _) => "-Xmx2g",
                (Purpose::Tests, 1) => "-Xmx1g",
                (Purpose::Tests, _) => "-Xmx512m",
            },
            quick_start: match options.purpose {
                Purpose::Tests => QUICK_START,
                Purpose::Benchmarks => &[],
            },
            broker_archive: class_archive.broker_flag(),
            tool_archive: class_archive.tool_flag(),
        })
    }

    pub(super) fn broker_arguments(&self, logging: &Path, configuration: &Path) -> Vec<String> {
        let mut arguments = vec![self.heap.to_owned()];
        arguments.extend(self.quick_start.iter().map(|flag| (*flag).to_owned()));
        arguments.extend(self.broker_archive.clone());
        arguments.extend([
            format!("-Dlog4j2.configurationFile={}", logging.display()),
            "-cp".to_owned(),
            self.class_path.clone(),
            "kafka.Kafka".to_owned(),
            configuration.display().to_string(),
        ]);
        arguments
    }

    pub(super) fn format_storage(&self, configuration: &Path) -> Result<(), DevStackError> {
        let output = Command::new(&self.program)
            .args(QUICK_START)
            .args(&self.tool_archive)
            .args(["-cp", &self.class_path, "kafka.tools.StorageTool"])
            .args(["format", "-t", CLUSTER_ID, "-c"])
            .arg(configuration)
            .output()
            .map_err(while_doing("starting java to format Kafka's storage"))?;
        if output.status.success() {
            return Ok(());
        }
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Err(DevStackError::Ended {
            name: "Kafka's storage tool".to_owned(),
            status: output.status.to_string(),
            log: configuration.to_owned(),
            tail: said,
        })
    }
}
