//! The end of a commit: settle what was touched, publish findings, write the changelog.

use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_domain::budget::{BudgetId, CompiledBudget};
use spendfuse_domain::finding::{DetectorRule, Finding, FindingState};
use spendfuse_domain::verdict::{BlocklistEntry, EventRef, Verdict, budget_key, finding_key};
use spendfuse_domain::{Amount, Figures, Nanos, UnixMillis};

use super::changelog::{MeterMark, mark_key};
use super::session::{Session, SessionAccount, account_place};
use super::sessions::SessionId;
use super::{Meter, MeterOutputs};
use crate::book::BudgetBook;
use crate::codec;
use crate::detect::episode::Episode;
use crate::detect::lane::{Lane, LaneRule};
use crate::publish::{self, Pace};

/// The window of a session's account that ends before its count does, and why.
#[derive(Clone, Copy)]
pub(super) struct AccountEnds<'a> {
    /// Its label.
    pub(super) window: &'a str,
    /// When it began.
    pub(super) opened_at: UnixMillis,
    /// What its app lets the session spend.
    pub(super) limit: Option<Nanos>,
    /// Why, for people.
    pub(super) why: &'a str,
}

impl Meter {
    /// Ends the running commit.
    pub fn finish(&mut self) -> MeterOutputs {
        self.settle_touched();
        self.publish_grown();
        for (partition, mut deltas) in self.fold.take(&self.book.series) {
            deltas.meter_partition = self.config.partition;
            deltas.prev = std::mem::replace(&mut self.told[partition as usize], self.seq);
            deltas.seq = self.seq;
            deltas.budget_version = self.book.version;
            deltas.through = self.through;
            self.outputs.deltas.push((partition, deltas));
        }
        if self.reconsider.is_empty() {
            self.settled_version = self.book.version;
        }
        self.tell_of_ended_sessions();
        let partition = self.config.partition;
        let place = || format!("meter partition {partition}");
        let (told, limit) = (&mut self.outputs.told, &mut self.alert_limit);
        told.end(self.now, &mut self.stamps, limit, place);
        let mark = MeterMark {
            now: self.now,
            budget_version: self.book.version,
            told: self.told.clone(),
            settled_version: self.settled_version,
            alert_limit: self.alert_limit.clone(),
            remembers_since: self.dedupe.logged_since(self.now),
        };
        let record = (mark_key(), Some(codec::encode(&mark)));
        self.outputs.told.changelog.push(record);
        std::mem::take(&mut self.outputs)
    }

    /// Takes back what was published: the next commit tells of about as many identities, and uses
    /// their room.
    pub fn take_back(&mut self, published: MeterOutputs) {
        let mut ids = published.ids;
        ids.clear();
        debug_assert!(self.outputs.ids.ids.is_empty());
        self.outputs.ids = ids;
    }

