//! The same checks from Python, the language of the packages that limit AI spend within a program.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use spendfuse_benches::lab::Lab;

use crate::redis::Redis;
use crate::sitting::fetch;
use crate::table::Line;

/// What `benches/peers/checks.py` prints for each way to ask, microseconds.
#[derive(Deserialize)]
struct Asked {
    what: String,
    p50: f64,
    p99: f64,
}

/// Runs the Python program against the sidecar at `tcp` and `socket`. `compiled` is what a compiled
/// client waits for the same answers over the socket and over loopback.
pub fn measure(
    lab: &Lab,
    tcp: &str,
    socket: &Path,
    redis: Option<&Redis>,
    quick: bool,
    compiled: &[String],
) -> Result<Vec<Line>> {
    const ROW: &str = "sidecar";
    let packages = fetch("python")?.join("packages");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/checks.py");
    let mut command = Command::new("python3");
    command
        .arg(program)
        .env("PYTHONPATH", packages)
        .current_dir(lab.folder())
        .args(["--sidecar-tcp", tcp, "--count"])
        .arg(if quick { "2000" } else { "10000" })
        .arg("--sidecar-unix")
        .arg(socket);
    if let Some(redis) = redis {
        command.args(["--redis-tcp", &redis.tcp]);
        command.arg("--redis-unix").arg(&redis.unix);
    }
    let output = command.output().context("starting python3")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "checks.py failed: {said}");
    let asked: Vec<Asked> = serde_json::from_slice(&output.stdout)?;
    let find = |what: &str| asked.iter().find(|one| one.what == what);
    let figure = |one: &Asked| format!("p50 {:.1} / p99 {:.1} µs", one.p50, one.p99);
    let pairs = [
        ("sidecar, Unix socket", "Redis, Unix socket"),
        ("sidecar, loopback", "Redis, loopback"),
        ("sidecar, Unix socket", "ai-cost-calc, list at hand"),
        ("sidecar, Unix socket", "margint, answer at hand"),
        (
            "sidecar, loopback",
            "margint, asking its service on loopback",
        ),
    ];
    let mut lines = Vec::new();
    for (ours, theirs) in pairs {
        let (Some(one), Some(other)) = (find(ours), find(theirs)) else {
            continue;
        };
        let line = Line::new(ROW, format!("from Python: {ours}"), figure(one))
            .against(format!("{theirs}: {}", figure(other)))
            .ratio(one.p99, other.p99);
        let line = match theirs {
            theirs if theirs.starts_with("Redis") => {
                let waits = &compiled[usize::from(ours == "sidecar, loopback")];
                let why = format!(
                    "Python's HTTP client takes the most of it: a compiled one has the answer in \
                     {waits}"
                );
                line.target("p99 ≤ Redis's", one.p99 <= other.p99)
                    .because(why)
            }
            "ai-cost-calc, list at hand" => line.note(
                "a set in the program, 5 s to minutes old: no limits, no estimate, no reasons",
            ),
            "margint, answer at hand" => {
                line.note("a remembered answer, up to 60 s old: spend within them is not seen")
            }
            _ => line.note("a stand-in that answers at once; really it is a service far away"),
        };
        lines.push(line);
    }
    ensure!(!lines.is_empty(), "checks.py measured nothing: {said}");
    Ok(lines)
}
