//! What a correction changes: what stands for the entry from now on.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use spendfuse_domain::event::Body;
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::{FixedDimension, Nanos, TokenClass};
use spendfuse_pricing::Pricer;

use super::book;
use super::entry::{self, Entry, Standing};
use super::ingest::Mark;
use super::record::{Stood, Told, correction_of};
use super::rest::{once, wait_until_heard};
use super::send::{self, Change};
use super::topics::looked;
use super::warehouse::Connection;
use super::{CommonArgs, Failure, Which, output};
use crate::settings::Settings;

/// How long a call that is to be amended may take to come to rest.
const RESTS_WITHIN: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(3);

/// Dimensions that decide where an entry is counted.
const FIXED: [FixedDimension; 3] = [
    FixedDimension::Workspace,
    FixedDimension::Session,
    FixedDimension::RootSession,
];

#[derive(Args, Debug)]
pub struct AmendArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wanted: Wanted,
    /// What it costs, in dollars; else other counts are priced by the entry's price book
    #[arg(long, value_name = "USD", value_parser = amount)]
    cost: Option<Nanos>,
    #[command(flatten)]
    common: CommonArgs,
}

fn amount(text: &str) -> Result<Nanos, String> {
    let parsed = Nanos::parse_usd(text).map_err(|error| error.to_string())?;
    match parsed.amount >= Nanos::ZERO {
        true => Ok(parsed.amount),
        false => Err("a call costs nothing at least; void takes it back".to_owned()),
    }
}

/// Counts and dimensions: an argument for each, such as `--output-tokens` and `--customer`.
#[derive(Debug)]
struct Wanted {
    tokens: [Option<u64>; TokenClass::COUNT],
    dimensions: Vec<(FixedDimension, String)>,
}

/// The dimensions that can be corrected.
fn dimensions() -> impl Iterator<Item = FixedDimension> {
    let all = FixedDimension::BY_NUMBER.into_iter();
    all.filter(|one| !FIXED.contains(one))
}

