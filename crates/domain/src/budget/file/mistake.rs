//! Mistakes in a budgets file, and where they are.

use std::fmt;

use marked_yaml::{Marker, Node, Span};

/// One mistake in a budgets file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// `line:column: message; suggestion`, so that the file's name and a colon may stand before it.
impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(formatter, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// Where something stands in the file, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub line: usize,
    pub column: usize,
}

impl From<Option<&Marker>> for Position {
    fn from(marker: Option<&Marker>) -> Self {
        // Nodes that come from a file always have a start.
        marker.map_or(Self { line: 1, column: 1 }, |marker| Self {
            line: marker.line(),
            column: marker.column(),
        })
    }
}

impl From<&Span> for Position {
    fn from(span: &Span) -> Self {
        span.start().into()
    }
}

impl From<&Node> for Position {
    fn from(node: &Node) -> Self {
        node.span().into()
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub fn add<S: Into<String>>(
        &mut self,
        position: Position,
        message: impl Into<String>,
        suggestion: Option<S>,
    ) {
        self.0.push(Mistake {
            line: position.line,
            column: position.column,
            message: message.into(),
            suggestion: suggestion.map(Into::into),
        });
    }

    /// How many there are: an entry that added none is right.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn into_result<T>(mut self, value: T) -> Result<T, Vec<Mistake>> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort();
        self.0.dedup();
        Err(self.0)
    }
}
