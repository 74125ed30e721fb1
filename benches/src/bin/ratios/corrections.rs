//! What corrections cost: a job that re-rates what the warehouse has, with the lag of events that come
//! meanwhile, and each way to correct or complete an entry by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::{Lab, Role};
use spendfuse_benches::load::{Backlog, Pace, send_and_add, write_each};
use spendfuse_benches::probe::{GuardProbe, Marks};
use spendfuse_benches::workload::Workload;

use crate::features;
use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "corrections";
const PARTITIONS: u32 = 4;
/// Events a second that come meanwhile, and those of them whose verdicts are timed.
const BESIDE: f64 = 1_000.0;
const MARKED: f64 = 200.0;
/// Longer than any job.
const LONGEST: Duration = Duration::from_secs(3_600);
const WARM_UP: Duration = Duration::from_secs(3);
/// What came while the job took both cores has to be worked off.
const PATIENCE: Duration = Duration::from_secs(300);
/// Models that no price list knows: calls of them are charged at a ceiling. The second is re-rated at
/// the command's own rate.
const MODELS: [&str; 2] = ["gpt-nova-9", "gpt-nova-8"];
const TOKENS: u64 = 2_400;
/// What a call costs at 1 USD a million tokens, nano-dollars.
const PRICED: i128 = TOKENS as i128 * 1_000;

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let calls = sitting.choose(1_000_000, 10_000);
    let mut lines = rerated(sitting, [calls, calls / 10])?;
    let by_themselves = features::lines(ROW);
    lines.extend(by_themselves.unwrap_or_else(|why| vec![Line::failed(ROW, "engine", &why)]));
    Ok(lines)
}

/// A processor and a loader at work, and a guard that follows.
struct Watched {
    lab: Lab,
    processor: Role,
    _loader: Role,
    _guard: GuardProbe,
    marks: Arc<Marks>,
    workload: Workload,
    /// What came beside.
    beside: Backlog,
}

fn rerated(sitting: &Sitting, calls: [u64; 2]) -> Result<Vec<Line>> {
    let lab = sitting.lab(ROW, PARTITIONS)?;
    let processor = lab.start("processor", "1", &[])?;
    let loader = lab.start("loader", "1", &[])?;
    let mut at_ceiling = (0, 0);
    for (model, count) in MODELS.into_iter().zip(calls) {
        let written = write_each(&lab, count, |number, time| call(model, number, time))?;
        at_ceiling.0 += written.events;
        at_ceiling.1 += written.nanos;
    }
    lab.await_stored(at_ceiling, PATIENCE * 2)?;
    for model in MODELS {
        let name = format!("openai/{model}");
        lab.command(&["prices", "set", &name, "input=1.00", "output=2.00"])?;
    }
    let marks = Arc::new(Marks::default());
    let mut watched = Watched {
        _guard: GuardProbe::start(&lab, Arc::clone(&marks))?,
        lab,
        processor,
        _loader: loader,
        marks,
        workload: Workload::new("k"),
        beside: Backlog::default(),
    };
    let quiet = sitting.choose(Duration::from_secs(30), Duration::from_secs(5));
    let ((), alone) = watched.beside(|_, _| {
        thread::sleep(quiet);
        Ok(())
    })?;
    let ((fast, cores), while_fast) = watched.beside(|lab, processor| {
        let before = used(sitting, processor)?;
        let done = rerate(lab, MODELS[0], &["--rate", "1000000"])?;
        let after = used(sitting, processor)?;
        let cores = [0, 1, 2].map(|part| (after[part] - before[part]).div_duration_f64(done.took));
        Ok((done, cores))
    })?;
    let (slow, while_slow) = watched.beside(|lab, _| rerate(lab, MODELS[1], &[]))?;
    let all = calls[0] + calls[1];
    // Of each call what stood at a ceiling goes, and what costs by the book comes.
    let rows = all * 3 + watched.beside.events;
    let nanos = i128::from(all) * PRICED + watched.beside.nanos;
    watched.lab.await_stored((rows, nanos), PATIENCE)?;
    for (done, count) in [(&fast, calls[0]), (&slow, calls[1])] {
        let outcome = (&done.said["applied"], &done.said["refused"]);
        ensure!(outcome == (&json!(count), &json!(0)), "{:#}", done.said);
    }
    let audit = audited(&watched.lab)?;
    let fast_note = format!(
        "totals in the warehouse and in every window exact, audited in {:.0} s; two rows a call, as \
         its price comes from elsewhere now; meanwhile the processor used {:.0} % of a core, the \
         broker {:.0} %, ClickHouse {:.0} %, {BESIDE} other events a second included",
        audit.as_secs_f64(),
        cores[0] * 100.0,
        cores[1] * 100.0,
        cores[2] * 100.0
    );
    let slow_note = "what `spendfuse rerate` does where `--rate` says nothing else".to_owned();
    let mut lines = Vec::new();
    for (how, note, (done, lags), count) in [
        (
            "as fast as it goes",
            fast_note,
            (fast, while_fast),
            calls[0],
        ),
        (
            "at the default rate",
            slow_note,
            (slow, while_slow),
            calls[1],
        ),
    ] {
        let each = count as f64 / done.took.as_secs_f64();
        let (seconds, thousands) = (done.took.as_secs_f64(), each / 1e3);
        let what = format!("{count} calls at a ceiling re-rated, {how}");
        let ours = format!("{seconds:.1} s, {thousands:.1} k calls/s");
        lines.push(Line::new(ROW, what, ours).note(note));
        let p99 = |times: &Times| times.percentile(99.0).as_secs_f64();
        lines.push(
            Line::new(
                ROW,
                format!("acknowledged → in force meanwhile, {BESIDE} events/s, {how}"),
                lags.in_millis(),
            )
            .against(format!("without: {}", alone.in_millis()))
            .ratio(p99(&lags), p99(&alone))
            .note(format!(
                "{} verdicts timed; longest {:.0} ms, without {:.0} ms; the ratio is of the 99th \
                 percentiles",
                lags.count(),
                lags.longest().as_secs_f64() * 1e3,
                alone.longest().as_secs_f64() * 1e3
            )),
        );
    }
    Ok(lines)
}

