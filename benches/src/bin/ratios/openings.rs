//! What budgets know of the past: how long it takes until a budget that is made in mid-window has what
//! its scopes had spent, and until a Kafka that was lost under load has come back from the warehouse.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use spendfuse_benches::lab::{Lab, Role};
use spendfuse_benches::load::{Pace, send_at, write_each};
use spendfuse_benches::probe::Marks;
use spendfuse_benches::windows::WindowsProbe;
use spendfuse_benches::workload::Workload;
use spendfuse_bus::topics;
use spendfuse_domain::Topics;

use crate::corrections::audited;
use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "openings";
const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(900);
/// One call in so many is of a session, which has so many calls.
const IN_SESSIONS: u64 = 10;
/// How long other traffic comes before Kafka is lost.
const UNDER_LOAD: Duration = Duration::from_secs(5);
const TOPICS_PATIENCE: Duration = Duration::from_secs(60);

const FIRST: &str = r#"budgets:
  - {id: everything, scope: {}, limit: "10000000.00", window: lifetime, action: warn}
"#;
/// With a budget for each customer, which no call reaches.
const WITH_EACH: &str = r#"budgets:
  - {id: everything, scope: {}, limit: "10000000.00", window: lifetime, action: warn}
  - {id: each, scope: {workspace: "*", customer: "*"}, limit: "100.00", window: month}
"#;

/// The lines of the row: two for each number of scopes.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for &scopes in &sitting.choose(sitting.sizes.clone(), vec![10_000]) {
        let made = format!("a budget of {scopes} scopes made in mid-month");
        match found(sitting, scopes) {
            Ok((opened, recovered)) => {
                lines.push(opened.line(made));
                lines.push(recovered.line(format!("Kafka of {scopes} scopes lost under load")));
            }
            Err(why) => lines.push(Line::failed(ROW, made, &why)),
        }
    }
    Ok(lines)
}

/// What was spent before came into the windows of a new budget.
struct Opened {
    /// Until the ledger had been told everything.
    told: Duration,
    /// Until readers of verdicts had it.
    whole: Duration,
    processor_mib: u64,
}

impl Opened {
    fn line(&self, what: String) -> Line {
        let ours = format!("{:.1} s until readers know all", self.whole.as_secs_f64());
        Line::new(ROW, what, ours).note(format!(
            "every window the same as the warehouse's rows, to the nano-dollar; the ledger was told \
             all after {:.1} s, the processor's peak is {} MiB",
            self.told.as_secs_f64(),
            self.processor_mib
        ))
    }
}

/// New topics know what the lost ones knew, as far as the warehouse has it.
struct Recovered {
    /// Of `spendfuse recover`.
    command: Duration,
    /// From applying the budgets until readers of verdicts know every window.
    whole: Duration,
    said: Value,
    windows: usize,
    /// Events that were acknowledged and are in no row.
    in_kafka_alone: u64,
    audited: Duration,
}

impl Recovered {
    fn line(&self, what: String) -> Line {
        let (command, whole) = (self.command.as_secs_f64(), self.whole.as_secs_f64());
        let ours = format!("recover {command:.1} s, all windows after {whole:.1} s");
        Line::new(ROW, what, ours).note(format!(
            "{} windows the same as the warehouse's rows, to the nano-dollar, audited in {:.0} s; {} \
             identities and {} sessions with {} calls brought back; {} acknowledged events had been \
             in Kafka alone",
            self.windows,
            self.audited.as_secs_f64(),
            self.said["identities"],
            self.said["sessions"],
            self.said["calls"],
            self.in_kafka_alone
        ))
    }
}

fn found(sitting: &Sitting, scopes: u64) -> Result<(Opened, Recovered)> {
    let lab = sitting.lab_with(&format!("openings{scopes}"), PARTITIONS, FIRST)?;
    let processor = lab.start("processor", "1", &[])?;
    let loader = lab.start("loader", "1", &[])?;
    let written = write_each(&lab, scopes, call)?;
    lab.await_stored((written.events, written.nanos), PATIENCE)?;
    await_told(&processor, &loader, 0.0)?;
    let opened = open(&lab, &processor, &loader)?;
    let recovered = recover(&lab, &processor, &loader, scopes)?;
    Ok((opened, recovered))
}

