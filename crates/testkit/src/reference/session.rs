//! One session: accounts of session budgets, lanes, session blocks.

use std::collections::BTreeMap;

use spendfuse_domain::finding::{DetectorAction, DetectorRules};
use spendfuse_domain::{Attribution, Budget, Dimension, UnixMillis, WindowKind};

use super::detectors::{CONDITIONS, EpisodeNow, LaneReference};
use super::spend::{Tally, counts, dimensions_of, scope_of};
use crate::scenario::LogEvent;

/// Workspace, whether it is a root session, name.
pub type SessionName = (String, bool, String);

/// The account of a session budget.
#[derive(Clone, Debug, Default)]
pub struct SessionTally {
    /// Version in which the count began.
    pub began: usize,
    /// Place in the log of what it began with.
    pub first: usize,
    /// The sums.
    pub tally: Tally,
    /// Whether its `budget_exceeded` finding is open.
    pub exceeded: bool,
}

impl Tally {
    /// What is counted here of a call that has grown from `before` to `now`, where this holds it: not
    /// so much less that less than nothing were left. Where nothing is held, only what is more.
    pub fn growth(&self, now: &LogEvent, before: &LogEvent) -> Self {
        let mut more = Self::default();
        more.add(now);
        more.take_back(before);
        let cost = more.cost.max(-self.cost);
        let priced = self.cost + cost - self.unpriced;
        Self {
            cost,
            unpriced: more.unpriced.max(-self.unpriced).min(priced),
            tokens: more.tokens.max(-self.tokens),
            calls: more.calls.max(-self.calls),
        }
    }

    /// Adds what was counted elsewhere.
    pub fn join(&mut self, other: &Self) {
        self.cost += other.cost;
        self.unpriced += other.unpriced;
        self.tokens += other.tokens;
        self.calls += other.calls;
    }
}

/// Agent and model.
type LaneName = (String, String);

/// A live session.
#[derive(Clone, Debug)]
pub struct ReferenceSession {
    /// Engine time of its first event.
    pub opened_at: UnixMillis,
    /// Engine time of its last event.
    pub last_at: UnixMillis,
    /// Place in the log of its first event; what is left of one that has ended has none.
    pub first: Option<usize>,
    /// By budget id and scope text.
    pub accounts: BTreeMap<(String, String), SessionTally>,
    /// Until when the session is refused, by detector.
    pub blocks: BTreeMap<&'static str, UnixMillis>,
    lanes: BTreeMap<LaneName, LaneReference>,
    /// Until when each open episode keeps the session blocked.
    blocked_by: BTreeMap<(LaneName, usize), UnixMillis>,
}

impl ReferenceSession {
    /// A session that begins at `now`.
    pub fn begin(now: UnixMillis) -> Self {
        Self {
            opened_at: now,
            last_at: now,
            first: None,
            accounts: BTreeMap::new(),
            blocks: BTreeMap::new(),
            lanes: BTreeMap::new(),
            blocked_by: BTreeMap::new(),
        }
    }

    /// The account of that budget and scope, begun at `index` of the log where it is new.
    pub fn account(&mut self, name: (String, String), index: usize) -> &mut SessionTally {
        self.accounts.entry(name).or_insert_with(|| SessionTally {
            first: index,
            ..SessionTally::default()
        })
    }

    /// Takes a generation step; returns how many episodes ended with it.
    pub fn step(
        &mut self,
        index: usize,
        one: &LogEvent,
        rules: &DetectorRules,
        now: UnixMillis,
    ) -> usize {
        let who = &one.event.attribution;
        let name = (who.agent.to_string(), who.model.to_string());
        let lane = self.lanes.entry(name.clone()).or_default();
        let fired_before = lane.open().len();
        let ended = lane.step(index, one, rules);
        debug_assert!(ended.len() <= fired_before);
        for which in &ended {
            self.blocked_by.remove(&(name.clone(), *which));
        }
        for episode in lane.open() {
            let which = episode.condition;
            let grew =
                *episode.evidence.last().unwrap_or(&index) == index || episode.evidence.len() == 20;
            let detector = CONDITIONS[which];
            let rule = rules.for_lane(&who.workspace, &who.feature, &who.agent, detector);
            let acts = episode.severity >= rule.at && rule.action == DetectorAction::BlockSession;
            let until = self.blocked_by.get(&(name.clone(), which));
            if grew && acts && until.is_none_or(|until| *until <= now) {
                let until = now.plus(rule.cooldown_millis);
                self.blocked_by.insert((name.clone(), which), until);
                let block = self.blocks.entry(detector.name()).or_insert(until);
                *block = until.max(*block);
            }
        }
        ended.len()
    }

    /// Whether only blocks are left of it.
    pub fn is_over(&self) -> bool {
        self.accounts.is_empty() && self.lanes.is_empty() && !self.blocks.is_empty()
    }

    /// Whether it has ended by `now`, or the last block of one that is over.
    pub fn has_ended(&self, now: UnixMillis, idle_millis: i64) -> bool {
        match self.is_over() {
            true => self.blocks.values().all(|until| *until < now),
            false => now.since(self.last_at) > idle_millis,
        }
    }

    /// The open episodes, with the lane's agent and model.
    pub fn episodes(&self) -> Vec<(&LaneName, EpisodeNow)> {
        let lanes = self.lanes.iter();
        lanes
            .flat_map(|(name, lane)| lane.open().into_iter().map(move |one| (name, one)))
            .collect()
    }

    /// How many findings close if the session ends now.
    pub fn open_findings(&self) -> usize {
        let exceeded = self.accounts.values().filter(|one| one.exceeded).count();
        self.episodes().len() + exceeded
    }
}

/// The session or root session that an event belongs to; a session without a root is its own.
pub fn session_of(who: &Attribution<'_>, root: bool) -> Option<SessionName> {
    let name = match root {
        true if who.root_session.is_empty() => &who.session,
        true => &who.root_session,
        false => &who.session,
    };
    (!name.is_empty()).then(|| (who.workspace.to_string(), root, name.to_string()))
}

/// The scope of `budget` for an event, its session added; `None` where it does not count there.
pub fn session_scope(budget: &Budget, who: &Attribution<'_>) -> Option<String> {
    let root = budget.window == WindowKind::RootSession;
    let (_, _, name) = session_of(who, root)?;
    let mut who = who.clone();
    if root {
        who.root_session = name.into();
    }
    if !counts(budget, &who) {
        return None;
    }
    let mut dimensions = dimensions_of(budget);
    dimensions.push(if root {
        Dimension::RootSession
    } else {
        Dimension::Session
    });
    dimensions.sort();
    dimensions.dedup();
    scope_of(&dimensions, &who)
}
