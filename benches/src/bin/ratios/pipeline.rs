//! The full pipeline on a backlog, next to a client that only consumes and parses the same topic.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_benches::lab::{Lab, Role};
use spendfuse_benches::load::{Backlog, write_backlog};
use spendfuse_benches::process::{Usage, thread_time};
use spendfuse_benches::workload::Workload;

use crate::bare::{self, Bare};
use crate::parts::Parts;
use crate::sitting::Sitting;
use crate::table::Line;

/// Partitions of the topics.
const PARTITIONS: u32 = 4;
/// How librdkafka's threads are called.
const KAFKA_CLIENT_THREADS: &str = "rdk:";
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a part of the pipeline used between two looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Events or rows in between.
    pub count: u64,
    /// Time in between.
    pub elapsed: Duration,
    /// Processor time of our process in between.
    pub cpu: Duration,
    /// The same of the server that it worked with.
    pub server_cpu: Duration,
}

impl Steady {
    /// CPU-seconds of our process per million.
    pub fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
    }

    /// CPU-seconds of the server per million.
    pub fn server_cost(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.count as f64
    }

    /// How many a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }
}

/// Looks every 50 ms until the end of `span` is reached; figures are those between its beginning and
/// the last look before its end, so that neither start nor waiting counts.
pub fn steadily(
    span: Range<u64>,
    patience: Duration,
    mut done: impl FnMut() -> Result<u64>,
    mut used: impl FnMut() -> Result<(Duration, Duration)>,
) -> Result<Steady> {
    let total = span.end;
    let began = Instant::now();
    let mut first = None;
    let mut last = None;
    loop {
        let count = done()?;
        let (cpu, server_cpu) = used()?;
        let look = (count, Instant::now(), cpu, server_cpu);
        if first.is_none() && count >= span.start {
            first = Some(look);
        }
        // The look that finds everything done may come long after the last was done.
        if count < total || last.is_none() {
            last = Some(look);
        }
        if count >= total {
            break;
        }
        ensure!(
            began.elapsed() < patience,
            "{count} of {total} after {patience:?}"
        );
        thread::sleep(LOOK_EVERY);
    }
    let (Some(first), Some(last)) = (first, last) else {
        anyhow::bail!("nothing was done");
    };
    ensure!(
        last.0 > first.0,
        "done too soon to be measured: use more events"
    );
    Ok(Steady {
        count: last.0 - first.0,
        elapsed: last.1 - first.1,
        cpu: last.2 - first.2,
        server_cpu: last.3 - first.3,
    })
}

/// The backlog, drained by the processor and then by the loader.
pub struct Drained {
    /// Its topics and tables.
    pub lab: Lab,
    /// What was in it.
    pub backlog: Backlog,
    /// The client that only parses.
    pub bare: Bare,
    /// The processor; its server is the broker.
    pub processor: Steady,
    /// At the end.
    pub processor_usage: Usage,
    /// The share of its time that the Kafka client's own threads took.
    pub client_share: f64,
    /// Sessions that it had at the end.
    pub sessions: u64,
    /// The loader; its server is ClickHouse.
    pub loader: Steady,
    /// Inserts that the loader had under way at a time, on average.
    pub loader_inserts: f64,
    /// What the processor's steps cost by themselves.
    pub parts: Parts,
}

impl Drained {
    /// Writes a backlog, reads it with the bare client, counts it, loads it, and checks the totals.
    pub fn measure(sitting: &Sitting) -> Result<Self> {
        let lab = sitting.lab("pipeline", PARTITIONS)?;
        eprintln!("  writing {} events", sitting.events);
        let backlog = write_backlog(&lab, &mut Workload::new("b"), sitting.events)?;
        eprintln!("  {} bytes an event", backlog.bytes / backlog.events);
        let before = bare::measure(&lab, "before", backlog.events)?;
        let processor = lab.start("processor", "1", &[])?;
        let counting = count(sitting, &processor, backlog.events)?;
        let processor_usage = processor.usage()?;
        let client_time = thread_time(
            processor.process_id().context("the processor runs")?,
            KAFKA_CLIENT_THREADS,
        )?;
        let sessions = processor.metric("spendfuse_meter_sessions").unwrap_or(0.0) as u64;
        processor.stop();
        let after = bare::measure(&lab, "after", backlog.events)?;
        let loader = lab.start("loader", "1", &[])?;
        let loading = load(sitting, &loader, backlog.events)?;
        wait_for_rows(&lab, &backlog)?;
        let inserting = loader.metric("spendfuse_loader_insert_seconds_sum");
        loader.stop();
        let loading_time = backlog.events as f64 / loading.rate();
        Ok(Self {
            lab,
            backlog,
            // The mean of two readings, one on each side of what is compared with it.
            bare: Bare {
                events: before.events + after.events,
                cpu_seconds: before.cpu_seconds + after.cpu_seconds,
                seconds: before.seconds + after.seconds,
            },
            processor: counting,
            processor_usage,
            client_share: client_time.as_secs_f64() / processor_usage.cpu.as_secs_f64(),
            sessions,
            loader: loading,
            loader_inserts: inserting.unwrap_or(0.0) / loading_time,
            parts: Parts::measure(sitting.choose(40, 5))?,
        })
    }
}

