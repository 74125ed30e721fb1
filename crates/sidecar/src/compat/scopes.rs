//! What is blocked, for clients that ask for lists instead of asking about calls.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use spendfuse_domain::scope::{Dimension, ScopeText};
use spendfuse_domain::{Attribution, UnixMillis, Verdict};
use spendfuse_guard::{CheckRequest, StandingRule};
use xxhash_rust::xxh3::xxh3_64;

use crate::http::Sidecar;
use crate::keys::Caller;
use crate::metrics::{COMPAT_INEXPRESSIBLE, COMPAT_INEXPRESSIBLE_TOTAL};

/// A list is made again when it is older.
const FRESH: Duration = Duration::from_millis(200);

/// The scopes of the default workspace that are blocked as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) workspace: bool,
    pub(super) features: BTreeSet<String>,
    pub(super) customers: BTreeSet<String>,
}

impl Blocked {
    /// What of it is this caller's business: a key for one customer sees no others.
    pub(super) fn seen_by(&self, caller: &Caller) -> Self {
        let mut seen = self.clone();
        for (dimension, value) in caller.imposed() {
            match dimension {
                "customer" => seen.customers.retain(|customer| customer == value),
                "feature" => seen.features.retain(|feature| feature == value),
                _ => {}
            }
        }
        seen
    }

    /// Equal where what is blocked is equal, in every sidecar and after every restart; a positive
    /// number that JavaScript holds exactly.
    pub(super) fn version(&self) -> u64 {
        let mut text = vec![u8::from(self.workspace)];
        for (kind, names) in [(b'f', &self.features), (b'c', &self.customers)] {
            for name in names {
                text.push(kind);
                text.extend(name.len().to_le_bytes());
                text.extend(name.as_bytes());
            }
        }
        (xxh3_64(&text) >> 11).max(1)
    }
}

/// Workspaces whose lists are kept.
const MOST_LISTS: usize = 1_000;

/// The last list of each workspace, and when it was made.
#[derive(Debug, Default)]
pub(super) struct BlockedScopes(Mutex<HashMap<String, (Instant, Arc<Blocked>)>>);

impl BlockedScopes {
    /// What is blocked now. Looks at every entry of the replica: callers run in the background.
    pub(super) fn now(&self, sidecar: &Sidecar, workspace: &str) -> Arc<Blocked> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, blocked)) = lists.get(workspace)
            && made.elapsed() < FRESH
        {
            return Arc::clone(blocked);
        }
        let blocked = Arc::new(collect(sidecar, workspace));
        if lists.len() >= MOST_LISTS {
            lists.clear();
        }
        let made = (Instant::now(), Arc::clone(&blocked));
        lists.insert(workspace.to_owned(), made);
        blocked
    }
}

/// The budgets that refuse calls in scopes without an entry: a limit of nothing has none before
/// something is spent.
fn rules(sidecar: &Sidecar, now: UnixMillis) -> Vec<StandingRule> {
    let page = sidecar.checker.guard.standings(None, 1, now).ok();
    let mut rules = page.and_then(|page| page.rules).unwrap_or_default();
    rules.retain(|rule| rule.standing.verdict == Verdict::Block);
    rules
}

/// In which scope of a workspace a rule holds.
enum Exact {
    Parts(Vec<(Dimension, String)>),
    /// In those of any value.
    NoOne,
    OfOthers,
}

fn exact_parts(rule: &StandingRule, workspace: &str) -> Exact {
    let mut parts = Vec::new();
    for (name, value) in &rule.scope {
        match Dimension::from_name(name) {
            Some(Dimension::Workspace) if value == workspace || value == "*" => {}
            Some(Dimension::Workspace) => return Exact::OfOthers,
            Some(dimension) => parts.push((dimension, value.clone())),
            None => return Exact::NoOne,
        }
    }
    match parts.iter().any(|(_, value)| value == "*") {
        true => Exact::NoOne,
        false => Exact::Parts(parts),
    }
}

fn collect(sidecar: &Sidecar, workspace: &str) -> Blocked {
    let checker = &sidecar.checker;
    let now = checker.clock.now();
    let mut scopes = BTreeSet::new();
    let mut inexpressible = 0_u32;
    checker.guard.for_each_entry(now.wall, |entry| {
        if entry.verdict != Verdict::Block {
            return;
        }
        let scope = ScopeText::parse(entry.scope());
        match scope.filter(|scope| scope.workspace.as_deref().is_none_or(|of| of == workspace)) {
            None => {}
            Some(scope) if entry.has_filter() || entry.detector().is_some() => {
                inexpressible += u32::from(!scope.parts.is_empty());
            }
            Some(scope) => {
                scopes.insert(scope.parts);
            }
        }
    });
    for rule in rules(sidecar, now.wall) {
        match exact_parts(&rule, workspace) {
            Exact::OfOthers => {}
            Exact::Parts(parts) if rule.standing.filter.is_none() => {
                scopes.insert(parts);
            }
            Exact::Parts(_) | Exact::NoOne => inexpressible += 1,
        }
    }
    // Entries say what was true when they were written; a limit that was raised since lifts a block
    // at once.
    let is_blocked = |customer: &str, feature: &str| {
        let request = CheckRequest {
            attribution: Attribution {
                workspace: workspace.into(),
                customer: customer.into(),
                feature: feature.into(),
                ..Attribution::default()
            },
            ..CheckRequest::default()
        };
        checker.guard.check(&request, now).verdict() == Verdict::Block
    };
    let mut blocked = Blocked {
        workspace: is_blocked("", ""),
        ..Blocked::default()
    };
    for parts in scopes {
        match &*parts {
            [] => {}
            [(Dimension::Customer, customer)] => {
                if is_blocked(customer, "") {
                    blocked.customers.insert(customer.clone());
                }
            }
            [(Dimension::Feature, feature)] => {
                if is_blocked("", feature) {
                    blocked.features.insert(feature.clone());
                }
            }
            [
                (Dimension::Customer, customer),
                (Dimension::Feature, feature),
            ] if sidecar.config.compat.margindash_widen => {
                if is_blocked(customer, feature) {
                    blocked.customers.insert(customer.clone());
                }
            }
            _ => inexpressible += 1,
        }
    }
    gauge!(COMPAT_INEXPRESSIBLE, "client" => "margindash").set(inexpressible);
    let left_out = counter!(COMPAT_INEXPRESSIBLE_TOTAL, "client" => "margindash");
    left_out.increment(u64::from(inexpressible > 0));
    blocked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_sets_apart_and_is_exact_in_javascript() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let customers = Blocked {
            customers: set(&["a", "b"]),
            ..Blocked::default()
        };
        let features = Blocked {
            features: set(&["a", "b"]),
            ..Blocked::default()
        };
        let joined = Blocked {
            customers: set(&["ab"]),
            ..Blocked::default()
        };
        let all = [&Blocked::default(), &customers, &features, &joined];
        let versions: BTreeSet<_> = all.iter().map(|blocked| blocked.version()).collect();
        assert_eq!(versions.len(), all.len());
        assert!(
            versions
                .iter()
                .all(|version| (1..1 << 53).contains(version))
        );
    }
}
