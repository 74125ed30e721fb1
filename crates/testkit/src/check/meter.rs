//! Checks of a meter partition's commits.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::finding::{Detector, Finding};
use spendfuse_domain::row::MeterAddress;
use spendfuse_domain::{Body, Verdict};
use spendfuse_engine::meter::{Corrected, Counted};

use super::published::mistake;
use super::{Checker, Promise, Violation};
use crate::corrections::Stands;
use crate::pipeline::{Became, MeterCommit};
use crate::readers::StageName;
use crate::reference::Expected;
use crate::reference::detectors::{CONDITIONS, EpisodeNow};
use crate::reference::meter::{agrees, agrees_on_correction};

/// Address, id, cost.
type ExpectedRow = (MeterAddress, String, i128);

/// The row that follows `index` others of its commit.
fn row_of(commit: &MeterCommit, index: usize, id: &str, cost: i128) -> ExpectedRow {
    let address = MeterAddress {
        partition: commit.partition,
        seq: commit.seq,
        index: index as u32,
    };
    (address, id.to_owned(), cost)
}

impl Checker<'_> {
    pub(super) fn meter_commit(&mut self, commit: &MeterCommit) -> Result<(), Violation> {
        let partition = commit.partition as usize;
        self.check_inputs(commit)?;
        self.meters[partition].end_commit(commit.now, commit.version, commit.is_timely);
        let writer = (StageName::Meter, commit.partition);
        self.guard.apply(writer, &commit.blocklist);
        self.findings.apply(writer, &commit.findings);
        if !commit.is_timely {
            return Ok(());
        }
        self.check_session_entries(commit)?;
        self.check_lane_findings(commit)
    }

    fn check_inputs(&mut self, commit: &MeterCommit) -> Result<(), Violation> {
        let partition = commit.partition as usize;
        let here = format!("meter {partition} commit {}", commit.seq);
        if commit.seq <= self.seqs[partition] {
            return Err(Violation::new(Promise::Rows, format!("{here} came twice")));
        }
        self.seqs[partition] = commit.seq;
        let reference = &mut self.meters[partition];
        if self.meter_versions[partition] != commit.version {
            self.meter_versions[partition] = commit.version;
            reference.adopt(commit.version);
        }
        let mut expected_rows = Vec::new();
        for (index, became) in &commit.inputs {
            if std::mem::replace(&mut self.processed[*index], true) {
                let detail = format!("{here}: event {index} was processed before");
                return Err(Violation::new(Promise::CountedOnce, detail));
            }
            let is_right = match became {
                Became::Event(counted) => {
                    self.check_event(commit, *index, *counted, &mut expected_rows)
                }
                Became::Correction(corrected) => {
                    self.check_correction(commit, *index, Some(*corrected), &mut expected_rows)
                }
                Became::Nothing => self.check_correction(commit, *index, None, &mut expected_rows),
            };
            if let Err(expected) = is_right {
                let id = &self.scenario.log[*index].event.id;
                let detail = format!("{here}: {id} is {became:?}, expected {expected}");
                return Err(Violation::new(Promise::CountedOnce, detail));
            }
        }
        let rows = commit.rows.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.address, row.id.clone(), row.cost))
            .collect();
        if rows != expected_rows {
            let detail = format!("{here}: rows {rows:?}, counted {expected_rows:?}");
            return Err(Violation::new(Promise::Rows, detail));
        }
        Ok(())
    }

    fn check_event(
        &mut self,
        commit: &MeterCommit,
        index: usize,
        counted: Counted,
        rows: &mut Vec<ExpectedRow>,
    ) -> Result<(), String> {
        let one = &self.scenario.log[index];
        let rules = &self.rules[commit.version];
        let reference = &mut self.meters[commit.partition as usize];
        let expected = reference.count(index, commit.version, rules);
        if !agrees(expected, counted, one.event.body == Body::SessionEnd) {
            return Err(format!("{expected:?}"));
        }
        if expected == (Expected::Echo { tells_more: true }) {
            rows.push(row_of(commit, rows.len(), &one.event.id, 0));
        }
        if let Counted::AtAddress(address) | Counted::Grown(address) = counted {
            let (before, like, tells_more) = match expected {
                Expected::Grown {
                    before,
                    like,
                    tells_more,
                } => (Some(before), like, tells_more),
                _ => (None, None, false),
            };
            let cost_of = |index: usize| self.scenario.log[index].cost.total().get();
            let cost = cost_of(index) - before.map_or(0, cost_of);
            let row = row_of(commit, rows.len(), &one.event.id, cost);
            if row.0 != address {
                return Err(format!("{:?}", row.0));
            }
            rows.push(row);
            if tells_more {
                rows.push(row_of(commit, rows.len(), &one.event.id, 0));
            }
            match before {
                Some(before) => self.desk.grown(index, before),
                None => self.desk.counted(index, address, commit.version as u64 + 1),
            }
            let (partition, seq) = (commit.partition, commit.seq);
            self.spend
                .count(index, partition, seq, before.zip(Some(like)));
        }
        Ok(())
    }

    /// `corrected` is `None` where there was nothing to correct.
    fn check_correction(
        &mut self,
        commit: &MeterCommit,
        index: usize,
        corrected: Option<Corrected>,
        rows: &mut Vec<ExpectedRow>,
    ) -> Result<(), String> {
        let made = self.desk.make(self.scenario, index);
        let (made, corrected) = match (made, corrected) {
            (None, None) => return Ok(()),
            (Some(made), Some(corrected)) => (made, corrected),
            (made, _) => return Err(format!("{made:?}")),
        };
        let reference = &mut self.meters[commit.partition as usize];
        let expected = reference.correct(index, &made, commit.version);
        if !agrees_on_correction(expected, corrected) {
            return Err(format!("{expected:?} of {made:?}"));
        }
        if let Corrected::Applied { address, .. } = corrected {
            let id = format!("c{index}");
            let cost = |stands: &Stands| stands.cost.total().get();
            let first = row_of(commit, rows.len(), &id, 0).0;
            if first != address {
                return Err(format!("{first:?}"));
            }
            let mut push = |cost| rows.push(row_of(commit, rows.len(), &id, cost));
            match (&made.before, &made.after) {
                (Some(before), Some(after))
                    if before.event.attribution == after.event.attribution =>
                {
                    match made.is_rerate && before.priced != after.priced {
                        true => [-cost(before), cost(after)].into_iter().for_each(push),
                        false => push(cost(after) - cost(before)),
                    }
                }
                (before, after) => {
                    before.iter().for_each(|before| push(-cost(before)));
                    after.iter().for_each(|after| push(cost(after)));
                }
            }
            let arrival = self.scenario.log[index].arrival;
            self.desk.applied(made.clone(), arrival);
            self.spend.correct(made, commit.partition, commit.seq);
        }
        Ok(())
    }

    /// Verdicts of session budgets, and session blocks of detectors.
    fn check_session_entries(&self, commit: &MeterCommit) -> Result<(), Violation> {
        let here = format!("meter {} commit {}", commit.partition, commit.seq);
        let wrong = |key: &str, what: &str| {
            let detail = format!("{here} at {}: {key}: {what}", commit.now);
            Err(Violation::new(Promise::Verdicts, detail))
        };
        let budgets = &self.scenario.versions[commit.version].budgets;
        let mut expected = BTreeSet::new();
        for (name, session) in &self.meters[commit.partition as usize].sessions {
            for ((budget, scope), account) in &session.accounts {
                let Some(budget) = budgets.iter().find(|one| one.id.as_str() == budget) else {
                    continue;
                };
                let key = format!("{}|{scope}", budget.id);
                let entry = self.guard.entry(&key);
                let standing = account.tally.standing(budget);
                if let Some(what) = mistake(entry, &standing, session.opened_at, commit.now) {
                    return wrong(&key, &what);
                }
                let lives_until = session.last_at.plus(self.scenario.idle_millis);
                // One that has expired is none, as for whoever reads it.
                let unexpired = entry.filter(|entry| entry.expires_at > Some(commit.now));
                if unexpired.is_some_and(|entry| entry.expires_at < Some(lives_until)) {
                    return wrong(&key, "expires before the session");
                }
                expected.insert(key);
            }
            let (workspace, _, session_name) = name;
            for (detector, until) in &session.blocks {
                let key = format!("finding|{detector}|{workspace}/session={session_name}");
                let entry = self.guard.entry(&key);
                let blocked = entry.is_some_and(|entry| entry.verdict == Verdict::Block);
                if !blocked || entry.and_then(|entry| entry.expires_at) != Some(*until) {
                    return wrong(&key, &format!("expected a block until {until}"));
                }
                expected.insert(key);
            }
        }
        for (key, _) in self.guard.of((StageName::Meter, commit.partition)) {
            if !expected.contains(key) {
                return wrong(key, "is still there, its session or budget is not");
            }
        }
        Ok(())
    }

    fn check_lane_findings(&self, commit: &MeterCommit) -> Result<(), Violation> {
        let here = format!("meter {} commit {}", commit.partition, commit.seq);
        let wrong = |key: &str, what: String| {
            Err(Violation::new(
                Promise::Findings,
                format!("{here}: {key}: {what}"),
            ))
        };
        let reference = &self.meters[commit.partition as usize];
        // Lanes of several models share a key: any of their episodes may stand there.
        let mut lanes: BTreeMap<String, Vec<EpisodeNow>> = BTreeMap::new();
        let mut exceeded = BTreeSet::new();
        for ((workspace, root, name), session) in &reference.sessions {
            let kind = if *root { "root_session" } else { "session" };
            let scope = format!("{workspace}/{kind}={name}");
            for ((agent, _), episode) in session.episodes() {
                let detector = CONDITIONS[episode.condition].name();
                let key = format!("{scope}|{detector}|{}|{agent}", episode.rule);
                lanes.entry(key).or_default().push(episode);
            }
            for ((budget, scope), account) in &session.accounts {
                if account.exceeded {
                    exceeded.insert(format!("{scope}|budget_exceeded|{budget}|"));
                }
            }
        }
        let writer = (StageName::Meter, commit.partition);
        let open: BTreeMap<_, _> = self.findings.open(writer).collect();
        for (key, finding) in &open {
            let known = match finding.detector {
                Detector::BudgetExceeded => exceeded.contains(*key),
                _ => lanes.get(*key).is_some_and(|episodes| {
                    episodes.iter().any(|episode| self.says(finding, episode))
                }),
            };
            if !known {
                let expected = lanes.get(*key);
                return wrong(key, format!("is open: {finding:?}, expected {expected:?}"));
            }
        }
        let expected = lanes.keys().chain(&exceeded);
        for key in expected {
            if !open.contains_key(key.as_str()) {
                return wrong(key, "is not open".to_owned());
            }
        }
        if self.findings.closed(writer) != reference.closed {
            let counts = (self.findings.closed(writer), reference.closed);
            return wrong("closed findings", format!("{counts:?}"));
        }
        Ok(())
    }

    fn says(&self, finding: &Finding, episode: &EpisodeNow) -> bool {
        let log = &self.scenario.log;
        let evidence = episode
            .evidence
            .iter()
            .map(|event_index| &*log[*event_index].event.id);
        let close = |one: f64, other: f64| (one - other).abs() <= 1e-9 * other.abs().max(1.0);
        finding.severity == episode.severity
            && finding.opened_at == episode.opened_at
            && finding.last_at == episode.last_at
            && close(finding.measured, episode.measured)
            && close(finding.threshold, episode.threshold)
            && finding.wasted_usd.get() == episode.wasted
            && finding
                .evidence
                .iter()
                .map(|one| one.id.as_str())
                .eq(evidence)
    }
}