/// Waits until a processor has counted `events` events.
pub fn count(sitting: &Sitting, processor: &Role, events: u64) -> Result<Steady> {
    let patience = Duration::from_secs(60) + Duration::from_millis(events / 10);
    steadily(
        events / 10..events,
        patience,
        || Ok(processor.counted()),
        || {
            let broker = sitting.servers.broker_usage()?;
            Ok((processor.usage()?.cpu, broker.cpu))
        },
    )
}

fn load(sitting: &Sitting, loader: &Role, rows: u64) -> Result<Steady> {
    const LOADED: &str = "spendfuse_loader_rows_total{table=\"spend\"}";
    let patience = Duration::from_secs(60) + Duration::from_millis(rows / 10);
    steadily(
        rows / 10..rows,
        patience,
        || Ok(loader.metric(LOADED).unwrap_or(0.0) as u64),
        || {
            let warehouse = sitting.servers.warehouse_usage()?;
            Ok((loader.usage()?.cpu, warehouse.cpu))
        },
    )
}

fn wait_for_rows(lab: &Lab, backlog: &Backlog) -> Result<()> {
    let expected = (backlog.events, backlog.nanos);
    let began = Instant::now();
    loop {
        let stored = lab.stored()?;
        if stored == expected {
            return Ok(());
        }
        ensure!(
            began.elapsed() < Duration::from_secs(10),
            "the warehouse holds {} rows and {} nano-dollars; sent were {} and {}",
            stored.0,
            stored.1,
            expected.0,
            expected.1
        );
        thread::sleep(LOOK_EVERY);
    }
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "pipeline";
    let drained = sitting.drained()?;
    let (processor, bare) = (drained.processor.cost(), drained.bare.cost());
    let loader = drained.loader.cost();
    let bare_rate = drained.bare.events as f64 / drained.bare.seconds;
    let per_million = |cost: f64| format!("{cost:.2} CPU-s/M events");
    let mib = drained.processor_usage.peak_memory_kib / 1024;
    Ok(vec![
        Line::new(
            ROW,
            "processor: count, price, detect, budget",
            per_million(processor),
        )
        .against(format!("bare consume + parse: {}", per_million(bare)))
        .ratio(processor, bare)
        .target(
            "≤ 2× and ≤ 2.5",
            processor <= 2.0 * bare && processor <= 2.5,
        )
        .because(format!(
            "by themselves, on one thread, the steps cost in µs an event: {}; the Kafka client's \
                 threads {:.2}, since they also send; the rest is polling, commits and memory that \
                 grows. The bare client's {bare:.2} are all polling and parsing",
            drained.parts.in_words(),
            processor * drained.client_share
        ))
        .note(format!(
            "{:.0} k events/s, peak {mib} MiB; {:.2} CPU-s/M of it in the Kafka client's \
                 threads; the bare client {:.0} k events/s; the broker \
                 used {:.2} CPU-s/M; totals in the warehouse exact",
            drained.processor.rate() / 1e3,
            processor * drained.client_share,
            bare_rate / 1e3,
            drained.processor.server_cost()
        )),
        Line::new(ROW, "loader", per_million(loader)).note(format!(
            "ClickHouse used {:.2} CPU-s/M",
            drained.loader.server_cost()
        )),
        Line::new(ROW, "processor and loader", per_million(processor + loader))
            .against(format!("bare consume + parse: {}", per_million(bare)))
            .ratio(processor + loader, bare),
    ])
}
