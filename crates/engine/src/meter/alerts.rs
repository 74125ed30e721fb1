//! Alerts of the meter's own: what people should know beyond findings and budgets.

use hashbrown::HashMap;
use spendfuse_domain::event::{Event, Flags, Rejection};
use spendfuse_domain::row::Origin;
use spendfuse_domain::verdict::EventRef;
use spendfuse_domain::{Call, UnixMillis};

use super::dedupe::Shortened;
use super::session::{MOST_ACCOUNTS, MOST_LANES};
use super::session_name::SessionName;
use super::{Meter, changelog};
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::codec;

/// Names that are remembered as told; with ten told an hour they last for days.
const MOST_TOLD: usize = 1_000;
/// What is wrong with an event is told in so many bytes at most; the DLQ has all of it.
const MOST_OF_DETAIL: usize = 300;

impl Meter {
    /// Tells people of something that the meter does not find out by itself.
    pub fn tell(&mut self, alert: Alert) {
        self.outputs.told.alert(alert, &mut self.alert_limit);
    }

    /// One alert per unpriced model, per source with contradicting counts, and per source with
    /// numbers that nothing reads.
    pub(super) fn tell_people(&mut self, event: &Event<'_>, call: &Call<'_>, flags: Flags) {
        let attribution = &event.attribution;
        if flags.contains(Flags::UNPRICED) {
            let subject = format!("{}/{}", attribution.provider, attribution.model);
            let message = format!(
                "model {subject} has no price, or none for a unit that it was charged for; what is missing is charged at a ceiling until it is set (spendfuse prices set {subject} …)"
            );
            self.tell_once(
                AlertKind::UnpricedModel,
                "unpriced",
                subject,
                message,
                &attribution.workspace,
            );
        }
        if flags.contains(Flags::DISPUTED) {
            let subject = event.source.to_string();
            let message = format!(
                "source {subject} sends token counts that contradict their usage_format; they are charged by the larger reading"
            );
            self.tell_once(
                AlertKind::DisputedSource,
                "disputed",
                subject,
                message,
                &attribution.workspace,
            );
        }
        if let Some(path) = &call.rare.unread {
            let subject = event.source.to_string();
            let (provider, model) = (&attribution.provider, &attribution.model);
            let message = format!(
                "source {subject} sends numbers that look billed and that no rule reads, at first usage.{path} (model {provider}/{model}): if they cost anything, no figure has it"
            );
            let workspace = &attribution.workspace;
            let kind = AlertKind::PartlyRead;
            self.tell_once(kind, kind.name(), subject, message, workspace);
        }
    }

    /// One alert an hour and workspace whose events come too late to be counted. `event` is the
    /// first of them here.
    pub fn tell_of_late(&mut self, event: &Event<'_>, origin: Origin) {
        let workspace = event.attribution.workspace.to_string();
        let (id, source) = (event.id.to_string(), event.source.to_string());
        let message = format!(
            "events of workspace {workspace} come too late to be told from duplicates and are set aside: no budget sees their spend until they are replayed; the first one is {id} of source {source}, of {}, at usage {}@{}",
            event.time, origin.partition, origin.offset
        );
        let details = AlertDetails {
            caused_by: Some(EventRef {
                source,
                id,
                time: Some(event.time),
            }),
            ..AlertDetails::default()
        };
        let prefix = format!("late_spend|{}", self.now.hour());
        let subject = workspace.clone();
        let kind = AlertKind::LateSpend;
        self.tell_once_with(kind, &prefix, subject, message, &workspace, details);
    }

    /// One alert an hour and reason for which events are rejected; `detail` says what is wrong with
    /// the first of them here. Whose it is cannot be known.
    pub fn tell_of_rejected(&mut self, rejection: &Rejection, origin: Origin) {
        self.pass(origin);
        let reason = rejection.reason.name();
        let detail = &rejection.detail;
        let detail = &detail[..detail.floor_char_boundary(MOST_OF_DETAIL)];
        let message = format!(
            "events are rejected as {reason} and set aside: no budget sees their spend; the first one, at usage {}@{}: {detail}",
            origin.partition, origin.offset
        );
        let prefix = format!("rejected_spend|{}", self.now.hour());
        let kind = AlertKind::RejectedSpend;
        self.tell_once(kind, &prefix, reason.to_owned(), message, "*");
    }

