//! JSON forms of the parts of a budget that records, blocklist entries and findings share.

use serde_json::{Map, Value};

use crate::scope::{Dimension, Filter, Pattern, ScopeTemplate, scope_of};
use crate::window::WindowKind;

/// The value that stands for "one budget for each value".
pub(super) const EACH: &str = "*";

impl ScopeTemplate {
    /// The scope as an object of dimension to value, `"*"` for a template:
    /// `{"workspace":"acme","customer":"*"}`.
    pub fn to_json(&self) -> Map<String, Value> {
        let part = |(dimension, pattern): &(Dimension, Pattern)| {
            let value = match pattern {
                Pattern::Each => EACH,
                Pattern::Exactly(value) => value,
            };
            (dimension.name().into_owned(), Value::from(value))
        };
        self.0.iter().map(part).collect()
    }

    /// Reads what [`ScopeTemplate::to_json`] writes.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self, String> {
        let mut parts = Vec::with_capacity(object.len());
        for (name, value) in object {
            let pattern = match value.as_str() {
                None | Some("") => return Err(format!("scope.{name} is not a text")),
                Some(EACH) => Pattern::Each,
                Some(exact) => Pattern::Exactly(exact.to_owned()),
            };
            parts.push((known_dimension("scope", name)?, pattern));
        }
        Ok(Self::new(parts))
    }

    /// This scope as a budget with windows of `kind` writes it: a session window counts each session
    /// for itself anyway, so `session: "*"` (`root_session: "*"`) says nothing more and is left out.
    /// That also lets a session without a root be its own root session. Sessions belong to their
    /// workspace: without one in the scope it is each workspace, so that two sessions of the same
    /// name are never one.
    #[must_use]
    pub fn counted_in(mut self, kind: WindowKind) -> Self {
        let Some(session) = kind.session() else {
            return self;
        };
        self.0
            .retain(|part| *part != (session.clone(), Pattern::Each));
        if self
            .0
            .iter()
            .all(|(known, _)| *known != Dimension::Workspace)
        {
            self.0.insert(0, (Dimension::Workspace, Pattern::Each));
        }
        self
    }
}

/// As in scope texts, with `*` for templates: `acme/customer=*`.
impl std::fmt::Display for ScopeTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let workspace = self.0.iter().find_map(|part| match part {
            (Dimension::Workspace, Pattern::Exactly(value)) => Some(value.as_str()),
            _ => None,
        });
        let mut text = scope_of(workspace.map(|value| (&Dimension::Workspace, value)));
        for (dimension, pattern) in &self.0 {
            if *dimension == Dimension::Workspace {
                continue;
            }
            text.push('/');
            text.push_str(&dimension.name());
            text.push('=');
            text.push_str(match pattern {
                Pattern::Each => EACH,
                Pattern::Exactly(value) => value,
            });
        }
        formatter.pad(&text)
    }
}

impl Filter {
    /// The conditions as an object of dimension to value or list of values, `None` without any:
    /// `{"plan":"free","model":["gpt-4o","o3"]}`.
    pub fn to_json(&self) -> Option<Map<String, Value>> {
        if self.is_empty() {
            return None;
        }
        let condition = |(dimension, values): &(Dimension, Vec<String>)| {
            let value = match values.as_slice() {
                [only] => Value::from(only.as_str()),
                several => Value::from(several.to_vec()),
            };
            (dimension.name().into_owned(), value)
        };
        Some(self.0.iter().map(condition).collect())
    }

    /// Reads what [`Filter::to_json`] writes.
    ///
    /// # Errors
    /// What is wrong with which field.
    pub fn from_json(object: &Map<String, Value>) -> Result<Self, String> {
        let mut conditions = Vec::with_capacity(object.len());
        for (name, value) in object {
            let values = match value {
                Value::Array(values) => values.as_slice(),
                single => std::slice::from_ref(single),
            };
            let texts: Option<Vec<String>> = values
                .iter()
                .map(|value| value.as_str().map(str::to_owned))
                .collect();
            let texts = texts.filter(|texts| !texts.is_empty());
            let texts =
                texts.ok_or_else(|| format!("where.{name} is not a text or a list of texts"))?;
            conditions.push((known_dimension("where", name)?, texts));
        }
        Ok(Self::new(conditions))
    }
}

fn known_dimension(field: &str, name: &str) -> Result<Dimension, String> {
    Dimension::from_name(name).ok_or_else(|| format!("{field}.{name} is not a known dimension"))
}
