//! What people read, whatever the channel: one line that says who, what and how much; the figures;
//! what to do. Everything in an alert may come from outside and is made printable here; each channel
//! escapes what its own markup obeys.

use spendfuse_domain::{Amount, Percent, Severity, printable};
use spendfuse_engine::alert::{Alert, AlertDetails};

use crate::letter::{Letter, What};

/// The longest line, characters; the whole text is in `spendfuse alerts show`.
const LONGEST_LINE: usize = 400;
/// The scope of an alert that is about no workspace.
const EVERYTHING: &str = "*";
/// Alerts of a digest that are named.
const NAMED: usize = 15;

/// The words of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// `[critical] acme/customer=c-42 reached 100 % of …`: a mail's subject, a card's title.
    pub headline: String,
    /// Names and values, in the order of reading.
    pub facts: Vec<(&'static str, String)>,
    /// One line for each alert, where there are several.
    pub lines: Vec<String>,
    /// What to do.
    pub advice: String,
    /// What else to know: places that did not take it.
    pub notes: Vec<String>,
}

/// The words of a letter.
pub fn words(letter: &Letter) -> Words {
    let mut words = match letter.alerts.as_slice() {
        [alert] => of_one(letter, alert),
        several => of_several(letter, several),
    };
    let passed = letter.passed.iter();
    words.notes = passed
        .map(|passed| {
            let (to, reason) = (line(&passed.to), line(&passed.reason));
            format!("{to} did not take this message: {reason}")
        })
        .collect();
    words
}

fn of_one(letter: &Letter, alert: &Alert) -> Words {
    let severity = alert.severity.name();
    let is_over = letter.is_over(alert);
    let about = match letter.what {
        _ if is_over => "[over] ".to_owned(),
        What::Reminder => format!("[{severity}, still] "),
        What::Test => "[test] ".to_owned(),
        _ => format!("[{severity}] "),
    };
    let advice = match is_over {
        true => format!("More: spendfuse alerts show {}", alert.id()),
        false => format!(
            "{}\nMore: spendfuse alerts show {}",
            alert.kind.remedy(),
            alert.id()
        ),
    };
    Words {
        headline: format!("{about}{}", sentence(alert)),
        facts: facts(alert),
        lines: Vec::new(),
        advice,
        notes: Vec::new(),
    }
}

fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let details = &alert.details;
    let mut facts = vec![("Scope", line(&alert.scope))];
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("Budget", details.budget.as_deref().map(line));
    if details.budget.is_none() {
        add("About", Some(line(&alert.subject)));
    }
    let figures = details.figures;
    add("Spent", figures.spent.zip(figures.limit).map(spent_of));
    add("Rate", rate_of(details));
    add("Window", details.window.as_deref().map(line));
    add("What happens", details.action.as_deref().map(consequence));
    add("Until", details.ends_at.map(|time| time.to_string()));
    add("Model", details.model.as_deref().map(line));
    let event = details.caused_by.as_ref();
    add(
        "Last event",
        event.map(|event| format!("{} of {}", line(&event.id), line(&event.source))),
    );
    add("Since", Some(alert.at.to_string()));
    add("Counted", alert.count.map(|count| count.to_string()));
    facts
}

/// `$4.01 of $5.00 (80.2 %)`.
fn spent_of((spent, limit): (Amount, Amount)) -> String {
    let share = Percent::of(spent, limit);
    let share = share.map_or_else(String::new, |share| format!(" ({} %)", share.as_f64()));
    format!("{:#} of {limit:#}{share}", spent.figure())
}

/// `$12.40/h in the last hour, $30.00/h in the last five minutes; exhausted about 2026-11-22 14:20
/// UTC`. None where nothing was spent lately.
fn rate_of(details: &AlertDetails) -> Option<String> {
    let rates = &details.rates;
    let is_spent = rates.higher().is_some_and(|rate| rate.number() > 0);
    let (hour, five_minutes) = rates.hour.zip(rates.five_minutes).filter(|_| is_spent)?;
    let mut text = format!(
        "{}/h in the last hour, {}/h in the last five minutes",
        rounded(hour),
        rounded(five_minutes)
    );
    if let Some(time) = details.exhausts_at {
        let time = time.timestamp().strftime("%Y-%m-%d %H:%M");
        text.push_str(&format!("; exhausted about {time} UTC"));
    }
    Some(text)
}

/// A rate as people read it: money to the cent, but never nothing where there is something.
fn rounded(rate: Amount) -> String {
    const CENT: i128 = 10_000_000;
    let shown = match rate.usd() {
        Some(nanos) if nanos.get() >= CENT => rate.with((nanos.get() + CENT / 2) / CENT * CENT),
        _ => rate,
    };
    format!("{shown:#}")
}

fn consequence(action: &str) -> String {
    match action {
        "block" => "Calls are refused".to_owned(),
        "downgrade" => "Calls are asked to use a cheaper model".to_owned(),
        "block_session" => "The session's calls are refused".to_owned(),
        _ => "Calls go on".to_owned(),
    }
}

fn of_several(letter: &Letter, alerts: &[Alert]) -> Words {
    let going_on = || alerts.iter().filter(|alert| !letter.is_over(alert));
    let critical = going_on().filter(|alert| alert.severity == Severity::Critical);
    let critical = critical.count();
    let over = match alerts.len() - going_on().count() {
        0 => String::new(),
        over => format!(", {over} over by now"),
    };
    let why = match letter.what {
        What::Summary => "while it was quiet",
        _ => "in a short time",
    };
    let mut sorted: Vec<&Alert> = alerts.iter().collect();
    sorted.sort_by_key(|alert| (letter.is_over(alert), std::cmp::Reverse(alert.severity)));
    let state = |alert: &Alert| match letter.is_over(alert) {
        true => "over",
        false => alert.severity.name(),
    };
    let mut lines: Vec<String> = sorted
        .iter()
        .take(NAMED)
        .map(|alert| format!("[{}] {}", state(alert), sentence(alert)))
        .collect();
    if alerts.len() > NAMED {
        lines.push(format!("and {} more", alerts.len() - NAMED));
    }
    Words {
        headline: format!(
            "[{}] {} alerts {why}, {critical} of them critical{over}",
            letter.severity().name(),
            alerts.len()
        ),
        facts: Vec::new(),
        lines,
        advice: "All of them: spendfuse alerts list".to_owned(),
        notes: Vec::new(),
    }
}

/// Who and what: messages of findings and models say only what.
fn sentence(alert: &Alert) -> String {
    let said = line(&alert.message);
    let is_about_all = alert.scope == EVERYTHING;
    match is_about_all || alert.message.contains(&alert.scope) {
        true => said,
        false => format!("{}: {said}", line(&alert.scope)),
    }
}

/// Text from outside in one printable line that is not too long.
fn line(text: &str) -> String {
    let shown = printable(text);
    match shown.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}

impl Words {
    /// As plain text, for mail and wherever nothing else can be shown.
    pub fn plain(&self) -> String {
        let mut text = format!("{}\n\n", self.headline);
        for line in &self.lines {
            text.push_str(&format!("- {line}\n"));
        }
        let width = self.facts.iter().map(|(name, _)| name.len()).max();
        for (name, value) in &self.facts {
            text.push_str(&format!(
                "{name:<width$}  {value}\n",
                width = width.unwrap_or(0)
            ));
        }
        text.push_str(&format!("\n{}\n", self.advice));
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }
}
