//! Throughput against partitions, workers and processes; then what restarts cost as state grows.

use std::time::Duration;

use anyhow::Result;
use spendfuse_benches::lab::Role;
use spendfuse_benches::load::write_backlog;
use spendfuse_benches::workload::Workload;

use crate::pipeline::{Steady, steadily};
use crate::sitting::Sitting;
use crate::table::Line;

/// One way to run the processor.
#[derive(Clone, Copy)]
struct Layout {
    partitions: u32,
    meter_workers: u32,
    ledger_workers: u32,
    processes: u32,
}

const fn layout(
    partitions: u32,
    meter_workers: u32,
    ledger_workers: u32,
    processes: u32,
) -> Layout {
    Layout {
        partitions,
        meter_workers,
        ledger_workers,
        processes,
    }
}

const LAYOUTS: [Layout; 6] = [
    layout(1, 1, 1, 1),
    layout(4, 1, 1, 1),
    layout(16, 1, 1, 1),
    layout(4, 2, 1, 1),
    layout(16, 2, 2, 1),
    layout(4, 1, 1, 2),
];

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "scaling";
    let mut lines = Vec::new();
    let mut first = None;
    let layouts = sitting.choose(&LAYOUTS[..], &LAYOUTS[1..2]);
    for (number, layout) in layouts.iter().enumerate() {
        let what = format!(
            "{} partitions, {} × ({} meter + {} ledger) workers",
            layout.partitions, layout.processes, layout.meter_workers, layout.ledger_workers
        );
        match drain(sitting, &format!("scaling{number}"), *layout) {
            Ok(steady) => {
                let rate = steady.rate();
                let first = *first.get_or_insert(rate);
                let figures = format!("{:.0} k events/s, {:.2} CPU-s/M", rate / 1e3, steady.cost());
                let line = Line::new(ROW, what, figures);
                lines.push(line.against("the first line").ratio(rate, first));
            }
            Err(why) => lines.push(Line::failed(ROW, what, &why)),
        }
    }
    Ok(lines)
}

fn drain(sitting: &Sitting, name: &str, layout: Layout) -> Result<Steady> {
    let lab = sitting.lab(name, layout.partitions)?;
    let events = sitting.choose(800_000, 200_000);
    write_backlog(&lab, &mut Workload::new("s"), events)?;
    let settings = [
        format!("processor.meter_workers={}", layout.meter_workers),
        format!("processor.ledger_workers={}", layout.ledger_workers),
    ];
    let processors = (1..=layout.processes)
        .map(|instance| lab.start("processor", &instance.to_string(), &settings))
        .collect::<Result<Vec<Role>>>()?;
    steadily(
        events / 10..events,
        Duration::from_secs(120),
        || Ok(processors.iter().map(Role::counted).sum()),
        || {
            let mut cpu = Duration::ZERO;
            for processor in &processors {
                cpu += processor.usage()?.cpu;
            }
            Ok((cpu, sitting.servers.broker_usage()?.cpu))
        },
    )
}
