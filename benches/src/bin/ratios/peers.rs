//! Kafka Streams applications that do part of the work on the same topic, in two styles; see
//! `benches/peers/streams`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use spendfuse_benches::figures::Times;
use spendfuse_benches::http::ask;
use spendfuse_benches::lab::{Lab, free_address};
use spendfuse_benches::load::{Backlog, Pace, send_and_add};
use spendfuse_benches::probe::{Marks, VerdictProbe};
use spendfuse_benches::process::{Usage, usage};
use spendfuse_benches::workload::{Prices, Workload};
use spendfuse_devstack::ServerProcess;

use crate::lag::{self, Observed};
use crate::memory::{Piece, filled};
use crate::pipeline::{Steady, steadily};
use crate::sitting::{Sitting, fetch};
use crate::table::Line;

const ROW: &str = "peers";
const PATIENCE: Duration = Duration::from_secs(60);
/// Before the lag counts: a compiler that compiles while it runs needs some time.
const WARM_UP: Duration = Duration::from_secs(5);

/// How a peer is run.
#[derive(Clone, Copy)]
struct Style {
    name: &'static str,
    /// `None` = as Streams does by itself, 100 ms with exactly-once.
    commit_millis: Option<u32>,
    /// Java's own limit is a quarter of the machine's memory.
    heap: Option<&'static str>,
    /// How it may be called in the table.
    label: &'static str,
}

const STYLES: [Style; 3] = [
    Style {
        name: "ordinary",
        commit_millis: None,
        heap: None,
        label: "Streams, ordinary",
    },
    Style {
        name: "tuned",
        commit_millis: Some(20),
        heap: Some("-Xmx1g"),
        label: "Streams, tuned, commit 20 ms",
    },
    Style {
        name: "tuned",
        commit_millis: Some(100),
        heap: Some("-Xmx1g"),
        label: "Streams, tuned, commit 100 ms",
    },
];

/// A running peer. Dropped, it is killed.
struct Peer {
    process: ServerProcess,
    stats: String,
    log: PathBuf,
    output: String,
}

/// What a peer has done.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    events: u64,
    nanos: i128,
    everything: i128,
}

/// What was found of a peer.
struct Found {
    style: Style,
    counting: Steady,
    usage: Usage,
    lags: Times,
}

impl Peer {
    fn start(lab: &Lab, style: Style, number: usize) -> Result<Self> {
        let built = fetch("streams")?;
        let folder = lab.folder().join(format!("peer-{number}"));
        fs::create_dir(&folder)?;
        let prices = folder.join("prices.csv");
        fs::write(&prices, Prices::new()?.as_lines())?;
        let stats = free_address()?;
        let port = stats
            .rsplit(':')
            .next()
            .context("an address without port")?;
        let output = lab.topic(&format!("peer{number}"));
        let classes = built.join("classes");
        let mut arguments: Vec<String> = Vec::new();
        arguments.extend(style.heap.map(str::to_owned));
        arguments.extend([
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned(),
            "-cp".to_owned(),
            format!("{}:{}/lib/*", classes.display(), built.display()),
            "peer.Main".to_owned(),
            format!("style={}", style.name),
            format!("brokers={}", lab.kafka().brokers),
            format!("application={output}"),
            format!("input={}", lab.topic("usage")),
            format!("output={output}"),
            format!("partitions={}", lab.partitions),
            format!("prices={}", prices.display()),
            format!("state={}", folder.join("state").display()),
            format!("stats-port={port}"),
        ]);
        let commit = style
            .commit_millis
            .map(|millis| format!("commit-ms={millis}"));
        arguments.extend(commit);
        let log = folder.join("peer.log");
        let process = ServerProcess::new(output.clone(), "java".into(), arguments, log.clone());
        process.start()?;
        Ok(Self {
            process,
            stats,
            log,
            output,
        })
    }

