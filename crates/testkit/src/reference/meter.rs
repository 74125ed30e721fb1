//! What one meter partition must know after each commit.

use std::collections::BTreeMap;

use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::{Body, UnixMillis, WindowKind};
use spendfuse_engine::meter::{Corrected, Counted};

use super::identities::{Expected, Identities, placed};
use super::session::{ReferenceSession, SessionName, session_of, session_scope};
use super::spend::Tally;
use crate::corrections::{Made, Stands};
use crate::scenario::{BudgetVersion, LogEvent, Scenario};

/// A meter partition, recomputed from its events in counting order.
pub struct MeterReference<'a> {
    scenario: &'a Scenario,
    now: UnixMillis,
    identities: Identities,
    /// Live sessions.
    pub sessions: BTreeMap<SessionName, ReferenceSession>,
    /// How many findings closed so far.
    pub closed: usize,
}

impl<'a> MeterReference<'a> {
    /// A partition without events.
    pub fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            now: UnixMillis::default(),
            identities: Identities::default(),
            sessions: BTreeMap::new(),
            closed: 0,
        }
    }

    /// Budgets are those of `version` from here on: accounts of budgets that are gone or that
    /// count something else end.
    pub fn adopt(&mut self, version: usize) {
        let scenario = self.scenario;
        let budgets = &scenario.versions[version].budgets;
        for session in self.sessions.values_mut() {
            session.accounts.retain(|(budget, _), account| {
                let same = budgets.iter().any(|one| {
                    one.id.as_str() == budget
                        && scenario.count_begins(version, one).1 == account.began
                });
                if !same && account.exceeded {
                    self.closed += 1;
                }
                same
            });
        }
    }

    /// Takes the next event; says what must become of it.
    pub fn count(&mut self, index: usize, version: usize, rules: &DetectorRules) -> Expected {
        let one = &self.scenario.log[index];
        self.now = self.now.max(one.arrival);
        let is_history = one.judged_at.is_some();
        if is_history && one.event.body == Body::SessionEnd {
            return Expected::Counted;
        }
        let expected = self.identities.judge(
            &self.scenario.log,
            index,
            self.now,
            self.scenario.horizon_millis,
        );
        if is_history {
            return expected;
        }
        let (before, like) = match expected {
            Expected::Counted => (None, None),
            Expected::Grown { before, like, .. } => {
                (Some((before, self.identities.first_of(before))), like)
            }
            _ => return expected,
        };
        let placed = like.map(|like| placed(one, &self.scenario.log[like]));
        let one = placed.as_ref().unwrap_or(one);
        match &one.event.body {
            Body::Usage(call) => {
                let generation = ["", "chat", "completion", "responses", "generate_content"];
                let is_generation = generation.contains(&&*call.operation);
                self.usage(index, (one, before), is_generation, version, rules);
            }
            Body::SessionEnd => self.end_named(one),
            Body::Revenue(_) => {}
        }
        expected
    }

    /// Takes a correction, which stands at `index` of the log; says what must become of it.
    pub fn correct(&mut self, index: usize, made: &Made, version: usize) -> Expected {
        let scenario = self.scenario;
        let original = &scenario.log[made.of];
        self.now = self.now.max(scenario.log[index].arrival);
        let (now, horizon) = (self.now, scenario.horizon_millis);
        let identities = &mut self.identities;
        let expected = identities.judge_correction(index, made, now, horizon);
        if expected != Expected::Counted || original.judged_at.is_some() {
            return expected;
        }
        let budgets = &scenario.versions[version].budgets;
        for budget in budgets.iter().filter(|one| one.window.is_session()) {
            let (from, began) = scenario.count_begins(version, budget);
            let named = |stands: &Option<Stands>| {
                let stands = stands.as_ref();
                stands.map(|stands| stands.event.attribution.clone())
            };
            let moves = named(&made.before) != named(&made.after);
            for (stands, times) in [(&made.before, -1), (&made.after, 1)] {
                let Some(stands) = stands else { continue };
                let who = &stands.event.attribution;
                let root = budget.window == WindowKind::RootSession;
                let (Some(scope), Some(name)) = (session_scope(budget, who), session_of(who, root))
                else {
                    continue;
                };
                let Some(session) = self.sessions.get_mut(&name) else {
                    continue;
                };
                let has_it = session.first.is_some_and(|first| first <= made.of);
                if !has_it || made.of < from || session.has_ended(self.now, scenario.idle_millis) {
                    continue;
                }
                let name = (budget.id.to_string(), scope);
                // Only an entry that was not there begins an account.
                let begins = moves && times > 0;
                if !begins && !session.accounts.contains_key(&name) {
                    continue;
                }
                let account = session.account(name, index);
                account.began = began;
                account.tally.add_standing(stands, times);
            }
        }
        expected
    }

    /// `before`: of a call that has grown, the places of what stood for it and of its first event.
    fn usage(
        &mut self,
        index: usize,
        (one, before): (&LogEvent, Option<(usize, usize)>),
        is_generation: bool,
        version: usize,
        rules: &DetectorRules,
    ) {
        let who = &one.event.attribution;
        let scenario = self.scenario;
        let BudgetVersion { budgets, .. } = &scenario.versions[version];
        let has_root = budgets
            .iter()
            .any(|budget| budget.window == WindowKind::RootSession);
        for root in [false, true] {
            if let Some(name) = session_of(who, root).filter(|_| !root || has_root) {
                self.keep_alive(&name, index);
            }
        }
        for budget in budgets.iter().filter(|one| one.window.is_session()) {
            let root = budget.window == WindowKind::RootSession;
            let Some(scope) = session_scope(budget, who) else {
                continue;
            };
            let Some(name) = session_of(who, root) else {
                continue;
            };
            let account = (budget.id.to_string(), scope);
            let mut more = Tally::default();
            match before {
                None => more.add(one),
                Some((before, first)) => {
                    more = self.growth(&name, &account, first, (one, &scenario.log[before]));
                    if more == Tally::default() {
                        continue;
                    }
                }
            }
            let account = self.begun(name, index).account(account, index);
            account.began = scenario.count_begins(version, budget).1;
            account.tally.join(&more);
        }
        // Detectors have seen a call that grows.
        let is_step = is_generation && before.is_none();
        if let Some(name) = session_of(who, false).filter(|_| is_step) {
            let now = self.now;
            self.closed += self.begun(name, index).step(index, one, rules, now);
        }
    }

    /// What an account of a session counts of a call whose first event is at `first`: what is less only
    /// where the account was there by then, since its session may be another one.
    fn growth(
        &self,
        name: &SessionName,
        account: &(String, String),
        first: usize,
        (now, before): (&LogEvent, &LogEvent),
    ) -> Tally {
        let session = self.sessions.get(name);
        let known = session.and_then(|session| session.accounts.get(account));
        let holds_it = known.filter(|known| known.first <= first);
        let held = holds_it.map_or_else(Tally::default, |known| known.tally.clone());
        held.growth(now, before)
    }

    fn keep_alive(&mut self, name: &SessionName, index: usize) {
        let Some(session) = self.sessions.get_mut(name) else {
            return;
        };
        if session.has_ended(self.now, self.scenario.idle_millis) {
            self.end(name);
        }
        if let Some(session) = self.sessions.get_mut(name) {
            session.last_at = self.now;
            if session.is_over() {
                session.opened_at = self.now;
                session.first = Some(index);
            }
        }
    }

    fn begun(&mut self, name: SessionName, index: usize) -> &mut ReferenceSession {
        let now = self.now;
        self.sessions.entry(name).or_insert_with(|| {
            let mut session = ReferenceSession::begin(now);
            session.first = Some(index);
            session
        })
    }

    fn end(&mut self, name: &SessionName) {
        let Some(mut session) = self.sessions.remove(name) else {
            return;
        };
        self.closed += session.open_findings();
        // What blocks it does not end with it.
        session.blocks.retain(|_, until| *until > self.now);
        if !session.blocks.is_empty() {
            let mut left = ReferenceSession::begin(self.now);
            left.blocks = session.blocks;
            self.sessions.insert(name.clone(), left);
        }
    }

    fn end_named(&mut self, one: &LogEvent) {
        let who = &one.event.attribution;
        let session = session_of(who, false);
        let root = session_of(who, true);
        let is_own_root = match (&session, &root) {
            (Some(session), Some(root)) => session.2 == root.2,
            _ => true,
        };
        if let Some(name) = session {
            self.end(&name);
        }
        if let Some(name) = root.filter(|_| is_own_root) {
            self.end(&name);
        }
    }

    /// The commit ends at `now`: idle sessions end where it `is_timely`, `budget_exceeded` findings open
    /// and close.
    pub fn end_commit(&mut self, now: UnixMillis, version: usize, is_timely: bool) {
        self.now = now;
        let idle = self.scenario.idle_millis;
        let sessions = self.sessions.iter();
        let ended: Vec<_> = sessions
            .filter(|(_, session)| is_timely && session.has_ended(now, idle))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.end(&name);
        }
        let budgets = &self.scenario.versions[version].budgets;
        for session in self.sessions.values_mut() {
            for ((id, _), account) in &mut session.accounts {
                let budget = budgets.iter().find(|one| one.id.as_str() == id);
                let exceeded = budget.is_some_and(|budget| account.tally.standing(budget).exceeded);
                self.closed += usize::from(account.exceeded && !exceeded);
                account.exceeded = exceeded;
            }
        }
    }
}

/// Whether the engine's answer is the expected one.
pub fn agrees(expected: Expected, counted: Counted, is_session_end: bool) -> bool {
    match expected {
        Expected::Counted if is_session_end => counted == Counted::SessionEnded,
        Expected::Counted => matches!(counted, Counted::AtAddress(_)),
        Expected::Duplicate => counted == Counted::Duplicate,
        Expected::Conflict => counted == Counted::Conflict,
        Expected::Echo { .. } => counted == Counted::Echo,
        Expected::Grown { .. } => matches!(counted, Counted::Grown(_)),
        Expected::Late => counted == Counted::Late,
    }
}

/// The same for a correction.
pub fn agrees_on_correction(expected: Expected, corrected: Corrected) -> bool {
    match expected {
        Expected::Counted => matches!(corrected, Corrected::Applied { .. }),
        Expected::Duplicate => corrected == Corrected::Twice,
        Expected::Conflict => corrected == Corrected::Conflict,
        Expected::Late => corrected == Corrected::Late,
        Expected::Echo { .. } | Expected::Grown { .. } => false,
    }
}
