//! What the meter does with a call that belongs to a session: session budgets and detectors.

use std::sync::Arc;

use smallvec::SmallVec;
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Call, Event};
use spendfuse_domain::finding::{DetectorAction, DetectorRule, FindingState};
use spendfuse_domain::row::MeterAddress;
use spendfuse_domain::window::WindowKind;
use spendfuse_domain::{Amount, Nanos, Unit, UnixMillis};

use super::commit::AccountEnds;
use super::session::{LanePlace, Session, SessionAccount, SessionName};
use super::sessions::SessionId;
use super::{Charge, EpisodePlace, Meter, SLICE};
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::book::BudgetBook;
use crate::detect::episode::{Change, Episode};
use crate::detect::lane::{LaneRule, LaneRules};
use crate::detect::{StepFacts, is_generation};

/// Sessions with a verdict that are passed over to make room for one call.
const MOST_SPARED: usize = 16;

impl Meter {
    pub(super) fn watch_sessions(
        &mut self,
        event: &Event<'_>,
        call: &Call<'_>,
        charge: &Charge<'_>,
        (spend, unpriced): (Spend, Nanos),
    ) {
        let Some(root) = SessionName::root_of(event) else {
            return;
        };
        let session = SessionName::of(event);
        self.make_room_for_sessions();
        // Held once for all that follows: counting up and down costs as much as a lookup.
        let book = Arc::clone(&self.book);
        let mut known = self.keep_alive(&book, session, root);
        let told = call.rare.session_limit;
        self.count_session_budgets(&book, event, &mut known, (spend, unpriced), told, None);
        match session {
            Some(session) if is_generation(&call.operation) => {
                self.run_detectors(&book, session, known, event, call, charge);
            }
            _ => self.note_recent(known, event, spend),
        }
    }

    /// A call that no detector looks at is still spend of its session.
    pub(super) fn note_recent(
        &mut self,
        known: Option<SessionId>,
        event: &Event<'_>,
        spend: Spend,
    ) {
        let now = self.now;
        if let Some(session) = known.and_then(|id| self.sessions.get_mut(id)) {
            let cost = Amount::Usd(spend.cost);
            session.recent.add(cost, event.time.minute(), now);
        }
    }

    /// Every call of a session keeps it alive, whether or not a budget or a detector looks at it.
    /// Returns the session that the call names, where it is live.
    pub(super) fn keep_alive(
        &mut self,
        book: &BudgetBook,
        session: Option<SessionName<'_>>,
        root: SessionName<'_>,
    ) -> Option<SessionId> {
        let known = session.and_then(|session| self.touch_if_live(session));
        let is_rooted = |index: &u32| book.budget(*index).budget.window == WindowKind::RootSession;
        if book.session_budgets.iter().any(is_rooted) {
            self.touch_if_live(root);
        }
        known
    }

    fn touch_if_live(&mut self, name: SessionName<'_>) -> Option<SessionId> {
        let id = self.find_unless_idle(name)?;
        self.touch(id);
        Some(id)
    }

    /// `known`: the session that the event names, as soon as it is live. `told`: what its app lets it
    /// spend from now on. `grown`: of a call that has grown by `spend`, where it was counted first.
    pub(super) fn count_session_budgets(
        &mut self,
        book: &BudgetBook,
        event: &Event<'_>,
        known: &mut Option<SessionId>,
        spend: (Spend, Nanos),
        told: Option<Nanos>,
        grown: Option<MeterAddress>,
    ) {
        let (now, running) = (self.now, self.running_event());
        for index in &book.session_budgets {
            let compiled = book.budget(*index);
            let name = SessionName::counted_by(compiled, event);
            let (Some(name), Some(scope)) = (name, compiled.scope_of(&event.attribution)) else {
                continue;
            };
            let counts = match grown {
                Some(first) => {
                    self.counts_of_growth(name, (compiled, scope.as_str()), first, spend)
                }
                None => Some(spend),
            };
            let Some((spend, unpriced)) = counts else {
                continue;
            };
            let (id, session) = self.live_session(name, known.filter(|_| !name.root));
            if !name.root {
                *known = Some(id);
            }
            if let Some(told) = told.filter(|_| compiled.budget.limit_from_event) {
                session.set_limit(told);
            }
            let (opened_at, limit) = (session.opened_at, session.limit());
            let (account, outdated) = session.account_mut(compiled, scope, running);
            account.add(spend, unpriced, event, compiled.budget.limit.unit(), now);
            if let Some(outdated) = outdated {
                let gave_way = outdated.budget != account.budget || outdated.scope != account.scope;
                self.withdraw_outdated(outdated, book, name, (opened_at, limit));
                if gave_way {
                    self.tell_of_given_up_account(name);
                }
            }
            self.touch(id);
        }
    }

    /// An account of `name` gave way to that of another count, or to another one.
    pub(super) fn withdraw_outdated(
        &mut self,
        mut outdated: SessionAccount,
        book: &BudgetBook,
        name: SessionName<'_>,
        (opened_at, limit): (UnixMillis, Option<Nanos>),
    ) {
        let ends = AccountEnds {
            window: &name.window_label(),
            opened_at,
            limit,
            why: "it counts anew",
        };
        self.withdraw(&mut outdated, book, ends);
    }

