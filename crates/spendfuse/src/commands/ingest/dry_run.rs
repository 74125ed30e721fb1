//! Shows each event as it would be read, priced, and counted against which budgets.

use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::event::{Body, Event, RemovedMembers, redact};
use spendfuse_domain::growth::{Again, Content, Growth};
use spendfuse_domain::scope::{Dimension, Dimensions as _};
use spendfuse_domain::{Attribution, Call, Identity, Nanos};
use spendfuse_pricing::rate::TokenClass;
use spendfuse_pricing::{Explained, PriceBook, Pricer};

use super::super::output::{self, Colour, counted, dollars, grouped};
use super::super::prices::book;
use super::super::{budgets, found_wrong};
use super::{Failure, IngestArgs, InputLines, defaults, read_line, unknown_members};
use crate::settings::Settings;

/// Identities of the input that are remembered, about 250 bytes each.
const MOST_REMEMBERED: usize = 1_000_000;

/// What events are priced by and counted against.
pub(super) struct Rules {
    pub(super) pricer: Pricer,
    pub(super) budgets: Vec<CompiledBudget>,
    /// Events that are older are late, milliseconds.
    horizon_millis: i64,
}

/// What the input says of an identity.
struct Seen {
    content: Content,
    cost: Nanos,
}

#[derive(Default)]
struct Totals {
    events: u64,
    cost: Nanos,
    unpriced: u64,
    late: u64,
    /// Events whose identity stands in the input before them.
    repeated: u64,
    /// Identities of the input, and what stands for each.
    seen: HashMap<Identity, Seen>,
    rejected: BTreeMap<&'static str, u64>,
    unknown: RemovedMembers,
}

pub fn run(settings: &Settings, args: &IngestArgs) -> Result<ExitCode, Failure> {
    let mut lines = InputLines::open(args)?;
    lines.progress.finish_and_clear();
    let mut rules = rules(settings, args)?;
    let defaults = defaults(settings, args);
    let mut totals = Totals::default();
    let mut line = Vec::new();
    while lines.next(&mut line)? {
        let number = lines.number;
        let kept = redact(&line, &[]);
        totals.unknown.add(kept.removed);
        let shown = read_line(&kept.value, &defaults, output::now(), |event, _| {
            show(args, number, event, &mut rules, &mut totals)
        });
        match shown {
            Ok(shown) => shown?,
            Err(rejection) => {
                let reason = rejection.reason.name();
                *totals.rejected.entry(reason).or_default() += 1;
                if args.json {
                    output::json(&json!({
                        "line": number, "rejected": reason, "detail": rejection.detail,
                    }));
                } else {
                    output::parts(&[
                        (&format!("line {number}: "), None),
                        ("rejected", Some(Colour::Red)),
                        (&format!(": {reason}: {}", rejection.detail), None),
                    ]);
                }
            }
        }
    }
    let rejected: u64 = totals.rejected.values().sum();
    if !args.json {
        if let Some(unknown) = unknown_members(&totals.unknown) {
            output::line(unknown);
        }
        let version = rules.pricer.version();
        let mut text = format!(
            "{}, {} by price book {version}",
            counted(totals.events, "event"),
            dollars(totals.cost)
        );
        if totals.unpriced > 0 {
            text.push_str(&format!(", {} without a price", grouped(totals.unpriced)));
        }
        if totals.late > 0 {
            let late = grouped(totals.late);
            text.push_str(&format!(", {late} too old to be counted at once (late)"));
        }
        if totals.repeated > 0 {
            let repeated = grouped(totals.repeated);
            text.push_str(&format!(
                ", {repeated} with the identity of one before (duplicate, grown, echo, conflict)"
            ));
        }
        if rejected > 0 {
            text.push_str(&format!(", {} rejected", grouped(rejected)));
        }
        output::line(format!("{text}; nothing was sent"));
    }
    // As when they are sent.
    Ok(if rejected + totals.late > 0 {
        found_wrong()
    } else {
        ExitCode::SUCCESS
    })
}

