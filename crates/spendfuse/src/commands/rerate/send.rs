//! Hands what a job changes to the meters, not faster than it may, and sees it loaded.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use spendfuse_bus::{OutputRecord, TransactionalWriter};
use spendfuse_warehouse::client::quoted;

use super::super::Failure;
use super::super::correct::record::{Stood, Told, correction_of, output_of};
use super::super::correct::rows::{ask, number};
use super::super::ingest::Mark;
use super::super::kafka;
use super::super::output::{self, grouped};
use super::super::signals;
use super::super::warehouse::Connection;
use super::judge::Rerated;
use crate::settings::Settings;

/// Corrections that are not known to be loaded, at most. What stands in ClickHouse is asked for again
/// once they are.
const MOST_AHEAD: usize = 20_000;
/// Records of one transaction, about 3 KB each.
const TRANSACTION: usize = 1_000;
/// Entries of which no correction can be made that are named.
const TOLD: u64 = 10;
/// Ids in one question.
const IDS: usize = 5_000;

/// One job's way to the meters.
pub struct Sending<'s> {
    settings: &'s Settings,
    connection: &'s Connection,
    epoch: u32,
    told: Told<'s>,
    /// `None` after a failure.
    writer: Option<TransactionalWriter>,
    /// What ClickHouse had when the entries were asked for.
    mark: Mark<'s>,
    rate: u32,
    began: Instant,
    sent: u64,
    /// Ids of corrections that are not known to be loaded.
    ahead: Vec<String>,
    pub done: Done,
}

/// What became of what was to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub applied: u64,
    /// They lost against another correction, or against what the call has grown to.
    pub refused: u64,
    /// No correction can be made of them.
    pub unsendable: u64,
}

impl<'s> Sending<'s> {
    /// `writer` has the word.
    pub fn open(
        settings: &'s Settings,
        connection: &'s Connection,
        epoch: u32,
        told: Told<'s>,
        mark: Mark<'s>,
        rate: u32,
        writer: TransactionalWriter,
    ) -> Self {
        Self {
            settings,
            connection,
            epoch,
            told,
            writer: Some(writer),
            mark,
            rate,
            began: Instant::now(),
            sent: 0,
            ahead: Vec::new(),
            done: Done::default(),
        }
    }

    /// Sends what changes.
    pub fn send(&mut self, changes: &[Rerated]) -> Result<(), Failure> {
        let most = TRANSACTION.min(self.rate as usize).max(1);
        for some in changes.chunks(most) {
            let mut records = Vec::with_capacity(some.len());
            for one in some {
                match self.record(one) {
                    Ok((id, record)) => {
                        self.ahead.push(id);
                        records.push(record);
                    }
                    Err(why) => self.leave_out(one, &why),
                }
            }
            self.wait_for_turn();
            let Some(writer) = self.writer.take() else {
                return Err(Failure::work("nothing can be sent any more"));
            };
            let open = signals::in_transaction();
            let written = writer.write(&records);
            drop(open);
            self.writer = Some(written.map_err(|error| {
                let failure = kafka::failure(self.settings, &error);
                Failure::work(format!(
                    "{failure}; another spendfuse correct or rerate that begins meanwhile stops this one. \
                     The same command again goes on where it was"
                ))
            })?);
            self.sent += records.len() as u64;
        }
        Ok(())
    }

    fn leave_out(&mut self, one: &Rerated, why: &str) {
        self.done.unsendable += 1;
        if self.done.unsendable <= TOLD {
            let place = one.entry.place;
            output::warning(format!("entry {place} cannot be re-rated: {why}"));
        }
    }

    /// Whether what was sent must be loaded before more is looked at.
    pub fn is_full(&self) -> bool {
        self.ahead.len() >= MOST_AHEAD
    }

    /// Waits until everything that was sent is loaded, and counts what became of it.
    pub fn confirm(&mut self, progress: &ProgressBar) -> Result<(), Failure> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        let mut mark = Mark::of_corrections(self.settings)?;
        mark.wait(|text| progress.set_message(text))?;
        for ids in self.ahead.chunks(IDS) {
            let ids: Vec<String> = ids.iter().map(|id| quoted(id)).collect();
            let question = format!(
                "SELECT toString(uniqExact(event_id)) FROM spend \
                 WHERE kind = 'rerate' AND epoch = {} AND event_id IN ({})",
                self.epoch,
                ids.join(",")
            );
            let answer = ask(self.connection, &question)?;
            let applied: u64 = answer.first().map_or(Ok(0), |cells| number(&cells[0]))?;
            self.done.applied += applied;
            self.done.refused += ids.len() as u64 - applied;
        }
        self.ahead.clear();
        self.mark = mark;
        progress.set_message(format!("{} applied", grouped(self.done.applied)));
        Ok(())
    }

    /// No more than `rate` a second.
    fn wait_for_turn(&self) {
        let due = Duration::from_secs_f64(self.sent as f64 / f64::from(self.rate));
        while let Some(left) = due.checked_sub(self.began.elapsed()) {
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn record(&self, one: &Rerated) -> Result<(String, OutputRecord), String> {
        let stood = Stood {
            before: Some(&one.before),
            after: Some(&one.after),
        };
        let (record, written) = correction_of(&one.entry, self.told, self.mark.at, stood)?;
        let output = output_of(self.settings, record.entry, written);
        Ok((record.id, output))
    }
}
