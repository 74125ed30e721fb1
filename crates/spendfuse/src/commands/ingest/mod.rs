//! `spendfuse ingest FILE`: NDJSON to the usage topic.

mod backfill;
mod dry_run;
mod follow;
pub mod forecast;
mod loaded;
mod send;
mod sent_lately;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{
    EnvelopeDefaults, Event, RejectReason, Rejection, RemovedMembers, complete, decode,
    member_meant,
};

use super::output::counted;
pub use loaded::Mark;

use super::{Failure, output};
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse ingest events.ndjson\n  zcat events.ndjson.gz | spendfuse ingest -\n  spendfuse ingest events.ndjson --dry-run --budgets budgets.yaml\n  spendfuse ingest last-month.ndjson --backfill --dry-run\n  spendfuse ingest last-month.ndjson --backfill\n\nEach line is a CloudEvent, or a bare data object with an id. A line that cannot be read is sent\ntoo and ends in the DLQ; --strict leaves it out. Sending a file again changes nothing: events are\ncounted by their ids. Ends with how many were counted, grew (told more of a call of this run), are\nduplicates, late (older than the dedupe horizon) or rejected, once the meter has read them.\nExit code 1: some are late, rejected or cannot be read.\n\nWith --backfill events of any age are counted once: those that ClickHouse does not know. They come\ninto rows and into budgets' windows that are still open; sessions, detectors and people do not learn\nof them. Killed or repeated, it counts nothing twice. Lines that cannot be read are left out."
)]
pub struct IngestArgs {
    /// File of events, one JSON object a line; - is standard input
    file: PathBuf,
    /// Only show each event as it would be read, priced and counted
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: budgets of this file instead of those in force; needs no Kafka
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    budgets: Option<PathBuf>,
    /// Count history: each event once that ClickHouse does not know, whatever its age, without
    /// detectors, sessions or alerts; with --dry-run only say what would be counted and which verdicts
    /// would change
    #[arg(long, conflicts_with = "budgets")]
    backfill: bool,
    /// Leave out lines that cannot be read
    #[arg(long)]
    strict: bool,
    /// Do not wait until the meter has read the events and said what became of them
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// Workspace of bare objects that name none
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Source of bare objects that name none
    #[arg(long, value_name = "NAME", default_value = "ingest")]
    source: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &IngestArgs) -> Result<ExitCode, Failure> {
    if args.backfill {
        backfill::run(settings, args)
    } else if args.dry_run {
        dry_run::run(settings, args)
    } else {
        send::run(settings, args)
    }
}

/// What bare objects lack.
fn defaults<'a>(settings: &'a Settings, args: &'a IngestArgs) -> EnvelopeDefaults<'a> {
    let workspace = &settings.values.sidecar.default_workspace;
    EnvelopeDefaults {
        source: &args.source,
        workspace: args.workspace.as_deref().unwrap_or(workspace),
        now: output::now(),
    }
}

