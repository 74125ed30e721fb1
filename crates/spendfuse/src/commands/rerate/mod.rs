//! `spendfuse rerate`: entries that were counted at a wrong price, or at none, get the one of a price
//! book.
//!
//! What stands for each entry is read from ClickHouse, priced by the book, and where that costs
//! something else a correction of kind `rerate` goes to the meter that counted it. Its id follows from
//! job, entry and book, and ClickHouse says what was corrected before: so a job that is killed or
//! repeated goes on where it was.

mod filter;
mod judge;
mod later;
mod scan;
mod send;
mod tally;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::MAX_JOB_BYTES;
use spendfuse_pricing::PriceBook;
use xxhash_rust::xxh3::xxh3_64;

use super::correct::entry::Entry;
use super::correct::record::Told;
use super::correct::rest::wait_until_heard;
use super::correct::{text_of_ledger, who};
use super::ingest::Mark;
use super::ingest::forecast::Forecast;
use super::output::{counted, grouped};
use super::prices::book;
use super::topics::looked;
use super::warehouse::Connection;
use super::{Failure, budgets, found_wrong, kafka, output, signals};
use crate::settings::Settings;
use filter::{Condition, Filter};
use judge::{Judge, Why};
use later::Later;
use scan::{PIECE, Scan};
use send::{Done, Sending};
use tally::Tally;

/// Corrections a second, where nobody says otherwise.
const DEFAULT_RATE: u32 = 2_000;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse rerate --where priced=ceiling --dry-run\n  spendfuse rerate --where model=gpt-9 --where model=gpt-9-mini \\\n    --since 2026-11-01 --yes\n  spendfuse rerate --where workspace=acme --at-book 2026-11-22 \\\n    --reason 'contract of May' --yes\n\nEntries are chosen by any dimension (workspace, customer, model, tags.team, ...), source, priced,\npriced_as and price_version: of one name any value, of several names each. --dry-run shows what they\nwould cost, by model and workspace, and which verdicts would change. Without --yes you are asked.\n\nKilled or stopped, the same command goes on where it was; carried out twice it changes nothing. One\njob or correction runs at a time: whichever begins later stops the one before."
)]
pub struct RerateArgs {
    /// Only entries with this value, such as model=gpt-9 or priced=ceiling; may be repeated
    #[arg(long = "where", value_name = "NAME=VALUE", value_parser = filter::condition)]
    conditions: Vec<Condition>,
    /// Only entries of events from this day or time on (2026-11-01, 2026-11-01T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<UnixMillis>,
    /// Only entries of events before this day or time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<UnixMillis>,
    /// The price book: a version in the prices topic, or `snapshot`, the prices inside this program;
    /// without it the one in force
    #[arg(long, value_name = "VERSION")]
    at_book: Option<String>,
    /// Name of the job: each changes an entry once by a book; without it the name follows from
    /// conditions, times and book
    #[arg(long, value_name = "NAME", value_parser = job_name)]
    job: Option<String>,
    /// Why, for those who read the ledger later; without it the book is named
    #[arg(long, value_name = "TEXT", value_parser = text_of_ledger)]
    reason: Option<String>,
    /// Who re-rates; without it the user of this process ($USER)
    #[arg(long, value_name = "NAME", value_parser = text_of_ledger)]
    by: Option<String>,
    /// Corrections a second, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Only show what would change
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A day, at its beginning by UTC, or a time.
fn time(text: &str) -> Result<UnixMillis, String> {
    let day = UnixMillis::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let time = day.or_else(|_| UnixMillis::parse_rfc3339(text));
    time.map_err(|_| "write a day or a time, such as 2026-11-01 or 2026-11-01T10:00:00Z".to_owned())
}

fn job_name(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=MAX_JOB_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "a job's name has 1 to {MAX_JOB_BYTES} letters, digits, dots, dashes and underscores"
        )),
    }
}

