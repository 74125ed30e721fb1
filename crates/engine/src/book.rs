//! The budget book: budgets compiled into what the two stages need.
//!
//! The meter knows only [`Series`] and session budgets; limits, windows and actions of all other
//! budgets belong to the ledger, which asks [`BudgetBook::counting`] which of them count an entry.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use spendfuse_domain::budget::{Budget, BudgetId, CompiledBudget};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::scope::{Dimension, Filter, Pattern, scope_of, scope_part};

/// A scope shape with the predicate that spend must meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Text form, the same for equal series in every process.
    pub id: String,
    /// The dimensions, in their natural order.
    pub shape: Vec<Dimension>,
    /// Which spend counts.
    pub filter: Filter,
}

/// Which budgets count the scopes of one series.
#[derive(Clone, Debug, Default)]
struct SeriesBudgets {
    /// Budgets that name a single scope, by its text.
    exact: HashMap<String, Vec<u32>>,
    /// Templates, by the first scope part that must be equal: its place, its text. There may be one
    /// for each of ten thousand workspaces, and this is asked for each entry of a delta.
    templates: Vec<HashMap<String, Vec<Template>>>,
    /// Templates that take any scope of the series.
    open: Vec<u32>,
}

/// A budget's index, with the further scope parts that must be equal: place and text.
type Template = (u32, Vec<(usize, String)>);

/// All budgets and detector rules of one version.
#[derive(Clone, Debug, Default)]
pub struct BudgetBook {
    /// One more than the offset of the last record of the budgets topic in this book; 0 = empty.
    pub version: u64,
    /// Every budget, by id.
    pub budgets: Vec<CompiledBudget>,
    /// The distinct series of the ledger's budgets.
    pub series: Vec<Series>,
    /// Indexes in [`Self::budgets`] of those that the meter counts itself.
    pub session_budgets: Vec<u32>,
    /// Detector rules.
    pub rules: DetectorRules,
    /// Budgets that exist, but whose records cannot be read here and whose former terms nobody
    /// here knows: nothing is counted in them, and what they have stands still.
    pub unreadable: BTreeSet<BudgetId>,
    by_series: HashMap<String, SeriesBudgets>,
    by_id: BTreeMap<BudgetId, u32>,
}

impl BudgetBook {
    /// Compiles `budgets` and `rules` as of `version` of the budgets topic.
    pub fn compile(version: u64, budgets: Vec<Budget>, rules: DetectorRules) -> Self {
        let mut book = Self {
            version,
            rules,
            ..Self::default()
        };
        let by_id: BTreeMap<BudgetId, Budget> = budgets
            .into_iter()
            .map(|budget| (budget.id.clone(), budget))
            .collect();
        for (id, budget) in by_id {
            let index = book.budgets.len() as u32;
            book.by_id.insert(id, index);
            if budget.window.is_session() {
                book.session_budgets.push(index);
            } else {
                book.enlist(index, &budget);
            }
            let mut compiled = CompiledBudget::new(budget);
            compiled.counts_since_version = version;
            compiled.recorded_at = version;
            book.budgets.push(compiled);
        }
        book
    }

    /// The same after the book `before`: counts that go on run since they were met there.
    pub fn succeeding(mut self, before: &Self) -> Self {
        for compiled in &mut self.budgets {
            let known = before.named(&compiled.budget.id);
            if let Some(known) = known.filter(|known| known.count == compiled.count) {
                compiled.counts_since_version = known.counts_since_version;
            }
        }
        self
    }

    /// The same, where the version is known that each budget's own record made: whoever knows that one
    /// or a later one knows the record, while the book's own may be that of a tombstone, which others
    /// never see once it is compacted away.
    #[must_use]
    pub fn recorded(mut self, versions: &BTreeMap<BudgetId, u64>) -> Self {
        for compiled in &mut self.budgets {
            if let Some(version) = versions.get(&compiled.budget.id) {
                compiled.recorded_at = *version;
            }
        }
        self
    }

    /// The same with budgets that cannot be read.
    pub fn with_unreadable(mut self, unreadable: impl IntoIterator<Item = BudgetId>) -> Self {
        self.unreadable.extend(unreadable);
        self
    }

    /// Whether nothing at all is known: no budget, no rule.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.unreadable.is_empty() && self.rules.are_defaults()
    }

    /// Whether the budget called this is there but cannot be read.
    pub fn is_unreadable(&self, id: &BudgetId) -> bool {
        self.unreadable.contains(id)
    }

    /// The budget at `index` in the book.
    pub fn budget(&self, index: u32) -> &CompiledBudget {
        &self.budgets[index as usize]
    }

    /// The budget named `id`.
    pub fn named(&self, id: &BudgetId) -> Option<&CompiledBudget> {
        self.by_id.get(id).map(|index| self.budget(*index))
    }

    /// The indexes of all budgets that count spend of `scope` in the series named `series`.
    pub fn counting<'a>(&'a self, series: &str, scope: &'a str) -> impl Iterator<Item = u32> + 'a {
        let known = self.by_series.get(series);
        let exact = known
            .and_then(|budgets| budgets.exact.get(scope))
            .into_iter()
            .flatten()
            .copied();
        let open = known.into_iter().flat_map(|budgets| &budgets.open).copied();
        let by_place = known.into_iter().flat_map(|budgets| &budgets.templates);
        let templates = by_place
            .zip(scope.split('/'))
            .filter_map(|(by_text, part)| by_text.get(part))
            .flatten()
            .filter(move |(_, parts)| has_parts(scope, parts))
            .map(|(index, _)| *index);
        exact.chain(open).chain(templates)
    }

    fn enlist(&mut self, index: u32, budget: &Budget) {
        let series = Series::of(budget);
        let budgets = self.by_series.entry(series.id.clone()).or_default();
        match budget.scope.single() {
            Some(scope) => budgets.exact.entry(scope).or_default().push(index),
            None => budgets.enlist(index, exact_parts(budget)),
        }
        if !self.series.iter().any(|known| known.id == series.id) {
            self.series.push(series);
        }
    }
}

