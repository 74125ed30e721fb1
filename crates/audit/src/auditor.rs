//! One round of the audit: everything that came since the round before.

use spendfuse_domain::Nanos;
use spendfuse_engine::audit::Differences;
use spendfuse_warehouse::gaps::GapRow;

use crate::blocks::Blocks;
use crate::budgets::BudgetsInForce;
use crate::context::Context;
use crate::deltas::DeltaLog;
use crate::error::AuditError;
use crate::input::{Input, InputSums};
use crate::ledger::LedgerReplica;
use crate::look::{self, Looked};
use crate::rollups;
use crate::sql::SeqRange;
use crate::windows::Compared;

/// How far each side was compared. A round that cannot be finished leaves it as it was.
#[derive(Clone, Debug)]
struct Progress {
    input: Input,
    blocks: Blocks,
    deltas: DeltaLog,
}

impl Progress {
    /// Where a role was behind for longer than topics are kept, records went before they were compared.
    /// Chains go on elsewhere then, and rows have no blocks and deltas any more: what is left is
    /// compared as at the beginning.
    fn follow_retention(
        &mut self,
        context: &Context<'_>,
        notes: &mut Vec<Note>,
    ) -> Result<(), AuditError> {
        if !self.blocks.is_overtaken(context)? && !self.deltas.is_overtaken(context)? {
            return Ok(());
        }
        self.blocks = Blocks::new(context)?;
        self.deltas = DeltaLog::new(context)?;
        notes.push(Note::new(
            "row blocks and deltas that retention has removed since the last round: not comparable",
        ));
        Ok(())
    }
}

/// The audit between rounds.
pub struct Auditor {
    progress: Progress,
    replica: LedgerReplica,
    /// Looks at the ledger so far.
    looks: u64,
    rounds: u64,
}

/// What was not compared, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// In words.
    pub text: String,
    /// Whether waiting helps: a role is behind.
    pub is_behind: bool,
}

impl Note {
    /// Something that cannot be compared.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_behind: false,
        }
    }

    /// Something that cannot be compared yet.
    pub fn behind(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_behind: true,
        }
    }
}

/// What a round found.
pub struct Round {
    /// What differs in what came since the round before.
    pub news: Differences,
    /// What differs in the ledger's state and on the blocklist, which are compared as a whole;
    /// `None` where they were not.
    pub standing: Option<Differences>,
    /// What was not compared, and why.
    pub notes: Vec<Note>,
    /// Losses that were ever accepted.
    pub gaps: Vec<GapRow>,
    /// Per meter partition, the commits whose rows were compared.
    pub ranges: Vec<SeqRange>,
    /// The input.
    pub input: InputSums,
    /// Windows of budgets.
    pub windows: Compared,
    /// Entries of the blocklist.
    pub entries: u64,
    /// Whether the round was given up because a role is behind: it will be done again.
    pub is_given_up: bool,
}

impl Auditor {
    /// Nothing compared yet.
    pub fn new(context: &Context<'_>) -> Result<Self, AuditError> {
        Ok(Self {
            progress: Progress {
                input: Input::new(context)?,
                blocks: Blocks::new(context)?,
                deltas: DeltaLog::new(context)?,
            },
            replica: LedgerReplica::new(context)?,
            looks: 0,
            rounds: 0,
        })
    }

    /// Compares what came since the last round. `comes_again`: where a role is behind, nothing is
    /// compared until the next round; else what is there is compared.
    pub fn round(&mut self, context: &Context<'_>, comes_again: bool) -> Result<Round, AuditError> {
        let mut progress = self.progress.clone();
        let mut notes = Vec::new();
        if self.rounds > 0 {
            progress.follow_retention(context, &mut notes)?;
        }
        let budgets = BudgetsInForce::read(context)?;
        // In this order: what a side has counted is in the sides that are read after it.
        let processed = context.processed(&context.topics.usage)?;
        let deltas = progress.deltas.read(context, &budgets)?;
        let mut looked = look::look(
            context,
            &mut self.replica,
            &progress.deltas,
            &budgets,
            &mut self.looks,
            &mut notes,
        )?;
        let unread_blocks = progress.blocks.clone();
        let mut blocks = progress.blocks.read(context, None)?;
        let is_loader_behind = !context.wait_until_loaded()?;
        if is_loader_behind {
            notes.push(Note::behind("rows that the loader has not loaded yet"));
            progress.blocks = unread_blocks;
            blocks = progress.blocks.read(context, Some(&context.loaded()?))?;
        }
        if comes_again && notes.iter().any(|note| note.is_behind) {
            return Ok(Round::given_up(notes, looked));
        }
        let standing = looked.differences.take();
        let mut differences = Differences::default();
        let [meter_ranges, _] = &blocks.ranges;
        differences.merge(blocks.compare(context)?);
        differences.merge(deltas.compare(context, &budgets, meter_ranges, &mut notes)?);
        differences.merge(blocks.differences);
        differences.merge(deltas.differences);
        differences.merge(rollups::compare(context, meter_ranges)?);
        let is_everything = self.rounds == 0;
        let twice = rollups::counted_twice(context, meter_ranges, is_everything)?;
        differences.merge(twice);
        let (input, of_input) = progress.input.compare(
            context,
            &processed,
            is_loader_behind,
            self.rounds == 0,
            &mut notes,
        )?;
        differences.merge(of_input);
        if looked.compared.began_unknown > 0 {
            notes.push(Note::new(format!(
                "{} windows of budgets: the record that began their count is compacted away",
                looked.compared.began_unknown
            )));
        }
        if looked.compared.expired > 0 {
            notes.push(Note::new(format!(
                "{} periods of budgets: they began before what the warehouse keeps",
                looked.compared.expired
            )));
        }
        let ranges = meter_ranges.clone();
        self.progress = progress;
        self.rounds += 1;
        Ok(Round {
            news: differences,
            standing,
            notes,
            gaps: context.wait(context.warehouse.gaps())?,
            ranges,
            input,
            windows: looked.compared,
            entries: looked.entries,
            is_given_up: false,
        })
    }

    /// Accounts in memory.
    pub fn accounts(&self) -> usize {
        self.replica.len()
    }
}

impl Round {
    fn given_up(notes: Vec<Note>, looked: Looked) -> Self {
        Self {
            news: Differences::default(),
            standing: looked.differences,
            notes,
            gaps: Vec::new(),
            ranges: Vec::new(),
            input: InputSums::default(),
            windows: looked.compared,
            entries: looked.entries,
            is_given_up: true,
        }
    }

    /// Everything that differs.
    pub fn differences(&self) -> Differences {
        let mut all = self.news.clone();
        all.merge(self.standing.clone().unwrap_or_default());
        all
    }

    /// Events and their cost that input and warehouse agree on.
    pub fn counted(&self) -> (u64, Nanos) {
        let homes = self.input.homes.iter();
        homes.fold((0, Nanos::ZERO), |(events, cost), home| {
            (
                events + home.counted.events.unsigned_abs(),
                cost + home.counted.cost,
            )
        })
    }
}
