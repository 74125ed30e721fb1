//! Scope texts, written and taken apart: `acme/customer=c-42/tags.team=growth`.
//!
//! Blocklist, findings, deltas and tables know scopes by these texts, so one scope must have one
//! text: nobody else writes or reads the escapes.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Dimension, Dimensions};

/// What becomes `%XX`: everything but `A–Z a–z 0–9 - . _ ~`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A scope text, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeText {
    /// `None` for a scope across all workspaces.
    pub workspace: Option<String>,
    /// The other dimensions with their values, in their natural order.
    pub parts: Vec<(Dimension, String)>,
}

impl ScopeText {
    /// Takes `text` apart. `None` where it is not exactly as [`scope_of`] writes it: of two texts
    /// that say the same, one is not a scope's.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = text.split('/');
        let workspace = match pieces.next()? {
            "*" => None,
            workspace => Some(unescaped(workspace)?),
        };
        let part = |piece: &str| {
            let (name, value) = piece.split_once('=')?;
            let dimension = Dimension::from_name(&unescaped(name)?)?;
            Some((dimension, unescaped(value)?))
        };
        let parts = pieces.map(part).collect::<Option<Vec<_>>>()?;
        let scope = Self { workspace, parts };
        let is_ordered = scope.parts.is_sorted_by(|(one, _), (next, _)| one < next);
        (is_ordered && scope.to_string() == text).then_some(scope)
    }
}

impl std::fmt::Display for ScopeText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Writer::begin(self.workspace.as_deref());
        for (dimension, value) in &self.parts {
            text.part(dimension, value);
        }
        formatter.pad(&text.0)
    }
}

impl Dimensions for ScopeText {
    fn value(&self, dimension: &Dimension) -> &str {
        if *dimension == Dimension::Workspace {
            return self.workspace.as_deref().unwrap_or_default();
        }
        let part = self.parts.iter().find(|(known, _)| known == dimension);
        part.map_or("", |(_, value)| value)
    }
}

/// The text of the scope with these values, which must be in the natural order of their dimensions;
/// without a workspace it is one across all.
pub fn scope_of<'p>(parts: impl IntoIterator<Item = (&'p Dimension, &'p str)>) -> String {
    let mut parts = parts.into_iter().peekable();
    let workspace = parts.next_if(|(dimension, _)| **dimension == Dimension::Workspace);
    let mut text = Writer::begin(workspace.map(|(_, value)| value));
    for (dimension, value) in parts {
        text.part(dimension, value);
    }
    text.0
}

/// The scope text of `values` over `dimensions`, which must be in their natural order; `None` where
/// a value is absent, because spend without a customer belongs to no customer's scope.
pub fn scope_text<D: Dimensions + ?Sized>(dimensions: &[Dimension], values: &D) -> Option<String> {
    debug_assert!(dimensions.is_sorted());
    let (has_workspace, rest) = match dimensions.first() {
        Some(Dimension::Workspace) => (true, &dimensions[1..]),
        _ => (false, dimensions),
    };
    let mut text = Writer::begin(has_workspace.then(|| values.value(&Dimension::Workspace)));
    for dimension in rest {
        let value = values.value(dimension);
        if value.is_empty() {
            return None;
        }
        text.part(dimension, value);
    }
    Some(text.0)
}

/// The scopes of the session and of the root session that `who` names.
pub fn session_scopes<D: Dimensions + ?Sized>(who: &D) -> impl Iterator<Item = String> {
    let sessions = [Dimension::Session, Dimension::RootSession];
    let shapes = sessions.map(|session| [Dimension::Workspace, session]);
    shapes
        .into_iter()
        .filter_map(|shape| scope_text(&shape, who))
}

/// How a scope text says one dimension after the workspace: `customer=c-42`.
pub fn scope_part(dimension: &Dimension, value: &str) -> String {
    let mut text = Writer::default();
    text.part(dimension, value);
    text.0.split_off(1)
}

