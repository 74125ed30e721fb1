//! What an import makes: budgets, and settings with upstreams.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use spendfuse_domain::Nanos;
use spendfuse_domain::budget::file::BudgetsFile;

/// Everything that one file says, in our words.
#[derive(Debug, Default)]
pub struct Imported {
    pub budgets: Vec<Budget>,
    pub upstreams: BTreeMap<String, Upstream>,
    pub keys: Vec<Key>,
    /// Alert routes: whom to tell.
    pub told: Vec<String>,
    /// What is to be done by hand, or is not quite the same.
    pub notes: Vec<String>,
    /// Whether something could not be taken that has a counterpart.
    pub is_incomplete: bool,
}

/// One budget.
#[derive(Debug)]
pub struct Budget {
    pub id: String,
    /// Dimensions after the workspace.
    pub scope: Vec<(String, String)>,
    pub limit: String,
    pub window: String,
    /// As the file has them: `{at: 100, do: block}`.
    pub steps: Vec<String>,
}

/// One upstream of the proxy.
#[derive(Debug, Default, PartialEq)]
pub struct Upstream {
    pub base_url: Option<String>,
    pub shape: Option<&'static str>,
    pub provider: String,
    pub has_key: bool,
}

/// A virtual key that is to be made anew.
#[derive(Debug)]
pub struct Key {
    pub name: String,
    pub attribution: Vec<(String, String)>,
}

impl Imported {
    /// `budgets.yaml`.
    pub fn budgets_file(&self, workspace: &str) -> String {
        let mut text = "budgets:\n".to_owned();
        for budget in &self.budgets {
            let mut scope = format!("workspace: {}", quoted(workspace));
            for (name, value) in &budget.scope {
                let _ = write!(scope, ", {name}: {}", quoted(value));
            }
            let _ = write!(
                text,
                "  - id: {}\n    scope: {{{scope}}}\n    limit: \"{}\"\n    window: {}\n    steps: [{}]\n",
                budget.id,
                budget.limit,
                budget.window,
                budget.steps.join(", ")
            );
        }
        match self.budgets.is_empty() {
            true => "budgets: []\n".to_owned(),
            false => text,
        }
    }

    /// `spendfuse.toml`, with these keys.
    pub fn settings_file(&self, keys: &str) -> String {
        let mut text = String::new();
        for (name, upstream) in &self.upstreams {
            let _ = writeln!(text, "[proxy.upstreams.{name}]");
            if let Some(address) = &upstream.base_url {
                let _ = writeln!(text, "base_url = {}", quoted(address));
            }
            if let Some(shape) = upstream.shape {
                let _ = writeln!(text, "shape = \"{shape}\"");
            }
            let _ = writeln!(text, "provider = {}", quoted(&upstream.provider));
            if upstream.has_key {
                text.push_str("# key_file = \"…\"   # the provider's key is not copied\n");
            }
            text.push('\n');
        }
        for (number, told) in self.told.iter().enumerate() {
            let name = format!("imported-{}", number + 1);
            let to = match told.starts_with("mailto:") {
                true => told.clone(),
                false => {
                    let _ = writeln!(
                        text,
                        "[notifier.channels.{name}]\nkind = \"webhook\"\nurl = {}\n",
                        quoted(told)
                    );
                    name.clone()
                }
            };
            let _ = writeln!(text, "[notifier.routes.{name}]\nto = {}\n", quoted(&to));
        }
        text.push_str(keys);
        text
    }

    /// The id of a budget that is like no other.
    pub fn budget_id(&self, id: &str) -> String {
        unlike(id, |id| self.budgets.iter().any(|known| known.id == id))
    }

    /// The name of a key that is like no other.
    pub fn key_name(&self, name: &str) -> String {
        unlike(name, |name| {
            self.keys.iter().any(|known| known.name == name)
        })
    }

    /// Says what could not be taken.
    pub fn lacks(&mut self, note: String) {
        self.notes.push(note);
        self.is_incomplete = true;
    }

    /// Whether the budgets are such that `spendfuse budgets apply` takes them.
    ///
    /// # Errors
    /// What it would say.
    pub fn check(&self, workspace: &str) -> Result<(), String> {
        let text = self.budgets_file(workspace);
        let parsed = BudgetsFile::parse(&text);
        parsed.map(drop).map_err(|mistakes| {
            let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("; ")
        })
    }
}

/// A text of YAML and TOML alike, which JSON's are.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as budgets and upstreams have it: `a-z`, `0-9` and `-`.
pub fn plain(name: &str) -> String {
    let plain = |one: char| match one.to_ascii_lowercase() {
        one @ ('a'..='z' | '0'..='9') => one,
        _ => '-',
    };
    let text: String = name.chars().map(plain).take(40).collect();
    match text.trim_matches('-') {
        "" => "unnamed".to_owned(),
        text => text.to_owned(),
    }
}

/// The name, with a number where it is taken: different names may be alike when they are plain.
pub fn unlike(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// Dollars as budgets have them; `None` where it is no amount.
pub fn dollars(text: &str) -> Option<String> {
    let amount = Nanos::parse_usd(text).ok()?.amount;
    (amount >= Nanos::ZERO).then(|| amount.to_string())
}

/// Dollars of an amount in cents.
pub fn dollars_of_cents(text: &str) -> Option<String> {
    let cents = Nanos::parse_usd(text).ok()?.amount;
    let nanos = cents.get() / 100;
    (cents >= Nanos::ZERO).then(|| Nanos::new(nanos).to_string())
}