    /// One alert for each identity that two different events share: the second is not counted.
    pub(super) fn tell_of_conflict(
        &mut self,
        event: &Event<'_>,
        origin: Origin,
        first: UnixMillis,
    ) {
        let workspace = &event.attribution.workspace;
        let (id, source) = (&event.id, &event.source);
        let counted = match self.origins.of(event.identity) {
            Some((partition, offset)) => format!("the one at usage {partition}@{offset}"),
            // One of long ago, or from before the partition's worker began anew.
            None => format!(
                "one that arrived in the minute of {first} (where is not remembered any more: src_partition and src_offset of its row in spend say it)"
            ),
        };
        let (partition, offset) = (origin.partition, origin.offset);
        let message = format!(
            "two events have id {id} of source {source} and other content: {counted} is counted, the one at usage {partition}@{offset} is not; give every response of a provider its own id and every app its own source"
        );
        let prefix = format!("conflict|{workspace}|{id}");
        let workspace = workspace.to_string();
        let subject = source.to_string();
        self.tell_once(AlertKind::Conflict, &prefix, subject, message, &workspace);
    }

    /// One alert a day while the dedupe memory reaches back less far than its horizon.
    pub(super) fn tell_of_short_horizon(&mut self) {
        let Some(shortened) = self.dedupe.shortened(self.now) else {
            return;
        };
        let hours = self.dedupe.effective_horizon(self.now) / 3_600_000;
        let partition = self.config.partition;
        let subject = format!("meter partition {partition}");
        let (what, cure) = match shortened {
            Shortened::Full => ("is full", "raise processor.dedupe_capacity"),
            Shortened::Filling => (
                "does not know what came before it began, or under a shorter horizon",
                "it grows by itself; `spendfuse dlq replay --verify` counts those that the warehouse does not know",
            ),
        };
        let message = format!(
            "the dedupe memory of meter partition {partition} {what}: it reaches back {hours} h, and events older than that are set aside as late; {cure}"
        );
        let prefix = format!("dedupe_horizon|{}", day_of(self.now));
        self.tell_once(AlertKind::DedupeHorizon, &prefix, subject, message, "*");
    }

    /// One alert a day while there are more sessions than there is room for.
    pub(super) fn tell_of_ended_sessions(&mut self) {
        if self.outputs.sessions_ended_early == 0 {
            return;
        }
        let (partition, most) = (self.config.partition, self.config.session_capacity);
        let subject = format!("sessions of meter partition {partition}");
        let message = format!(
            "meter partition {partition} has {most} live sessions, as many as it may: those idle for the longest end early, and their own budgets and detectors begin anew when they go on; find out who makes them, or raise processor.session_capacity"
        );
        let prefix = format!("capacity|{}", day_of(self.now));
        self.tell_once(AlertKind::Capacity, &prefix, subject, message, "*");
    }

    /// One alert a day and session whose budgets have more scopes than there is room for.
    pub(super) fn tell_of_given_up_account(&mut self, session: SessionName<'_>) {
        self.outputs.session_accounts_given_up += 1;
        let subject = session.scope();
        let message = format!(
            "session {subject} has {MOST_ACCOUNTS} accounts of session budgets, as many as it may: the one with the least spent makes room for each new one and begins anew when it comes again; find out who makes so many names in one session, or take the dimension out of the budget's scope"
        );
        let prefix = format!("capacity|{}", day_of(self.now));
        let workspace = session.workspace.to_owned();
        self.tell_once(AlertKind::Capacity, &prefix, subject, message, &workspace);
    }

    /// One alert a day and session that has more agents and models than are watched.
    pub(super) fn tell_of_crowded_session(&mut self, session: SessionName<'_>) {
        let scope = session.scope();
        let message = format!(
            "session {scope} has more agents and models than the {MOST_LANES} pairs that detectors watch: the one unused for the longest is forgotten for each new one; find out who makes so many names in one session"
        );
        let prefix = format!("capacity|{}|lanes", day_of(self.now));
        let workspace = session.workspace.to_owned();
        self.tell_once(AlertKind::Capacity, &prefix, scope, message, &workspace);
    }

