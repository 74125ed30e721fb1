//! `spendfuse recover`: a new set of topics, after Kafka was lost or to have more partitions, learns
//! from ClickHouse what the meters of the topics before knew.
//!
//! Sums of windows come back by themselves, by the loader ([openings](spendfuse_loader)). What is
//! brought back here is what meters alone know: which events were counted, and what the sessions that
//! go on have spent and done.

mod calls;
mod ids;
mod known;
mod send;
mod tables;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use spendfuse_domain::Topics;

use super::output::{self, Side, counted, grouped, print_table, span, table};
use super::topics::looked;
use super::warehouse::Connection;
use super::{Failure, found_wrong, kafka, signals};
use crate::settings::Settings;
use known::Before;
use send::{Sending, Taken};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse recover --dry-run\n  spendfuse recover\n  spendfuse recover --from spendfuse. --set topic_prefix=grown. \\\n    --set partitions=24\n\nAfter `spendfuse topics create` has begun the new topics, and before senders and sidecars go on. It may be given again: nothing is brought back twice."
)]
pub struct RecoverArgs {
    /// Take budgets and prices over from the topics with this prefix, which are still there and are to
    /// be left: for more partitions
    #[arg(long, value_name = "PREFIX")]
    from: Option<String>,
    /// The `transactional_id_prefix` of their processors and loaders, where it was another
    #[arg(long, value_name = "PREFIX", requires = "from")]
    from_ids: Option<String>,
    /// Go on although no budgets are in force: what sessions have spent is counted by none
    #[arg(long)]
    without_budgets: bool,
    /// Do not wait until the meters have taken it
    #[arg(long)]
    no_wait: bool,
    /// Only show what would be brought back
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was brought back.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    identities: u64,
    sessions: u64,
    calls: u64,
    budgets: usize,
    prices: usize,
}

pub fn run(settings: &Settings, args: &RecoverArgs) -> Result<ExitCode, Failure> {
    signals::end_between_transactions()?;
    let known = looked(settings)?;
    if let Some(complaint) = known.complaint() {
        return Err(Failure::work(complaint));
    }
    if known.installation.topics.is_none() {
        return Err(Failure::work(
            "nothing is recorded about the topics: `spendfuse topics create` makes them",
        ));
    }
    let epoch = known.installation.epoch();
    let connection = Connection::open(settings)?;
    let before = Before::ask(&connection, epoch)?;
    let Some(before) = before else {
        return Err(Failure::work(format!(
            "ClickHouse has no rows of topics before these, which are epoch {epoch}: there is nothing to bring back; \
             topics that Kafka lost are begun anew by `spendfuse topics create`"
        )));
    };
    let mut done = Done::default();
    if let Some(prefix) = &args.from {
        let old = Topics::new(prefix);
        let ids = args.from_ids.as_ref();
        let ids = ids.unwrap_or(&settings.values.transactional_id_prefix);
        tables::must_be_at_its_end(settings, &old, ids)?;
        (done.budgets, done.prices) = tables::take_over(settings, &old, args.dry_run)?;
    }
    let has_budgets =
        done.budgets > 0 || !kafka::read_table(settings, &settings.topics().budgets)?.is_empty();
    if !has_budgets && !args.without_budgets && !args.dry_run {
        return Err(Failure::work(
            "no budgets are in force, so that what sessions have spent would be counted by none: \
             `spendfuse budgets apply FILE --no-wait` first, or --without-budgets",
        ));
    }
    let mut sending = Sending::open(settings, epoch, args.dry_run)?;
    let since = output::now().plus(-settings.remembered_millis());
    // Calls first: of an identity that is known already nothing more is taken.
    if before.newest >= since {
        (done.sessions, done.calls) =
            calls::bring_back(settings, &connection, &before, &mut sending)?;
    }
    done.identities = ids::bring_back(settings, &connection, epoch, since, &mut sending)?;
    let taken = sending.finish(!args.no_wait)?;
    show(args, epoch, &before, done, taken);
    Ok(match taken {
        Taken::Partly { .. } => found_wrong(),
        Taken::ByAll | Taken::NotAsked => ExitCode::SUCCESS,
    })
}

fn show(args: &RecoverArgs, epoch: u32, before: &Before, done: Done, taken: Taken) {
    if args.json {
        let partitions = before.partitions.iter().map(|one| {
            json!({
                "partition": one.partition, "rows": one.rows,
                "last_seq": one.last_seq, "last_received_at": one.last_at,
            })
        });
        output::json(&json!({
            "outcome": if args.dry_run { "dry_run" } else { taken.name() },
            "epoch": epoch,
            "before": {"epoch": before.epoch, "partitions": partitions.collect::<Vec<_>>()},
            "identities": done.identities,
            "sessions": done.sessions,
            "calls": done.calls,
            "budgets": done.budgets,
            "prices": done.prices,
        }));
        return;
    }
    let now = output::now();
    output::line(format!(
        "epoch {epoch} begins where epoch {} ends; of that ClickHouse has:",
        before.epoch
    ));
    let mut rows = table([
        ("PARTITION", Side::Right),
        ("ROWS", Side::Right),
        ("LAST COMMIT", Side::Right),
        ("COUNTED", Side::Left),
    ]);
    for one in &before.partitions {
        rows.add_row([
            one.partition.to_string(),
            grouped(one.rows),
            one.last_seq.to_string(),
            output::ago(one.last_at, now),
        ]);
    }
    print_table(&rows);
    output::line(
        "what was counted later was in Kafka alone: its senders send it again, or it is lost",
    );
    if args.from.is_some() {
        let (budgets, prices) = (done.budgets as u64, done.prices as u64);
        output::line(format!(
            "tables     {} and {} {}",
            counted(budgets, "record of budgets"),
            counted(prices, "record of prices"),
            match args.dry_run {
                true => "would be taken over",
                false => "taken over",
            }
        ));
    }
    output::line(format!(
        "identities {}: their events are duplicates when they are sent again",
        grouped(done.identities)
    ));
    output::line(format!(
        "sessions   {} with {}: they go on with what they had spent",
        grouped(done.sessions),
        counted(done.calls, "call")
    ));
    output::line(
        "budgets    windows come back by the loader, with everything that ClickHouse has of them",
    );
    match (args.dry_run, taken) {
        (true, _) => output::line("nothing was done; without --dry-run it is"),
        (false, Taken::ByAll) => {
            output::line("recovered  every meter has read it; senders may go on")
        }
        (false, Taken::NotAsked) => {
            output::line("sent       the meters take it as they run, or once they start");
        }
        (
            false,
            Taken::Partly {
                partitions,
                of,
                within,
            },
        ) => output::warning(format!(
            "sent, but only {partitions} of {of} partitions have taken it within {}: they do once their processor runs; let senders go on after that",
            span(within.as_millis() as i64)
        )),
    }
}
