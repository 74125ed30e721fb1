//! Shows what a correction changes, hands it to the meter, and waits for its rows.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spendfuse_domain::budget::{BudgetsRecord, CompiledBudget, Spend};
use spendfuse_domain::correction::CorrectionRecord;
use spendfuse_domain::event::{Body, Event};
use spendfuse_domain::{Amount, Nanos};
use spendfuse_warehouse::client::quoted;

use super::entry::{Entry, Standing};
use super::kafka;
use super::output::{dollars, grouped};
use super::record::output_of;
use super::warehouse::Connection;
use super::{CommonArgs, Failure, found_wrong, output};
use crate::settings::Settings;

/// How long the command waits for its rows in ClickHouse.
const APPLIED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What became of a correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    DryRun,
    /// Its rows are in ClickHouse.
    Applied,
    /// It is in the topic.
    Sent,
    /// It is in the topic, and its rows have not come.
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::Applied => "applied",
            Self::Sent => "sent",
            Self::Unknown => "unknown",
        }
    }
}

/// A correction, and the entry as it stands before and after it.
pub struct Change<'a> {
    pub settings: &'a Settings,
    pub connection: &'a Connection,
    pub record: &'a CorrectionRecord,
    pub before: Option<&'a Standing>,
    pub after: Option<&'a Standing>,
}

/// Says that there is nothing to do.
pub fn nothing(entry: &Entry, common: &CommonArgs, why: &str) -> ExitCode {
    match common.json {
        true => output::json(&json!({
            "outcome": "nothing_to_do", "entry": entry.place.to_string(), "why": why,
        })),
        false => output::line(format!("nothing to do for entry {}: {why}", entry.place)),
    }
    ExitCode::SUCCESS
}

impl Change<'_> {
    /// Hands the correction to the meter that counted its entry.
    pub fn send(&self, written: Vec<u8>, common: &CommonArgs) -> Result<ExitCode, Failure> {
        let settings = self.settings;
        let record = output_of(settings, self.record.entry, written);
        kafka::write_together(settings, kafka::CORRECT, &[record])?;
        let outcome = match common.no_wait {
            true => Outcome::Sent,
            false => self.wait()?,
        };
        self.show(common, outcome)
    }

    fn wait(&self) -> Result<Outcome, Failure> {
        let question = format!(
            "SELECT 1 FROM spend WHERE kind = 'correction' AND event_id = {} AND epoch = {} LIMIT 1",
            quoted(&self.record.id),
            self.record.entry.epoch
        );
        let began = Instant::now();
        while began.elapsed() < APPLIED_WITHIN {
            let answer = self.connection.warehouse.query_table(&question);
            if !self.connection.wait(answer)?.rows.is_empty() {
                return Ok(Outcome::Applied);
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Ok(Outcome::Unknown)
    }

    /// Prints what changes.
    pub fn show(&self, common: &CommonArgs, outcome: Outcome) -> Result<ExitCode, Failure> {
        let record = self.record;
        let windows = self.windows()?;
        if common.json {
            output::json(&json!({
                "outcome": outcome.name(),
                "id": record.id,
                "entry": record.entry.to_string(),
                "number": record.number,
                "by": record.by,
                "reason": record.reason,
                "before": self.before.map(to_json),
                "after": self.after.map(to_json),
                "budgets": windows.iter().map(WindowChange::to_json).collect::<Vec<_>>(),
            }));
            return Ok(exit_code(outcome));
        }
        let cost = |one: Option<&Standing>| one.map_or(Nanos::ZERO, |one| one.cost.total());
        let more = cost(self.after) - cost(self.before);
        output::line(format!(
            "correction {} of entry {}",
            record.id, record.entry
        ));
        output::line(format!("  before: {}", text(self.before)));
        output::line(format!("  after:  {}", text(self.after)));
        output::line(format!("  cost changes by {}", dollars(more)));
        for one in &windows {
            output::line(one.text());
        }
        match outcome {
            Outcome::DryRun => output::line("nothing was done; without --dry-run it is"),
            Outcome::Applied => output::line("applied, and in ClickHouse"),
            Outcome::Sent => {
                output::line("sent; spendfuse correct list shows it once it is applied")
            }
            Outcome::Unknown => output::warning(format!(
                "sent, but its rows have not come within {} s: the processor or the loader is behind, or the processor has refused it (its log says why, spendfuse_corrections_refused_total counts); spendfuse correct list shows it once it is applied, and the same command again changes nothing twice",
                APPLIED_WITHIN.as_secs()
            )),
        }
        Ok(exit_code(outcome))
    }

    /// The windows of budgets in which what is spent changes, without those of sessions.
    fn windows(&self) -> Result<Vec<WindowChange>, Failure> {
        let topic = self.settings.topics().budgets;
        let mut windows = Vec::new();
        for (key, value) in kafka::read_table(self.settings, &topic)? {
            let Ok(BudgetsRecord::Budget(budget)) = BudgetsRecord::parse(&key, &value) else {
                continue;
            };
            let compiled = CompiledBudget::new(budget);
            let limit = compiled.budget.limit;
            let counts = |one: Option<&Standing>| {
                let one = one?;
                let scope = compiled.scope_of(&one.event.attribution)?;
                Some((scope, spend_of(one).counted(limit.unit()).number()))
            };
            let (before, after) = (counts(self.before), counts(self.after));
            let mut changes: Vec<(String, i128)> = Vec::new();
            let taken = before.map(|(scope, spent)| (scope, -spent));
            for (scope, change) in taken.into_iter().chain(after) {
                match changes.iter_mut().find(|(known, _)| *known == scope) {
                    Some((_, sum)) => *sum += change,
                    None => changes.push((scope, change)),
                }
            }
            changes.retain(|(_, change)| *change != 0);
            let Some(event) = self.event() else { continue };
            let label = match compiled.budget.window.is_session() {
                true => "the session, if it is live".to_owned(),
                false => compiled.window(event.time).label,
            };
            windows.extend(changes.into_iter().map(|(scope, change)| WindowChange {
                budget: key.clone(),
                scope,
                window: label.clone(),
                change: limit.with(change),
            }));
        }
        Ok(windows)
    }

    fn event(&self) -> Option<&Event<'static>> {
        self.before.or(self.after).map(|one| &one.event)
    }
}

