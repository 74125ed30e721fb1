//! Alerts of the meter's own: what people should know beyond findings and budgets.

use spendfuse_domain::event::{Event, Flags};

use super::{Meter, restore};
use crate::alert::{Alert, AlertKind};

impl Meter {
    /// One alert per unpriced model and per source with contradicting counts.
    pub(super) fn tell_people(&mut self, event: &Event<'_>, flags: Flags) {
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
    }

    /// One alert a day while the dedupe memory is too small for its horizon.
    pub(super) fn tell_of_short_horizon(&mut self) {
        if !self.dedupe.is_shortened(self.now) {
            return;
        }
        let hours = self.dedupe.effective_horizon(self.now) / 3_600_000;
        let partition = self.config.partition;
        let subject = format!("meter partition {partition}");
        let message = format!(
            "the dedupe memory of meter partition {partition} is full: it reaches back {hours} h, and events older than that are set aside as late; raise processor.dedupe_capacity"
        );
        let day = self.now.0.div_euclid(24 * 3_600_000);
        let prefix = format!("dedupe_horizon|{day}");
        self.tell_once(AlertKind::DedupeHorizon, &prefix, subject, message, "*");
    }

    fn tell_once(
        &mut self,
        kind: AlertKind,
        prefix: &str,
        subject: String,
        message: String,
        scope: &str,
    ) {
        let key = format!("{prefix}|{subject}");
        if self.told_people.contains(&key) {
            return;
        }
        let marker = restore::told_key(&key);
        self.outputs
            .changelog
            .push((marker, Some(crate::codec::encode(&true))));
        self.outputs.alerts.push(Alert {
            v: 1,
            key: key.clone(),
            kind,
            severity: spendfuse_domain::Severity::Warning,
            scope: scope.to_owned(),
            subject,
            message,
            at: self.now,
        });
        self.told_people.insert(key);
    }
}
