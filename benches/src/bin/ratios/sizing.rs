//! What the measured costs come to for larger installations. Computed, not measured: costs per event
//! are taken to stay what they are, as work is spread over partitions that share nothing.

use anyhow::Result;

use crate::pipeline::Drained;
use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "sizing";
/// Each record is on this many brokers.
const REPLICAS: f64 = 3.0;
const NODES: f64 = 3.0;
const CORES_A_NODE: f64 = 16.0;
/// What is left for peaks, restarts and the failure of a node.
const LOAD: f64 = 0.5;

/// CPU-seconds per million events, which is cores at a million events a second.
struct Cost {
    processor: f64,
    loader: f64,
    brokers: f64,
    warehouse: f64,
}

impl Cost {
    fn of(drained: &Drained) -> Self {
        Self {
            processor: drained.processor.cost(),
            loader: drained.loader.cost(),
            // A follower's copy is taken to cost as much as the leader's work, which is too much.
            brokers: drained.processor.server_cost() * REPLICAS,
            warehouse: drained.loader.server_cost(),
        }
    }

    fn sum(&self) -> f64 {
        self.processor + self.loader + self.brokers + self.warehouse
    }
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let drained = sitting.drained()?;
    let cost = Cost::of(drained);
    let bytes = drained.backlog.bytes as f64 / drained.backlog.events as f64;
    let workers = 1e6 / drained.processor.rate();
    let rate = NODES * CORES_A_NODE * LOAD / cost.sum() * 1e6;
    Ok(vec![
        Line::new(
            ROW,
            "computed: cores at 1,000,000 events/s",
            format!(
                "processor {:.1}, loader {:.1}, brokers ≤ {:.0}, ClickHouse {:.1}",
                cost.processor, cost.loader, cost.brokers, cost.warehouse
            ),
        )
        .note(format!(
            "{:.0} meter workers at this run's rate of one, as many partitions or more; {:.0} MB/s \
             of usage events before compression, {:.0} MB/s with {REPLICAS} replicas; one broker \
             and one ClickHouse were measured, replicas are computed",
            workers.ceil(),
            bytes,
            bytes * REPLICAS
        )),
        Line::new(
            ROW,
            format!("computed: {NODES} nodes of {CORES_A_NODE} cores, half loaded"),
            format!("{:.0} k events/s", rate / 1e3),
        )
        .note("all parts on the same three nodes, by processor time alone; disks and network are not in it"),
    ])
}