    fn stats(&self) -> Stats {
        let text = ask(&self.stats, "/", "").unwrap_or_default();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.trim().parse().ok())
        };
        Stats {
            events: number("events ")
                .and_then(|events: i128| u64::try_from(events).ok())
                .unwrap_or(0),
            nanos: number("nanos ").unwrap_or(0),
            everything: number("everything ").unwrap_or(0),
        }
    }

    fn usage(&self) -> Result<Usage> {
        match (self.process.exit_status(), self.process.process_id()) {
            (None, Some(process)) => usage(process),
            (status, _) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let end = log.len().saturating_sub(2_000);
                bail!("it ended ({status:?}): {}", log.get(end..).unwrap_or(&log))
            }
        }
    }

    /// Waits until the budget over everything has seen it all, and compares the sums.
    fn check(&self, backlog: &Backlog) -> Result<()> {
        let began = Instant::now();
        loop {
            let stats = self.stats();
            if stats.everything >= backlog.nanos || began.elapsed() > PATIENCE {
                let right = (backlog.events, backlog.nanos, backlog.nanos);
                let found = (stats.events, stats.nanos, stats.everything);
                ensure!(
                    found == right,
                    "its sums are {found:?} instead of {right:?}"
                );
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// `written` is what the topic holds, and grows.
fn measure_peer(
    sitting: &mut Sitting,
    style: Style,
    number: usize,
    written: &mut Backlog,
) -> Result<Found> {
    let duration = sitting.choose(Duration::from_secs(15), Duration::from_secs(5));
    let lab = &sitting.drained()?.lab;
    let peer = Peer::start(lab, style, number)?;
    let patience = Duration::from_secs(120) + Duration::from_millis(written.events / 10);
    let counting = steadily(
        // Java compiles while it runs: its second half is what it would go on with.
        written.events / 2..written.events,
        patience,
        || Ok(peer.stats().events),
        || Ok((peer.usage()?.cpu, Duration::ZERO)),
    )?;
    peer.check(written)?;
    let marks = Arc::new(Marks::from(number as u64 * 1_000_000));
    let probe = VerdictProbe::start(lab.kafka(), &peer.output, Arc::clone(&marks))?;
    let mut workload = Workload::new(&format!("p{number}"));
    let mut load = |duration: Duration| {
        let pace = Pace {
            rate: Some(1_000.0),
            duration,
            marked: 200.0,
        };
        send_and_add(lab, &mut workload, pace, &marks, &|| false, written)
    };
    load(WARM_UP)?;
    let since = Instant::now();
    load(duration)?;
    let lags = marks.lags(since, PATIENCE)?;
    drop(probe);
    Ok(Found {
        style,
        counting,
        usage: peer.usage()?,
        lags,
    })
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let lag = lag::at_a_thousand(sitting, "peers_lag")?;
    let drained = sitting.drained()?;
    let mut written = drained.backlog;
    let ours = Ours {
        cost: drained.processor.cost(),
        rate: drained.processor.rate(),
        memory_kib: drained.processor_usage.peak_memory_kib,
        parts: drained.parts.in_words(),
        state: state(written.events, drained.sessions)?,
        lag,
    };
    let mut lines = Vec::new();
    for (number, style) in STYLES.into_iter().enumerate() {
        match measure_peer(sitting, style, number, &mut written) {
            Ok(found) => lines.extend(compare(&found, &ours)),
            Err(why) => lines.push(Line::failed(ROW, style.label, &why)),
        }
    }
    Ok(lines)
}

/// What the peers are compared with.
struct Ours {
    cost: f64,
    rate: f64,
    memory_kib: u64,
    parts: String,
    state: String,
    lag: Observed,
}

/// What the processor holds after the backlog.
fn state(identities: u64, sessions: u64) -> Result<String> {
    let mib = |count: u64, bytes: u64| count * bytes / (1024 * 1024);
    let identity_bytes = filled(Piece::Ids, identities)?;
    let session_bytes = filled(Piece::Sessions, sessions.max(1))?;
    Ok(format!(
        "{identities} identities of {identity_bytes} bytes are {} MiB of it, {sessions} sessions of \
         {session_bytes} bytes {} MiB",
        mib(identities, identity_bytes),
        mib(sessions, session_bytes)
    ))
}

fn compare(found: &Found, ours: &Ours) -> Vec<Line> {
    let label = found.style.label;
    let Ours {
        cost,
        rate,
        memory_kib,
        ..
    } = *ours;
    let per_million = |cost: f64| format!("{cost:.2} CPU-s/M events");
    let other = found.counting.cost();
    let line = Line::new(ROW, "processor, CPU", per_million(cost))
        .against(format!("{label}: {}", per_million(other)))
        .ratio(other, cost)
        .note(format!(
            "{:.0} k events/s against {:.0} k; its sums are the same to the nano-dollar; it has no \
             sessions, detectors, or rows for a warehouse",
            rate / 1e3,
            found.counting.rate() / 1e3
        ));
    let line = match found.style.name {
        "ordinary" => line.target("≥ 5× less", other >= 5.0 * cost),
        _ => line.target("less", other > cost),
    };
    let mut lines = vec![line.because(format!(
        "ours, in µs an event on one thread: {}; sessions, detectors and rows are what the peer \
         does not do",
        ours.parts
    ))];
    let (p99, other_p99) = (ours.lag.lags.percentile(99.0), found.lags.percentile(99.0));
    let line = Line::new(
        ROW,
        "acknowledged → verdict, 1,000 events/s",
        ours.lag.lags.in_millis(),
    )
    .against(format!("{label}: {}", found.lags.in_millis()))
    .ratio(p99.as_secs_f64(), other_p99.as_secs_f64())
    .note("ours until a guard's readers see it, theirs until a reader of the topic does");
    lines.push(match found.style.commit_millis {
        None => line,
        Some(_) => line
            .target("p99 ≤ half", p99 * 2 <= other_p99)
            .because(ours.lag.reason()),
    });
    let theirs = found.usage.peak_memory_kib;
    lines.push(
        Line::new(
            ROW,
            "processor, peak memory",
            format!("{} MiB", memory_kib / 1024),
        )
        .against(format!("{label}: {} MiB", theirs / 1024))
        .ratio(memory_kib as f64, theirs as f64)
        .target("≤ ¼", memory_kib * 4 <= theirs)
        .because(ours.state.as_str()),
    );
    lines
}
