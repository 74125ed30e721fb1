//! Scopes, made of dimensions, and the predicates of budgets.
//!
//! A scope's text form is `acme/customer=c-42/tags.team=growth`: the workspace first (`*` = all),
//! then dimensions in a fixed order. Bytes outside `A–Z a–z 0–9 - . _ ~` become `%XX`.

mod text;

pub use text::{
    ScopeText, holds_workspace, scope_of, scope_part, scope_text, session_scopes, workspace_of,
};

pub use crate::dimensions::{Dimension, Dimensions, FixedDimension};

/// What a budget says about one dimension of its scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `"*"`: one budget for each value.
    Each,
    /// Exactly this value.
    Exactly(String),
}

/// A budget's scope: dimensions in their natural order, each exact or a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeTemplate(pub Vec<(Dimension, Pattern)>);

impl ScopeTemplate {
    /// A template from parts in any order.
    pub fn new(mut parts: Vec<(Dimension, Pattern)>) -> Self {
        parts.sort();
        Self(parts)
    }

    /// The scope shape: the dimensions without values, in their natural order.
    pub fn shape(&self) -> Vec<Dimension> {
        self.0
            .iter()
            .map(|(dimension, _)| dimension.clone())
            .collect()
    }

    /// The text of the only scope that it names; `None` for one of many.
    pub fn single(&self) -> Option<String> {
        let parts = self.0.iter().map(|(dimension, pattern)| match pattern {
            Pattern::Exactly(value) => Some((dimension, value.as_str())),
            Pattern::Each => None,
        });
        let parts: Option<Vec<_>> = parts.collect();
        parts.map(scope_of)
    }

    /// Whether `values` lie in this scope: every exact value equal, every template dimension present.
    pub fn covers<D: Dimensions + ?Sized>(&self, values: &D) -> bool {
        self.0.iter().all(|(dimension, pattern)| {
            let value = values.value(dimension);
            match pattern {
                Pattern::Each => !value.is_empty(),
                Pattern::Exactly(exact) => value == exact,
            }
        })
    }
}

/// A budget's `where`: every named dimension must have one of the listed values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(pub Vec<(Dimension, Vec<String>)>);

/// How a request stands to a [`Filter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMatch {
    /// Every condition holds.
    Holds,
    /// A condition contradicts the request.
    Contradicts,
    /// None contradicts, but the request lacks a field that one asks for.
    Unknown,
}

impl Filter {
    /// A filter from conditions in any order.
    pub fn new(mut conditions: Vec<(Dimension, Vec<String>)>) -> Self {
        for (_, values) in &mut conditions {
            values.sort();
            values.dedup();
        }
        conditions.sort();
        Self(conditions)
    }

    /// Whether there is no condition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an event with these values is counted.
    pub fn holds<D: Dimensions + ?Sized>(&self, values: &D) -> bool {
        self.evaluate(values) == FilterMatch::Holds
    }

    /// How `values` stand to the conditions.
    pub fn evaluate<D: Dimensions + ?Sized>(&self, values: &D) -> FilterMatch {
        let mut result = FilterMatch::Holds;
        for (dimension, allowed) in &self.0 {
            let value = values.value(dimension);
            if value.is_empty() {
                result = FilterMatch::Unknown;
            } else if !allowed.iter().any(|one| one == value) {
                return FilterMatch::Contradicts;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Values(Vec<(Dimension, &'static str)>);
    impl Dimensions for Values {
        fn value(&self, dimension: &Dimension) -> &str {
            self.0
                .iter()
                .find(|(known, _)| known == dimension)
                .map_or("", |(_, value)| value)
        }
    }

    #[test]
    fn filter_tells_contradiction_from_ignorance() {
        let values = Values(vec![(Dimension::Plan, "pro")]);
        let plan = |name: &str| (Dimension::Plan, vec![name.to_owned()]);
        let user = (Dimension::User, vec!["u".to_owned()]);
        let evaluate = |conditions| Filter::new(conditions).evaluate(&values);
        assert_eq!(evaluate(vec![plan("pro")]), FilterMatch::Holds);
        assert_eq!(
            evaluate(vec![plan("free"), user.clone()]),
            FilterMatch::Contradicts
        );
        assert_eq!(evaluate(vec![plan("pro"), user]), FilterMatch::Unknown);
    }
}
