//! What the meter does with a call that belongs to a session: session budgets and detectors.

use std::sync::Arc;

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Call, Event};
use spendfuse_domain::finding::{DetectorAction, DetectorRule};
use spendfuse_domain::window::WindowKind;
use spendfuse_domain::{Nanos, UnixMillis};

use super::session::{Session, SessionKey, event_ref, root_of, session_scope};
use super::{Charge, EpisodePlace, Meter, SLICE};
use crate::alert::{Alert, AlertKind};
use crate::detect::episode::{Change, Episode};
use crate::detect::lane::{LaneRule, LaneRules};
use crate::detect::{StepFacts, is_generation};

impl Meter {
    pub(super) fn watch_sessions(
        &mut self,
        event: &Event<'_>,
        call: &Call<'_>,
        charge: &Charge<'_>,
        spend: Spend,
        unpriced: Nanos,
    ) {
        if root_of(event).is_empty() {
            return;
        }
        self.keep_alive(event);
        self.count_session_budgets(event, spend, unpriced);
        if !event.attribution.session.is_empty() && is_generation(&call.operation) {
            self.run_detectors(event, call, charge);
        }
    }

    /// Every call of a session keeps it alive, whether or not a budget or a detector looks at it.
    fn keep_alive(&mut self, event: &Event<'_>) {
        let session = &event.attribution.session;
        if !session.is_empty() {
            self.touch_session(session_key(event, false, session));
        }
        let is_rooted =
            |place: &u32| self.book.budget(*place).budget.window == WindowKind::RootSession;
        if self.book.session_budgets.iter().any(is_rooted) {
            self.touch_session(session_key(event, true, root_of(event)));
        }
    }

    fn touch_session(&mut self, key: SessionKey) {
        if self.sessions.contains_key(&key) {
            self.end_if_idle(&key);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.last_at = self.now;
            self.touched.insert(key);
        }
    }

    fn count_session_budgets(&mut self, event: &Event<'_>, spend: Spend, unpriced: Nanos) {
        let book = Arc::clone(&self.book);
        for place in &book.session_budgets {
            let compiled = book.budget(*place);
            let Some(scope) = session_scope(&compiled.budget, event) else {
                continue;
            };
            let root = compiled.budget.window == WindowKind::RootSession;
            let name = if root {
                root_of(event)
            } else {
                &event.attribution.session
            };
            let key = session_key(event, root, name);
            let session = self.live_session(&key);
            let outdated = session.take_outdated(&compiled.budget, compiled.count_id, &scope);
            if let Some(mut outdated) = outdated {
                self.withdraw(&mut outdated, &book);
            }
            self.live_session(&key)
                .account_mut(&compiled.budget, compiled.count_id, &scope)
                .add(spend, unpriced, event);
            self.touched.insert(key);
        }
    }

    fn run_detectors(&mut self, event: &Event<'_>, call: &Call<'_>, charge: &Charge<'_>) {
        let attribution = &event.attribution;
        let book = Arc::clone(&self.book);
        let rules = LaneRules::select(
            &book.rules,
            &attribution.workspace,
            &attribution.feature,
            &attribution.agent,
        );
        let cost = &charge.cost;
        let step = StepFacts {
            event: event_ref(event),
            time: event.time,
            context: call.tokens.context(),
            tokens: call.tokens.total(),
            tool_calls: call.tool_calls,
            prompt_fingerprint: call.prompt_fingerprint,
            tool_fingerprint: call.tool_fingerprint,
            cost: cost.total(),
            input_cost: cost.input + cost.cache_read + cost.cache_write,
        };
        let key = session_key(event, false, &attribution.session);
        let lane = self
            .live_session(&key)
            .lane_mut(&attribution.agent, &attribution.model);
        let mut changes = Vec::new();
        lane.step(
            &step,
            rules,
            &attribution.customer,
            &attribution.feature,
            |rule, change| {
                changes.push((rule, change));
            },
        );
        for (rule, change) in changes {
            let place = EpisodePlace {
                session: key.clone(),
                agent: attribution.agent.to_string(),
                model: attribution.model.to_string(),
                rule: LaneRule::ALL
                    .iter()
                    .position(|one| *one == rule)
                    .unwrap_or(0),
            };
            match change {
                Change::None => {}
                Change::Closed(episode) => self.close_episode(&place, episode),
                Change::Grew => self.act_on_episode(place, rules.of(rule)),
            }
        }
        self.touched.insert(key);
    }