impl FromArgMatches for Wanted {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |one: FixedDimension| {
            let text = matches.get_one::<String>(one.name())?;
            Some((one, text.clone()))
        };
        Ok(Self {
            tokens: TokenClass::ALL.map(|class| matches.get_one(class.column()).copied()),
            dimensions: dimensions().filter_map(value).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Wanted {
    fn augment_args(command: Command) -> Command {
        let count = |class: TokenClass| {
            let name = class.column();
            Arg::new(name)
                .long(name.replace('_', "-"))
                .value_name("COUNT")
                .value_parser(clap::value_parser!(u64).range(..=1_000_000_000))
                .help_heading("What stands from now on")
        };
        let dimension = |one: FixedDimension| {
            let name = one.name();
            Arg::new(name)
                .long(name.replace('_', "-"))
                .value_name("NAME")
                .help_heading("What stands from now on")
        };
        let command = command.args(TokenClass::ALL.map(count));
        command.args(dimensions().map(dimension))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

pub(super) fn void(
    settings: &Settings,
    which: &Which,
    common: &CommonArgs,
) -> Result<ExitCode, Failure> {
    common.end_left_open(settings)?;
    let found = Found::look(settings, which)?;
    let entry = &found.entry;
    let Some(named) = &entry.named_correction else {
        let after = None;
        return match found.standing()? {
            None => Ok(send::nothing(entry, common, "it is void already")),
            before => found.correct(before, after, common),
        };
    };
    // What stands is what the last correction says.
    if entry.corrections.last() != Some(named) {
        let last = entry.corrections.last().map_or("", String::as_str);
        return Err(Failure::work(format!(
            "correction {named} of entry {} is followed by {last}; take that one back first",
            entry.place
        )));
    }
    let after = entry.standing_before_last()?;
    let after = after.map(|one| with_ceiling(settings, one)).transpose()?;
    found.correct(found.standing()?, after, common)
}

pub(super) fn amend(settings: &Settings, args: &AmendArgs) -> Result<ExitCode, Failure> {
    let wanted = &args.wanted;
    let counts = wanted.tokens.iter().flatten().count();
    if counts == 0 && wanted.dimensions.is_empty() && args.cost.is_none() {
        return Err(Failure::usage(
            "nothing is said that should stand: name counts (--output-tokens 380), dimensions (--customer c-42) or --cost",
        ));
    }
    args.common.end_left_open(settings)?;
    let found = match args.common.dry_run {
        true => Found::look(settings, &args.which)?,
        false => Found::look_at_rest(settings, &args.which)?,
    };
    let Some(before) = found.standing()? else {
        return Err(Failure::work(format!(
            "entry {} is void; take that back first: spendfuse correct void --address with the address of its last correction (spendfuse correct list)",
            found.entry.place
        )));
    };
    let mut after = before.clone();
    for (dimension, value) in &wanted.dimensions {
        *after.event.attribution.text_mut(*dimension) = value.clone().into();
    }
    if after.event.attribution.model.is_empty() {
        return Err(Failure::usage("a call has a model: --model needs a name"));
    }
    if let Body::Usage(call) = &mut after.event.body {
        for (class, count) in TokenClass::ALL.into_iter().zip(wanted.tokens) {
            call.tokens[class] = count.unwrap_or(call.tokens[class]);
        }
    }
    let priced_by = [
        FixedDimension::Model,
        FixedDimension::Provider,
        FixedDimension::Account,
    ];
    let mut named = wanted.dimensions.iter().map(|(one, _)| one);
    match args.cost {
        Some(cost) => {
            after.cost = scaled(before.cost, cost);
            (after.at_ceiling, after.priced) = (Nanos::ZERO, PriceBasis::Reported);
        }
        None if counts > 0 || named.any(|one| priced_by.contains(one)) => {
            let mut pricer = pricer(settings, &after.price_version)?;
            after.price_by(&mut pricer).map_err(Failure::work)?;
        }
        None => {}
    }
    let is_same = after.event.attribution == before.event.attribution
        && after.event.body == before.event.body
        && after.cost == before.cost;
    if is_same {
        return Ok(send::nothing(
            &found.entry,
            &args.common,
            "that stands already",
        ));
    }
    found.correct(Some(before), Some(after), &args.common)
}

/// The same parts, of another sum.
fn scaled(parts: CostParts, sum: Nanos) -> CostParts {
    let whole = parts.total().get();
    let share = |part: Nanos| match whole {
        0 => Nanos::ZERO,
        whole => Nanos::new(part.get() * sum.get() / whole),
    };
    let mut scaled = CostParts {
        input: share(parts.input),
        cache_read: share(parts.cache_read),
        cache_write: share(parts.cache_write),
        output: share(parts.output),
        units: share(parts.units),
    };
    scaled.output += sum - scaled.total();
    scaled
}

/// An entry that was found, and what is known since when.
struct Found<'s> {
    settings: &'s Settings,
    connection: Connection,
    entry: Entry,
    mark: Mark<'s>,
}

impl<'s> Found<'s> {
    fn look(settings: &'s Settings, which: &Which) -> Result<Self, Failure> {
        let connection = Connection::open(settings)?;
        let epoch = looked(settings)?.installation.epoch();
        // Before the warehouse is asked: of what comes later nothing is claimed.
        let mut mark = Mark::of_corrections(settings)?;
        mark.wait(|text| tracing::debug!("{text}"))?;
        let entry = entry::find(settings, &connection, which, epoch)?;
        Ok(Self {
            settings,
            connection,
            entry,
            mark,
        })
    }

    /// The same once the call does not grow any more: an amended one does not either, so that what
    /// is told of it later would never be counted.
    fn look_at_rest(settings: &'s Settings, which: &Which) -> Result<Self, Failure> {
        let mut began = None;
        loop {
            let tell = once(|text| {
                output::note(format!(
                    "{text}, and may tell more of the call: waiting until they are counted"
                ));
            });
            let heard_to = wait_until_heard(settings, tell)?;
            let began = *began.get_or_insert_with(Instant::now);
            let found = Self::look(settings, which)?;
            if found.entry.is_at_rest(heard_to) {
                return Ok(found);
            }
            let entry = found.entry.place;
            if began.elapsed() >= RESTS_WITHIN {
                return Err(Failure::work(format!(
                    "events still tell more of the call of entry {entry}, and nothing would be counted of them once it is amended; run the command again when the call is over"
                )));
            }
            output::note(format!(
                "entry {entry} was counted just now and may still grow: waiting until nothing more is told of it"
            ));
            thread::park_timeout(AGAIN);
        }
    }

    fn standing(&self) -> Result<Option<Standing>, Failure> {
        let standing = self.entry.standing()?;
        standing
            .map(|one| with_ceiling(self.settings, one))
            .transpose()
    }

    fn correct(
        &self,
        before: Option<Standing>,
        after: Option<Standing>,
        common: &CommonArgs,
    ) -> Result<ExitCode, Failure> {
        let entry = &self.entry;
        let told = Told {
            job: "",
            by: &common.by()?,
            reason: &common.reason,
        };
        let stood = Stood {
            before: before.as_ref(),
            after: after.as_ref(),
        };
        let (record, written) =
            correction_of(entry, told, self.mark.at, stood).map_err(|error| {
                Failure::work(format!(
                    "entry {} cannot be corrected so: {error}",
                    entry.place
                ))
            })?;
        let change = Change {
            settings: self.settings,
            connection: &self.connection,
            record: &record,
            before: before.as_ref(),
            after: after.as_ref(),
        };
        match common.dry_run {
            true => change.show(common, send::Outcome::DryRun),
            false => change.send(written, common),
        }
    }
}

/// A pricer by the book that an entry was priced by.
fn pricer(settings: &Settings, version: &str) -> Result<Pricer, Failure> {
    let book = book::named(settings, version).map_err(|error| {
        Failure::work(format!(
            "{error}; the entry was priced by it, so say --cost"
        ))
    })?;
    Ok(Pricer::new(book, Arc::new(settings.pricing())))
}

/// The same, with what of its cost is charged at a ceiling.
pub(super) fn with_ceiling(
    settings: &Settings,
    mut standing: Standing,
) -> Result<Standing, Failure> {
    if standing.may_be_partly_at_ceiling() {
        let mut pricer = pricer(settings, &standing.price_version)?;
        standing.find_ceiling(&mut pricer).map_err(Failure::work)?;
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_is_said_keeps_the_parts_shares() {
        let parts = CostParts {
            input: Nanos::new(1),
            output: Nanos::new(2),
            ..CostParts::default()
        };
        let scaled_to = scaled(parts, Nanos::new(10));
        assert_eq!(scaled_to.input, Nanos::new(3));
        assert_eq!(scaled_to.total(), Nanos::new(10));
        let of_nothing = scaled(CostParts::default(), Nanos::new(10));
        assert_eq!(of_nothing.output, Nanos::new(10));
    }
}