    fn run_detectors(
        &mut self,
        book: &BudgetBook,
        session: SessionName<'_>,
        known: Option<SessionId>,
        event: &Event<'_>,
        call: &Call<'_>,
        charge: &Charge<'_>,
    ) {
        let attribution = &event.attribution;
        let rules = LaneRules::select(
            &book.rules,
            &attribution.workspace,
            &attribution.feature,
            &attribution.agent,
        );
        let cost = &charge.cost;
        let step = StepFacts {
            source: &event.source,
            id: &event.id,
            time: event.time,
            context: call.tokens.context(),
            tokens: call.tokens.total(),
            tool_calls: call.tool_calls,
            prompt_fingerprint: call.prompt_fingerprint,
            tool_fingerprint: call.tool_fingerprint,
            cost: cost.total(),
            input_cost: cost.input + cost.cache_read + cost.cache_write,
        };
        let name = session;
        let now = self.now;
        let (id, session) = self.live_session(name, known);
        let cost = Amount::Usd(step.cost);
        session.recent.add(cost, event.time.minute(), now);
        let place = session.lane_place(&attribution.agent, &attribution.model);
        let lane = match place {
            LanePlace::Own(lane) | LanePlace::InsteadOfAnother(lane) => lane,
            LanePlace::Nowhere => {
                self.touch(id);
                return self.tell_of_crowded_session(name);
            }
        };
        let mut changes: SmallVec<[(LaneRule, Change); 2]> = SmallVec::new();
        session.lanes[lane].step(
            &step,
            rules,
            &attribution.customer,
            &attribution.feature,
            |rule, change| changes.push((rule, change)),
        );
        if matches!(place, LanePlace::InsteadOfAnother(_)) {
            self.tell_of_crowded_session(name);
        }
        for (rule, change) in changes {
            let place = EpisodePlace {
                session: id,
                lane,
                rule,
            };
            match change {
                Change::None => {}
                Change::Closed(episode) => self.close_episode(place, &episode),
                Change::Grew => self.act_on_episode(place, rules.of(rule), &step),
            }
        }
        self.touch(id);
    }