    /// Raises the alert and blocks the session where the rule says so; the finding itself is
    /// published once per commit.
    fn act_on_episode(&mut self, place: EpisodePlace, rule: &DetectorRule) {
        let now = self.now;
        let scope = place.session.scope();
        let Some(episode) = self.sessions.get_mut(&place.session).and_then(|session| {
            session
                .lane_mut(&place.agent, &place.model)
                .episode_mut(place.rule())
                .as_mut()
        }) else {
            return;
        };
        let acts = episode.severity() >= rule.at && rule.action != DetectorAction::Observe;
        if acts && !episode.alerted {
            episode.alerted = true;
            let detector = rule.detector.name();
            self.outputs.alerts.push(Alert {
                v: 1,
                key: format!(
                    "{scope}|{detector}|{}|{}|{}",
                    rule.id, place.agent, episode.opened_at.0
                ),
                kind: AlertKind::Finding,
                severity: episode.severity(),
                scope: scope.clone(),
                subject: detector.to_owned(),
                message: place.rule().message(episode),
                at: now,
            });
        }
        let blocks = acts && rule.action == DetectorAction::BlockSession;
        let is_over = |until| until <= now && !is_broken(Break::ExpiredVerdictNotRepublished);
        if blocks && episode.blocked_until.is_none_or(is_over) {
            let until = now.plus(rule.cooldown_millis);
            episode.blocked_until = Some(until);
            let entry = super::finish::session_block(
                &scope,
                rule,
                place.rule().message(episode),
                self.seq,
                now,
                until,
                &episode.evidence,
            );
            let detector = rule.detector.name();
            let key = spendfuse_domain::verdict::finding_key(detector, &scope);
            self.outputs.blocklist.push((key, Some(entry)));
            if let Some(session) = self.sessions.get_mut(&place.session)
                && !session.blocked_by.iter().any(|one| one == detector)
            {
                session.blocked_by.push(detector.to_owned());
            }
        }
        self.grown.insert(place);
    }

    pub(super) fn close_episode(&mut self, place: &EpisodePlace, episode: Episode) {
        self.grown.remove(place);
        let finding = super::finish::lane_finding(
            place,
            &episode,
            spendfuse_domain::finding::FindingState::Closed,
        );
        self.outputs.findings.push(finding);
        self.republish_namesake(place);
    }

    /// Lanes of an agent's several models share the findings' key: when one closes, another that
    /// is open is told again, so that it stands there.
    fn republish_namesake(&mut self, closed: &EpisodePlace) {
        let Some(session) = self.sessions.get_mut(&closed.session) else {
            return;
        };
        let namesake = session.lanes.iter_mut().find_map(|lane| {
            let same_agent = lane.agent == closed.agent && lane.model != closed.model;
            let is_open = same_agent && lane.episode_mut(closed.rule()).is_some();
            is_open.then(|| lane.model.clone())
        });
        if let Some(model) = namesake {
            self.grown.insert(EpisodePlace {
                model,
                ..closed.clone()
            });
        }
    }

    /// The session, begun where it is new; one that was idle for too long ends first, whether or
    /// not a tick came by in between.
    fn live_session(&mut self, key: &SessionKey) -> &mut Session {
        self.end_if_idle(key);
        let now = self.now;
        let idle = self.config.session_idle_millis;
        let expiry = &mut self.expiry;
        let session = self.sessions.entry(key.clone()).or_insert_with(|| {
            expiry.insert((now.plus(idle), key.clone()));
            Session::begin(key, now)
        });
        session.last_at = now;
        session
    }

    fn end_if_idle(&mut self, key: &SessionKey) {
        let idle = self.config.session_idle_millis;
        let last_at = self.sessions.get(key).map(|session| session.last_at);
        if last_at.is_some_and(|last_at| self.now.since(last_at) > idle) {
            self.end_session(key);
        }
    }

    /// `spendfuse.session_end`: the named session ends, and the root if it is its own.
    pub(super) fn end_named_session(&mut self, event: &Event<'_>) {
        let session = &event.attribution.session;
        let root = root_of(event);
        if !session.is_empty() {
            self.end_session(&session_key(event, false, session));
        }
        if session.is_empty() || &**session == root {
            self.end_session(&session_key(event, true, root));
        }
    }

    pub(super) fn end_idle_sessions(&mut self) {
        let mut ended = 0;
        while ended < SLICE
            && self
                .expiry
                .first()
                .is_some_and(|(deadline, _)| *deadline < self.now)
        {
            let Some((_, key)) = self.expiry.pop_first() else {
                return;
            };
            let Some(last_at) = self.sessions.get(&key).map(|session| session.last_at) else {
                continue;
            };
            let deadline: UnixMillis = last_at.plus(self.config.session_idle_millis);
            if deadline < self.now {
                self.end_session(&key);
                ended += 1;
            } else {
                self.expiry.insert((deadline, key));
            }
        }
    }
}

fn session_key(event: &Event<'_>, root: bool, name: &str) -> SessionKey {
    SessionKey {
        workspace: event.attribution.workspace.to_string(),
        root,
        name: name.to_owned(),
    }
}