pub(super) fn rules(settings: &Settings, args: &IngestArgs) -> Result<Rules, Failure> {
    let policy = Arc::new(settings.pricing());
    let horizon_millis = settings.dedupe_horizon_millis();
    if let Some(path) = &args.budgets {
        let file = budgets::read_file(path)?.map_err(|mistakes| {
            let count = counted(mistakes.len() as u64, "mistake");
            Failure::budgets_file(
                format!("{count} in the budgets file, nothing was read"),
                budgets::mistake_lines(path, &mistakes),
            )
        })?;
        let now = output::now();
        let budgets = file.budgets.iter().map(|draft| draft.counting_from(now));
        return Ok(Rules {
            pricer: Pricer::new(PriceBook::snapshot(), policy),
            budgets: budgets.map(CompiledBudget::new).collect(),
            horizon_millis,
        });
    }
    Ok(Rules {
        pricer: Pricer::new(book::in_force(settings)?, policy),
        budgets: budgets::compiled_in_force(settings)?,
        horizon_millis,
    })
}

fn show(
    args: &IngestArgs,
    number: u64,
    event: &Event<'_>,
    rules: &mut Rules,
    totals: &mut Totals,
) -> Result<(), Failure> {
    totals.events += 1;
    let who = &event.attribution;
    let explained = match &event.body {
        Body::Usage(call) => {
            let explained = rules
                .pricer
                .explain(&who.provider, &who.account, call, &who.model, event.time)
                .map_err(|error| Failure::work(format!("line {number}: {error}")))?;
            Some((call, explained))
        }
        Body::Revenue(_) | Body::SessionEnd => None,
    };
    let mut flags = event.flags;
    if let Some((_, explained)) = &explained {
        flags.insert(explained.priced.flags);
        totals.unpriced += u64::from(flags.names().any(|name| name == "unpriced"));
    }
    let mut flags: Vec<&str> = flags.names().collect();
    let cost = explained.as_ref().map(|(_, one)| one.priced.parts.total());
    let verdict = totals.judge(event, cost.unwrap_or_default(), rules.horizon_millis);
    flags.extend(verdict.name());
    let met = match (&event.body, verdict) {
        (Body::Usage(_), Judged::Counted | Judged::Grown) => budgets_met(&rules.budgets, who),
        _ => Vec::new(),
    };
    let view = View {
        number,
        event,
        explained: explained.as_ref(),
        flags: &flags,
        met: &met,
    };
    if args.json {
        output::json(&view.to_json());
    } else {
        view.print();
    }
    Ok(())
}

/// What the meter would make of an event after what stands in the input before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    Counted,
    /// By the difference to the one before.
    Grown,
    /// Not, because of this.
    Not(&'static str),
}

impl Judged {
    /// Its flag, which is none of the meter's.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Counted => None,
            Self::Grown => Some("grown"),
            Self::Not(why) => Some(why),
        }
    }
}

impl Totals {
    /// Judges an event that costs `cost`, and adds what of it would be counted.
    fn judge(&mut self, event: &Event<'_>, cost: Nanos, horizon_millis: i64) -> Judged {
        if output::now().since(event.time) > horizon_millis {
            self.late += 1;
            return Judged::Not("late");
        }
        let now = Seen {
            content: Content::of(event),
            cost,
        };
        let Some(seen) = self.seen.get_mut(&event.identity) else {
            self.cost += cost;
            if self.seen.len() < MOST_REMEMBERED {
                self.seen.insert(event.identity, now);
            }
            return Judged::Counted;
        };
        self.repeated += 1;
        match seen.content.compared(&now.content) {
            Again::Same => Judged::Not("duplicate"),
            Again::Other(Growth::More) => {
                self.cost += now.cost - seen.cost;
                *seen = now;
                Judged::Grown
            }
            Again::Other(Growth::Echo) => Judged::Not("echo"),
            Again::Other(Growth::Conflict) => Judged::Not("conflict"),
        }
    }
}

/// Id and scope of every budget that counts spend of `who`.
fn budgets_met(budgets: &[CompiledBudget], who: &Attribution<'_>) -> Vec<(String, String)> {
    let met = budgets.iter().filter_map(|compiled| {
        let scope = compiled.scope_of(who)?;
        Some((compiled.budget.id.to_string(), scope))
    });
    met.collect()
}

struct View<'v> {
    number: u64,
    event: &'v Event<'v>,
    explained: Option<&'v (&'v Call<'v>, Explained)>,
    flags: &'v [&'v str],
    met: &'v [(String, String)],
}

