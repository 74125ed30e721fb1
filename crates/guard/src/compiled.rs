//! The budgets as a check uses them: grouped by scope shape, so that a request's scope is hashed
//! once for all budgets of that shape, and budgets of other customers are never looked at.

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;
use spendfuse_domain::budget::{AsCounted, CompiledBudget, OnStale, ReserveRule, Spend};
use spendfuse_domain::scope::{Dimension, Dimensions, FilterMatch, Pattern, scope_of};
use spendfuse_domain::{Amount, Attribution, Budget, Nanos, UnixMillis};

use crate::digest::Kind;
use crate::entry::Entry;
use crate::hash::{Factor, KeyHasher};

/// All budgets of one version.
pub(crate) struct CompiledBudgets {
    /// In the order of their ids.
    pub(crate) budgets: Vec<GuardedBudget>,
    pub(crate) groups: Vec<Group>,
    /// Whether any has [`ReserveRule::Max`].
    pub(crate) holds_longest_answers: bool,
    sources: Vec<Source>,
}

/// A budget as checks find and judge it.
pub(crate) struct GuardedBudget {
    /// Hash of its id, the first half of its entries' keys.
    pub(crate) id_hash: u128,
    /// The smallest of its shares: who stays below has nothing to fear.
    pub(crate) lowest_share: i128,
    /// The unit of its limit.
    pub(crate) unit: Kind,
    pub(crate) on_stale: OnStale,
    has_filter: bool,
    pub(crate) group: usize,
    pub(crate) compiled: Arc<CompiledBudget>,
}

/// The budgets whose scopes have the same dimensions, of which the same are exact.
pub(crate) struct Group {
    shape: Shape,
    /// Where the values of the shape's parts come from.
    parts: SmallVec<[u32; 4]>,
    /// Those of the exact ones.
    exact: SmallVec<[u32; 4]>,
    /// What scopes without a workspace begin with, else 0.
    base: u128,
    members: Members,
}

enum Members {
    /// Nothing is exact: every request that has values counts against all.
    All(SmallVec<[u32; 2]>),
    /// Budgets by the hash of their exact values.
    ByExact(HashMap<u128, SmallVec<[u32; 2]>>),
}

/// Where a value comes from that some scope needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    dimension: Dimension,
    session_is_root: bool,
    factor: Factor,
}

/// Indexes of the values that every check needs, see [`CompiledBudgets::compile`].
const WORKSPACE: usize = 0;
const SESSION: usize = 1;

/// The hashes of a request's values, by source; 0 where the request has none. Filled where they stay.
#[derive(Default)]
pub(crate) struct Values(SmallVec<[u128; 16]>);

impl Values {
    /// The hash of the request's session as a scope; `None` where it names none.
    pub(crate) fn session_scope(&self) -> Option<u128> {
        let session = self.0[SESSION];
        (session != 0).then(|| self.0[WORKSPACE].wrapping_add(session))
    }

    fn sum(&self, parts: &[u32], base: u128) -> Option<u128> {
        let mut sum = base;
        for part in parts {
            let value = self.0[*part as usize];
            if value == 0 {
                return None;
            }
            sum = sum.wrapping_add(value);
        }
        Some(sum)
    }
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
    exact: bool,
}

/// The budgets of a group that a request may count against.
pub(crate) struct Candidates<'a> {
    /// Indexes in [`CompiledBudgets::budgets`].
    pub(crate) members: &'a [u32],
    /// Hash of the request's scope.
    pub(crate) scope: u128,
}

impl CompiledBudgets {
    /// Compiles `budgets`, of which no two have the same id.
    pub(crate) fn compile(
        budgets: impl Iterator<Item = Arc<CompiledBudget>>,
        hasher: &KeyHasher,
    ) -> Self {
        let mut sorted: Vec<_> = budgets.collect();
        sorted.sort_by(|one, other| one.budget.id.cmp(&other.budget.id));
        let mut compiled = Self {
            budgets: Vec::with_capacity(sorted.len()),
            groups: Vec::new(),
            holds_longest_answers: false,
            sources: Vec::new(),
        };
        for (index, dimension) in [Dimension::Workspace, Dimension::Session]
            .iter()
            .enumerate()
        {
            let source = compiled.source(dimension, false, hasher);
            debug_assert_eq!(source as usize, index);
        }
        let mut group_of: HashMap<Shape, usize> = HashMap::new();
        for (index, budget) in sorted.into_iter().enumerate() {
            let shape = shape_of(&budget);
            let group = *group_of.entry(shape.clone()).or_insert_with(|| {
                let group = compiled.group(shape, hasher);
                compiled.groups.push(group);
                compiled.groups.len() - 1
            });
            let members = match &mut compiled.groups[group].members {
                Members::All(members) => members,
                Members::ByExact(by_exact) => by_exact
                    .entry(exact_hash(&budget.budget, hasher))
                    .or_default(),
            };
            members.push(index as u32);
            compiled.holds_longest_answers |= budget.budget.reserve_rule == Some(ReserveRule::Max);
            let budget = GuardedBudget::new(budget, group, hasher);
            compiled.budgets.push(budget);
        }
        compiled
    }

    fn group(&mut self, shape: Shape, hasher: &KeyHasher) -> Group {
        let mut source = |part: &Part| {
            let is_root = shape.session_is_root && part.dimension == Dimension::RootSession;
            self.source(&part.dimension, is_root, hasher)
        };
        let parts = shape.parts.iter().map(&mut source).collect();
        let of_exact = shape.parts.iter().filter(|part| part.exact);
        let exact: SmallVec<_> = of_exact.map(&mut source).collect();
        let has_workspace = shape
            .parts
            .first()
            .is_some_and(|first| first.dimension == Dimension::Workspace);
        Group {
            parts,
            base: if has_workspace {
                0
            } else {
                hasher.all_workspaces()
            },
            members: if exact.is_empty() {
                Members::All(SmallVec::new())
            } else {
                Members::ByExact(HashMap::new())
            },
            exact,
            shape,
        }
    }

