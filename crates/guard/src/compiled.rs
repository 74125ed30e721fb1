//! The budgets as a check uses them: grouped by scope shape, so that a request's scope is hashed
//! once for all budgets of that shape, and budgets of other customers are never looked at.

use std::sync::Arc;

use hashbrown::HashMap;
use jiff::tz::TimeZone;
use smallvec::SmallVec;
use spendfuse_domain::scope::{Dimension, Dimensions, Pattern, ScopeText};
use spendfuse_domain::{Attribution, Budget, UnixMillis, Window, WindowKind};

use crate::hash::{KeyHasher, part_label};

/// All budgets of one version.
#[derive(Default)]
pub(crate) struct CompiledBudgets {
    /// In the order of their ids.
    pub(crate) budgets: Vec<CompiledBudget>,
    pub(crate) groups: Vec<Group>,
}

/// A budget with what is derived from it once.
pub(crate) struct CompiledBudget {
    pub(crate) budget: Arc<Budget>,
    /// Hash of its id, the first half of its entries' keys.
    pub(crate) id_hash: u128,
    /// For each step the smallest spend that reaches it, in the limit's unit.
    pub(crate) shares: SmallVec<[i128; 4]>,
    pub(crate) group: usize,
    zone: TimeZone,
}

/// The budgets whose scopes have the same dimensions, of which the same are exact.
pub(crate) struct Group {
    shape: Shape,
    /// Budgets by the hash of their exact values (0 where nothing is exact).
    members: HashMap<u128, SmallVec<[u32; 2]>>,
}

/// What scopes are made of, in their natural order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    parts: Vec<Part>,
    /// A session without a root is its own root session, as the meter counts budgets per root.
    session_is_root: bool,
}

/// One dimension of a group's scopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    dimension: Dimension,
    label: String,
    exact: bool,
}

/// A request as the budgets of a group see it.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    request: &'a Attribution<'a>,
    session_is_root: bool,
}

impl Dimensions for Asking<'_> {
    fn value(&self, dimension: &Dimension) -> &str {
        let own = self.request.value(dimension);
        let is_root = self.session_is_root && *dimension == Dimension::RootSession;
        if own.is_empty() && is_root {
            &self.request.session
        } else {
            own
        }
    }
}

/// The budgets of a group that a request may count against.
pub(crate) struct Candidates<'a> {
    /// Places in [`CompiledBudgets::budgets`].
    pub(crate) members: &'a [u32],
    /// Hash of the request's scope text.
    pub(crate) scope: u128,
}

impl CompiledBudgets {
    pub(crate) fn compile(budgets: impl Iterator<Item = Arc<Budget>>, hasher: &KeyHasher) -> Self {
        let mut sorted: Vec<_> = budgets.collect();
        sorted.sort_by(|one, other| one.id.cmp(&other.id));
        let mut compiled = Self::default();
        let mut group_of: HashMap<Shape, usize> = HashMap::new();
        for (place, budget) in sorted.into_iter().enumerate() {
            let shape = shape_of(&budget);
            let group = *group_of.entry(shape.clone()).or_insert_with(|| {
                compiled.groups.push(Group {
                    shape,
                    members: HashMap::new(),
                });
                compiled.groups.len() - 1
            });
            let members = &mut compiled.groups[group].members;
            let exact = exact_hash(&budget, hasher);
            members.entry(exact).or_default().push(place as u32);
            compiled
                .budgets
                .push(CompiledBudget::new(budget, group, hasher));
        }
        compiled
    }
}

impl CompiledBudget {
    fn new(budget: Arc<Budget>, group: usize, hasher: &KeyHasher) -> Self {
        let limit = budget.limit.amount();
        Self {
            id_hash: hasher.text(budget.id.as_str()),
            shares: budget.steps.iter().map(|step| step.at.of(limit)).collect(),
            group,
            // The budgets file refuses unknown zones; UTC as in the ledger.
            zone: TimeZone::get(&budget.timezone).unwrap_or(TimeZone::UTC),
            budget,
        }
    }