    /// Settles the session when the running commit ends.
    pub(super) fn settle_at_end(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id)
            && !std::mem::replace(&mut session.touched, true)
        {
            self.touched.push(id);
        }
    }

    fn settle_touched(&mut self) {
        let book = Arc::clone(&self.book);
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            session.touched = false;
            if !session.accounts.is_empty() {
                let mut session = std::mem::take(session);
                self.settle_session(&mut session, id, &book);
                *self.sessions.get_mut(id).expect("it is only emptied") = session;
            }
            let session = &self.sessions[id];
            let record = (session.name().to_bytes(), Some(codec::encode(session)));
            self.outputs.told.changelog.push(record);
        }
        // Its room is used again.
        self.touched = touched;
    }

    fn settle_session(&mut self, session: &mut Session, id: SessionId, book: &BudgetBook) {
        let window = session.name().window_label();
        let expires_at = self.published_expiry(session.last_at);
        let opened_at = session.opened_at;
        let through = self.through.map(|offset| (self.config.partition, offset));
        let through = BTreeMap::from_iter(through);
        let ends = AccountEnds {
            window: &window,
            opened_at,
            limit: session.limit(),
            why: "the budget was removed, or counts anew",
        };
        session.accounts.retain_mut(|one| {
            let Some(compiled) = budget_of(one, opened_at, book) else {
                // What cannot be read is not gone.
                let id = BudgetId::new(&one.budget);
                if id.is_some_and(|id| book.is_unreadable(&id)) {
                    return true;
                }
                self.withdraw(one, book, ends);
                return false;
            };
            let own = compiled.with_limit_told(ends.limit);
            let compiled = own.as_ref().unwrap_or(compiled);
            let place = account_place(&one.scope, &window, opened_at, expires_at);
            let (seq, now) = (self.seq, self.now);
            let mut settlement =
                publish::settle(&mut one.account, compiled, place, seq, now, Pace::AtOnce);
            settlement.counts_through(&through);
            let told = &mut self.outputs.told;
            told.settled(&mut settlement, &mut self.alert_limit);
            if let Some(time) = settlement.again_at {
                self.settle_at.entry(time).or_default().push(id);
            }
            true
        });
    }

    /// The account's budget is gone or ended: readers forget its verdict, people its alerts.
    pub(super) fn withdraw(
        &mut self,
        one: &mut SessionAccount,
        book: &BudgetBook,
        ends: AccountEnds<'_>,
    ) {
        let Some(id) = BudgetId::new(&one.budget) else {
            return;
        };
        if one.account.published.is_some() {
            let tombstone = (budget_key(&id, &one.scope), None);
            self.outputs.told.blocklist.push(tombstone);
        }
        let compiled = book.named(&id);
        let own = compiled.and_then(|compiled| compiled.with_limit_told(ends.limit));
        let compiled = own.as_ref().or(compiled);
        let closed = publish::close_finding(&mut one.account, &id, compiled, &one.scope, self.now);
        self.outputs.told.findings.extend(closed);
        let place = account_place(&one.scope, ends.window, ends.opened_at, self.now);
        let lifted = publish::lift(&mut one.account, &id, place, ends.why, self.now);
        self.outputs.told.alerts.extend(lifted);
    }

    /// When readers may forget a session's verdict: its idle limit after the last event, rounded up
    /// to a quarter of that limit, so that it does not change with every event.
    pub(super) fn published_expiry(&self, last_at: UnixMillis) -> UnixMillis {
        let quarter = (self.config.session_idle_millis / 4).max(1);
        let ends = last_at.0 + self.config.session_idle_millis;
        UnixMillis(ends.div_euclid(quarter) * quarter + quarter)
    }

    fn publish_grown(&mut self) {
        for place in std::mem::take(&mut self.grown) {
            let Some(session) = self.sessions.get(place.session) else {
                continue;
            };
            let lane = &session.lanes[place.lane];
            if let Some(episode) = lane.episode(place.rule) {
                let finding = lane_finding(session, lane, place.rule, episode, FindingState::Open);
                self.outputs.told.findings.push(finding);
            }
        }
    }

    /// Ends a session: its findings close, its verdicts and its state go.
    pub(super) fn end_session(&mut self, id: SessionId) {
        let Some(mut session) = self.sessions.remove(id) else {
            return;
        };
        self.expiry.remove(&(session.looked_at, id));
        let book = Arc::clone(&self.book);
        let window = session.name().window_label();
        let ends = AccountEnds {
            window: &window,
            opened_at: session.opened_at,
            limit: session.limit(),
            why: "the session has ended",
        };
        for one in &mut session.accounts {
            self.withdraw(one, &book, ends);
        }
        let scope = session.name().scope();
        for detector in &session.blocked_by {
            let entry_key = finding_key(detector, &scope);
            self.outputs.told.blocklist.push((entry_key, None));
        }
        for lane in &session.lanes {
            for rule in LaneRule::ALL {
                if let Some(episode) = lane.episode(rule) {
                    let finding = lane_finding(&session, lane, rule, episode, FindingState::Closed);
                    self.outputs.told.findings.push(finding);
                }
            }
        }
        let tombstone = (session.name().to_bytes(), None);
        self.outputs.told.changelog.push(tombstone);
    }
}

/// The budget of an account of a session that began at `opened_at`, `None` where it is gone or counts something else now.
pub(super) fn budget_of<'a>(
    one: &SessionAccount,
    opened_at: UnixMillis,
    book: &'a BudgetBook,
) -> Option<&'a CompiledBudget> {
    let compiled = book.named(&BudgetId::new(&one.budget)?)?;
    one.count()
        .goes_on_in(compiled.count, opened_at)
        .then_some(compiled)
}

/// The finding of an episode, with its key.
pub(super) fn lane_finding(
    session: &Session,
    lane: &Lane,
    rule: LaneRule,
    episode: &Episode,
    state: FindingState,
) -> (String, Finding) {
    let scope = session.name().scope();
    let detector = rule.detector();
    let rule_part = rule.key_part(&episode.rule);
    let key = format!("{scope}|{}|{rule_part}|{}", detector.name(), lane.agent);
    let finding = Finding {
        v: 1,
        detector,
        scope,
        agent: lane.agent.clone(),
        model: lane.model.clone(),
        customer: episode.customer.clone(),
        feature: episode.feature.clone(),
        rule: rule_part,
        state,
        severity: episode.severity(),
        opened_at: episode.opened_at,
        last_at: episode.last_at,
        measured: episode.measured,
        threshold: episode.threshold,
        wasted_usd: episode.wasted,
        evidence: episode.evidence.clone(),
        message: rule.message(episode),
    };
    (key, finding)
}

/// The blocklist entry of a session that a detector's rule blocks.
pub(super) fn session_block(
    scope: &str,
    rule: &DetectorRule,
    message: String,
    seq: u64,
    now: UnixMillis,
    until: UnixMillis,
    caused_by: EventRef,
) -> BlocklistEntry {
    debug_assert!(!message.is_empty());
    BlocklistEntry {
        v: 1,
        budget: rule.id.clone(),
        scope: scope.to_owned(),
        filter: None,
        verdict: Verdict::Block,
        action: "block_session".to_owned(),
        figures: Figures {
            spent: Some(Amount::Usd(Nanos::ZERO)),
            limit: None,
        },
        percent: None,
        window: format!("cooldown:{}", rule.detector().name()),
        window_start: now,
        resets_at: Some(until),
        expires_at: Some(until),
        counted_from: now,
        count_since: None,
        downgrade_to: None,
        version: seq,
        decided_at: now,
        caused_by: Some(caused_by),
        through: BTreeMap::new(),
    }
}
