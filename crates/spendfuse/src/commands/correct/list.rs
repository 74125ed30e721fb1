//! `spendfuse correct list`: the corrections that were applied.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::of_job;
use spendfuse_warehouse::client::quoted;

use super::Failure;
use super::output::{self, Side, counted, print_table, table};
use super::warehouse::Connection;
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Of the last so many days
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Only of this workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Those of this job of spendfuse rerate, which are left out else
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Corrections to print at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(settings: &Settings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let connection = Connection::open(settings)?;
    let of_workspace = args.workspace.as_ref().map_or_else(String::new, |name| {
        format!(" AND workspace = {}", quoted(name))
    });
    let kind = args.job.as_ref().map_or_else(
        || "kind = 'correction'".to_owned(),
        |job| {
            let end = quoted(&of_job(job));
            format!("kind = 'rerate' AND endsWith(price_detail, {end})")
        },
    );
    let question = format!(
        "SELECT event_id, toString(max(toUnixTimestamp64Milli(received_at))) AS at, \
                concat(toString(any(epoch)), '/', toString(any(meter_partition)), '/', \
                       toString(any(meter_seq)), '/', toString(min(meter_index))), \
                concat(toString(any(amends_epoch)), '/', toString(any(amends_partition)), '/', \
                       toString(any(amends_seq)), '/', toString(any(amends_index))), \
                any(amends_id), any(workspace), toString(sum(calls)), toString(sum(cost)), \
                any(price_detail) \
         FROM spend \
         WHERE {kind} AND src_topic = {} AND received_at >= now() - INTERVAL {} DAY{of_workspace} \
         GROUP BY event_id ORDER BY at DESC, event_id LIMIT {}",
        quoted(&settings.topics().corrections),
        args.days,
        args.limit
    );
    let answer = connection.wait(connection.warehouse.query_table(&question))?;
    if args.json {
        let corrections = answer.rows.iter().map(|row| {
            json!({
                "id": row[0], "at": at(&row[1]), "address": row[2], "entry": row[3],
                "event_id": row[4], "workspace": row[5], "calls": row[6], "cost_usd": row[7],
                "why": row[8],
            })
        });
        output::json(&corrections.collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    if answer.rows.is_empty() {
        output::line(format!(
            "no correction within the last {}",
            counted(args.days.into(), "day")
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let mut printed = table([
        ("at", Side::Left),
        ("address", Side::Left),
        ("entry", Side::Left),
        ("event", Side::Left),
        ("cost", Side::Right),
        ("who and why", Side::Left),
    ]);
    for row in &answer.rows {
        printed.add_row([
            at(&row[1]).to_string(),
            row[2].clone(),
            row[3].clone(),
            row[4].clone(),
            row[7].clone(),
            row[8].clone(),
        ]);
    }
    print_table(&printed);
    Ok(ExitCode::SUCCESS)
}

fn at(millis: &str) -> UnixMillis {
    UnixMillis(millis.parse().unwrap_or_default())
}
