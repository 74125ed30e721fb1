//! `spendfuse findings list|show`.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::{Detector, Severity};
use xxhash_rust::xxh3::xxh3_64;

use super::correct::rows::{ask, number};
use super::output::{self, Cell, Colour, Side, ago, counted, grouped, print_table, table};
use super::warehouse::Connection;
use super::{Failure, kafka};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct FindingsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the open findings, the worst first
    #[command(
        after_help = "Examples:\n  spendfuse findings list\n  spendfuse findings list --all --detector retry_loop --scope acme/"
    )]
    List(ListArgs),
    /// Show everything about a finding, evidence included
    #[command(
        after_help = "Examples:\n  spendfuse findings show 3fa94c01\n  spendfuse findings show acme/session=s-1"
    )]
    Show(ShowArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Also closed findings
    #[arg(long)]
    all: bool,
    /// Only of this detector
    #[arg(long, value_parser = known_detector)]
    detector: Option<Detector>,
    /// Only from this severity on: info, warning, critical
    #[arg(long, value_parser = known_severity)]
    severity: Option<Severity>,
    /// Only scopes that begin with this, such as acme/session=
    #[arg(long, value_name = "PREFIX")]
    scope: Option<String>,
    /// Findings to print at most; 0 = all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print JSON, always with all findings
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Id from `findings list`, or the beginning of a scope
    finding: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A finding with its key in the topic.
struct Keyed {
    id: String,
    key: String,
    finding: Finding,
    /// How many events of its evidence were corrected or re-rated since; `None` where ClickHouse does
    /// not say.
    corrected: Option<u64>,
}

pub fn run(settings: &Settings, args: &FindingsArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::List(args) => list(settings, args),
        Action::Show(args) => show(settings, args),
    }
}

/// All findings: open before closed, then the worst, then the latest first.
fn read(settings: &Settings) -> Result<Vec<Keyed>, Failure> {
    let table = kafka::read_table(settings, &settings.topics().findings)?;
    let mut findings = Vec::with_capacity(table.len());
    for (key, value) in table {
        match serde_json::from_slice::<Finding>(&value) {
            Ok(finding) => findings.push(Keyed {
                id: format!("{:08x}", xxh3_64(key.as_bytes()) >> 32),
                key,
                finding,
                corrected: None,
            }),
            Err(error) => output::warning(format!("finding {key}: {error}; left out")),
        }
    }
    if !findings.is_empty() {
        note_corrected(settings, &mut findings);
    }
    findings.sort_by_key(|one| {
        let finding = &one.finding;
        let is_closed = finding.state == FindingState::Closed;
        let worst = std::cmp::Reverse((finding.severity, finding.last_at));
        (is_closed, worst)
    });
    Ok(findings)
}

/// Detectors do not judge again: what was corrected since is known to ClickHouse, and findings are shown
/// without it, too.
fn note_corrected(settings: &Settings, findings: &mut [Keyed]) {
    let known = match corrected(settings) {
        Ok(known) => known,
        Err(error) => {
            return output::warning(format!(
                "{error}; what of the findings' evidence was corrected since is not known"
            ));
        }
    };
    for one in findings {
        let opening = (one.key.clone(), one.finding.opened_at.0);
        one.corrected = Some(known.get(&opening).copied().unwrap_or(0));
    }
}

/// Corrected events of each finding that has any, by its key and when it opened.
fn corrected(settings: &Settings) -> Result<HashMap<(String, i64), u64>, Failure> {
    let connection = Connection::open(settings)?;
    let question = "SELECT concat(scope, '|', detector, '|', rule, '|', agent), \
                           toString(toUnixTimestamp64Milli(opened_at)), toString(corrected) \
                    FROM findings WHERE corrected > 0";
    let mut known = HashMap::new();
    for cells in ask(&connection, question)? {
        let [key, opened_at, corrected] = &cells[..] else {
            continue;
        };
        known.insert((key.clone(), number(opened_at)?), number(corrected)?);
    }
    Ok(known)
}