    /// Raises the alert and blocks the session where the rule says so; the finding itself is
    /// published once per commit.
    fn act_on_episode(&mut self, place: EpisodePlace, rule: &DetectorRule, step: &StepFacts<'_>) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(place.session) else {
            return;
        };
        let scope = session.name().scope();
        let rates = session.recent.rates(Unit::Usd, now);
        let lane = &mut session.lanes[place.lane];
        let (agent, model) = (lane.agent.clone(), lane.model.clone());
        let Some(episode) = lane.episode_mut(place.rule).as_mut() else {
            return;
        };
        let acts = episode.severity() >= rule.at && rule.action != DetectorAction::Observe;
        let detector = rule.detector().name();
        if acts && !episode.alerted {
            episode.alerted = true;
            let alert = Alert {
                v: 1,
                key: format!(
                    "{scope}|{detector}|{}|{agent}|{}",
                    rule.id, episode.opened_at.0
                ),
                kind: AlertKind::Finding,
                severity: episode.severity(),
                scope: scope.clone(),
                subject: detector.to_owned(),
                message: place.rule.message(episode),
                at: now,
                count: None,
                details: AlertDetails {
                    action: Some(rule.action.name().to_owned()),
                    ends_at: (rule.action == DetectorAction::BlockSession)
                        .then(|| now.plus(rule.cooldown_millis)),
                    model: Some(model).filter(|model| !model.is_empty()),
                    rates,
                    caused_by: Some(step.event_ref()),
                    ..AlertDetails::default()
                },
            };
            self.outputs.told.alert(alert, &mut self.alert_limit);
        }
        let blocks = acts && rule.action == DetectorAction::BlockSession;
        let is_over = |until| until <= now && !is_broken(Break::ExpiredVerdictNotRepublished);
        if blocks && episode.blocked_until.is_none_or(is_over) {
            let until = now.plus(rule.cooldown_millis);
            episode.blocked_until = Some(until);
            let entry = super::commit::session_block(
                &scope,
                rule,
                place.rule.message(episode),
                self.seq,
                now,
                until,
                step.event_ref(),
            );
            // All lanes and rules of a detector share the entry: a shorter block would free early.
            if session.blocked_until(detector) < Some(until) {
                let key = spendfuse_domain::verdict::finding_key(detector, &scope);
                self.outputs.told.changed_verdict(key, entry);
                session.block(detector, until);
            }
        }
        self.grown.insert(place);
    }

    pub(super) fn close_episode(&mut self, place: EpisodePlace, episode: &Episode) {
        self.grown.remove(&place);
        let Some(session) = self.sessions.get(place.session) else {
            return;
        };
        let lane = &session.lanes[place.lane];
        let finding =
            super::commit::lane_finding(session, lane, place.rule, episode, FindingState::Closed);
        self.outputs.told.findings.push(finding);
        // Lanes of an agent's several models share the findings' key: when one closes, another
        // that is open is told again, so that it stands there.
        if let Some(lane) = session.open_namesake(place.lane, place.rule) {
            self.grown.insert(EpisodePlace { lane, ..place });
        }
    }

    /// The session, begun where it is new; one that was idle for too long ends first, whether or
    /// not a tick came by in between. `known`: it was found for this event already.
    fn live_session(
        &mut self,
        name: SessionName<'_>,
        known: Option<SessionId>,
    ) -> (SessionId, &mut Session) {
        let known = known.or_else(|| self.find_unless_idle(name));
        let id = known.unwrap_or_else(|| {
            let id = self.sessions.begin(name, self.now);
            let first_event = self.running_event();
            self.sessions[id].first_event = Some(first_event);
            self.look_again(id);
            id
        });
        let session = self.sessions.get_mut(id).expect("found or begun above");
        (id, session)
    }

    /// Notes that the running commit changes a live session.
    pub(super) fn touch(&mut self, id: SessionId) {
        let event = self.running_event();
        let idle_at = self.now.plus(self.config.session_idle_millis);
        if let Some(session) = self.sessions.get_mut(id) {
            session.last_at = self.now;
            if session.is_over() {
                session.opened_at = self.now;
                session.first_event = Some(event);
            }
            if session.looked_at > idle_at {
                // It was to be looked at when the last block of the one before is over.
                self.expiry.remove(&(session.looked_at, id));
                self.look_at(id, idle_at);
            }
        }
        self.settle_at_end(id);
    }

    /// The session of that name; where it was idle for too long, it ends now and is not there.
    fn find_unless_idle(&mut self, name: SessionName<'_>) -> Option<SessionId> {
        let id = self.sessions.find(name)?;
        if self.ends_at(id) < self.now {
            self.end_session_but_blocks(id);
            return self.sessions.find(name);
        }
        Some(id)
    }

    /// `spendfuse.session_end`: the named session ends, and the root if it is its own.
    pub(super) fn end_named_session(&mut self, event: &Event<'_>) {
        let session = SessionName::of(event);
        let root = SessionName::root_of(event);
        let own_root = root.filter(|root| session.is_none_or(|session| session.name == root.name));
        for name in session.into_iter().chain(own_root) {
            if let Some(id) = self.sessions.find(name) {
                self.end_session_but_blocks(id);
            }
        }
    }

    /// Ends a session as its app or its silence wants it; what blocks it goes on until it is over.
    fn end_session_but_blocks(&mut self, id: SessionId) {
        let now = self.now;
        let session = self.sessions.get_mut(id);
        let left = session.and_then(|session| session.take_blocks(now));
        self.end_session(id);
        if let Some(left) = left {
            let id = self.sessions.insert(left);
            self.look_again(id);
            self.settle_at_end(id);
        }
    }

    pub(super) fn end_idle_sessions(&mut self) {
        let mut ended = 0;
        while ended < SLICE
            && let Some((time, id)) = self.expiry.first().copied()
            && time < self.now
        {
            self.expiry.pop_first();
            if self.ends_at(id) < self.now {
                self.end_session_but_blocks(id);
                ended += 1;
            } else {
                self.look_again(id);
            }
        }
    }

    /// A call names at most two new sessions. Where the memory has no room for them, those end that
    /// were idle for the longest, and of those the ones that nobody warns of or refuses: what is
    /// counted of calls stays, but a session's own budgets and detectors begin anew when it goes on.
    pub(super) fn make_room_for_sessions(&mut self) {
        let most = self.config.session_capacity.max(4) - 2;
        let mut spared = 0;
        for _ in 0..SLICE {
            if self.sessions.len() <= most {
                return;
            }
            let Some((time, id)) = self.expiry.pop_first() else {
                return;
            };
            if self.ends_at(id) > time {
                self.look_again(id);
            } else if spared < MOST_SPARED && self.sessions[id].is_restrained() {
                // Else whoever makes enough sessions would free one that is refused.
                spared += 1;
                let later = self.now.plus(self.config.session_idle_millis);
                self.look_at(id, later);
            } else {
                self.end_session(id);
                self.outputs.sessions_ended_early += 1;
            }
        }
    }

    /// When a session ends unless something comes.
    pub(super) fn ends_at(&self, id: SessionId) -> UnixMillis {
        let Some(session) = self.sessions.get(id) else {
            return UnixMillis::default();
        };
        match session.is_over() {
            true => session.last_block_until(),
            false => session.last_at.plus(self.config.session_idle_millis),
        }
    }

    /// Looks again at the session when it may have ended.
    pub(super) fn look_again(&mut self, id: SessionId) {
        let time = self.ends_at(id);
        self.look_at(id, time);
    }

    fn look_at(&mut self, id: SessionId, time: UnixMillis) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.looked_at = time;
            self.expiry.insert((time, id));
        }
    }
}
