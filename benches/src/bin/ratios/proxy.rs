//! What a proxy adds to a call: the same client calls the same stub, past the proxy and through it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::{Lab, Role, free_address};
use spendfuse_benches::process::usage;

use crate::client::{Address, ChatProtocol, answers, as_fast, paced};
use crate::litellm::{self, Found};
use crate::sitting::Sitting;
use crate::stub::Stub;
use crate::table::Line;

const ROW: &str = "proxy";
const PARTITIONS: u32 = 4;
const BUDGETS: &str = r#"budgets:
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "1000000.00", window: lifetime}
"#;
/// Calls a second at which times are taken.
const RATE: u32 = 1_000;
const STREAMS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let lab = sitting.lab_with(ROW, PARTITIONS, BUDGETS)?;
    let _processor = lab.start("processor", "1", &[])?;
    let stub = Stub::start()?;
    let (proxy, listen) = start(&lab, &stub, "1")?;
    let past = ChatProtocol {
        path: "/v1/chat/completions",
        headers: String::new(),
    };
    let through = our_chat();
    let ours = [Address::Tcp(listen.clone())];
    let theirs = [Address::Tcp(stub.address.clone())];
    let duration = sitting.choose(Duration::from_secs(20), Duration::from_secs(3));
    let server = proxy.process_id().context("the proxy runs")?;
    let direct = paced(&theirs, &past, RATE, duration)?;
    let before = usage(server)?.cpu;
    let times = paced(&ours, &through, RATE, duration)?;
    let cpu = (usage(server)?.cpu - before).as_secs_f64();
    let added = |percent| {
        let added = times
            .percentile(percent)
            .saturating_sub(direct.percentile(percent));
        added.as_secs_f64() * 1e6
    };
    let (p50, p99) = (added(50.0), added(99.0));
    let a_thousand = cpu / times.count() as f64 * 1e3;
    let fastest = as_fast(&ours, &through, duration)?;
    let bare = as_fast(&theirs, &past, duration)?;
    let found = Found::measure(&ours, &through, || proxy.usage(), duration)?;
    let first = sitting.choose(2_000, 200);
    let (first_direct, first_through) = (
        first_bytes(&stub.address, past.path, first)?,
        first_bytes(&listen, through.path, first)?,
    );
    let first_added = first_through
        .percentile(50.0)
        .saturating_sub(first_direct.percentile(50.0));
    let first_added = first_added.as_secs_f64() * 1e6;
    let memory = with_streams(&proxy, &listen, through.path)?;
    let mut lines = vec![
        Line::new(
            ROW,
            format!("added at {RATE} calls/s"),
            format!("p50 {p50:.0} / p99 {p99:.0} µs"),
        )
        .against(format!("the stub alone: {}", direct.in_micros()))
        .target("p50 ≤ 150 µs, p99 ≤ 1 ms", p50 <= 150.0 && p99 <= 1000.0)
        .because(format!(
            "through the proxy a call takes {}",
            times.in_micros()
        )),
        Line::new(
            ROW,
            "processor time of 1,000 calls",
            format!("{a_thousand:.3} s"),
        )
        .target("≤ 0.15 s", a_thousand <= 0.15),
        Line::new(
            ROW,
            "calls a second beside stub and client",
            format!("{fastest:.0}"),
        )
        .against(format!("the stub alone: {bare:.0}"))
        .target("≥ 5,000", fastest >= 5000.0),
        Line::new(
            ROW,
            "first byte of a stream later by",
            format!("{first_added:.0} µs"),
        )
        .against(format!("the stub alone: {}", first_direct.in_micros()))
        .target("≤ 300 µs", first_added <= 300.0),
        Line::new(
            ROW,
            format!("memory with {STREAMS} open streams"),
            format!("{memory:.0} MiB"),
        )
        .target("≤ 60 MiB", memory <= 60.0),
    ];
    lines.extend(litellm::beside(sitting, &stub, &found, duration));
    Ok(lines)
}

/// Starts a proxy in front of the stub, and waits until it answers. Returns its address, too.
pub fn start(lab: &Lab, stub: &Stub, instance: &str) -> Result<(Role, String)> {
    let listen = free_address()?;
    let settings = [
        format!("proxy.listen={listen}"),
        format!("proxy.upstreams.openai.base_url=http://{}", stub.address),
        "sidecar.default_workspace=acme".to_owned(),
    ];
    let proxy = lab.start("proxy", instance, &settings)?;
    let address = Address::Tcp(listen.clone());
    let began = Instant::now();
    while !answers(&address, &our_chat()) {
        proxy.usage()?;
        ensure!(
            began.elapsed() < PATIENCE,
            "the proxy does not answer: {}",
            proxy.log_tail()
        );
        thread::sleep(Duration::from_millis(100));
    }
    Ok((proxy, listen))
}

fn our_chat() -> ChatProtocol {
    ChatProtocol {
        path: "/openai/v1/chat/completions",
        headers: String::new(),
    }
}

/// Times from a request to the first event of its stream, on a connection of its own.
fn first_bytes(address: &str, path: &str, count: usize) -> Result<Times> {
    let one = |_| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let began = Instant::now();
        open_stream(&mut stream, path, "")?;
        Ok(began.elapsed())
    };
    (0..count).map(one).collect()
}

/// Asks for a stream, and returns when its first event is there.
fn open_stream(stream: &mut TcpStream, path: &str, more: &str) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = format!("{{\"model\":\"gpt-4o-mini\",\"stream\":true,\"messages\":[]{more}}}");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.windows(6).any(|window| window == b"\ndata:") {
        let length = stream.read(&mut piece)?;
        ensure!(
            length > 0,
            "the stream ended before its first event: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&piece[..length]);
    }
    Ok(())
}

/// Resident memory of the proxy, MiB, while streams are open.
fn with_streams(proxy: &Role, address: &str, path: &str) -> Result<f64> {
    let mut open = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(address)?;
        open_stream(&mut stream, path, ",\"user\":\"hold\"")?;
        open.push(stream);
    }
    let memory = proxy.usage()?.memory_kib as f64 / 1024.0;
    drop(open);
    Ok(memory)
}
