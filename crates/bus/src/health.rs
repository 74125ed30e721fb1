//! Whether a role does its work, in the words of those who do it: what `/readyz` tells.
//!
//! Every part of a role (a worker, a connection, a replica) says how it is when that changes, or is
//! asked. A role is ready where all of its parts are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a part of a role is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Ready,
    /// It works, and somebody should know this.
    ReadyBut(String),
    /// It does not work, and why.
    NotReady(String),
}

/// The parts of one role; clones share them.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, Source>>>,
}

enum Source {
    Told(Condition),
    Asked(Arc<dyn Fn() -> Condition + Send + Sync>),
}

/// One part of a role, to be kept by whoever does its work.
#[derive(Clone, Debug, Default)]
pub struct Part {
    health: Health,
    name: String,
}

/// The role as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether every part is.
    pub is_ready: bool,
    /// What is wrong or worth knowing, by part.
    pub reasons: Vec<String>,
}

impl Health {
    /// A part that tells how it is; not ready until it has said something.
    pub fn part(&self, name: impl Into<String>) -> Part {
        let part = Part {
            health: self.clone(),
            name: name.into(),
        };
        part.not_ready("starting");
        part
    }

    /// A part that is asked.
    pub fn ask(
        &self,
        name: impl Into<String>,
        how: impl Fn() -> Condition + Send + Sync + 'static,
    ) {
        self.lock()
            .insert(name.into(), Source::Asked(Arc::new(how)));
    }

    /// Forgets all parts: the role begins anew.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How the role is now. A role of which nothing is known yet is not ready.
    pub fn report(&self) -> Report {
        let parts = self.lock();
        let mut report = Report {
            is_ready: !parts.is_empty(),
            reasons: Vec::new(),
        };
        if parts.is_empty() {
            report.reasons.push("starting".to_owned());
        }
        for (name, source) in &*parts {
            let condition = match source {
                Source::Told(condition) => condition.clone(),
                Source::Asked(how) => how(),
            };
            match condition {
                Condition::Ready => {}
                Condition::ReadyBut(note) => report.reasons.push(format!("{name}: {note}")),
                Condition::NotReady(reason) => {
                    report.is_ready = false;
                    report.reasons.push(format!("{name}: {reason}"));
                }
            }
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Source>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// It works.
    pub fn ready(&self) {
        self.tell(Condition::Ready);
    }

    /// It does not work.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.tell(Condition::NotReady(reason.into()));
    }

    /// How it is now.
    pub fn tell(&self, condition: Condition) {
        let mut parts = self.health.lock();
        match parts.get_mut(&self.name) {
            Some(Source::Told(known)) => *known = condition,
            _ => {
                parts.insert(self.name.clone(), Source::Told(condition));
            }
        }
    }

    /// It is somebody else's now.
    pub fn gone(&self) {
        self.health.lock().remove(&self.name);
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Health")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_ready_where_all_parts_are_and_says_which_is_not() {
        let health = Health::default();
        assert!(!health.report().is_ready, "nothing is known yet");
        let worker = health.part("worker 0");
        assert_eq!(health.report().reasons, ["worker 0: starting"]);
        worker.ready();
        health.ask("guard", || Condition::ReadyBut("stale".to_owned()));
        let report = health.report();
        assert!(report.is_ready);
        assert_eq!(report.reasons, ["guard: stale"]);
        worker.not_ready("no broker");
        assert!(!health.report().is_ready);
        worker.gone();
        assert!(health.report().is_ready);
    }
}
