//! Waits until what `budgets apply` wrote is in force: the next event counts, the next check knows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use spendfuse_bus::{InputRecord, PartitionRange};
use spendfuse_domain::verdict::{BlocklistKey, Heartbeat, Stage};
use tokio::runtime::Runtime;

use super::super::{Failure, kafka, output};
use crate::settings::Settings;
use crate::sidecar_client::{self, SidecarAway};

/// A running processor reports within a second, and at once where its budgets change.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever has not reported for this long does not run.
const SILENT_AFTER_MILLIS: i64 = 10_000;
/// By then a processor that runs has reported, whatever this machine's clock says.
const SURELY_REPORTED: Duration = Duration::from_millis(2_500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who uses the new budgets.
pub enum InForce {
    /// Every partition of the processor, and the sidecar that was asked.
    Everywhere,
    /// No processor runs: the budgets are in force from its start on.
    NoProcessor,
    /// These do not use them after [`PATIENCE`], in words for people.
    NotAt(Vec<String>),
}

/// The version of the budgets that the topic holds.
pub fn newest_version(settings: &Settings) -> Result<u64, Failure> {
    let mut version = 0;
    kafka::read_topic(settings, &settings.topics().budgets, |record| {
        version = version.max(record.offset.unsigned_abs() + 1);
    })?;
    Ok(version)
}

/// Waits for `version`, at most [`PATIENCE`].
pub fn wait(settings: &Settings, version: u64) -> Result<InForce, Failure> {
    let began = Instant::now();
    let runtime = Runtime::new().map_err(Failure::work)?;
    let mut reports = Reports::begin(settings)?;
    loop {
        reports.read(settings)?;
        let mut behind = reports.behind(version);
        let nobody_reports = reports.versions.is_empty();
        if !nobody_reports {
            behind.extend(sidecar_behind(settings, &runtime, version));
        }
        if behind.is_empty() {
            return Ok(InForce::Everywhere);
        }
        if nobody_reports && began.elapsed() >= SURELY_REPORTED {
            return Ok(InForce::NoProcessor);
        }
        if began.elapsed() >= PATIENCE {
            return Ok(InForce::NotAt(behind));
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "Kafka has nothing to wait for here"
)]
fn pause() {
    std::thread::sleep(LOOK_AGAIN);
}

/// What the partitions of both stages have reported lately.
struct Reports {
    unread: Vec<PartitionRange>,
    versions: BTreeMap<(&'static str, u32), u64>,
}

impl Reports {
    fn begin(settings: &Settings) -> Result<Self, Failure> {
        let since = output::now().plus(-SILENT_AFTER_MILLIS);
        let unread = kafka::ranges_since(settings, &settings.topics().blocklist, since)?;
        Ok(Self {
            unread,
            versions: BTreeMap::new(),
        })
    }

    fn read(&mut self, settings: &Settings) -> Result<(), Failure> {
        let topic = settings.topics().blocklist;
        for (unread, now) in self.unread.iter_mut().zip(kafka::ranges(settings, &topic)?) {
            unread.to = now.to;
        }
        let versions = &mut self.versions;
        kafka::read(settings, &topic, &self.unread, &mut |record| {
            if let Some((reporter, version)) = report(record) {
                versions.insert(reporter, version);
            }
            ControlFlow::Continue(())
        })?;
        for unread in &mut self.unread {
            unread.from = unread.to;
        }
        Ok(())
    }

    /// Partitions that are not known to use `version`.
    fn behind(&self, version: u64) -> Vec<String> {
        let all = ["meter", "ledger"].into_iter().flat_map(|stage| {
            let partitions = self.unread.iter();
            partitions.map(move |range| (stage, range.partition))
        });
        let late = all.filter_map(|reporter| {
            let (stage, partition) = reporter;
            match self.versions.get(&reporter) {
                Some(used) if *used >= version => None,
                Some(used) => Some(format!("{stage} partition {partition} uses version {used}")),
                None => Some(format!("{stage} partition {partition} has not reported")),
            }
        });
        late.collect()
    }
}

/// Who reports in a record of the blocklist, and the version of budgets that it uses.
fn report(record: &InputRecord<'_>) -> Option<((&'static str, u32), u64)> {
    let key = std::str::from_utf8(record.key?).ok()?;
    let Some(BlocklistKey::Heartbeat { stage, partition }) = BlocklistKey::parse(key) else {
        return None;
    };
    let beat: Heartbeat = serde_json::from_slice(record.value?).ok()?;
    let stage = match stage {
        Stage::Meter => "meter",
        Stage::Ledger => "ledger",
    };
    Some(((stage, partition), beat.budget_version))
}

/// A sidecar that does not answer runs elsewhere, or not at all: it is not waited for.
fn sidecar_behind(settings: &Settings, runtime: &Runtime, version: u64) -> Option<String> {
    let url = sidecar_client::address(settings);
    // Any question will do: every answer names the version.
    match sidecar_client::get(settings, runtime, "/v1/state?workspace=-") {
        Ok(answer) => {
            let used = answer["budget_version"].as_u64().unwrap_or(0);
            (used < version).then(|| format!("the sidecar at {url} uses version {used}"))
        }
        Err(SidecarAway::Silent { .. }) => None,
        Err(error @ SidecarAway::Unexpected { .. }) => Some(error.to_string()),
    }
}