impl View<'_> {
    fn print(&self) {
        let Event { id, source, .. } = self.event;
        let what = match &self.event.body {
            Body::Usage(_) => "usage".to_owned(),
            Body::Revenue(amount) => format!("revenue of {}", dollars(*amount)),
            Body::SessionEnd => "session end".to_owned(),
        };
        output::line(format!(
            "line {}: {what}, id {id} of {source}, {}",
            self.number, self.event.time
        ));
        let who: Vec<String> = named_dimensions(&self.event.attribution)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        output::line(format!("  who      {}", who.join(" ")));
        if let Some((call, explained)) = self.explained {
            let mut counts: Vec<String> = TokenClass::ALL
                .into_iter()
                .filter(|class| call.tokens[*class] > 0)
                .map(|class| format!("{} {}", grouped(call.tokens[class]), class.name()))
                .collect();
            let units = call.units.entries.iter();
            counts.extend(units.map(|(unit, quantity)| format!("{quantity} {}", unit.name())));
            output::line(format!("  usage    {}", counts.join(", ")));
            let charged = explained.charged_as.as_ref();
            let charged = charged.map_or_else(
                || "the configured ceiling".to_owned(),
                |(provider, model)| format!("{provider}/{model}"),
            );
            output::line(format!(
                "  cost     {} ({}, {charged})",
                dollars(explained.priced.parts.total()),
                explained.priced.basis.name(),
            ));
        }
        if !self.flags.is_empty() {
            let flags = self.flags.join(", ");
            output::parts(&[("  flags    ", None), (&flags, Some(Colour::Yellow))]);
        }
        if self.explained.is_some() {
            let met: Vec<String> = self
                .met
                .iter()
                .map(|(id, scope)| format!("{id} ({scope})"))
                .collect();
            let none = "none".to_owned();
            let met = if met.is_empty() { none } else { met.join(", ") };
            output::line(format!("  budgets  {met}"));
        }
    }

    fn to_json(&self) -> Value {
        let Event { id, source, .. } = self.event;
        let dimensions: serde_json::Map<String, Value> = named_dimensions(&self.event.attribution)
            .into_iter()
            .map(|(name, value)| (name, Value::from(value)))
            .collect();
        let budgets: Vec<Value> = self
            .met
            .iter()
            .map(|(id, scope)| json!({"budget": id, "scope": scope}))
            .collect();
        let kind = match &self.event.body {
            Body::Usage(_) => "usage",
            Body::Revenue(_) => "revenue",
            Body::SessionEnd => "session_end",
        };
        let mut shown = json!({
            "line": self.number, "kind": kind, "id": id, "source": source,
            "time": self.event.time, "dimensions": dimensions, "flags": self.flags,
        });
        if let Body::Revenue(amount) = &self.event.body {
            shown["revenue_usd"] = json!(amount);
        }
        if let Some((call, explained)) = self.explained {
            let tokens: serde_json::Map<String, Value> = TokenClass::ALL
                .into_iter()
                .filter(|class| call.tokens[*class] > 0)
                .map(|class| (class.name().to_owned(), call.tokens[class].into()))
                .collect();
            let units: serde_json::Map<String, Value> = call
                .units
                .entries
                .iter()
                .map(|(unit, quantity)| (unit.name().to_owned(), quantity.to_string().into()))
                .collect();
            shown["tokens"] = Value::Object(tokens);
            shown["units"] = Value::Object(units);
            shown["cost_usd"] = json!(explained.priced.parts.total());
            shown["priced"] = json!(explained.priced.basis.name());
            shown["budgets"] = Value::Array(budgets);
        }
        shown
    }
}

/// The dimensions that an event has, in the order of scopes.
fn named_dimensions(who: &Attribution<'_>) -> Vec<(String, String)> {
    let tags = who.tags.iter();
    let tags = tags.map(|(name, _)| Dimension::Tag(name.clone().into_owned()));
    Dimension::FIXED
        .into_iter()
        .chain(tags)
        .map(|dimension| {
            let value = who.value(&dimension).to_owned();
            (dimension.name().into_owned(), value)
        })
        .filter(|(_, value)| !value.is_empty())
        .collect()
}