    /// Name and end of the window that a call at `now` counts in.
    pub(crate) fn window(
        &self,
        asking: Asking<'_>,
        now: UnixMillis,
    ) -> (String, Option<UnixMillis>) {
        let kind = self.budget.window;
        let session = match kind {
            WindowKind::Session => Dimension::Session,
            WindowKind::RootSession => Dimension::RootSession,
            _ => {
                let window = Window::containing(kind, &self.zone, now);
                return (window.label, window.end);
            }
        };
        (format!("{}:{}", kind.name(), asking.value(&session)), None)
    }
}

impl Group {
    /// `request` as this group's budgets see it.
    pub(crate) fn asking<'a>(&self, request: &'a Attribution<'a>) -> Asking<'a> {
        Asking {
            request,
            session_is_root: self.shape.session_is_root,
        }
    }

    /// The budgets whose scope the request lies in, `where` apart; `None` where it lacks a value or
    /// has others than every budget's.
    pub(crate) fn candidates(
        &self,
        asking: Asking<'_>,
        hasher: &KeyHasher,
    ) -> Option<Candidates<'_>> {
        let parts = &self.shape.parts;
        let lacks = |part: &Part| asking.value(&part.dimension).is_empty();
        if parts.iter().any(lacks) {
            return None;
        }
        let scope_hash = |wanted: &dyn Fn(&Part) -> bool| {
            let (workspace, rest) = self.split();
            let workspace = workspace.filter(|part| wanted(part));
            let mut hash = hasher.scope(workspace.map(|part| asking.value(&part.dimension)));
            for part in rest.iter().filter(|part| wanted(part)) {
                hash.part(&part.label, asking.value(&part.dimension));
            }
            hash.finish()
        };
        let any_exact = parts.iter().any(|part| part.exact);
        let exact = if any_exact {
            scope_hash(&|part| part.exact)
        } else {
            0
        };
        let members = self.members.get(&exact)?;
        let scope = scope_hash(&|_| true);
        Some(Candidates { members, scope })
    }

    /// The text of the request's scope.
    pub(crate) fn scope_text(&self, asking: Asking<'_>) -> String {
        let (workspace, rest) = self.split();
        let mut text = ScopeText::begin(workspace.map(|part| asking.value(&part.dimension)));
        for part in rest {
            text.part(&part.dimension, asking.value(&part.dimension));
        }
        text.finish()
    }

    fn split(&self) -> (Option<&Part>, &[Part]) {
        match self.shape.parts.split_first() {
            Some((first, rest)) if first.dimension == Dimension::Workspace => (Some(first), rest),
            _ => (None, &self.shape.parts),
        }
    }
}

/// The parts of a budget's scope texts: its own dimensions, and the session of a session window.
fn shape_of(budget: &Budget) -> Shape {
    let part = |dimension: &Dimension, exact| Part {
        dimension: dimension.clone(),
        label: part_label(dimension),
        exact,
    };
    let own = budget.scope.0.iter();
    let mut parts: Vec<_> = own
        .map(|(dimension, pattern)| part(dimension, matches!(pattern, Pattern::Exactly(_))))
        .collect();
    let session = match budget.window {
        WindowKind::Session => Some(Dimension::Session),
        WindowKind::RootSession => Some(Dimension::RootSession),
        _ => None,
    };
    let missing = session.filter(|session| parts.iter().all(|part| part.dimension != *session));
    parts.extend(missing.map(|session| part(&session, false)));
    parts.sort_by(|one, other| one.dimension.cmp(&other.dimension));
    Shape {
        parts,
        session_is_root: budget.window == WindowKind::RootSession,
    }
}

/// The hash under which a budget is found by its exact values.
fn exact_hash(budget: &Budget, hasher: &KeyHasher) -> u128 {
    let exact: Vec<_> = budget.scope.0.iter().filter_map(exact_value).collect();
    if exact.is_empty() {
        return 0;
    }
    let (workspace, rest) = match exact.split_first() {
        Some(((Dimension::Workspace, value), rest)) => (Some(*value), rest),
        _ => (None, exact.as_slice()),
    };
    let mut hash = hasher.scope(workspace);
    for (dimension, value) in rest {
        hash.part(&part_label(dimension), value);
    }
    hash.finish()
}

fn exact_value(part: &(Dimension, Pattern)) -> Option<(&Dimension, &str)> {
    match part {
        (dimension, Pattern::Exactly(value)) => Some((dimension, value)),
        (_, Pattern::Each) => None,
    }
}
