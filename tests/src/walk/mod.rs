//! A newcomer's walk: the documentation's commands as printed, in its order, their answers compared.
//!
//! In: the repository's files, copied to a folder of their own, and built executables. Every fenced
//! `sh` block of a page is run; the fenced block after it, if there is one before the next text, is
//! what must be printed. Called by `make walk`, and by a test on ports of its own.

mod answer;
mod page;
mod place;

use std::time::{Duration, Instant};

pub use place::{Place, Ports};

use crate::wait::pause;
use page::Snippet;

/// Where the first screens are.
const FIRST_PAGE: &str = "README.md";
const FIRST_SECTIONS: [&str; 2] = ["Send your first event", "Ask before you call"];
/// Where wrong turns are, with what is printed then.
const WRONG_TURNS: &str = "docs/wrong-turns.md";

/// A person reads for longer; state that follows an event is in force long before.
const READING_TIME: Duration = Duration::from_millis(500);
/// How long an answer may be another one: on a loaded machine, state follows an event more slowly.
const PATIENCE: Duration = Duration::from_secs(15);
const FIRST_EVENT_WITHIN: Duration = Duration::from_secs(60);
const FIRST_REFUSAL_WITHIN: Duration = Duration::from_secs(120);

/// How long a newcomer's first steps took.
#[derive(Debug)]
pub struct Walked {
    /// From the first command to the answer about the first event.
    pub first_event: Duration,
    /// From the first command to the first refused call.
    pub first_refusal: Duration,
    /// Snippets that were run.
    pub snippets: usize,
}

/// Walks the first screens and the wrong turns, and stops what was started.
///
/// # Errors
/// The first snippet that does not do what its page says, with what was printed instead; or a first
/// event or refusal that came too late.
pub fn walk(place: &Place) -> Result<Walked, String> {
    let first = page::snippets(&place.read(FIRST_PAGE)?, &FIRST_SECTIONS);
    let wrong = page::snippets(&place.read(WRONG_TURNS)?, &[]);
    if first.len() < FIRST_SECTIONS.len() || wrong.len() < 3 {
        return Err(format!("no commands in {FIRST_PAGE} or {WRONG_TURNS}"));
    }
    yaml_of_the_page_is_the_file(place)?;
    let begin = Instant::now();
    let (mut first_event, mut first_refusal) = (None, None);
    for snippet in first.iter().chain(&wrong) {
        try_snippet(place, snippet)?;
        let answer = snippet.answer.as_deref().unwrap_or_default();
        if answer.contains("\"accepted\":1") {
            first_event.get_or_insert(begin.elapsed());
        }
        if answer.contains("budget_exceeded") {
            first_refusal.get_or_insert(begin.elapsed());
        }
        pause(READING_TIME);
    }
    place.stop()?;
    let within = |what: &str, taken: Option<Duration>, most: Duration| match taken {
        Some(taken) if taken <= most => Ok(taken),
        Some(taken) => Err(format!("the first {what} came after {taken:?}")),
        None => Err(format!("{FIRST_PAGE} does not get to a first {what}")),
    };
    Ok(Walked {
        first_event: within("event", first_event, FIRST_EVENT_WITHIN)?,
        first_refusal: within("refusal", first_refusal, FIRST_REFUSAL_WITHIN)?,
        snippets: first.len() + wrong.len(),
    })
}

/// Runs a snippet until its answer is the printed one; all of them may be run again.
fn try_snippet(place: &Place, snippet: &Snippet) -> Result<(), String> {
    let begin = Instant::now();
    let mut first_difference = None;
    loop {
        let said = place.run(&snippet.commands)?;
        let difference = match &snippet.answer {
            Some(answer) => answer::difference(answer, &place.as_printed(&said.output)),
            None if said.succeeded => None,
            None => Some(format!("it failed:\n{}", said.output)),
        };
        let Some(difference) = difference else {
            return Ok(());
        };
        let first = first_difference.get_or_insert(difference);
        if begin.elapsed() > PATIENCE {
            return Err(format!("{}\n{first}", snippet.commands));
        }
        pause(READING_TIME);
    }
}

/// The budgets that the page shows are those of the file that its command names.
fn yaml_of_the_page_is_the_file(place: &Place) -> Result<(), String> {
    let text = place.read(FIRST_PAGE)?;
    for (path, yaml) in page::yaml_files(&text) {
        if place.read(&path)? != yaml {
            return Err(format!("{FIRST_PAGE} shows another {path} than there is"));
        }
    }
    Ok(())
}
