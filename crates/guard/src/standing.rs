//! How scopes stand, for those who decide by themselves (the SDKs' `mode="watch"`): of all entries
//! only those that make a difference to a call, judged as a check without an estimate would judge
//! them, and the budgets that make one in scopes without an entry.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use spendfuse_domain::budget::{Action, Spend};
use spendfuse_domain::scope::{Dimension, Dimensions as _, Pattern, ScopeText};
use spendfuse_domain::{Figures, UnixMillis, Verdict};

use crate::changes::{Change, Changed, CursorExpired, stretch};
use crate::compiled::{CompiledBudgets, GuardedBudget};
use crate::decision::{CheckRequest, Match};
use crate::entry::Entry;
use crate::freshness::State;
use crate::guard::Replica;

/// For one entry that a page at the beginning has, so many are looked at: to judge is quick, to write
/// takes long.
const LOOKED_AT_FOR_ONE: usize = 4;

/// One page of entries that matter, or of changes.
#[derive(Debug, PartialEq, Serialize)]
pub struct StandingsPage {
    /// By their keys in topic `spendfuse.blocklist`, to be applied in this order; a null value removes
    /// the key.
    pub entries: Vec<StandingEntry>,
    /// The budgets that make a difference in scopes without an entry; on the first page only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<StandingRule>>,
    /// What to ask with next.
    pub cursor: String,
    /// Whether more is there already; else ask again after a while.
    pub more: bool,
}

/// One entry of a page.
#[derive(Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct StandingEntry {
    pub key: String,
    pub value: Option<Standing>,
}

/// What a call is told in a scope of the budget that has no entry.
#[derive(Debug, PartialEq, Serialize)]
pub struct StandingRule {
    /// Dimension to value, `*` for any: a call with all of them counts against the budget.
    pub scope: BTreeMap<String, String>,
    /// How it stands until `expires_at`.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How calls of one scope stand to one budget, or to the detector that stopped their session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The budget's id; of a session block that of the detector's rule.
    pub budget: String,
    /// With live state.
    pub verdict: Verdict,
    /// With stale state, by the budget's `on_stale`.
    pub when_stale: Verdict,
    /// For verdict `downgrade`; a call of this model is only warned.
    pub downgrade_to: Option<String>,
    /// What is spent, and the limit; nothing for session blocks.
    #[serde(flatten)]
    pub figures: Figures,
    /// Name of the window for people.
    pub window: String,
    /// When the count starts again.
    pub resets_at: Option<UnixMillis>,
    /// Ignored from then on.
    pub expires_at: Option<UnixMillis>,
    /// Dimension to value or list of values.
    #[serde(rename = "where")]
    pub filter: Option<Value>,
    /// Whether the session of a call without a root session is its root session.
    pub session_is_root: bool,
    /// Text for the person whose call is refused.
    pub message: Option<String>,
    /// Where that person can get more.
    pub help_url: Option<String>,
}

pub(crate) fn page(
    replica: &Replica,
    cursor: Option<&str>,
    at_most: usize,
    now: UnixMillis,
) -> Result<StandingsPage, CursorExpired> {
    // Before the entries: those are judged by these budgets, or the next cursor has expired.
    let snapshot = replica.snapshot.load_full();
    let budgets = &snapshot.budgets;
    let cursor = match cursor.map(|cursor| cursor.split_once('.')) {
        Some(Some((changes, cursor))) => {
            if changes.parse() != Ok(snapshot.budgets_changes) {
                return Err(CursorExpired);
            }
            Some(cursor)
        }
        Some(None) => return Err(CursorExpired),
        None => None,
    };
    let stretch = stretch(
        replica,
        cursor,
        at_most,
        at_most * LOOKED_AT_FOR_ONE,
        now,
        |entry| matters(budgets, entry),
    )?;
    let changes = stretch.changes.into_iter();
    Ok(StandingsPage {
        entries: changes
            .filter_map(|change| standing_entry(budgets, change))
            .collect(),
        rules: cursor.is_none().then(|| {
            let rules = budgets.budgets.iter();
            rules.filter_map(|budget| rule(budget, now)).collect()
        }),
        cursor: format!("{}.{}", snapshot.budgets_changes, stretch.cursor),
        more: stretch.more,
    })
}

fn standing_entry(budgets: &CompiledBudgets, change: Change) -> Option<StandingEntry> {
    let (key, value) = match change.what {
        Changed::Set(entry) => (entry.key().to_owned(), of_entry(budgets, &entry)),
        Changed::Removed(key) => (key.into(), None),
    };
    (change.mattered || value.is_some()).then_some(StandingEntry { key, value })
}

/// Whether calls of the entry's scope would stand otherwise without it.
pub(crate) fn matters(budgets: &CompiledBudgets, entry: &Entry) -> bool {
    match entry.detector() {
        Some(_) => entry.verdict == Verdict::Block,
        None => judged_otherwise(budgets, entry).is_some(),
    }
}

