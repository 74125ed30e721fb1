//! A sidecar's check over a Unix socket and over loopback, next to Redis `GET` from the same client.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::{Lab, Role, free_address};
use spendfuse_benches::load::{write_backlog, write_ruinous};
use spendfuse_benches::workload::Workload;

use crate::client::{
    Address, CheckProtocol, LivenessProtocol, RedisProtocol, a_core, answers, one_by_one,
};
use crate::python;
use crate::redis::Redis;
use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "sidecar";
const PARTITIONS: u32 = 4;
const CUSTOMERS: usize = 300;
const EVENTS: u64 = 50_000;

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let lab = sitting.lab(ROW, PARTITIONS)?;
    write_backlog(&lab, &mut Workload::new("b"), EVENTS)?;
    let processor = lab.start("processor", "1", &[])?;
    let tcp = free_address()?;
    let socket = lab.folder().join("check.sock");
    let sidecar = lab.start(
        "sidecar",
        "1",
        &[
            format!("sidecar.listen={tcp}"),
            format!("sidecar.socket={}", socket.display()),
        ],
    )?;
    let checks = CheckProtocol {
        customers: CUSTOMERS,
    };
    let unix = Address::Unix(socket.clone());
    let began = Instant::now();
    while processor.counted() < EVENTS || !answers(&unix, &checks) {
        sidecar.usage()?;
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "the sidecar does not answer"
        );
        thread::sleep(Duration::from_millis(100));
    }
    // The last verdicts are on their way.
    thread::sleep(Duration::from_secs(2));
    let entries = sidecar.metric("spendfuse_guard_entries").unwrap_or(0.0);
    let server = sidecar.process_id().context("the sidecar runs")?;
    let redis = Redis::start(&sitting.servers, CUSTOMERS);
    let gets = RedisProtocol {
        customers: CUSTOMERS,
    };
    let count = sitting.choose(30_000, 5_000);
    let duration = sitting.choose(Duration::from_secs(3), Duration::from_secs(1));
    let mut lines = Vec::new();
    let mut compiled = Vec::new();
    for (what, ours, path) in [
        ("Unix socket", unix, None),
        ("loopback", Address::Tcp(tcp.clone()), Some(())),
    ] {
        let times = one_by_one(&ours, &checks, count)?;
        let rate = a_core(&ours, &checks, server, duration)?;
        let without_check = one_by_one(&ours, &LivenessProtocol, count)?;
        compiled.push(times.in_micros());
        let line = Line::new(ROW, format!("check over {what}"), figure(&times, rate));
        lines.push(match &redis {
            Ok(redis) => {
                let theirs = match path {
                    None => Address::Unix(redis.unix.clone()),
                    Some(()) => Address::Tcp(redis.tcp.clone()),
                };
                let other = one_by_one(&theirs, &gets, count)?;
                let other_rate = a_core(&theirs, &gets, redis.process_id()?, duration)?;
                let (p99, other_p99) = (times.percentile(99.0), other.percentile(99.0));
                line.against(format!("Redis GET: {}", figure(&other, other_rate)))
                    .ratio(p99.as_secs_f64(), other_p99.as_secs_f64())
                    .target("p99 ≤ Redis's", p99 <= other_p99)
                    .because(format!(
                        "HTTP takes the most of it: the same server answers `GET /healthz`, without \
                         a check but through the router, which checks go past, in {}",
                        without_check.in_micros()
                    ))
                    .note(format!(
                        "{entries} scopes in the guard; each question is one write, its answer \
                         read until complete, {count} one after another; Redis {}",
                        Redis::version()?
                    ))
            }
            Err(why) => line.note(format!("Redis was not measured: {why:#}")),
        });
    }
    lines.push(exported(&lab, &sidecar)?);
    let redis = redis.ok();
    match python::measure(
        &lab,
        &tcp,
        &socket,
        redis.as_ref(),
        sitting.quick,
        &compiled,
    ) {
        Ok(measured) => lines.extend(measured),
        Err(why) => lines.push(Line::failed(ROW, "the same from Python", &why)),
    }
    Ok(lines)
}

/// The lag that the sidecar itself exports, from the call's own time to its verdict in force.
fn exported(lab: &Lab, sidecar: &Role) -> Result<Line> {
    const NAME: &str = "spendfuse_enforcement_lag_seconds";
    const CALLS: u64 = 100;
    let sum = |part: &str| sidecar.metric(&format!("{NAME}_{part}")).unwrap_or(0.0);
    let (count, seconds) = (sum("count"), sum("sum"));
    write_ruinous(lab, &mut Workload::new("x"), CALLS)?;
    let began = Instant::now();
    while sum("count") - count < CALLS as f64 {
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "{NAME} has not counted the verdicts of {CALLS} calls over budget"
        );
        thread::sleep(Duration::from_millis(50));
    }
    let mean = (sum("sum") - seconds) / (sum("count") - count);
    let line = Line::new(
        ROW,
        "lag as its histogram has it",
        format!("mean {:.1} ms", mean * 1e3),
    );
    Ok(line.note(format!(
        "{NAME}, from the own time of {CALLS} calls over budget, 100 a second, to block in force"
    )))
}

fn figure(times: &Times, rate: f64) -> String {
    format!("{}, {:.0} k/s a core", times.in_micros(), rate / 1e3)
}
