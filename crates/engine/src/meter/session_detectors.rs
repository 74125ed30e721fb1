//! What detectors make of the steps of a session: episodes, their alerts, and the blocks that they
//! put on it.

use smallvec::SmallVec;
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::event::{Call, Event};
use spendfuse_domain::finding::{DetectorAction, DetectorRule, FindingState};
use spendfuse_domain::{Amount, Unit};

use super::session::LanePlace;
use super::session_name::SessionName;
use super::sessions::SessionId;
use super::{Charge, EpisodePlace, Meter};
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::book::BudgetBook;
use crate::detect::StepFacts;
use crate::detect::episode::{Change, Episode};
use crate::detect::lane::{LaneRule, LaneRules};

impl Meter {
    pub(super) fn run_detectors(
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
}
