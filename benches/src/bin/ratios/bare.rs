//! The limit of a client in this language: consume and parse a topic, nothing else. It runs in a
//! process of its own, with the consumer that the stages are built on and its settings.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use spendfuse_benches::lab::Lab;
use spendfuse_benches::process::usage;
use spendfuse_bus::{KafkaConfig, LogConsumer, LogConsumerConfig, LogEvent};

/// How long the topic may keep silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is consumed.
#[derive(Args, Debug)]
pub struct Options {
    brokers: String,
    topic: String,
    group: String,
    events: u64,
}

/// What that took, without the first tenth of the events.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Bare {
    pub events: u64,
    /// Processor time, seconds.
    pub cpu_seconds: f64,
    /// Time, seconds.
    pub seconds: f64,
}

impl Bare {
    /// CPU-seconds per million events.
    pub fn cost(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events as f64
    }
}

/// The fields that a counting program needs; borrowed, nothing is copied.
#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    time: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    workspace: &'a str,
    customer: &'a str,
    feature: &'a str,
    agent: &'a str,
    session: &'a str,
    provider: &'a str,
    model: &'a str,
    usage: Tokens,
    tool_calls: u32,
    prompt_fingerprint: &'a str,
}

#[derive(Deserialize)]
struct Tokens {
    input_tokens: u64,
    cache_read_tokens: u64,
    output_tokens: u64,
}

impl Event<'_> {
    /// Something of every field, so that none is left out.
    fn sum(&self) -> u64 {
        let Data { usage, .. } = &self.data;
        let texts = [
            self.id,
            self.source,
            self.kind,
            self.time,
            self.data.workspace,
            self.data.customer,
            self.data.feature,
            self.data.agent,
            self.data.session,
            self.data.provider,
            self.data.model,
            self.data.prompt_fingerprint,
        ];
        let lengths: usize = texts.iter().map(|text| text.len()).sum();
        lengths as u64
            + usage.input_tokens
            + usage.cache_read_tokens
            + usage.output_tokens
            + u64::from(self.data.tool_calls)
    }
}

/// Measures a lab's usage topic, which holds `events` events.
pub fn measure(lab: &Lab, run: &str, events: u64) -> Result<Bare> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bare", &lab.kafka().brokers, &lab.topic("usage")])
        .args([&format!("bare-{run}"), &events.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the bare consumer failed: {said}");
    serde_json::from_slice(&output.stdout).context("the bare consumer's answer")
}

/// Consumes in this process and prints what it took.
pub fn run(options: &Options) -> Result<ExitCode> {
    let config = LogConsumerConfig {
        kafka: KafkaConfig::new(&options.brokers, "spendfuse-bench-bare"),
        group_id: options.group.clone(),
        instance_id: "bare".to_owned(),
        topics: vec![options.topic.clone()],
        session_timeout: Duration::from_secs(10),
        max_poll_interval: Duration::from_secs(30),
    };
    let consumer = LogConsumer::open(config, PATIENCE)?;
    let process = std::process::id();
    let mut begin = None;
    let (mut count, mut sum) = (0_u64, 0_u64);
    let mut last_news = Instant::now();
    while count < options.events {
        match consumer.poll(Duration::from_millis(100))? {
            LogEvent::Record(holder) => {
                let value = holder.record().value.context("an event without value")?;
                let event: Event<'_> = serde_json::from_slice(value)?;
                sum = sum.wrapping_add(event.sum());
                count += 1;
                if count == options.events / 10 {
                    begin = Some((count, usage(process)?.cpu, Instant::now()));
                    last_news = Instant::now();
                }
            }
            LogEvent::Assigned(partitions) => {
                let from_start: Vec<_> = partitions.iter().map(|at| (*at, 0)).collect();
                consumer.start(&from_start)?;
            }
            LogEvent::Revoked => consumer.release()?,
            LogEvent::Nothing
            | LogEvent::EndOfPartition { .. }
            | LogEvent::Unreadable { .. }
            | LogEvent::Gone { .. } => {
                ensure!(last_news.elapsed() < PATIENCE, "only {count} events came");
            }
        }
    }
    let (counted, cpu, at) = begin.context("too few events")?;
    let bare = Bare {
        events: count - counted,
        cpu_seconds: (usage(process)?.cpu - cpu).as_secs_f64(),
        seconds: at.elapsed().as_secs_f64(),
    };
    ensure!(sum > 0, "the events are empty");
    println!("{}", serde_json::to_string(&bare)?);
    Ok(ExitCode::SUCCESS)
}