impl SeriesBudgets {
    fn enlist(&mut self, index: u32, mut parts: Vec<(usize, String)>) {
        if parts.is_empty() {
            return self.open.push(index);
        }
        let (place, text) = parts.remove(0);
        if self.templates.len() <= place {
            self.templates.resize_with(place + 1, HashMap::default);
        }
        self.templates[place]
            .entry(text)
            .or_default()
            .push((index, parts));
    }
}

impl Series {
    /// The series that counts for `budget`.
    pub fn of(budget: &Budget) -> Self {
        let shape = budget.scope.shape();
        let mut id = String::new();
        for dimension in &shape {
            id.push('/');
            id.push_str(&scope_part(dimension, ""));
        }
        for (dimension, values) in &budget.filter.0 {
            for value in values {
                id.push('|');
                id.push_str(&scope_part(dimension, value));
            }
        }
        Self {
            id,
            shape,
            filter: budget.filter.clone(),
        }
    }
}

/// The exact parts of a template as (index in the scope text split at `/`, text of the part).
fn exact_parts(budget: &Budget) -> Vec<(usize, String)> {
    let has_workspace = matches!(budget.scope.0.first(), Some((Dimension::Workspace, _)));
    let mut parts = Vec::new();
    for (index, (dimension, pattern)) in budget.scope.0.iter().enumerate() {
        let Pattern::Exactly(value) = pattern else {
            continue;
        };
        if *dimension == Dimension::Workspace {
            parts.push((0, scope_of([(dimension, value.as_str())])));
        } else {
            let index = if has_workspace { index } else { index + 1 };
            parts.push((index, scope_part(dimension, value)));
        }
    }
    parts
}

fn has_parts(scope: &str, parts: &[(usize, String)]) -> bool {
    parts
        .iter()
        .all(|(index, part)| scope.split('/').nth(*index) == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deltas and the meter's changelog name series by these texts.
    #[test]
    fn the_ids_of_series_never_change() {
        for (scope, filter, id) in [
            ("{}", "null", ""),
            (r#"{"workspace":"acme"}"#, "null", "/workspace="),
            (
                r#"{"workspace":"acme","customer":"*","tags.te am":"a"}"#,
                r#"{"plan":["free","pro"],"tags.größe":"L/1"}"#,
                "/workspace=/customer=/tags.te%20am=|plan=free|plan=pro|tags.gr%C3%B6%C3%9Fe=L%2F1",
            ),
        ] {
            let record = format!(
                r#"{{"v":1,"scope":{scope},"where":{filter},"limit":"1.00","window":"day","steps":[{{"at":100,"do":"block"}}],"counted_from":"2026-01-01T00:00:00Z"}}"#
            );
            let budget = Budget::from_record("b", record.as_bytes()).expect("a good record");
            assert_eq!(Series::of(&budget).id, id);
        }
    }

    #[test]
    fn ten_thousand_workspaces_with_a_template_each_are_found_without_a_scan() {
        let budget = |number: usize| {
            let record = format!(
                r#"{{"v":1,"scope":{{"workspace":"w-{number}","customer":"*"}},"limit":"1.00","window":"day","steps":[{{"at":100,"do":"block"}}],"counted_from":"2026-01-01T00:00:00Z"}}"#
            );
            Budget::from_record(&format!("b-{number:05}"), record.as_bytes())
                .expect("a good record")
        };
        let mut budgets: Vec<Budget> = (0..10_000).map(budget).collect();
        let more = [
            ("every", r#"{"workspace":"*","customer":"*"}"#),
            ("one", r#"{"workspace":"*","customer":"c-7"}"#),
            ("single", r#"{"workspace":"w-77","customer":"c-7"}"#),
        ];
        for (id, scope) in more {
            let record = format!(
                r#"{{"v":1,"scope":{scope},"limit":"1.00","window":"day","steps":[{{"at":100,"do":"block"}}],"counted_from":"2026-01-01T00:00:00Z"}}"#
            );
            budgets.push(Budget::from_record(id, record.as_bytes()).expect("a good record"));
        }
        let book = BudgetBook::compile(1, budgets, DetectorRules::default());
        let series = book.series[0].id.clone();
        assert_eq!(book.series.len(), 1);
        let found = |scope: &str| -> Vec<String> {
            let indexes = book.counting(&series, scope);
            let mut ids: Vec<String> = indexes
                .map(|index| book.budget(index).budget.id.to_string())
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(
            found("w-77/customer=c-7"),
            ["b-00077", "every", "one", "single"]
        );
        assert_eq!(found("w-9999/customer=c-8"), ["b-09999", "every"]);
        assert_eq!(found("other/customer=c-8"), ["every"]);
        let begin = std::time::Instant::now();
        let total: usize = (0..10_000)
            .map(|_| book.counting(&series, "w-5/customer=c-1").count())
            .sum();
        assert_eq!(total, 20_000);
        // A scan of all templates takes minutes here.
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
    }
}
