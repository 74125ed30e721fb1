//! `spendfuse prices import FILE…`: price files of one or several sources as a version.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_pricing::book::Source;
use spendfuse_pricing::import::{self, Added, Format, Report};
use spendfuse_pricing::{BookDraft, PriceBook};

use super::super::output::{self, Side, counted, grouped, print_table, table};
use super::publish::{publish, tell};
use super::{Failure, book};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct ImportArgs {
    /// LiteLLM's model_prices_and_context_window.json, genai-prices' data.json, models.dev's api.json;
    /// of several the first that knows a model says what it costs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Beginning of the version's name; if not given litellm, genai-prices, models.dev, or combined
    #[arg(long)]
    label: Option<String>,
    /// Where the prices are from, in words, once for each file; their names if not given
    #[arg(long, value_name = "TEXT")]
    source: Vec<String>,
    /// The day of the prices, such as 2026-11-22, once for each file
    #[arg(long, value_name = "DAY")]
    date: Vec<String>,
    /// Write the book to this file instead of putting it into force
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave ClickHouse's table prices alone
    #[arg(long, conflicts_with = "out")]
    no_clickhouse: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was read of all files.
pub(super) struct Files {
    pub(super) draft: BookDraft,
    /// By the file's format.
    reports: Vec<(&'static str, Report)>,
    added: Vec<Added>,
}

pub fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitCode, Failure> {
    let files = read_files(args)?;
    let new = files.draft.finish().map_err(Failure::usage)?;
    if !args.json {
        for (format, report) in &files.reports {
            print_report(format, report);
        }
        files.added.iter().for_each(print_added);
        output::line(format!("version {}", new.version()));
    }
    let is_new = match &args.out {
        Some(path) => {
            fs::write(path, new.text())
                .map_err(|error| Failure::work(format!("{}: {error}", path.display())))?;
            if !args.json {
                output::line(format!("written to {}", path.display()));
            }
            None
        }
        None => {
            let is_new = publish(settings, &new, !args.no_clickhouse)?;
            if !args.json {
                tell(&new, is_new);
            }
            Some(is_new)
        }
    };
    if args.json {
        output::json(&files_json(&new, &files, is_new));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_files(args: &ImportArgs) -> Result<Files, Failure> {
    for (flag, given) in [("--source", &args.source), ("--date", &args.date)] {
        if !given.is_empty() && given.len() != args.files.len() {
            return Err(Failure::usage(format!(
                "{flag} is there {} times for {}; give it once for each file",
                given.len(),
                counted(args.files.len() as u64, "file"),
            )));
        }
    }
    for day in &args.date {
        UnixMillis::parse_rfc3339(&format!("{day}T00:00:00Z"))
            .map_err(|_| Failure::usage(format!("--date {day}: write a day such as 2026-11-22")))?;
    }
    let mut read = Vec::new();
    for (place, path) in args.files.iter().enumerate() {
        let file_name = path.file_name().unwrap_or(path.as_os_str());
        let file_name = file_name.to_string_lossy().into_owned();
        read.push(FileRead {
            name: path.display().to_string(),
            bytes: book::read_file(path)?,
            text: args.source.get(place).cloned().unwrap_or(file_name),
            date: args.date.get(place).cloned().unwrap_or_default(),
        });
    }
    combined(read, args.label.as_deref())
}

/// A price file, and what is said of it.
pub(super) struct FileRead {
    /// As messages name it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Where it is from, in words.
    pub(super) text: String,
    /// The day of its prices; empty = not said.
    pub(super) date: String,
}

/// The prices of all files, the first one first.
pub(super) fn combined(read: Vec<FileRead>, label: Option<&str>) -> Result<Files, Failure> {
    let mut sources: Vec<(Source, BookDraft)> = Vec::new();
    let mut reports = Vec::new();
    for file in read {
        let named =
            |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", file.name));
        let format = Format::of(&file.bytes);
        let own_label = label.unwrap_or(format.name());
        let imported = import::read(format, &file.bytes, own_label, &file.text);
        let imported = imported.map_err(|error| named(&error))?;
        if imported.draft.models.is_empty() {
            return Err(named(
                &"no entry has a price; this is no price file of LiteLLM, genai-prices or models.dev",
            ));
        }
        let is_known = |(source, _): &(Source, BookDraft)| source.name == format.name();
        if sources.iter().any(is_known) {
            return Err(named(&format!(
                "a second file of {}; give one",
                format.name()
            )));
        }
        let source = Source {
            name: format.name().to_owned(),
            date: file.date,
            text: file.text,
        };
        sources.push((source, imported.draft));
        reports.push((format.name(), imported.report));
    }
    if let [(source, draft)] = &mut sources[..] {
        let mut draft = std::mem::take(draft);
        // One source says all; what is worth a line is of which day it is.
        if !source.date.is_empty() {
            let name = source.name.clone();
            let models = draft.models.values_mut();
            models.for_each(|prices| prices.origins.model.clone_from(&name));
            draft.sources.push(std::mem::take(source));
        }
        return Ok(Files {
            draft,
            reports,
            added: Vec::new(),
        });
    }
    let label = label.unwrap_or("combined");
    let combined = import::combine(sources, label, output::now()).map_err(Failure::usage)?;
    Ok(Files {
        draft: combined.draft,
        reports,
        added: combined.added,
    })
}

fn print_added(added: &Added) {
    output::line(format!(
        "{}: {} of its own; of {} that sources before it have, {} cost the same, and {} and the days of {} were added",
        added.source,
        counted(added.models as u64, "model"),
        grouped(added.common as u64),
        grouped(added.agreed as u64),
        counted(added.rates as u64, "rate"),
        grouped(added.dated as u64),
    ));
}

fn print_report(format: &str, report: &Report) {
    let read = counted(report.models_read as u64, "entry").replace("entrys", "entries");
    output::line(format!(
        "{format}: {read} read, {} priced, {} merged under one name, {} without a usable price",
        counted(report.models_priced as u64, "model"),
        grouped(report.merged.len() as u64),
        grouped(report.unpriced.len() as u64),
    ));
    if !report.skipped_fields.is_empty() {
        output::line("fields that look like prices and were not taken over:");
        let mut rows = table([
            ("FIELD", Side::Left),
            ("ENTRIES", Side::Right),
            ("FOR EXAMPLE", Side::Left),
            ("WHY", Side::Left),
        ]);
        for (field, skipped) in &report.skipped_fields {
            rows.add_row([
                field.clone(),
                grouped(skipped.count as u64),
                skipped.example.clone(),
                skipped.reason.to_owned(),
            ]);
        }
        print_table(&rows);
    }
}

fn files_json(new: &PriceBook, files: &Files, is_new: Option<bool>) -> Value {
    let added: Vec<Value> = { files.added.iter() }
        .map(|added| {
            json!({
                "source": added.source, "models": added.models, "common": added.common,
                "agreed": added.agreed, "rates": added.rates, "dated": added.dated,
            })
        })
        .collect();
    let (_, first) = &files.reports[0];
    let mut told = report_json(first);
    told["version"] = json!(new.version());
    told["sha256"] = json!(new.sha256());
    told["published"] = json!(is_new);
    if files.reports.len() > 1 {
        let reports = files.reports.iter();
        let reports: serde_json::Map<String, Value> = reports
            .map(|(format, report)| ((*format).to_owned(), report_json(report)))
            .collect();
        told["sources"] = reports.into();
        told["added"] = added.into();
    }
    told
}

fn report_json(report: &Report) -> Value {
    let skipped: serde_json::Map<String, Value> = report
        .skipped_fields
        .iter()
        .map(|(field, skipped)| {
            let value = json!({
                "entries": skipped.count, "reason": skipped.reason, "example": skipped.example,
            });
            (field.clone(), value)
        })
        .collect();
    json!({
        "entries_read": report.models_read,
        "models_priced": report.models_priced,
        "merged": report.merged,
        "unpriced": report.unpriced,
        "skipped_fields": skipped,
    })
}
