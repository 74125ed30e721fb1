//! `spendfuse alerts list`.

use std::process::ExitCode;

use spendfuse_domain::Severity;

use super::super::Failure;
use super::super::output::{self, Cell, Colour, Side, ago, grouped, print_table, table};
use super::{ListArgs, told};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let mut alerts = told::read(settings)?;
    let scope = args.scope.as_deref().unwrap_or_default();
    alerts.retain(|told| {
        let alert = &told.alert;
        args.severity.is_none_or(|least| alert.severity >= least)
            && alert.scope.starts_with(scope)
            && !(args.untold && told.is_told())
    });
    if args.json {
        let all: Vec<_> = alerts.iter().map(told::Told::to_json).collect();
        output::json(&all);
        return Ok(ExitCode::SUCCESS);
    }
    if alerts.is_empty() {
        output::line("no alerts");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table([
        ("ID", Side::Left),
        ("SEVERITY", Side::Left),
        ("RAISED", Side::Left),
        ("KIND", Side::Left),
        ("SCOPE", Side::Left),
        ("TOLD", Side::Left),
        ("WHAT", Side::Left),
    ]);
    let shown = match args.limit {
        0 => alerts.len(),
        limit => limit,
    };
    let now = output::now();
    for told in alerts.iter().take(shown) {
        let alert = &told.alert;
        let outcome = match told.is_told() {
            true => Cell::from(told.outcome()),
            false => Cell::coloured(told.outcome(), Colour::Yellow),
        };
        rows.add_row(vec![
            Cell::from(alert.id()),
            severity_cell(alert.severity),
            Cell::from(ago(alert.at, now)),
            Cell::from(alert.kind.name()),
            Cell::from(&alert.scope),
            outcome,
            Cell::from(&alert.message),
        ]);
    }
    output::hide_below(&mut rows, 3, 100);
    output::keep_whole(&mut rows, &[0, 1, 2]);
    print_table(&rows);
    if shown < alerts.len() {
        let more = grouped((alerts.len() - shown) as u64);
        output::line(format!("and {more} more; --limit 0 prints all"));
    }
    Ok(ExitCode::SUCCESS)
}

fn severity_cell(severity: Severity) -> Cell {
    match severity {
        Severity::Info => severity.name().into(),
        Severity::Warning => Cell::coloured(severity.name(), Colour::Yellow),
        Severity::Critical => Cell::coloured(severity.name(), Colour::Red),
    }
}
