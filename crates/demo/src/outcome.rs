//! What came out, and whether it adds up.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_domain::finding::Finding;
use spendfuse_domain::scope::{Dimension, Dimensions as _, ScopeText};
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Nanos, Verdict};

use crate::board::Board;
use crate::player::Played;
use crate::reference::Reference;
use crate::scenario::Scenario;
use crate::settle::Whereabouts;

/// What the demo found.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Outcome {
    pub produced: u64,
    pub whereabouts: Whereabouts,
    pub rejected: BTreeMap<String, u64>,
    pub ledger: Nanos,
    pub warehouse: Nanos,
    pub reference: Nanos,
    pub findings: BTreeMap<&'static str, u64>,
    pub blocked_scopes: usize,
    pub asked_calls: u64,
    pub refused_calls: u64,
    pub lag_p50_millis: u64,
    pub lag_p99_millis: u64,
    pub lag_samples: usize,
    pub check_p50_micros: u64,
    pub check_p99_micros: u64,
    pub overspend: Nanos,
    pub let_in_after: Option<Duration>,
    pub elapsed: Duration,
    /// What does not add up; empty = all is well.
    pub differences: Vec<Difference>,
}

/// Something that should be otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was compared.
    pub what: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

/// Everything that was measured.
pub struct Measured<'a> {
    /// The script.
    pub scenario: &'a Scenario,
    /// What was sent.
    pub played: &'a Played,
    /// What the pipeline published.
    pub board: &'a Board,
    /// Where the events are.
    pub whereabouts: Whereabouts,
    /// The ledger's total.
    pub ledger: Nanos,
    /// ClickHouse's total.
    pub warehouse: Nanos,
    /// The total of the events as sent.
    pub reference: Reference,
    /// From the first event to the last row.
    pub elapsed: Duration,
}

