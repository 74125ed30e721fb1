//! What people ask of a running notifier: values of topic `spendfuse.notifier.requests`.

use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;
use spendfuse_engine::alert::id_of;

use super::{Notifier, Stored};
use crate::letter::What;

/// Scopes that are muted at once at most.
pub const MOST_MUTES: usize = 1_000;

/// One request. Written to every partition: each does what it knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Nobody is told of scopes that begin so, until then; a time that has passed ends it, and every
    /// mute of a scope that begins so.
    Mute {
        /// Scope text, or its beginning.
        scope: String,
        /// Until when.
        until: UnixMillis,
    },
    /// People are told of this alert once more.
    Resend {
        /// The alert's id.
        alert: String,
    },
}

impl Notifier {
    /// Does what was asked for.
    pub fn request(&mut self, request: Request, now: UnixMillis) {
        match request {
            Request::Mute { scope, until } if until > now => {
                if self.mutes.len() >= MOST_MUTES && !self.mutes.contains_key(&scope) {
                    let most = MOST_MUTES;
                    tracing::warn!(scope, most, "too many scopes are muted, so this one is not");
                    return;
                }
                self.changed.insert(Stored::Mute(scope.clone()));
                self.mutes.insert(scope, until);
            }
            // Whoever wants to hear of a workspace wants to hear of its customers.
            Request::Mute { scope, .. } => {
                let muted = self.mutes.range(scope.clone()..).map(|(muted, _)| muted);
                let below = muted.take_while(|muted| muted.starts_with(scope.as_str()));
                let below: Vec<String> = below.cloned().collect();
                for muted in below {
                    self.mutes.remove(&muted);
                    self.changed.insert(Stored::Mute(muted));
                }
            }
            Request::Resend { alert } => {
                let known = self.alerts.keys().find(|key| id_of(key) == alert);
                if let Some(key) = known.cloned() {
                    self.tell(&key, What::Again, now);
                }
            }
        }
    }
}