pub fn run(settings: &Settings, args: &RerateArgs) -> Result<ExitCode, Failure> {
    let may_ask = !args.json && io::stdin().is_terminal() && io::stderr().is_terminal();
    if !args.dry_run && !args.yes && !may_ask {
        return Err(Failure::usage(
            "nobody can be asked here: --dry-run shows what would change, --yes does it",
        ));
    }
    if args.conditions.is_empty() && args.since.is_none() && args.until.is_none() {
        return Err(Failure::usage(
            "nothing says which entries: --where model=gpt-9, --where priced=ceiling, --since 2026-11-01",
        ));
    }
    let by = who(args.by.as_ref(), args.dry_run)?;
    signals::end_between_transactions()?;
    let job = Job::new(settings, args)?;
    if !args.yes {
        if !args.dry_run {
            kafka::end_left_open(settings)?;
        }
        let tally = job.pass(None)?.0;
        job.show(&tally, None);
        let is_wanted = !args.dry_run && tally.all.entries > 0 && agreed(tally.all.entries)?;
        if !is_wanted {
            if !args.json {
                output::line("nothing was done");
            }
            return Ok(ExitCode::SUCCESS);
        }
    }
    let (tally, done) = job.pass(Some(&by))?;
    job.show(&tally, Some(&done));
    Ok(match done.refused + done.unsendable {
        0 => ExitCode::SUCCESS,
        _ => found_wrong(),
    })
}

/// What the loader does by itself: prices what was counted at a ceiling by the book in force. Says
/// whether it is done; what goes wrong is logged.
pub fn ceilings(settings: &Settings) -> bool {
    let args = RerateArgs {
        conditions: filter::condition("priced=ceiling").into_iter().collect(),
        since: None,
        until: None,
        at_book: None,
        job: None,
        reason: None,
        by: None,
        rate: DEFAULT_RATE,
        dry_run: false,
        yes: true,
        json: false,
    };
    let passed = Job::new(settings, &args).and_then(|job| {
        // A correction of somebody's is not stopped for nothing.
        let wanted = job.pass(None)?.0.all.entries;
        let (growing, done) = match wanted {
            0 => (0, Done::default()),
            _ => {
                let (tally, done) = job.pass(Some("spendfuse"))?;
                (tally.left_out(Why::Growing), done)
            }
        };
        Ok((job.name, growing, done))
    });
    match passed {
        Ok((job, growing, done)) => {
            let (applied, refused) = (done.applied, done.refused);
            if applied + refused + growing > 0 {
                tracing::info!(
                    job,
                    applied,
                    refused,
                    growing,
                    "calls at a ceiling re-rated"
                );
            }
            // What grows is looked at again.
            growing == 0
        }
        Err(error) => {
            tracing::warn!(%error, "calls at a ceiling were not re-rated");
            false
        }
    }
}

fn agreed(entries: u64) -> Result<bool, Failure> {
    let calls = counted(entries, "call");
    let mut asked = io::stderr().lock();
    write!(asked, "re-rate {calls}? [y/N] ").map_err(Failure::work)?;
    asked.flush().map_err(Failure::work)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::work)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

struct Job<'s> {
    settings: &'s Settings,
    args: &'s RerateArgs,
    connection: Connection,
    epoch: u32,
    book: Arc<PriceBook>,
    filter: Filter,
    name: String,
}

impl<'s> Job<'s> {
    fn new(settings: &'s Settings, args: &'s RerateArgs) -> Result<Self, Failure> {
        let connection = Connection::open(settings)?;
        let epoch = looked(settings)?.installation.epoch();
        let book = match args.at_book.as_deref() {
            None => book::in_force(settings)?,
            // Rows name the book by its version, and whoever reads them looks for it there.
            Some(file) if Path::new(file).is_file() => {
                return Err(Failure::usage(format!(
                    "{file} is a file: put it into force first (spendfuse prices import), then name its version"
                )));
            }
            Some(day) if day.contains('@') => {
                return Err(Failure::usage(format!(
                    "{day} names a day; a price book is named by its version here (spendfuse prices show)"
                )));
            }
            Some(version) => book::named(settings, version)?,
        };
        let filter = Filter::of(&args.conditions);
        let said = format!(
            "{} since {:?} until {:?} by {}",
            filter.text(),
            args.since.map(|since| since.0),
            args.until.map(|until| until.0),
            book.version()
        );
        let derived = || format!("{:016x}", xxh3_64(said.as_bytes()));
        Ok(Self {
            settings,
            args,
            connection,
            epoch,
            filter,
            name: args.job.clone().unwrap_or_else(derived),
            book,
        })
    }

