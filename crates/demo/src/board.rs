//! What is known of the running demo, for whoever shows it.
//!
//! The player, the watcher and the warehouse poll write; the view reads copies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::scope::ScopeText;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Amount, Nanos, Verdict, printable};

/// News that stay on screen.
const NEWS: usize = 40;
/// One mark of the throughput line.
const RATE_EVERY: Duration = Duration::from_millis(500);

/// Shared by everybody who takes part.
pub type SharedBoard = Arc<Mutex<Board>>;

/// Where the demo is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The roles come up.
    #[default]
    Starting,
    /// Events are produced.
    Playing,
    /// Everything is produced; the rest arrives.
    Settling,
    /// The sums are compared.
    Checking,
    /// Nothing changes any more.
    Over,
}

/// How somebody should take a piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Tone {
    Good,
    Warning,
    Bad,
}

/// A piece of news.
#[derive(Clone, Debug)]
pub struct News {
    /// Since the first event.
    pub at: Duration,
    /// How to take it.
    pub tone: Tone,
    /// In words.
    pub text: String,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Where the demo is.
    pub phase: Phase,
    /// The first event's moment.
    pub began: Option<Instant>,
    /// How long the replay takes.
    pub length: Duration,
    /// Events that are going to be produced at most.
    pub planned: u64,
    /// Events sent.
    pub produced: u64,
    /// Events per second, every half a second.
    pub rates: VecDeque<u64>,
    /// Since when, and from which count, the next rate is measured.
    pub rate_since: Option<(Instant, u64)>,
    /// Calls that asked before.
    pub asked: u64,
    /// Of these, the refused ones.
    pub refused: u64,
    /// How long a check took, microseconds.
    pub check_micros: Samples,
    /// The last state of every scope, by blocklist key.
    pub scopes: BTreeMap<String, BlocklistEntry>,
    /// Blocklist keys that were blocked at some time.
    pub blocked: BTreeSet<String>,
    /// Findings by key and opening, with their last state.
    pub findings: BTreeMap<(String, i64), Finding>,
    /// Records in the DLQ, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// From an event to its verdict in the guard, milliseconds.
    pub lag_millis: Samples,
    /// Rows in ClickHouse, and what they cost.
    pub warehouse: (u64, Nanos),
    /// The last of what happened.
    pub news: VecDeque<News>,
}

/// Measurements.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Takes one more.
    pub fn add(&mut self, value: u64) {
        self.0.push(value);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all do not exceed (nearest rank); 0 without any.
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0)
    }
}

/// The board, for writing or reading; never held for long.
pub fn open(board: &SharedBoard) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Time since the first event.
    pub fn elapsed(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Something happened that people want to read.
    pub fn tell(&mut self, tone: Tone, text: String) {
        let at = self.elapsed();
        self.news.push_back(News { at, tone, text });
        if self.news.len() > NEWS {
            self.news.pop_front();
        }
    }

    /// `sent` more events were produced.
    pub fn sent(&mut self, sent: u64) {
        self.produced += sent;
        let now = Instant::now();
        let (since, before) = *self.rate_since.get_or_insert((now, 0));
        let passed = now.duration_since(since);
        if passed >= RATE_EVERY {
            let rate = (self.produced - before) as f64 / passed.as_secs_f64();
            self.rates.push_back(rate as u64);
            self.rate_since = Some((now, self.produced));
        }
    }

    /// A scope's state as published; `None` = forgotten.
    pub fn scope(&mut self, key: &str, entry: Option<BlocklistEntry>) {
        let Some(entry) = entry else {
            self.scopes.remove(key);
            return;
        };
        let before = self
            .scopes
            .get(key)
            .map_or(Verdict::Ok, |entry| entry.verdict);
        // That free users come near their limit is no news; there are many of them.
        let is_quiet = entry.verdict == Verdict::Warn && entry.budget == "free-plan";
        if entry.verdict > before && !is_quiet {
            let tone = if entry.verdict == Verdict::Block {
                Tone::Bad
            } else {
                Tone::Warning
            };
            self.tell(tone, verdict_news(key, &entry));
        } else if before == Verdict::Block && entry.verdict < before {
            let scope = short_scope(&entry.scope);
            self.tell(
                Tone::Good,
                format!(
                    "let in    {scope}: limit is now {}",
                    shown(entry.figures.limit)
                ),
            );
        }
        if entry.verdict == Verdict::Block {
            self.blocked.insert(key.to_owned());
        }
        self.scopes.insert(key.to_owned(), entry);
    }

    /// A finding as published.
    pub fn finding(&mut self, key: &str, finding: Finding) {
        let place = (key.to_owned(), finding.opened_at.0);
        let is_new = !self.findings.contains_key(&place);
        // Budgets of other scopes than sessions have told their verdict already.
        let is_news = finding.scope.contains("session=");
        if is_new && is_news && finding.state == FindingState::Open {
            let detector = finding.detector.name();
            let scope = short_scope(&finding.scope);
            self.tell(Tone::Warning, format!("finding   {detector} in {scope}"));
        }
        self.findings.insert(place, finding);
    }

    /// How many findings each detector has opened.
    pub fn findings_by_detector(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for finding in self.findings.values() {
            *counts.entry(finding.detector.name()).or_insert(0) += 1;
        }
        counts
    }

    /// All records in the DLQ.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// The last value of a scope, printable: the workspace is the same for all.
pub fn short_scope(scope: &str) -> String {
    let parts = ScopeText::parse(scope).map(|scope| scope.parts);
    let last = parts.and_then(|mut parts| parts.pop());
    let shown = last.as_ref().map_or(scope, |(_, value)| value);
    printable(shown).into_owned()
}

/// An amount for people; a stopped session has none.
fn shown(amount: Option<Amount>) -> String {
    amount.map_or_else(|| "?".to_owned(), |amount| amount.to_string())
}

fn verdict_news(key: &str, entry: &BlocklistEntry) -> String {
    let scope = short_scope(&entry.scope);
    if key.starts_with("finding|") {
        return format!("stopped   session {scope} by a detector");
    }
    let word = match entry.verdict {
        Verdict::Block => "blocked",
        _ => "warned",
    };
    let (spent, limit) = (shown(entry.figures.spent), shown(entry.figures.limit));
    format!("{word:9} {scope}: {spent} of {limit} ({})", entry.budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(99), 0);
        for value in 1..=200 {
            samples.add(value);
        }
        assert_eq!((samples.percentile(50), samples.percentile(99)), (100, 198));
    }

    #[test]
    fn scopes_are_shown_by_their_last_value() {
        assert_eq!(short_scope("acme/customer=hooli%20%26"), "hooli &");
        assert_eq!(short_scope("acme"), "acme");
        assert_eq!(short_scope("*"), "*");
    }
}