/// The workspace that a scope text begins with; `*` for all.
pub fn workspace_of(text: &str) -> Cow<'_, str> {
    let first = text.split('/').next().unwrap_or_default();
    percent_decode_str(first).decode_utf8_lossy()
}

/// Whether the scope with this text holds spend of `workspace`: it is of that one, or across all.
pub fn holds_workspace(text: &str, workspace: &str) -> bool {
    let first = text.split('/').next();
    first == Some("*") || workspace_of(text) == workspace
}

fn unescaped(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// Writes a text part by part.
#[derive(Default)]
struct Writer(String);

impl Writer {
    fn begin(workspace: Option<&str>) -> Self {
        let mut text = Self(String::with_capacity(48));
        match workspace {
            Some(workspace) => text.escaped(workspace),
            None => text.0.push('*'),
        }
        text
    }

    fn part(&mut self, dimension: &Dimension, value: &str) {
        self.0.push('/');
        if let Dimension::Tag(tag) = dimension {
            self.0.push_str("tags.");
            self.escaped(tag);
        } else {
            self.0.push_str(&dimension.name());
        }
        self.0.push('=');
        self.escaped(value);
    }

    fn escaped(&mut self, value: &str) {
        self.0.extend(utf8_percent_encode(value, ESCAPED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_text_orders_and_escapes() {
        let (workspace, customer) = (Dimension::Workspace, Dimension::Customer);
        let team = Dimension::Tag("te am".into());
        let values = ScopeText {
            workspace: Some("acme".into()),
            parts: vec![
                (customer.clone(), "c 4/2".into()),
                (team.clone(), "größe~".into()),
            ],
        };
        let text = "acme/customer=c%204%2F2/tags.te%20am=gr%C3%B6%C3%9Fe~";
        let shape = [workspace.clone(), customer.clone(), team];
        assert_eq!(scope_text(&shape, &values).as_deref(), Some(text));
        assert_eq!(ScopeText::parse(text), Some(values.clone()));
        assert_eq!(scope_text(&[], &values).as_deref(), Some("*"));
        let everywhere = scope_text(&shape[1..2], &values);
        assert_eq!(everywhere.as_deref(), Some("*/customer=c%204%2F2"));
        assert_eq!(
            scope_text(&[workspace.clone(), Dimension::User], &values),
            None
        );
        assert_eq!(
            scope_of([(&workspace, "*"), (&customer, "")]),
            "%2A/customer="
        );
        assert_eq!(scope_part(&customer, "c 1"), "customer=c%201");
        assert_eq!(workspace_of("gr%C3%B6%C3%9Fe%2F1/user=u"), "größe/1");
        assert_eq!((&*workspace_of("*"), &*workspace_of("acme")), ("*", "acme"));
        for (scope, workspace, holds) in [
            ("*/customer=c", "acme", true),
            ("gr%C3%B6%C3%9Fe/customer=c", "größe", true),
            ("acme/customer=c", "größe", false),
            ("%2A/customer=c", "acme", false),
        ] {
            assert_eq!(holds_workspace(scope, workspace), holds, "{scope}");
        }
    }

    #[test]
    fn only_a_text_as_it_is_written_is_taken_apart() {
        let everywhere = ScopeText::parse("*/plan=free").unwrap();
        assert_eq!((everywhere.workspace, everywhere.parts.len()), (None, 1));
        let unnamed = ScopeText::parse("/plan=free").unwrap();
        assert_eq!(unnamed.workspace.as_deref(), Some(""));
        for text in [
            "acme/plan=b/customer=a",
            "acme/plan=%62",
            "acme/plan=b/",
            "acme/plan=b/plan=b",
            "acme/colour=b",
            "acme/plan=%",
            "acme/plan=%+f",
            "acme/plan=%c3%9f",
            "acme/plan=%FF",
            "acme/plan=a b",
        ] {
            assert_eq!(ScopeText::parse(text), None, "{text}");
        }
    }
}