/// Calls `take` with the event in `line`, which is what is kept of a line, and the bytes to send: the
/// line itself, or the line in an envelope where it is a bare object.
pub(super) fn read_line<T>(
    line: &[u8],
    defaults: &EnvelopeDefaults<'_>,
    arrival: UnixMillis,
    take: impl FnOnce(&Event<'_>, &[u8]) -> T,
) -> Result<T, Rejection> {
    match decode(line, &[], arrival) {
        Ok(event) => return Ok(take(&event, line)),
        Err(rejection) if rejection.reason != RejectReason::NotCloudevent => {
            return Err(with_hint(rejection));
        }
        Err(_) => {}
    }
    let completed = complete(line, defaults)?;
    decode(&completed, &[], arrival).map(|event| take(&event, &completed))
}

/// An object of several lines ends too early in its first one: says how to put it into one.
fn with_hint(mut rejection: Rejection) -> Rejection {
    let is_cut = rejection.detail.contains("EOF while parsing");
    if rejection.reason == RejectReason::MalformedJson && is_cut {
        rejection.detail += ", one event a line: `jq -c . FILE`";
    }
    rejection
}

/// One line that tells of members which nobody knows; `None` where there were none.
fn unknown_members(removed: &RemovedMembers) -> Option<String> {
    let named = removed.names.iter().filter(|name| !name.is_empty());
    let named: Vec<String> = named
        .map(|name| {
            let meant = member_meant(name);
            let meant = meant.map_or_else(String::new, |meant| format!(" ({meant}?)"));
            format!("`{name}`{meant}")
        })
        .collect();
    let (count, named) = (removed.count, named.join(", "));
    (count > 0).then(|| format!("{} unknown and not sent: {named}", counted(count, "member")))
}

/// What of a line is read, bytes: no event is as long, nor does Kafka take one that is.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

/// The lines of the input, with a progress bar where somebody watches.
struct InputLines {
    input: Box<dyn BufRead + Send>,
    progress: ProgressBar,
    /// Bytes that were read.
    position: u64,
    /// Whether lines are read long before they are dealt with: whoever does that moves the bar.
    is_ahead: bool,
    name: String,
    /// Number of the last line, from 1.
    number: u64,
}

impl InputLines {
    fn open(args: &IngestArgs) -> Result<Self, Failure> {
        let name = args.file.display().to_string();
        let is_stdin = name == "-";
        let (input, bytes): (Box<dyn Read + Send>, Option<u64>) = if is_stdin {
            (Box::new(io::stdin()), None)
        } else {
            let wrong = |error: io::Error| Failure::usage(format!("{name}: {error}"));
            let file = File::open(&args.file).map_err(wrong)?;
            let metadata = file.metadata().map_err(wrong)?;
            if metadata.is_dir() {
                return Err(Failure::usage(format!("{name} is a folder; name a file")));
            }
            // A pipe has no length.
            let length = metadata.is_file().then_some(metadata.len());
            (Box::new(file), length)
        };
        Ok(Self {
            input: Box::new(BufReader::with_capacity(1 << 20, input)),
            progress: progress(bytes),
            position: 0,
            is_ahead: false,
            name: if is_stdin {
                "standard input".to_owned()
            } else {
                name
            },
            number: 0,
        })
    }

    /// Reads a line with its end, of a very long one the beginning; returns its length.
    fn read(&mut self, line: &mut Vec<u8>) -> io::Result<u64> {
        let mut beginning = self.input.by_ref().take(LONGEST_LINE);
        let read = beginning.read_until(b'\n', line)? as u64;
        match read == LONGEST_LINE && !line.ends_with(b"\n") {
            true => Ok(read + self.input.skip_until(b'\n')? as u64),
            false => Ok(read),
        }
    }

    /// Reads the next line that is not blank, without its end, into `line`; `false` at the end.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        loop {
            line.clear();
            let read = self.read(line);
            let read = read.map_err(|error| Failure::work(format!("{}: {error}", self.name)))?;
            if read == 0 {
                return Ok(false);
            }
            self.number += 1;
            self.position += read;
            if !self.is_ahead {
                self.progress.inc(read);
            }
            if self.number == 1 && line.starts_with(b"\xef\xbb\xbf") {
                line.drain(..3);
            }
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Ok(true);
            }
        }
    }
}

fn progress(bytes: Option<u64>) -> ProgressBar {
    let style = |template: &str| {
        ProgressStyle::with_template(template).expect("the template is a constant that works")
    };
    match bytes {
        Some(bytes) => ProgressBar::new(bytes).with_style(style(
            "{bar:30} {percent:>3}%  {msg}  {bytes_per_sec}  {eta} left",
        )),
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_that_never_ends_only_the_beginning_is_kept() {
        let mut text = vec![b'x'; LONGEST_LINE as usize + 5];
        text.extend(b"\n{}\n");
        let mut lines = InputLines {
            input: Box::new(io::Cursor::new(text)),
            progress: ProgressBar::hidden(),
            position: 0,
            is_ahead: false,
            name: "a test".to_owned(),
            number: 0,
        };
        let mut line = Vec::new();
        assert!(lines.next(&mut line).unwrap());
        assert_eq!(line.len() as u64, LONGEST_LINE);
        assert!(lines.next(&mut line).unwrap());
        assert_eq!((&line[..], lines.number), (&b"{}"[..], 2));
        assert!(!lines.next(&mut line).unwrap());
    }
}
