//! The fields of one mapping.

use marked_yaml::Node;
use marked_yaml::types::MarkedMappingNode;

use super::mistake::{Mistakes, Position};
use super::values::{is_null, kind};
use crate::spelling::suggest;

/// A mapping whose fields are all known.
pub(super) struct Fields<'n> {
    what: &'n str,
    mapping: &'n MarkedMappingNode,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which describes `what`. Names each field that is not in `known`.
    pub fn open(
        node: &'n Node,
        what: &'n str,
        known: &[&str],
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let fields = Self::unchecked(node, what, mistakes)?;
        for (key, _) in fields.mapping.iter() {
            let name = key.as_str();
            if !known.contains(&name) {
                mistakes.add(
                    key.span().into(),
                    format!("`{name}` is not a field of {what}"),
                    Some(suggest(name, known)),
                );
            }
        }
        Some(fields)
    }

    /// As [`Fields::open`], leaving the names to the caller.
    pub fn unchecked(node: &'n Node, what: &'n str, mistakes: &mut Mistakes) -> Option<Self> {
        let Some(mapping) = node.as_mapping() else {
            mistakes.add(
                node.into(),
                format!("{what} must be a mapping of fields, this is {}", kind(node)),
                None::<String>,
            );
            return None;
        };
        for (key, _) in mapping.iter().filter(|(_, value)| is_null(value)) {
            mistakes.add(
                key.span().into(),
                format!("`{}` has no value", key.as_str()),
                Some("write one, or leave the field out"),
            );
        }
        Some(Self { what, mapping })
    }

    /// The value of the field called `name`; `None` also where the file gives it no value, which is
    /// a mistake already.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.mapping.get_node(name).filter(|node| !is_null(node))
    }

    /// Whether the field is named, with a value or without.
    pub fn has(&self, name: &str) -> bool {
        self.mapping.get_node(name).is_some()
    }

    /// As [`Fields::get`], naming the mistake where it is missing.
    pub fn required(
        &self,
        name: &str,
        suggestion: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&'n Node> {
        if !self.has(name) {
            mistakes.add(
                self.position(),
                format!("{} needs `{name}`", self.what),
                Some(suggestion),
            );
        }
        self.get(name)
    }

    /// The entries of the list called `name`; none where it is absent.
    pub fn entries(&self, name: &str, mistakes: &mut Mistakes) -> &'n [Node] {
        let Some(node) = self.get(name) else {
            return &[];
        };
        if let Some(list) = node.as_sequence() {
            return list;
        }
        mistakes.add(
            node.into(),
            format!("`{name}` must be a list, this is {}", kind(node)),
            Some(format!("write `{name}: []` for none")),
        );
        &[]
    }

    /// Every field that has a value, with the place of its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'n str, Position, &'n Node)> {
        let given = self.mapping.iter().filter(|(_, value)| !is_null(value));
        given.map(|(key, value)| (key.as_str(), Position::from(key.span()), value))
    }

    /// The place of the field's name; the mapping's where it is absent.
    pub fn position_of(&self, name: &str) -> Position {
        self.iter()
            .find(|(known, ..)| *known == name)
            .map_or(self.position(), |(_, position, _)| position)
    }

    /// Where the mapping's first field is. The loader's own mark of a block mapping is behind the
    /// first name (marked-yaml 0.8.0).
    pub fn position(&self) -> Position {
        let first = self.mapping.keys().next();
        first.map_or(self.mapping.span(), |key| key.span()).into()
    }
}
