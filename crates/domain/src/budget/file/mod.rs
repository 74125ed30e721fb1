//! The budgets file: YAML that people write, read into drafts or into a list of every mistake.
//!
//! [`BudgetsFile::parse`] is called by `spendfuse budgets validate` and `apply`. Nothing is guessed or
//! ignored: an unknown field, a value out of range or something that is not built yet is a
//! [`Mistake`] with its line, what is wrong and what to write instead.

mod budget;
mod detector;
mod dimensions;
mod fields;
mod mistake;
mod steps;
mod values;

use std::collections::HashMap;

use marked_yaml::{LoadError, LoaderOptions, Node, parse_yaml_with_options};

pub use mistake::Mistake;

use super::{Budget, BudgetId};
use crate::finding::DetectorRule;
use crate::time::UnixMillis;
use fields::Fields;
use mistake::{Mistakes, Position};

/// What a budgets file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetsFile {
    /// The entries of `budgets:`, in file order.
    pub budgets: Vec<BudgetDraft>,
    /// The entries of `detectors:`, in file order, which is also their `order`.
    pub detectors: Vec<DetectorRule>,
}

/// A budget as the file describes it: it becomes a [`Budget`] when `apply` decides since when it
/// counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetDraft(Budget);

impl BudgetDraft {
    /// The budget's id.
    pub fn id(&self) -> &BudgetId {
        &self.0.id
    }

    /// The budget, counting since `counted_from`.
    pub fn counting_from(&self, counted_from: UnixMillis) -> Budget {
        Budget {
            counted_from,
            ..self.0.clone()
        }
    }
}

impl BudgetsFile {
    /// Reads a budgets file.
    ///
    /// # Errors
    /// Every mistake in the file, in the order of its lines. A text that is not YAML has one, because
    /// nothing after it can be read.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Mistakes::default();
        let yaml = yaml.strip_prefix('\u{feff}').unwrap_or(yaml);
        if let Some(line) = second_document(yaml) {
            mistakes.add(
                Position { line, column: 1 },
                "the file holds more than one YAML document",
                Some("keep all budgets and detectors in the first one"),
            );
        }
        let options = LoaderOptions::default()
            .error_on_duplicate_keys(true)
            .prevent_coercion(true);
        let file = match parse_yaml_with_options(0, yaml, options) {
            Ok(root) => read_root(&root, &mut mistakes),
            Err(error) => {
                add_load_error(&error, yaml, &mut mistakes);
                Self::default()
            }
        };
        mistakes.into_result(file)
    }
}

fn read_root(root: &Node, mistakes: &mut Mistakes) -> BudgetsFile {
    let known = ["budgets", "detectors"];
    let Some(fields) = Fields::open(root, "the budgets file", &known, mistakes) else {
        return BudgetsFile::default();
    };
    if !known.iter().any(|name| fields.has(name)) {
        mistakes.add(
            root.into(),
            "the file has neither `budgets` nor `detectors`",
            Some("begin with `budgets:`, or write `budgets: []` for none"),
        );
    }
    let mut ids = HashMap::new();
    let mut budgets = Vec::new();
    for node in fields.entries("budgets", mistakes) {
        budgets.extend(budget::read(node, mistakes));
        refuse_second_use(node, "budget", &mut ids, mistakes);
    }
    ids.clear();
    let mut detectors = Vec::new();
    for (order, node) in (0..).zip(fields.entries("detectors", mistakes)) {
        detectors.extend(detector::read(node, order, mistakes));
        refuse_second_use(node, "detector", &mut ids, mistakes);
    }
    BudgetsFile { budgets, detectors }
}

/// Ids are compared as they are written, so that a duplicate is named even where its entry has other
/// mistakes.
fn refuse_second_use<'n>(
    node: &'n Node,
    what: &str,
    lines: &mut HashMap<&'n str, usize>,
    mistakes: &mut Mistakes,
) {
    let Some(id) = node.as_mapping().and_then(|entry| entry.get_scalar("id")) else {
        return;
    };
    let position = Position::from(id.span());
    if let Some(first) = lines.insert(id.as_str(), position.line) {
        mistakes.add(
            position,
            format!(
                "there are two {what}s `{}`, the other in line {first}",
                id.as_str()
            ),
            Some("give one of them another id"),
        );
    }
}

/// The line in which a second document of the YAML stream begins. The loader reads the first one
/// only and says nothing about the rest (marked-yaml 0.8.0).
fn second_document(yaml: &str) -> Option<usize> {
    let is_marker = |line: &str| matches!(line.split_whitespace().next(), Some("---" | "..."));
    let is_content = |line: &str| {
        let text = line.trim();
        !text.is_empty() && !text.starts_with(['#', '%'])
    };
    let mut content = false;
    let mut ended = false;
    for (number, line) in (1..).zip(yaml.lines()) {
        // Markers stand at the start of a line; there they end even a block of text.
        if line.starts_with("---") && is_marker(line) {
            if content {
                return Some(number);
            }
            content = line.len() > 3;
        } else if line.starts_with("...") && is_marker(line) {
            ended = true;
        } else if is_content(line) {
            if ended {
                return Some(number);
            }
            content = true;
        }
    }
    None
}

fn add_load_error(error: &LoadError, yaml: &str, mistakes: &mut Mistakes) {
    let quote_star = || {
        let line = Position::from(marker(error)).line;
        let text = yaml.lines().nth(line.saturating_sub(1)).unwrap_or("");
        let has_bare_star = text.contains(": *") || text.contains("[*") || text.contains("- *");
        has_bare_star.then_some("quote the star: \"*\"")
    };
    let (message, suggestion) = match error {
        LoadError::TopLevelMustBeMapping(_) | LoadError::TopLevelMustBeSequence(_) => (
            "the file must begin with `budgets:` or `detectors:`".to_owned(),
            None,
        ),
        LoadError::UnexpectedAnchor(_) => (
            "anchors and aliases are not supported".to_owned(),
            Some("write the value out at each place"),
        ),
        LoadError::MappingKeyMustBeScalar(_) => ("a field's name must be a text".to_owned(), None),
        LoadError::UnexpectedTag(_) => (
            "tags such as `!name` are not supported".to_owned(),
            Some("quote a text that begins with an exclamation mark"),
        ),
        LoadError::DuplicateKey(keys) => (
            format!(
                "`{}` is there twice, first in line {}",
                keys.key.as_str(),
                Position::from(keys.prev_key.span()).line
            ),
            Some("keep one of them"),
        ),
        LoadError::ScanError(_, detail) => {
            (format!("this is not YAML: {}", detail.info()), quote_star())
        }
    };
    mistakes.add(marker(error).into(), message, suggestion);
}

fn marker(error: &LoadError) -> Option<&marked_yaml::Marker> {
    match error {
        LoadError::TopLevelMustBeMapping(marker)
        | LoadError::TopLevelMustBeSequence(marker)
        | LoadError::UnexpectedAnchor(marker)
        | LoadError::MappingKeyMustBeScalar(marker)
        | LoadError::UnexpectedTag(marker)
        | LoadError::ScanError(marker, _) => Some(marker),
        LoadError::DuplicateKey(keys) => keys.key.span().start(),
    }
}
