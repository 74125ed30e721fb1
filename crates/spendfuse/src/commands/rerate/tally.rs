//! What a job changes, in sums: by model, by workspace, by window.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::Body;

use super::super::ingest::forecast::{self, Forecast};
use super::super::output::{self, Side, counted, dollars, grouped, print_table, table};
use super::judge::{Judged, Rerated, Why};

/// Models and workspaces that are told apart; the rest stands under one line.
const MOST_NAMES: usize = 1_000;
const REST: &str = "(others)";
/// Lines of each kind that are printed for people.
const MOST_PRINTED: usize = 20;

/// Cost before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    pub entries: u64,
    pub before_usd: Nanos,
    pub after_usd: Nanos,
}

impl Sums {
    fn add(&mut self, one: &Rerated) {
        self.entries += 1;
        self.before_usd += one.before.cost.total();
        self.after_usd += one.after.cost.total();
    }

    fn change(&self) -> Nanos {
        self.after_usd - self.before_usd
    }
}

/// What became of all entries.
pub struct Tally {
    /// Entries that met the filter.
    pub matched: u64,
    pub same: u64,
    pub done: u64,
    left_out: BTreeMap<Why, u64>,
    pub all: Sums,
    by_model: HashMap<String, Sums>,
    by_workspace: HashMap<String, Sums>,
    forecast: Forecast,
}

impl Tally {
    pub fn new(forecast: Forecast) -> Self {
        Self {
            matched: 0,
            same: 0,
            done: 0,
            left_out: BTreeMap::new(),
            all: Sums::default(),
            by_model: HashMap::new(),
            by_workspace: HashMap::new(),
            forecast,
        }
    }

    /// Counts an entry; gives back what changes.
    pub fn add(&mut self, judged: Judged) -> Option<Rerated> {
        if !matches!(judged, Judged::Elsewhere) {
            self.matched += 1;
        }
        match judged {
            Judged::Change(one) => {
                self.change(&one);
                return Some(*one);
            }
            Judged::Same => self.same += 1,
            Judged::Done => self.done += 1,
            Judged::LeftOut(why) => *self.left_out.entry(why).or_default() += 1,
            Judged::Elsewhere => {}
        }
        None
    }

    /// So many stay as they are.
    pub fn leave_out(&mut self, why: Why, count: u64) {
        if count > 0 {
            self.matched += count;
            *self.left_out.entry(why).or_default() += count;
        }
    }

    /// How many stay as they are for that reason.
    pub fn left_out(&self, why: Why) -> u64 {
        self.left_out.get(&why).copied().unwrap_or_default()
    }

    fn change(&mut self, one: &Rerated) {
        self.all.add(one);
        let who = &one.before.event.attribution;
        named(&mut self.by_model, &who.model).add(one);
        named(&mut self.by_workspace, &who.workspace).add(one);
        let met = self
            .forecast
            .met_by_entry(&one.before.event, one.entry.received_at);
        debug_assert!(matches!(one.before.event.body, Body::Usage(_)));
        let more = Spend {
            cost: one.more(),
            ..Spend::default()
        };
        self.forecast.add(met, more, one.after.at_ceiling);
    }

    pub fn to_json(&self) -> Value {
        let lines = |sums: &HashMap<String, Sums>, name: &str| {
            let lines = sorted(sums).into_iter().map(|(key, sums)| {
                json!({
                    name: key, "entries": sums.entries, "before_usd": sums.before_usd,
                    "after_usd": sums.after_usd, "change_usd": sums.change(),
                })
            });
            lines.collect::<Vec<Value>>()
        };
        json!({
            "matched": self.matched,
            "changed": self.all.entries,
            "same": self.same,
            "done_before": self.done,
            "left_out": self.left_out,
            "before_usd": self.all.before_usd,
            "after_usd": self.all.after_usd,
            "change_usd": self.all.change(),
            "by_model": lines(&self.by_model, "model"),
            "by_workspace": lines(&self.by_workspace, "workspace"),
            "windows": self.forecast.windows(),
            "verdicts": self.forecast.changes(),
            "all_windows": !self.forecast.is_full(),
        })
    }

    /// For people; `would` says that nothing has happened yet.
    pub fn print(&self, would: bool) {
        let costs = if would { "would cost" } else { "cost" };
        output::line(format!(
            "{}: {} {costs} {} instead of {} ({})",
            counted(self.matched, "call"),
            grouped(self.all.entries),
            dollars(self.all.after_usd),
            dollars(self.all.before_usd),
            signed(self.all.change()),
        ));
        if self.same > 0 {
            output::line(format!("{} have that price already", grouped(self.same)));
        }
        if self.done > 0 {
            output::line(format!(
                "{} were re-rated by this job before; --job NAME makes another one of it",
                grouped(self.done)
            ));
        }
        for (why, count) in &self.left_out {
            output::line(format!(
                "{} left as they are: they {}",
                grouped(*count),
                why.text()
            ));
        }
        if self.all.entries == 0 {
            return;
        }
        print_sums("model", &self.by_model);
        print_sums("workspace", &self.by_workspace);
        let windows = self.forecast.windows();
        if !windows.is_empty() {
            output::line("open windows of budgets, without those of sessions:");
        }
        for one in windows.iter().take(MOST_PRINTED) {
            output::line(format!(
                "  {} {} {}: {}",
                one.budget,
                one.scope,
                one.window,
                signed(one.change_usd)
            ));
        }
        print_rest(windows.len());
        forecast::print(&self.forecast.changes(), would);
        if self.forecast.is_full() {
            output::line("there are more scopes than are followed here: spendfuse budgets status");
        }
    }
}

fn named<'m>(sums: &'m mut HashMap<String, Sums>, name: &str) -> &'m mut Sums {
    let is_known = sums.contains_key(name) || sums.len() < MOST_NAMES;
    let name = if is_known { name } else { REST };
    sums.entry(name.to_owned()).or_default()
}

/// What changes most first.
fn sorted(sums: &HashMap<String, Sums>) -> Vec<(&String, &Sums)> {
    let mut sorted: Vec<_> = sums.iter().collect();
    sorted.sort_by_key(|(name, sums)| (-sums.change().get().abs(), *name));
    sorted
}

fn print_sums(what: &str, sums: &HashMap<String, Sums>) {
    let mut printed = table([
        (what, Side::Left),
        ("entries", Side::Right),
        ("before", Side::Right),
        ("after", Side::Right),
        ("change", Side::Right),
    ]);
    for (name, sums) in sorted(sums).into_iter().take(MOST_PRINTED) {
        printed.add_row([
            name.clone(),
            grouped(sums.entries),
            dollars(sums.before_usd),
            dollars(sums.after_usd),
            signed(sums.change()),
        ]);
    }
    print_table(&printed);
    print_rest(sums.len());
}

fn print_rest(lines: usize) {
    if lines > MOST_PRINTED {
        let more = grouped((lines - MOST_PRINTED) as u64);
        output::line(format!("  and {more} more; --json names all"));
    }
}

fn signed(change: Nanos) -> String {
    match change > Nanos::ZERO {
        true => format!("+{}", dollars(change)),
        false => dollars(change),
    }
}
