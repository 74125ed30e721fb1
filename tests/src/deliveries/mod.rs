//! Alerts on their way to places that fail half the time, while notifier and broker are killed: each
//! must arrive, none twice under its key, those of a scope in order.
//!
//! Kills come while alerts do, so that they hit transactions that take alerts in as well as
//! deliveries that are under way. The seed decides where; processes have their own timing.

mod alerts;
mod places;
mod report;

use std::time::{Duration, Instant};

use clap::Args;

use crate::lab::Lab;
use crate::random::Random;
use crate::role::Role;
use crate::wait::pause;
pub use alerts::Alerts;
use places::Places;
pub use report::Report;

/// How much of everything.
#[derive(Clone, Copy, Debug, Args)]
pub struct Plan {
    /// Alerts
    #[arg(long, default_value_t = 10_000)]
    pub alerts: usize,
    /// How often something is killed: the notifier, the broker, or both
    #[arg(long, default_value_t = 30)]
    pub strikes: usize,
    /// Decides where kills come, and which requests fail
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What is killed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    Both,
    Notifier,
    Broker,
}

/// In turn.
const STRIKES: [Strike; 3] = [Strike::Both, Strike::Notifier, Strike::Broker];
/// A killed broker stays away until the controller has noticed.
pub const BROKER_AWAY: Duration = Duration::from_millis(2_500);
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Where nothing comes for so long nothing will: longer than a digest gathers, and any pause.
const QUIET: Duration = Duration::from_secs(75);
/// Alerts of one scope.
const EACH_SCOPE: usize = 4;

/// Sends the alerts, kills, and waits for what arrives. `lab` has its own servers, and topics.
///
/// # Panics
/// Where a part does not start.
pub fn run(lab: &Lab, plan: &Plan) -> Report {
    let began = Instant::now();
    let mut run = Run::start(lab, *plan);
    for strike in 0..plan.strikes {
        run.strike(strike);
    }
    run.alerts.flush();
    run.settle();
    run.report(began)
}

struct Run<'l> {
    lab: &'l Lab,
    plan: Plan,
    random: Random,
    places: Places,
    alerts: Alerts,
    notifier: Role,
    notifier_kills: usize,
    broker_kills: usize,
}

impl<'l> Run<'l> {
    fn start(lab: &'l Lab, plan: Plan) -> Self {
        let places = Places::start(plan.seed);
        let settings = places.settings();
        let settings: Vec<(&str, &str)> = settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let notifier = lab.role("notifier", "1", &settings);
        await_running(&notifier);
        Self {
            lab,
            plan,
            random: Random::new(plan.seed, 1),
            places,
            alerts: Alerts::new(lab),
            notifier,
            notifier_kills: 0,
            broker_kills: 0,
        }
    }

    /// Sends a share of the alerts; in the middle of it something dies, and starts again. Not before
    /// any of it has arrived: a notifier that has not begun yet, on a slow machine, has nothing to lose.
    fn strike(&mut self, number: usize) {
        let Plan {
            alerts, strikes, ..
        } = self.plan;
        let share = alerts * number / strikes..alerts * (number + 1) / strikes;
        let middle = share.start + self.random.below(share.len() as u64) as usize;
        let strike = STRIKES[number % STRIKES.len()];
        let last = share.end.saturating_sub(1);
        let mut is_alive = true;
        let mut has_begun = false;
        for alert in share {
            has_begun |= self.places.look();
            if is_alive && (alert == last || has_begun && alert >= middle) {
                self.kill(strike);
                is_alive = false;
            }
            self.send(alert);
            // So that transactions take in a few at a time.
            pause(Duration::from_millis(1));
        }
        self.heal(strike);
    }

    fn send(&self, number: usize) {
        let scopes = (self.plan.alerts / EACH_SCOPE).max(1);
        let scope = format!("acme/customer=c-{}", number % scopes);
        self.alerts.send(&scope, "conflict", number);
    }

    fn kill(&mut self, strike: Strike) {
        if strike != Strike::Broker {
            self.notifier.kill();
            self.notifier_kills += 1;
        }
        if strike != Strike::Notifier {
            self.lab.kafka().kill(0);
            self.broker_kills += 1;
        }
    }

    fn heal(&mut self, strike: Strike) {
        if strike != Strike::Notifier {
            pause(BROKER_AWAY);
            let kafka = self.lab.kafka();
            kafka.restart(0).expect("the broker starts again");
            kafka.wait_ready().expect("it gets ready");
        }
        if strike != Strike::Broker {
            self.notifier.restart();
            await_running(&self.notifier);
        }
    }

    /// Until all has arrived, or nothing more comes.
    fn settle(&mut self) {
        let mut last_news = Instant::now();
        loop {
            if self.places.look() {
                last_news = Instant::now();
            }
            let is_over = self.places.count() >= self.plan.alerts;
            if is_over || last_news.elapsed() > QUIET {
                return;
            }
            pause(Duration::from_millis(100));
        }
    }

    fn report(mut self, began: Instant) -> Report {
        let mut differences = self.places.differences(self.plan.alerts);
        if differences.is_empty() {
            differences.extend(self.untold());
        }
        // What was under way: attempts whose outcome nobody has heard of, or not yet committed.
        let lives = self.notifier_kills + self.broker_kills;
        let most_repeats = lives * places::MOST_UNDER_WAY * self.lab.partitions() as usize;
        // Those that came after the last alert had.
        self.places.look();
        let seen = self.places.seen();
        if seen.repeats > most_repeats {
            differences.push(format!(
                "{} repeats of what a place had said yes to, {most_repeats} can be explained",
                seen.repeats
            ));
        }
        Report {
            plan: self.plan,
            notifier_kills: self.notifier_kills,
            broker_kills: self.broker_kills,
            seen,
            took: began.elapsed(),
            log: self.notifier.log(),
            differences,
        }
    }

    /// What the notifier itself does not know to be told.
    fn untold(&self) -> Option<String> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let said = self.lab.must(&["alerts", "list", "--untold", "--json"]);
            let untold: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
            let count = untold.as_array().map_or(0, Vec::len);
            if count == 0 {
                return None;
            }
            if Instant::now() > deadline {
                return Some(format!("`alerts list` has {count} as untold"));
            }
            pause(Duration::from_millis(300));
        }
    }
}

fn await_running(notifier: &Role) {
    notifier.await_line("stage=\"notifier\"", START_PATIENCE);
}