    fn tell_once(
        &mut self,
        kind: AlertKind,
        prefix: &str,
        subject: String,
        message: String,
        scope: &str,
    ) {
        let details = AlertDetails::default();
        self.tell_once_with(kind, prefix, subject, message, scope, details);
    }

    fn tell_once_with(
        &mut self,
        kind: AlertKind,
        prefix: &str,
        subject: String,
        message: String,
        scope: &str,
        details: AlertDetails,
    ) {
        let key = format!("{prefix}|{subject}");
        if self.told_people.contains(&key) {
            return;
        }
        let told = self.alert_limit.admit(Alert {
            v: 1,
            key: key.clone(),
            kind,
            severity: spendfuse_domain::Severity::Warning,
            scope: scope.to_owned(),
            subject,
            message,
            at: self.now,
            count: None,
            details,
        });
        // One that was only counted is told when it comes again in a quieter hour.
        let Some(alert) = told else { return };
        self.outputs.told.alerts.push(alert);
        let told_at = codec::encode(&self.now.0);
        let changes = &mut self.outputs.told.changelog;
        changes.push((changelog::told_key(&key), Some(told_at)));
        self.told_people.insert(key, self.now.0);
        let over = period_of(kind).map(|millis| self.now.0.div_euclid(millis) * millis);
        let over = over.map(|since| self.told_people.forget_before(kind, since));
        let forgotten = self.told_people.forget_oldest();
        let forgotten = over.into_iter().flatten().chain(forgotten);
        changes.extend(forgotten.map(|key| (changelog::told_key(&key), None)));
    }
}

const HOUR_MILLIS: i64 = 3_600_000;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// Days since 1970.
fn day_of(time: UnixMillis) -> i64 {
    time.0.div_euclid(DAY_MILLIS)
}

/// Of which span of time the keys of a kind are, where they name one: what was told in the one
/// before need not be remembered.
fn period_of(kind: AlertKind) -> Option<i64> {
    match kind {
        AlertKind::LateSpend | AlertKind::RejectedSpend => Some(HOUR_MILLIS),
        AlertKind::DedupeHorizon | AlertKind::Capacity => Some(DAY_MILLIS),
        _ => None,
    }
}

/// What people were told of, each once: bounded, since the names come from outside.
#[derive(Debug, Default)]
pub(super) struct ToldPeople {
    /// When, in milliseconds since 1970.
    told_at: HashMap<String, i64>,
}

impl ToldPeople {
    fn contains(&self, key: &str) -> bool {
        self.told_at.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: String, at: i64) {
        self.told_at.insert(key, at);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.told_at.remove(key);
    }

    /// Forgets what of `kind` was told before `since`, in an order that equal histories have in
    /// common.
    fn forget_before(&mut self, kind: AlertKind, since: i64) -> Vec<String> {
        let begins = format!("{}|", kind.name());
        let is_over = |key: &String, at: &mut i64| key.starts_with(&begins) && *at < since;
        let gone = self.told_at.extract_if(is_over);
        let mut gone: Vec<String> = gone.map(|(key, _)| key).collect();
        gone.sort_unstable();
        gone
    }

    /// Forgets what is beyond [`MOST_TOLD`], the oldest first, in an order that equal histories
    /// have in common.
    fn forget_oldest(&mut self) -> impl Iterator<Item = String> {
        let beyond = self.told_at.len().saturating_sub(MOST_TOLD);
        let mut oldest: Vec<(i64, String)> = Vec::new();
        if beyond > 0 {
            let all = self.told_at.iter();
            oldest.extend(all.map(|(key, at)| (*at, key.clone())));
            oldest.sort_unstable();
            oldest.truncate(beyond);
        }
        oldest.into_iter().map(|(_, key)| {
            self.told_at.remove(&key);
            key
        })
    }
}