/// How calls stand to a budget by this entry; `None` where they would without it, too.
fn judged_otherwise<'b>(
    budgets: &'b CompiledBudgets,
    entry: &Entry,
) -> Option<(&'b GuardedBudget, Judged)> {
    let id = entry.budget();
    let found = { &budgets.budgets }.binary_search_by(|known| known.budget().id.as_str().cmp(id));
    let budget = &budgets.budgets[found.ok()?];
    let judged = Judged::of(budget, Some(entry));
    if judged.verdict == Verdict::Ok && judged == Judged::of(budget, None) {
        return None;
    }
    // An entry of a scope that the budget had before is never looked up.
    has_scope(budget, entry.scope()).then_some((budget, judged))
}

/// How the calls of an entry's scope stand; `None` where it does not [matter](matters).
fn of_entry(budgets: &CompiledBudgets, entry: &Entry) -> Option<Standing> {
    if let Some(detector) = entry.detector() {
        return (entry.verdict == Verdict::Block).then(|| Standing {
            budget: entry.budget().to_owned(),
            verdict: Verdict::Block,
            when_stale: Verdict::Block,
            downgrade_to: None,
            figures: Figures::default(),
            window: entry.window.to_string(),
            resets_at: entry.resets_at.or(entry.expires_at()),
            expires_at: entry.expires_at(),
            filter: None,
            session_is_root: false,
            message: Some(format!("the session was stopped by detector {detector}")),
            help_url: None,
        });
    }
    let (budget, judged) = judged_otherwise(budgets, entry)?;
    let limit = budget.limit(None, Some(entry));
    let figures = Figures::new(entry.counted_by(limit), limit);
    let mut standing = judged.standing(budget, figures);
    standing.window = entry.window.to_string();
    standing.resets_at = entry.resets_at;
    standing.expires_at = entry.expires_at();
    Some(standing)
}

fn rule(budget: &GuardedBudget, now: UnixMillis) -> Option<StandingRule> {
    let judged = Judged::of(budget, None);
    if judged.verdict == Verdict::Ok && judged.when_stale == Verdict::Ok {
        return None;
    }
    let limit = budget.limit(None, None);
    let mut standing = judged.standing(budget, Figures::new(limit.with(0), limit));
    let kind = budget.budget().window;
    if kind.session().is_none() {
        let window = budget.compiled.window(now);
        standing.window = window.label;
        standing.resets_at = window.end;
    }
    let exact = |dimension: &Dimension| {
        let parts = &budget.budget().scope.0;
        let part = parts.iter().find(|(known, _)| known == dimension);
        match part {
            Some((_, Pattern::Exactly(value))) => value.clone(),
            _ => "*".to_owned(),
        }
    };
    let dimensions = budget.compiled.shape.iter();
    Some(StandingRule {
        scope: dimensions
            .map(|dimension| (dimension.name().into_owned(), exact(dimension)))
            .collect(),
        standing,
    })
}

/// How a call without an estimate stands to a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Judged {
    verdict: Verdict,
    step: Option<u16>,
    when_stale: Verdict,
}

impl Judged {
    fn of(budget: &GuardedBudget, entry: Option<&Entry>) -> Self {
        let judge = |state| {
            let mut found = Match::new(0);
            let nothing = (&CheckRequest::default(), &Spend::default());
            found.judge(budget, entry, nothing.0, nothing.1, state, 0);
            found
        };
        let live = judge(State::Live);
        Self {
            verdict: live.verdict,
            step: live.step,
            when_stale: judge(State::Stale).verdict,
        }
    }

    fn standing(self, budget: &GuardedBudget, figures: Figures) -> Standing {
        let of = budget.budget();
        let step = self.step.and_then(|step| of.steps.get(usize::from(step)));
        let downgrade_to = match step.map(|step| &step.action) {
            Some(Action::Downgrade(model)) => Some(model.clone()),
            _ => None,
        };
        let conditions = of.filter.0.iter();
        let filter: serde_json::Map<String, Value> = conditions
            .map(|(dimension, values)| {
                let values = values.iter().map(String::as_str);
                (dimension.name().into_owned(), values.collect())
            })
            .collect();
        Standing {
            budget: of.id.as_str().to_owned(),
            verdict: self.verdict,
            when_stale: self.when_stale,
            downgrade_to,
            figures,
            window: of.window.name().to_owned(),
            resets_at: None,
            expires_at: None,
            filter: (!filter.is_empty()).then_some(Value::Object(filter)),
            session_is_root: budget.compiled.session_is_root(),
            message: of.message.clone(),
            help_url: of.help_url.clone(),
        }
    }
}

/// Whether a scope with this text is one of the budget's.
fn has_scope(budget: &GuardedBudget, text: &str) -> bool {
    let Some(scope) = ScopeText::parse(text) else {
        return false;
    };
    let mut shape = budget.compiled.shape.iter().peekable();
    let has_workspace = shape
        .next_if(|first| **first == Dimension::Workspace)
        .is_some();
    let has_shape = shape.eq(scope.parts.iter().map(|(dimension, _)| dimension));
    let is_exact = budget
        .budget()
        .scope
        .0
        .iter()
        .all(|(dimension, pattern)| match pattern {
            Pattern::Exactly(value) => scope.value(dimension) == value,
            Pattern::Each => true,
        });
    has_workspace == scope.workspace.is_some() && has_shape && is_exact
}