/// A call without a session, of one of a thousand customers.
fn call(model: &str, number: u64, time: &str) -> String {
    let customer = number % 1_000;
    format!(
        "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"checkout-api\",\
         \"id\":\"{model}-{number}\",\"time\":\"{time}\",\"data\":{{\"workspace\":\"acme\",\
         \"customer\":\"r-{customer}\",\"feature\":\"chat\",\"provider\":\"openai\",\
         \"model\":\"{model}\",\"usage\":{{\"input_tokens\":{TOKENS}}}}}}}"
    )
}

impl Watched {
    /// What `act` gives, and the lags of events that came while it went on.
    fn beside<T>(&mut self, act: impl FnOnce(&Lab, &Role) -> Result<T>) -> Result<(T, Times)> {
        let Self {
            lab,
            processor,
            marks,
            workload,
            beside,
            ..
        } = self;
        let (lab, processor, marks) = (&*lab, &*processor, &*marks);
        let stop = AtomicBool::new(false);
        let pace = Pace {
            rate: Some(BESIDE),
            duration: LONGEST,
            marked: MARKED,
        };
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let is_over = || stop.load(Ordering::Relaxed);
                send_and_add(lab, workload, pace, marks, &is_over, beside)
            });
            thread::sleep(WARM_UP);
            let since = Instant::now();
            let done = act(lab, processor);
            stop.store(true, Ordering::Relaxed);
            let sent = sending.join();
            sent.map_err(|_| anyhow!("the sender panicked"))??;
            Ok((done?, marks.lags(since, PATIENCE)?))
        })
    }
}

/// A job that is over.
struct Done {
    took: Duration,
    said: Value,
}

fn rerate(lab: &Lab, model: &str, more: &[&str]) -> Result<Done> {
    let which = format!("model={model}");
    let job = [
        "rerate", "--where", &which, "--by", "bench", "--yes", "--json",
    ];
    let began = Instant::now();
    let said = lab.command(&[&job[..], more].concat())?;
    Ok(Done {
        took: began.elapsed(),
        said: serde_json::from_str(&said)?,
    })
}

/// Compares everything with everything; how long that took.
pub fn audited(lab: &Lab) -> Result<Duration> {
    let began = Instant::now();
    let said: Value = serde_json::from_str(&lab.command(&["audit", "--json"])?)?;
    let drift = (&said["drift_events"], &said["drift_nanodollars"]);
    ensure!(drift == (&json!(0), &json!("0")), "{said:#}");
    Ok(began.elapsed())
}

/// What processor, broker and warehouse have used of the cores.
fn used(sitting: &Sitting, processor: &Role) -> Result<[Duration; 3]> {
    let servers = &sitting.servers;
    let usages = [
        processor.usage()?,
        servers.broker_usage()?,
        servers.warehouse_usage()?,
    ];
    Ok(usages.map(|usage| usage.cpu))
}
