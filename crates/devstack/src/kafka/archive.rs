//! The JVM's class archive (CDS), which halves the time a broker needs to start.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Kafka, KafkaOptions};
use crate::error::{DevStackError, while_doing};
use crate::locate;

/// What a broker does with the archive of its loaded classes.
#[derive(Debug)]
pub(super) enum ClassArchive {
    /// Starts without one.
    Unused,
    /// Starts from it. One that does not fit the JVM or the jars is ignored by the JVM.
    Read(PathBuf),
    /// Writes it at a regular end.
    Write(PathBuf),
}

impl ClassArchive {
    /// The recorded archive, where there is one.
    pub(super) fn recorded(jars: &Path) -> Self {
        let path = archive_of(jars);
        if path.is_file() {
            Self::Read(path)
        } else {
            Self::Unused
        }
    }

    /// The JVM's flag for a broker.
    pub(super) fn broker_flag(&self) -> Option<String> {
        match self {
            Self::Write(path) => Some(format!("-XX:ArchiveClassesAtExit={}", path.display())),
            Self::Unused | Self::Read(_) => self.tool_flag(),
        }
    }

    /// The JVM's flag for a tool, which shares most classes with a broker but must not record.
    pub(super) fn tool_flag(&self) -> Option<String> {
        match self {
            Self::Read(path) => Some(format!("-XX:SharedArchiveFile={}", path.display())),
            Self::Unused | Self::Write(_) => None,
        }
    }
}

impl Kafka {
    /// Records the class archive next to the jars by starting and ending a broker once (6 s);
    /// later starts take half the time. Returns at once where it was recorded before.
    ///
    /// # Errors
    /// As [`Kafka::start`]; or where the archive cannot be put in its place.
    pub fn record_class_archive() -> Result<(), DevStackError> {
        let archive = archive_of(&locate::kafka_jars()?);
        if archive.is_file() {
            return Ok(());
        }
        // Under another name until it is complete.
        let unfinished = archive.with_extension(format!("{}.unfinished", std::process::id()));
        let write = ClassArchive::Write(unfinished.clone());
        let broker = Self::start_with(&KafkaOptions::default(), &write)?;
        broker.stop(0);
        fs::rename(&unfinished, &archive)
            .map_err(while_doing(format!("moving to {}", archive.display())))
    }
}

fn archive_of(jars: &Path) -> PathBuf {
    // Not `with_extension`, which would take the version's last number for one.
    let mut name = jars.as_os_str().to_owned();
    name.push(".jsa");
    PathBuf::from(name)
}