/// By how much what is spent in a window of a budget changes.
struct WindowChange {
    budget: String,
    scope: String,
    window: String,
    /// In the unit of the budget's limit.
    change: Amount,
}

impl WindowChange {
    fn text(&self) -> String {
        let Self {
            budget,
            scope,
            window,
            change,
        } = self;
        format!("  {budget} {scope} {window}: {change:#}")
    }

    fn to_json(&self) -> Value {
        let mut told = json!({
            "budget": self.budget, "scope": self.scope, "window": self.window,
        });
        told[format!("change_{}", self.change.unit().name())] = json!(self.change);
        told
    }
}

/// What the meter counts for it.
fn spend_of(standing: &Standing) -> Spend {
    match &standing.event.body {
        Body::Usage(call) => Spend::of_call(standing.cost.total(), call.tokens.total()),
        Body::Revenue(_) | Body::SessionEnd => Spend::default(),
    }
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Outcome::Unknown => found_wrong(),
        Outcome::DryRun | Outcome::Applied | Outcome::Sent => ExitCode::SUCCESS,
    }
}

fn text(standing: Option<&Standing>) -> String {
    let Some(standing) = standing else {
        return "void".to_owned();
    };
    let (event, cost) = (&standing.event, dollars(standing.cost.total()));
    let tokens = match &event.body {
        Body::Usage(call) => call.tokens.total(),
        Body::Revenue(_) | Body::SessionEnd => 0,
    };
    let who = &event.attribution;
    let mut said = format!(
        "{} {}, {} tokens, {cost}",
        event.time,
        who.model,
        grouped(tokens)
    );
    for (name, value) in [
        ("customer", &who.customer),
        ("feature", &who.feature),
        ("user", &who.user),
    ] {
        if !value.is_empty() {
            said.push_str(&format!(", {name} {value}"));
        }
    }
    said
}

fn to_json(standing: &Standing) -> Value {
    let event = spendfuse_domain::event::encode(&standing.event);
    let event: Value = serde_json::from_slice(&event).unwrap_or_default();
    json!({
        "event": event,
        "cost_usd": standing.cost.total(),
        "priced": standing.priced.name(),
        "price_version": standing.price_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_the_unit_of_its_budget() {
        let told = |change| {
            let (budget, scope, window) = ("b".into(), "s".into(), "w".into());
            let one = WindowChange {
                budget,
                scope,
                window,
                change,
            };
            (one.text(), one.to_json())
        };
        let (text, json) = told(Amount::Usd(Nanos::new(-35_000_000)));
        assert_eq!(text, "  b s w: -$0.035");
        assert_eq!(json["change_usd"], "-0.035");
        let (text, json) = told(Amount::Tokens(-1_200));
        assert_eq!(text, "  b s w: -1,200 tokens");
        assert_eq!(json["change_tokens"], -1_200);
        assert_eq!(json["change_usd"], Value::Null);
    }
}