impl Measured<'_> {
    /// Compares everything with everything.
    pub fn judge(&self) -> Outcome {
        let board = self.board;
        let mut differences = Vec::new();
        self.compare_sums(&mut differences);
        self.compare_rejects(&mut differences);
        self.compare_findings(&mut differences);
        self.compare_upgrade(&mut differences);
        Outcome {
            produced: self.played.events.len() as u64,
            whereabouts: self.whereabouts,
            rejected: board.rejected.clone(),
            ledger: self.ledger,
            warehouse: self.warehouse,
            reference: self.reference.spend,
            findings: board.findings_by_detector(),
            blocked_scopes: board.blocked.len(),
            asked_calls: board.asked,
            refused_calls: board.refused,
            lag_p50_millis: board.lag_millis.percentile(50),
            lag_p99_millis: board.lag_millis.percentile(99),
            lag_samples: board.lag_millis.count(),
            check_p50_micros: board.check_micros.percentile(50),
            check_p99_micros: board.check_micros.percentile(99),
            overspend: board.scopes.values().filter_map(overspend).sum(),
            let_in_after: self.played.let_in_after,
            elapsed: self.elapsed,
            differences,
        }
    }

    fn compare_sums(&self, differences: &mut Vec<Difference>) {
        let produced = self.played.events.len() as u64;
        let found = self.whereabouts;
        let reference = &self.reference;
        let mut compare = |what: &str, expected: String, found: String| {
            if expected != found {
                differences.push(Difference {
                    what: what.to_owned(),
                    expected,
                    found,
                });
            }
        };
        let sum = format!(
            "{} counted + {} duplicates + {} rejected = {}",
            found.counted,
            found.duplicates,
            found.rejected,
            found.sum()
        );
        if found.sum() != produced {
            compare("events", format!("{produced} produced"), sum);
        }
        compare(
            "rows in ClickHouse against the produced events",
            reference.counted.to_string(),
            found.counted.to_string(),
        );
        compare(
            "duplicates against the produced events",
            (reference.accepted - reference.counted).to_string(),
            found.duplicates.to_string(),
        );
        let dollars = |amount: Nanos| format!("${amount}");
        compare(
            "spend: ledger against reference",
            dollars(reference.spend),
            dollars(self.ledger),
        );
        compare(
            "spend: ClickHouse against reference",
            dollars(reference.spend),
            dollars(self.warehouse),
        );
    }

    fn compare_rejects(&self, differences: &mut Vec<Difference>) {
        let mut reasons: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (reason, count) in &self.played.broken {
            reasons.entry(reason).or_default().0 = *count;
        }
        for (reason, count) in &self.board.rejected {
            reasons.entry(reason).or_default().1 = *count;
        }
        for (reason, (expected, found)) in reasons {
            if expected != found {
                differences.push(Difference {
                    what: format!("events in the DLQ for {reason}"),
                    expected: expected.to_string(),
                    found: found.to_string(),
                });
            }
        }
    }

    fn compare_findings(&self, differences: &mut Vec<Difference>) {
        let findings = || self.board.findings.values();
        for expected in &self.scenario.expected {
            let detector = expected.detector;
            let is_found = findings()
                .any(|finding| finding.detector == detector && is_in(finding, expected.runaway));
            if !is_found {
                differences.push(Difference {
                    what: format!("session {}", expected.runaway),
                    expected: format!("a {} finding", detector.name()),
                    found: "none".to_owned(),
                });
            }
            for finding in findings().filter(|finding| is_in(finding, expected.near_miss)) {
                differences.push(Difference {
                    what: format!("session {}", expected.near_miss),
                    expected: "no finding".to_owned(),
                    found: format!("{}: {}", finding.detector.name(), finding.message),
                });
            }
        }
    }

    fn compare_upgrade(&self, differences: &mut Vec<Difference>) {
        let what = "the customer that upgrades".to_owned();
        if !self.played.was_refused {
            differences.push(Difference {
                what,
                expected: "refused before its upgrade".to_owned(),
                found: "never refused".to_owned(),
            });
        } else if self.played.let_in_after.is_none() {
            differences.push(Difference {
                what,
                expected: "let in after its upgrade".to_owned(),
                found: "still refused".to_owned(),
            });
        }
    }
}

/// Whether a finding is about this session.
fn is_in(finding: &Finding, session: &str) -> bool {
    ScopeText::parse(&finding.scope)
        .is_some_and(|scope| scope.value(&Dimension::Session) == session)
}

/// What a blocked scope spent beyond its limit.
fn overspend(entry: &BlocklistEntry) -> Option<Nanos> {
    if entry.verdict != Verdict::Block {
        return None;
    }
    let beyond = entry.figures.spent? - entry.figures.limit?;
    beyond.or_zero().usd()
}

impl Outcome {
    /// Whether everything adds up.
    pub fn is_well(&self) -> bool {
        self.differences.is_empty()
    }

    /// The summary as JSON; money as decimal strings.
    pub fn json(&self) -> Value {
        let differences: Vec<Value> = self
            .differences
            .iter()
            .map(|one| json!({"what": one.what, "expected": one.expected, "found": one.found}))
            .collect();
        let elapsed = (self.elapsed.as_secs_f64() * 100.0).round() / 100.0;
        json!({
            "produced": self.produced,
            "counted": self.whereabouts.counted,
            "duplicates": self.whereabouts.duplicates,
            "rejected": self.rejected,
            "spend_usd": {
                "ledger": self.ledger.to_string(),
                "warehouse": self.warehouse.to_string(),
                "reference": self.reference.to_string(),
            },
            "findings": self.findings,
            "blocked_scopes": self.blocked_scopes,
            "refused_calls": self.refused_calls,
            "enforcement_lag_ms": {"p50": self.lag_p50_millis, "p99": self.lag_p99_millis},
            "overspend_usd": self.overspend.to_string(),
            "elapsed_s": elapsed,
            "differences": differences,
        })
    }
}
