//! A file of others as its values, each with its place: what nobody takes is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use marked_yaml::{LoaderOptions, Node, parse_yaml_with_options};

use crate::commands::Failure;

/// Where a value stands: names, and numbers in lists.
pub type Place = Vec<String>;

/// Values that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Leaves(BTreeMap<Place, Leaf>);

#[derive(Debug)]
struct Leaf {
    text: String,
    line: usize,
}

impl Leaves {
    /// Reads YAML, or JSON, which is some.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed =
            |why: &dyn std::fmt::Display| Failure::usage(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        Self::parse(&text).map_err(|error| failed(&error))
    }

    pub fn parse(text: &str) -> Result<Self, marked_yaml::LoadError> {
        let tree = parse_yaml_with_options(0, text, LoaderOptions::default())?;
        let mut leaves = Self::default();
        leaves.add(&tree, &mut Vec::new());
        Ok(leaves)
    }

    fn add(&mut self, node: &Node, place: &mut Place) {
        let line = node.span().start().map_or(0, |start| start.line());
        match node {
            Node::Scalar(scalar) => {
                let text = scalar.as_str().to_owned();
                self.0.insert(place.clone(), Leaf { text, line });
            }
            Node::Sequence(items) => {
                for (number, item) in items.iter().enumerate() {
                    // So that the tenth does not come before the second.
                    place.push(format!("{number:04}"));
                    self.add(item, place);
                    place.pop();
                }
            }
            Node::Mapping(members) => {
                for (name, value) in members.iter() {
                    place.push(name.as_str().to_owned());
                    self.add(value, place);
                    place.pop();
                }
            }
        }
    }

    /// The value at a place; empty ones say nothing.
    pub fn take(&mut self, place: &[&str]) -> Option<String> {
        let place: Place = place.iter().map(|name| (*name).to_owned()).collect();
        let text = self.0.remove(&place)?.text;
        (!text.is_empty() && text != "null" && text != "~").then_some(text)
    }

    /// The names, or numbers, that follow this place.
    pub fn names(&self, place: &[&str]) -> Vec<String> {
        let is_below = |one: &&Place| {
            one.len() > place.len() && one.iter().zip(place).all(|(name, wanted)| name == wanted)
        };
        let below = self.0.keys().filter(is_below);
        let names: BTreeSet<&String> = below.map(|one| &one[place.len()]).collect();
        names.into_iter().cloned().collect()
    }

    /// What nobody has taken, with its line.
    pub fn rest(&self) -> Vec<(String, usize)> {
        let rest = self.0.iter();
        rest.map(|(place, leaf)| (shown(place), leaf.line))
            .collect()
    }
}

/// A place as people write it: `model_list[0].model_name`.
fn shown(place: &Place) -> String {
    let mut text = String::new();
    for part in place {
        let is_number = part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        match (is_number.then(|| part.parse::<usize>()), text.is_empty()) {
            (Some(Ok(number)), _) => text.push_str(&format!("[{number}]")),
            (_, true) => text.push_str(part),
            (_, false) => text.push_str(&format!(".{part}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_left_with_its_line() {
        let mut leaves = Leaves::parse("a:\n  - b: 1\n    c: null\nd.e: x\n").unwrap();
        assert_eq!(leaves.names(&["a"]), ["0000"]);
        assert_eq!(leaves.take(&["a", "0000", "b"]).as_deref(), Some("1"));
        assert_eq!(leaves.take(&["a", "0000", "b"]), None);
        assert_eq!(
            leaves.rest(),
            [("a[0].c".to_owned(), 3), ("d.e".to_owned(), 4)]
        );
        assert_eq!(leaves.take(&["a", "0000", "c"]), None);
    }
}