    /// The index of a source, which is added where it is new.
    fn source(&mut self, dimension: &Dimension, session_is_root: bool, hasher: &KeyHasher) -> u32 {
        let wanted = Source {
            dimension: dimension.clone(),
            session_is_root,
            factor: hasher.factor(dimension),
        };
        let known = self.sources.iter().position(|source| *source == wanted);
        let index = known.unwrap_or_else(|| {
            self.sources.push(wanted);
            self.sources.len() - 1
        });
        index as u32
    }

    /// Hashes the values of `request` that budgets ask for into `values`, which are empty.
    pub(crate) fn hash(&self, request: &Attribution<'_>, hasher: &KeyHasher, values: &mut Values) {
        for source in &self.sources {
            let value = AsCounted::new(request, source.session_is_root);
            let value = value.value(&source.dimension);
            values.0.push(if value.is_empty() {
                0
            } else {
                hasher.part(source.factor, value)
            });
        }
    }
}

impl GuardedBudget {
    fn new(compiled: Arc<CompiledBudget>, group: usize, hasher: &KeyHasher) -> Self {
        let budget = &compiled.budget;
        Self {
            id_hash: hasher.text(budget.id.as_str()),
            // Where each session may have a limit of its own, nobody is far from it.
            lowest_share: match budget.limit_from_event {
                true => i128::MIN,
                false => compiled.shares.iter().copied().min().unwrap_or(i128::MAX),
            },
            unit: Kind::of(budget.limit.unit()),
            on_stale: budget.on_stale,
            has_filter: !budget.filter.is_empty(),
            group,
            compiled,
        }
    }

    /// The budget itself.
    pub(crate) fn budget(&self) -> &Budget {
        &self.compiled.budget
    }

    /// The limit of a request whose app lets its session spend `told`, in a scope of which `entry` is
    /// known.
    #[inline]
    pub(crate) fn limit(&self, told: Option<Nanos>, entry: Option<&Entry>) -> Amount {
        let budget = self.budget();
        if !budget.limit_from_event {
            return budget.limit;
        }
        let of_entry = || match entry?.figures.limit? {
            Amount::Usd(limit) => Some(limit),
            Amount::Tokens(_) | Amount::Calls(_) => None,
        };
        self.compiled.limit_told(told.or_else(of_entry))
    }

    /// How a request stands to the budget's `where`.
    pub(crate) fn filter(&self, asking: AsCounted<'_>) -> FilterMatch {
        if self.has_filter {
            self.budget().filter.evaluate(&asking)
        } else {
            FilterMatch::Holds
        }
    }

    /// The part of `spend` that counts against the limit, in its unit.
    #[inline]
    pub(crate) fn counted(&self, spend: &Spend) -> i128 {
        self.unit.counted(spend)
    }

    /// Name and end of the window that a call at `now` counts in.
    pub(crate) fn window(
        &self,
        asking: AsCounted<'_>,
        now: UnixMillis,
    ) -> (String, Option<UnixMillis>) {
        let kind = self.budget().window;
        match kind.session() {
            Some(session) => (kind.label(asking.value(&session)), None),
            None => {
                let window = self.compiled.window(now);
                (window.label, window.end)
            }
        }
    }
}

impl Group {
    /// `request` as this group's budgets see it.
    pub(crate) fn asking<'a>(&self, request: &'a Attribution<'a>) -> AsCounted<'a> {
        AsCounted::new(request, self.shape.session_is_root)
    }

    /// The budgets whose scope the request lies in, `where` apart; `None` where it lacks a value or
    /// has others than every budget's.
    #[inline]
    pub(crate) fn candidates(&self, values: &Values) -> Option<Candidates<'_>> {
        let scope = values.sum(&self.parts, self.base)?;
        let members = match &self.members {
            Members::All(members) => members,
            Members::ByExact(by_exact) => by_exact.get(&values.sum(&self.exact, 0)?)?,
        };
        Some(Candidates { members, scope })
    }

    /// The text of the request's scope.
    pub(crate) fn scope_text(&self, asking: AsCounted<'_>) -> String {
        let dimensions = self.shape.parts.iter().map(|part| &part.dimension);
        scope_of(dimensions.map(|dimension| (dimension, asking.value(dimension))))
    }
}

fn shape_of(compiled: &CompiledBudget) -> Shape {
    let exact = |dimension: &Dimension| {
        let mut exact = compiled.budget.scope.0.iter().filter_map(exact_value);
        exact.any(|(exact, _)| exact == dimension)
    };
    let dimensions = compiled.shape.iter();
    Shape {
        parts: dimensions
            .map(|dimension| Part {
                dimension: dimension.clone(),
                exact: exact(dimension),
            })
            .collect(),
        session_is_root: compiled.session_is_root(),
    }
}

/// The hash under which a budget is found by its exact values.
fn exact_hash(budget: &Budget, hasher: &KeyHasher) -> u128 {
    let exact = budget.scope.0.iter().filter_map(exact_value);
    exact.fold(0, |sum, (dimension, value)| {
        sum.wrapping_add(hasher.part(hasher.factor(dimension), value))
    })
}

fn exact_value(part: &(Dimension, Pattern)) -> Option<(&Dimension, &str)> {
    match part {
        (dimension, Pattern::Exactly(value)) => Some((dimension, value)),
        (_, Pattern::Each) => None,
    }
}
