//! `GET /v1/blocklist?view=standings`: what SDKs need that decide without asking.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::scope::ScopeText;
use spendfuse_guard::{ColdStart, CursorExpired, StandingEntry, StandingRule, StandingsPage};

use super::Sidecar;
use super::blocklist::{Asked, Page, is_for};
use crate::keys::Caller;

/// Dimensions whose values are nobody's secret.
const PUBLIC: [&str; 2] = ["model", "provider"];

/// A page, and what it is to be read by.
#[derive(Debug, Serialize)]
pub(super) struct Standings {
    #[serde(flatten)]
    page: StandingsPage,
    state: &'static str,
    state_age_ms: Option<u64>,
    complete_to: Option<UnixMillis>,
    /// Older than this it is stale.
    stale_after_ms: u64,
    /// What becomes of calls while `state` is `cold`.
    cold_start: &'static str,
    /// The sidecar's clock.
    time: UnixMillis,
    /// For how long the request waited until then.
    waited_ms: u64,
    /// The workspace of calls that name none.
    workspace: String,
    /// Dimensions that the caller's key decides.
    imposed: BTreeMap<String, String>,
}

impl Page for Standings {
    fn is_empty(&self) -> bool {
        self.page.entries.is_empty() && !self.page.more
    }

    fn cursor(&self) -> &str {
        &self.page.cursor
    }

    fn state(&self) -> &'static str {
        self.state
    }
}

impl Sidecar {
    /// The page for this caller, who learns nothing of other workspaces' spend.
    pub(super) fn standings(
        &self,
        caller: &Caller,
        asked: &Asked,
        waited: Duration,
    ) -> Result<Standings, CursorExpired> {
        let checker = &self.checker;
        let now = checker.clock.now();
        // Before the entries: they may be younger than it says, and not older.
        let age = checker.guard.state(now.monotonic_millis);
        let cursor = asked.cursor.as_deref();
        let mut page = checker.guard.standings(cursor, asked.limit(), now.wall)?;
        if caller.key().is_some() {
            let entries = page.entries.into_iter();
            page.entries = entries
                .filter_map(|entry| entry_for(caller, entry))
                .collect();
            if let Some(rules) = &mut page.rules {
                rules.retain(|rule| is_rule_for(caller, rule));
            }
        }
        let imposed = caller.imposed();
        Ok(Standings {
            page,
            state: age.state.name(),
            state_age_ms: age.age_millis,
            complete_to: age.complete_to,
            stale_after_ms: self.config.stale_after.as_millis() as u64,
            cold_start: match self.config.cold_start {
                ColdStart::Allow => "allow",
                ColdStart::Block => "block",
            },
            time: now.wall,
            waited_ms: waited.as_millis() as u64,
            workspace: caller
                .workspace()
                .unwrap_or(&self.config.default_workspace)
                .to_owned(),
            imposed: imposed
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    }
}

/// Its own entries, and of those across workspaces that may stop its calls whether they do.
fn entry_for(caller: &Caller, mut entry: StandingEntry) -> Option<StandingEntry> {
    if is_for(caller, &entry.key) {
        return Some(entry);
    }
    let (_, scope) = entry.key.rsplit_once('|')?;
    let scope = ScopeText::parse(scope)?;
    let is_open = |(name, value): (&str, &str)| is_known_to(caller, name, value);
    let mut parts = scope.parts.iter();
    let names_nobody = scope.workspace.is_none()
        && parts.all(|(dimension, value)| is_open((&dimension.name(), value)));
    if let Some(standing) = &mut entry.value {
        standing.figures.spent = None;
    }
    names_nobody.then_some(entry)
}

fn is_rule_for(caller: &Caller, rule: &StandingRule) -> bool {
    let workspace = rule.scope.get("workspace");
    let is_own = |own| workspace.is_some_and(|workspace| workspace == own);
    let is_own = caller.workspace().is_none_or(is_own);
    let mut parts = rule.scope.iter();
    parts.all(|(name, value)| {
        let mut imposed = caller.imposed();
        let is_others = imposed.any(|(known, own)| known == name && own != value);
        value == "*" || !is_others && (is_own || is_known_to(caller, name, value))
    })
}

/// Whether the caller knows of this value without being told.
fn is_known_to(caller: &Caller, name: &str, value: &str) -> bool {
    let mut imposed = caller.imposed();
    PUBLIC.contains(&name) || imposed.any(|(known, own)| known == name && own == value)
}
