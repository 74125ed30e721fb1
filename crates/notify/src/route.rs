//! Routes: which alerts go where.

use spendfuse_domain::scope::{Dimension, Dimensions as _, ScopeText};
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertKind};

use crate::quiet::QuietHours;

/// How a route tells.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteOptions {
    /// A place that has not taken a message for this long is given up for the next one.
    pub fall_back_after_millis: i64,
    /// People are reminded of what is critical and open after each of these spans; `None` = never.
    pub remind_every_millis: Option<i64>,
    /// When only what is critical is told; a summary of the rest follows.
    pub quiet: Option<QuietHours>,
    /// Messages a minute of one partition; what is more becomes a digest.
    pub storm: usize,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            fall_back_after_millis: 5 * 60_000,
            remind_every_millis: Some(24 * 3_600_000),
            quiet: None,
            storm: 30,
        }
    }
}

/// Which alerts a route takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteFilter {
    /// Only those of this workspace; news of the installation itself has none.
    pub workspace: Option<String>,
    /// Only those at least as urgent.
    pub severity: Severity,
    /// Only these kinds; empty = all.
    pub kinds: Vec<AlertKind>,
    /// Only those of these budgets; empty = all, and what is about no budget.
    pub budgets: Vec<String>,
}

/// A route of the settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Who is told, the next one where the one before is not reached.
    pub to: Vec<String>,
    /// What it takes.
    pub filter: RouteFilter,
    /// How it tells.
    pub options: RouteOptions,
}

/// All routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// Those of the settings, in the order of their names.
    pub routes: Vec<Route>,
    /// How budgets tell that name their places themselves.
    pub options: RouteOptions,
}

/// Begins the name of the route of a budget that names its places itself.
const OF_BUDGET: &str = "budget ";

impl Routes {
    /// Where an alert goes: the name of each route, and its places. A budget that names places has a
    /// route of its own, and no other.
    pub fn of(&self, alert: &Alert) -> Vec<(String, Vec<String>)> {
        let own = &alert.details.to;
        if !own.is_empty() {
            return vec![(format!("{OF_BUDGET}{}", alert.subject), own.clone())];
        }
        let taking = self.routes.iter().filter(|route| route.filter.takes(alert));
        taking
            .map(|route| (route.name.clone(), route.to.clone()))
            .collect()
    }

    /// How the route of this name tells.
    pub fn options(&self, route: &str) -> &RouteOptions {
        let known = self.routes.iter().find(|known| known.name == route);
        known.map_or(&self.options, |known| &known.options)
    }
}

impl RouteFilter {
    fn takes(&self, alert: &Alert) -> bool {
        let of_budget = alert.details.budget.as_ref();
        alert.severity >= self.severity
            && (self.kinds.is_empty() || self.kinds.contains(&alert.kind))
            && (self.budgets.is_empty()
                || of_budget.is_some_and(|budget| self.budgets.contains(budget)))
            && self
                .workspace
                .as_ref()
                .is_none_or(|wanted| workspace_of(alert).as_ref() == Some(wanted))
    }
}

fn workspace_of(alert: &Alert) -> Option<String> {
    let scope = ScopeText::parse(&alert.scope)?;
    let workspace = scope.value(&Dimension::Workspace);
    (!workspace.is_empty()).then(|| workspace.to_owned())
}

impl RouteOptions {
    /// Until when a message of this severity waits because it is quiet.
    pub fn quiet_until(&self, severity: Severity, now: UnixMillis) -> Option<UnixMillis> {
        match severity {
            Severity::Critical => None,
            _ => self.quiet.as_ref()?.until(now),
        }
    }
}
