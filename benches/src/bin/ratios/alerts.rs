//! From the broker's acknowledgement of a call over the limit until people have the message.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::Lab;
use spendfuse_benches::load::{Pace, Sender, send_at};
use spendfuse_benches::probe::Marks;
use spendfuse_benches::workload::{Workload, ruined_number};
use spendfuse_domain::UnixMillis;
use spendfuse_testkit::mail::MailServer;
use spendfuse_testkit::receiver::Receiver;

use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "alerts";
const PARTITIONS: u32 = 4;
/// Calls over the limit, one after another; the rest of an hour's are only counted.
const CALLS: u32 = 10 * PARTITIONS;
const BETWEEN_CALLS: Duration = Duration::from_millis(400);
const RATE: f64 = 1_000.0;
/// What the first seconds of a load bring is not steady yet.
const WARM_UP: Duration = Duration::from_secs(4);
/// All that will come has come.
const PATIENCE: Duration = Duration::from_secs(10);
const GOAL: Duration = Duration::from_secs(1);
/// Nothing but the calls that are meant to reaches it.
const BUDGETS: &str = r#"budgets:
  - {id: customer, scope: {workspace: "*", customer: "*"}, limit: "100.00", window: day}
"#;

/// Moments by the number of a customer.
type Moments = BTreeMap<u64, Instant>;

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let rounds = sitting.choose(3, 1);
    let (mut calls, mut by_webhook, mut by_mail) = (0, Vec::new(), Vec::new());
    for round in 0..rounds {
        let observed = Round::observe(sitting, &format!("{ROW}{round}"))?;
        calls += observed.calls.len();
        by_webhook.extend(observed.lags(&observed.by_webhook));
        by_mail.extend(observed.lags(&observed.by_mail));
    }
    let line = |what: &str, lags: Vec<Duration>| {
        let lags: Times = lags.into_iter().collect();
        ensure!(lags.count() >= 10, "{} messages by {what}", lags.count());
        let what = format!("acknowledged call over the limit → {what}, 1,000 events/s");
        let note = format!(
            "{} messages timed of {calls} calls, longest {:.0} ms; of a kind a partition tells ten in \
             an hour one by one",
            lags.count(),
            lags.longest().as_secs_f64() * 1e3
        );
        Ok(Line::new(ROW, what, lags.in_millis())
            .target("p99 ≤ 1 s", lags.percentile(99.0) <= GOAL)
            .note(note))
    };
    Ok(vec![
        line("webhook", by_webhook)?,
        line("mail server (STARTTLS)", by_mail)?,
    ])
}

/// When calls were acknowledged, and when their messages came.
struct Round {
    calls: Moments,
    by_webhook: Moments,
    by_mail: Moments,
}

impl Round {
    fn observe(sitting: &Sitting, lab_name: &str) -> Result<Self> {
        let lab = sitting.lab_with(lab_name, PARTITIONS, BUDGETS)?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mail = MailServer::start(&repository, lab.folder())?;
        let hook = Receiver::start(|_, _| 200);
        let settings = [
            "notifier.channels.hook.kind=webhook".to_owned(),
            format!("notifier.channels.hook.url={}", hook.url()),
            "notifier.routes.hook.to=hook".to_owned(),
            "notifier.routes.hook.kinds=budget_step".to_owned(),
            "notifier.routes.mail.to=mailto:ops@example.com".to_owned(),
            "notifier.routes.mail.kinds=budget_step".to_owned(),
            "notifier.smtp_host=127.0.0.1".to_owned(),
            format!("notifier.smtp_port={}", mail.port()),
            format!("notifier.ca_file={}", mail.certificate().display()),
        ];
        let _processor = lab.start("processor", "1", &[])?;
        let _notifier = lab.start("notifier", "1", &settings)?;
        let calls = under_load(&lab)?;
        thread::sleep(PATIENCE);
        let hooked = hook.received().into_iter().filter_map(|one| {
            let scope = one.body["alerts"][0]["scope"].as_str()?;
            Some((ruined_number(scope)?, one.at))
        });
        let mailed = mail.received().into_iter().filter_map(|one| {
            let mut words = one.mail["subject"].as_str()?.split_whitespace();
            Some((words.find_map(ruined_number)?, one.at))
        });
        Ok(Self {
            calls,
            by_webhook: hooked.collect(),
            by_mail: mailed.collect(),
        })
    }

    fn lags(&self, messages: &Moments) -> Vec<Duration> {
        let known = messages.iter().filter_map(|(number, at)| {
            let acknowledged = self.calls.get(number)?;
            Some(at.saturating_duration_since(*acknowledged))
        });
        known.collect()
    }
}

/// Sends calls over the limit while other events come at [`RATE`]; when each was acknowledged.
fn under_load(lab: &Lab) -> Result<Moments> {
    let acknowledged = Arc::<Mutex<Moments>>::default();
    let pace = Pace {
        rate: Some(RATE),
        duration: WARM_UP + BETWEEN_CALLS * (CALLS + 5),
        marked: 0.0,
    };
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let marks = Arc::new(Marks::default());
            send_at(lab, &mut Workload::new("a"), pace, &marks, &|| false)
        });
        let sender = Sender::new(lab)?;
        let mut workload = Workload::new("over");
        thread::sleep(WARM_UP);
        for _ in 0..CALLS {
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let now = UnixMillis(i64::try_from(since.as_millis())?).to_string();
            let (number, made) = workload.next_ruinous(&now);
            let moments = Arc::clone(&acknowledged);
            sender.send(made, move || {
                let mut moments = moments.lock().unwrap_or_else(PoisonError::into_inner);
                moments.insert(number, Instant::now());
            })?;
            thread::sleep(BETWEEN_CALLS);
        }
        sender.finish()?;
        let sent = load.join();
        sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let moments = acknowledged.lock();
    Ok(moments.unwrap_or_else(PoisonError::into_inner).clone())
}
