//! What was found, a line for each look.

use serde::Serialize;

use super::super::output;
use output::Colour;

/// What a line says of the days to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Worth a look; nothing breaks within a week.
    Warning,
    /// Hurts now, or within a week.
    Wrong,
    /// Could not be looked at.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Line {
    part: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// All lines, in the order of looking.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(super) fn ok(&mut self, part: &'static str, found: impl Into<String>) {
        self.add(part, State::Ok, found.into(), None);
    }

    pub(super) fn warning(
        &mut self,
        part: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(part, State::Warning, found.into(), Some(todo.into()));
    }

    pub(super) fn wrong(
        &mut self,
        part: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(part, State::Wrong, found.into(), Some(todo.into()));
    }

    pub(super) fn unknown(
        &mut self,
        part: &'static str,
        found: impl Into<String>,
        todo: impl Into<String>,
    ) {
        self.add(part, State::Unknown, found.into(), Some(todo.into()));
    }

    fn add(&mut self, part: &'static str, state: State, found: String, todo: Option<String>) {
        self.lines.push(Line {
            part,
            state,
            found,
            todo,
        });
    }

    /// Whether nothing hurts within a week.
    pub(super) fn is_well(&self) -> bool {
        self.lines.iter().all(|line| line.state != State::Wrong)
    }

    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            output::json(&serde_json::json!({"well": self.is_well(), "lines": self.lines}));
            return;
        }
        for line in &self.lines {
            let (word, colour) = match line.state {
                State::Ok => ("ok       ", Some(Colour::Green)),
                State::Warning => ("warning  ", Some(Colour::Yellow)),
                State::Wrong => ("WRONG    ", Some(Colour::Red)),
                State::Unknown => ("unknown  ", None),
            };
            let found = format!("{:<14} {}", line.part, line.found);
            output::parts(&[(word, colour), (&found, None)]);
            if let Some(todo) = &line.todo {
                output::line(format!("{:24} -> {todo}", ""));
            }
        }
    }
}