    /// Goes through all entries once; `by` says who corrects them, or that nobody does.
    fn pass(&self, by: Option<&str>) -> Result<(Tally, Done), Failure> {
        let (settings, args) = (self.settings, self.args);
        let progress = progress();
        // First of all: what a killed job has left open would be waited for.
        let writer = by.map(|_| kafka::correcting(settings)).transpose()?;
        // Where nothing is corrected everything may be shown.
        let heard = by.map(|_| wait_until_heard(settings, |text| progress.set_message(text)));
        let heard_to = heard.transpose()?;
        // Before ClickHouse is asked: of what comes later nothing is claimed.
        let mut mark = Mark::of_corrections(settings)?;
        mark.wait(|text| progress.set_message(text))?;
        let tally = Tally::new(forecast(settings)?);
        let policy = Arc::new(settings.pricing());
        let judge = Judge::new(
            &self.name,
            &self.filter,
            Arc::clone(&self.book),
            policy,
            |version| book::named(settings, version).ok(),
        );
        let times = (args.since, args.until);
        let mut scan = Scan::begin(settings, &self.connection, &self.filter, self.epoch, times)?;
        progress.set_length(scan.total);
        let reason = args.reason.clone();
        let reason = reason.unwrap_or_else(|| format!("price book {}", self.book.version()));
        let told = by.map(|by| Told {
            job: &self.name,
            by,
            reason: &reason,
        });
        let sending = told.zip(writer).map(|(told, writer)| {
            let (connection, rate) = (&self.connection, args.rate);
            Sending::open(settings, connection, self.epoch, told, mark, rate, writer)
        });
        let mut pass = Pass {
            judge,
            tally,
            later: Later::default(),
            sending,
            progress,
        };
        while let Some(entries) = scan.next()? {
            pass.work(entries, heard_to)?;
        }
        while let Some((calls, heard_to)) = pass.later.wait(settings, &pass.progress)? {
            for calls in calls.chunks(PIECE as usize) {
                pass.work(scan.again(calls)?, Some(heard_to))?;
            }
        }
        pass.end()
    }

    fn show(&self, tally: &Tally, done: Option<&Done>) {
        let version = self.book.version();
        if self.args.json {
            let mut shown = tally.to_json();
            shown["outcome"] = json!(match done {
                None => "dry_run",
                Some(done) if done.refused + done.unsendable > 0 => "partly_refused",
                Some(_) if tally.all.entries == 0 => "nothing_to_do",
                Some(_) => "applied",
            });
            shown["job"] = json!(self.name);
            shown["book"] = json!(version);
            if let Some(done) = done {
                shown["applied"] = json!(done.applied);
                shown["refused"] = json!(done.refused + done.unsendable);
            }
            output::json(&shown);
            return;
        }
        output::line(format!("job {} by price book {version}", self.name));
        tally.print(done.is_none());
        let Some(done) = done else {
            return;
        };
        output::line(format!(
            "{} applied, and in ClickHouse",
            grouped(done.applied)
        ));
        if done.refused > 0 {
            output::warning(format!(
                "{} refused: another correction came first, or the call has grown meanwhile; the same command again looks at them anew",
                grouped(done.refused)
            ));
        }
    }
}

/// One way through the entries of a job.
struct Pass<'p> {
    judge: Judge<'p>,
    tally: Tally,
    later: Later,
    /// `None` where nothing is corrected.
    sending: Option<Sending<'p>>,
    progress: ProgressBar,
}

impl Pass<'_> {
    /// Takes entries of which everything is known that arrived before `heard_to`.
    fn work(&mut self, entries: Vec<Entry>, heard_to: Option<UnixMillis>) -> Result<(), Failure> {
        let put_aside = self.later.count();
        let count = entries.len() as u64;
        let (judge, tally) = (&mut self.judge, &mut self.tally);
        let judged = entries.into_iter().map(|entry| judge.judge(entry));
        let changes = self
            .later
            .sift(judged, heard_to, |judged| tally.add(judged));
        if let Some(sending) = &mut self.sending {
            sending.send(&changes)?;
            if sending.is_full() {
                sending.confirm(&self.progress)?;
            }
        }
        let put_aside = self.later.count() - put_aside;
        self.progress.inc(count - put_aside);
        Ok(())
    }

    fn end(mut self) -> Result<(Tally, Done), Failure> {
        self.later.leave_out(&mut self.tally);
        let mut done = Done::default();
        if let Some(mut sending) = self.sending {
            sending.confirm(&self.progress)?;
            done = sending.done;
        }
        self.progress.finish_and_clear();
        Ok((self.tally, done))
    }
}

/// How the budgets in force stand.
fn forecast(settings: &Settings) -> Result<Forecast, Failure> {
    let compiled = budgets::compiled_in_force(settings)?;
    Ok(Forecast::read(settings, &compiled, output::now())?.lifting())
}

fn progress() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {percent:>3}%  {pos} of {len}  {msg}  {eta} left");
    ProgressBar::new(0).with_style(style.expect("the template is a constant that works"))
}