/// The first call of a customer.
fn call(number: u64, time: &str) -> String {
    let session = match number % IN_SESSIONS {
        0 => format!(
            "\"session\":\"s-{}\",",
            number / (IN_SESSIONS * IN_SESSIONS)
        ),
        _ => String::new(),
    };
    let input = 1_000 + number % 997;
    format!(
        "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"checkout-api\",\
         \"id\":\"call-{number}\",\"time\":\"{time}\",\"data\":{{\"workspace\":\"acme\",\
         \"customer\":\"o-{number}\",\"feature\":\"chat\",{session}\"provider\":\"openai\",\
         \"model\":\"gpt-4o-mini-2024-07-18\",\"usage\":{{\"input_tokens\":{input},\
         \"output_tokens\":120}}}}}}"
    )
}

/// The windows of budget `each` by the warehouse's rows, nano-dollars by scope.
fn windows(lab: &Lab) -> Result<HashMap<String, i128>> {
    let by_customer = lab.stored_by_customer()?.into_iter();
    let scope = |(customer, nanos): (String, i128)| (format!("acme/customer={customer}"), nanos);
    Ok(by_customer.map(scope).collect())
}

fn open(lab: &Lab, processor: &Role, loader: &Role) -> Result<Opened> {
    let wanted = windows(lab)?;
    let probe = WindowsProbe::start(lab, "each")?;
    let before = told(loader);
    let began = Instant::now();
    lab.apply_budgets(WITH_EACH)?;
    await_told(processor, loader, before)?;
    let all_told = began.elapsed();
    let whole = probe.await_whole(wanted.len(), PATIENCE)?;
    probe.await_equal(&wanted, TOPICS_PATIENCE)?;
    Ok(Opened {
        told: all_told,
        whole: whole.saturating_duration_since(began),
        processor_mib: processor.usage()?.peak_memory_kib / 1024,
    })
}

/// Budgets whose past the loader has told, as often as it has.
fn told(loader: &Role) -> f64 {
    let name = "spendfuse_loader_openings_total{outcome=\"told\"";
    loader.metric(name).unwrap_or(0.0)
}

/// Waits until the loader has told more than `before`, and no partition of the ledger waits for more.
fn await_told(processor: &Role, loader: &Role, before: f64) -> Result<()> {
    let waits = || {
        let wanted = processor.metric("spendfuse_ledger_openings_wanted");
        wanted.is_none_or(|wanted| wanted > 0.0)
    };
    let began = Instant::now();
    while told(loader) <= before || waits() {
        ensure!(began.elapsed() < PATIENCE, "nobody tells what was spent");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn recover(lab: &Lab, processor: &Role, loader: &Role, scopes: u64) -> Result<Recovered> {
    let pace = Pace {
        rate: Some(1_000.0),
        duration: UNDER_LOAD,
        marked: 0.0,
    };
    let marks = Arc::new(Marks::default());
    let sent = send_at(lab, &mut Workload::new("o"), pace, &marks, &|| false)?;
    loader.kill();
    processor.kill();
    let own = Topics::new(&lab.topic(""));
    let names: Vec<&str> = own.all().iter().map(|topic| topic.name).collect();
    topics::delete(&lab.kafka(), &names, TOPICS_PATIENCE)?;
    lab.command(&["topics", "create"])?;
    let (rows, _) = lab.stored()?;
    let wanted = windows(lab)?;
    let began = Instant::now();
    lab.apply_budgets(WITH_EACH)?;
    processor.restart()?;
    loader.restart()?;
    let probe = WindowsProbe::start(lab, "each")?;
    let command_began = Instant::now();
    let said: Value = serde_json::from_str(&lab.command(&["recover", "--json"])?)?;
    let command = command_began.elapsed();
    let whole = probe.await_whole(wanted.len(), PATIENCE)?;
    probe.await_equal(&wanted, TOPICS_PATIENCE * 2)?;
    ensure!(said["identities"] == json!(rows), "{rows} rows: {said:#}");
    Ok(Recovered {
        command,
        whole: whole.saturating_duration_since(began),
        windows: wanted.len(),
        in_kafka_alone: (scopes + sent)
            .checked_sub(rows)
            .context("more rows than events")?,
        said,
        audited: audited(lab)?,
    })
}