fn list(settings: &Settings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let mut findings = read(settings)?;
    findings.retain(|one| {
        let finding = &one.finding;
        let scope = args.scope.as_deref().unwrap_or_default();
        (args.all || finding.state == FindingState::Open)
            && args.detector.is_none_or(|only| finding.detector == only)
            && args.severity.is_none_or(|least| finding.severity >= least)
            && finding.scope.starts_with(scope)
    });
    if args.json {
        output::json(&findings.iter().map(Keyed::to_json).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    if findings.is_empty() {
        output::line(if args.all {
            "no findings"
        } else {
            "no open findings; --all shows closed ones"
        });
        return Ok(ExitCode::SUCCESS);
    }
    let now = output::now();
    let shown = if args.limit == 0 {
        findings.len()
    } else {
        args.limit
    };
    let mut rows = table([
        ("ID", Side::Left),
        ("SEVERITY", Side::Left),
        ("SCOPE", Side::Left),
        ("WASTED", Side::Right),
        ("LAST", Side::Left),
        ("DETECTOR", Side::Left),
        ("WHAT", Side::Left),
    ]);
    for one in findings.iter().take(shown) {
        let finding = &one.finding;
        let state = match finding.state {
            FindingState::Open => "",
            FindingState::Closed => " (closed)",
        };
        rows.add_row(vec![
            Cell::from(&one.id),
            severity_cell(finding.severity),
            Cell::from(&finding.scope),
            Cell::from(output::dollars(finding.wasted_usd)),
            Cell::from(ago(finding.last_at, now)),
            Cell::from(finding.detector.name()),
            Cell::from(format!("{}{state}{}", finding.message, one.correction())),
        ]);
    }
    // The message says what the detector's name says.
    output::hide_below(&mut rows, 4, 100);
    output::hide_below(&mut rows, 5, 130);
    output::keep_whole(&mut rows, &[0, 1, 3]);
    print_table(&rows);
    if shown < findings.len() {
        let more = grouped((findings.len() - shown) as u64);
        output::line(format!("and {more} more; --limit 0 prints all"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(settings: &Settings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let mut findings = read(settings)?;
    findings.retain(|one| one.id == args.finding || one.key.starts_with(&args.finding));
    if findings.is_empty() {
        return Err(Failure::work(format!(
            "no finding has the id or scope {}; `spendfuse findings list --all` shows all",
            args.finding
        )));
    }
    if args.json {
        output::json(&findings.iter().map(Keyed::to_json).collect::<Vec<_>>());
    } else {
        for (place, one) in findings.iter().enumerate() {
            if place > 0 {
                output::line("");
            }
            one.print();
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Keyed {
    fn to_json(&self) -> Value {
        let mut value =
            serde_json::to_value(&self.finding).expect("texts and numbers always become JSON");
        value["id"] = Value::from(self.id.as_str());
        value["key"] = Value::from(self.key.as_str());
        value["corrected"] = Value::from(self.corrected);
        value
    }

    /// After what it says, where it rests on what was corrected.
    fn correction(&self) -> String {
        match self.corrected {
            None | Some(0) => String::new(),
            Some(events) => format!(" ({} corrected since)", counted(events, "event")),
        }
    }

    fn print(&self) {
        let finding = &self.finding;
        let state = match finding.state {
            FindingState::Open => "open",
            FindingState::Closed => "closed",
        };
        output::line(format!(
            "{} {} {}, {state}{}",
            self.id,
            finding.severity.name(),
            finding.detector.name(),
            self.correction()
        ));
        output::line(format!("  {}", finding.message));
        let fields = [
            ("scope", finding.scope.clone()),
            ("agent", finding.agent.clone()),
            ("model", finding.model.clone()),
            ("customer", finding.customer.clone()),
            ("feature", finding.feature.clone()),
            ("rule", finding.rule.clone()),
            (
                "measured",
                format!("{} (threshold {})", finding.measured, finding.threshold),
            ),
            ("wasted", output::dollars(finding.wasted_usd)),
            ("opened", finding.opened_at.to_string()),
            ("last", finding.last_at.to_string()),
        ];
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            output::line(format!("  {name:<9} {value}"));
        }
        let evidence = &finding.evidence;
        if evidence.is_empty() {
            return;
        }
        output::line(format!(
            "  evidence  {}",
            counted(evidence.len() as u64, "event")
        ));
        for event in evidence {
            let time = event
                .time
                .map_or_else(String::new, |time| format!(", {time}"));
            output::line(format!("    {} of {}{time}", event.id, event.source));
        }
    }
}

fn severity_cell(severity: Severity) -> Cell {
    match severity {
        Severity::Info => severity.name().into(),
        Severity::Warning => Cell::coloured(severity.name(), Colour::Yellow),
        Severity::Critical => Cell::coloured(severity.name(), Colour::Red),
    }
}

fn known_detector(text: &str) -> Result<Detector, String> {
    Detector::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Detector::ALL.iter().map(|one| one.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

fn known_severity(text: &str) -> Result<Severity, String> {
    let all = [Severity::Info, Severity::Warning, Severity::Critical];
    all.into_iter()
        .find(|severity| severity.name() == text)
        .ok_or_else(|| "use one of info, warning, critical".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_finding_rests_on_and_was_corrected_is_told() {
        let finding = serde_json::json!({
            "v": 1, "detector": "retry_loop", "scope": "acme/session=s-1", "agent": "",
            "model": "gpt-4o", "customer": "", "feature": "", "rule": "default", "state": "open",
            "severity": "warning", "opened_at": "2026-11-22T10:15:30Z",
            "last_at": "2026-11-22T10:15:30Z", "measured": 4.0, "threshold": 3.0,
            "wasted_usd": "0.01", "evidence": [], "message": "the same prompt ran 4 times",
        });
        let mut one = Keyed {
            id: "3fa94c01".to_owned(),
            key: "acme/session=s-1|retry_loop|default|".to_owned(),
            finding: serde_json::from_value(finding).unwrap(),
            corrected: None,
        };
        assert_eq!(one.to_json()["corrected"], Value::Null);
        assert_eq!(one.correction(), "");
        one.corrected = Some(2);
        assert_eq!(one.to_json()["corrected"], 2);
        assert_eq!(one.correction(), " (2 events corrected since)");
    }
}
