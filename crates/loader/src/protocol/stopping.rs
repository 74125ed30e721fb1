//! Why a partition stops, and how it goes on behind what was wrong.

use spendfuse_warehouse::WarehouseError;

use super::{Action, PartitionProtocol, State};
use crate::recovery::RETENTION;

/// Why a partition is no longer loaded. Each needs a person, who repairs what is wrong, or accepts it
/// and goes on behind it; the records stay in the topic for its retention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A record that is not a block this program can load.
    #[error("the record at offset {offset} cannot be loaded: {detail}")]
    Poison {
        /// Its offset.
        offset: i64,
        /// Why.
        detail: String,
    },
    /// Records that are in the topic no longer and not in the warehouse.
    #[error("the rows of offsets {from} to {to} (exclusive) are lost: {detail}")]
    Lost {
        /// First offset.
        from: i64,
        /// Where the log goes on.
        to: i64,
        /// How that is known.
        detail: String,
    },
    /// The topic has fewer records than were read.
    #[error(
        "the topic ends at offset {end}, before what was loaded, up to {read_to}: Kafka has lost \
         records, or the topic was made anew"
    )]
    Shorter {
        /// The next offset to read.
        read_to: i64,
        /// Where the log ends.
        end: i64,
    },
    /// The committed offset or its metadata cannot be used.
    #[error("cannot go on from the committed offset {position}: {detail}")]
    Start {
        /// The offset.
        position: i64,
        /// Why.
        detail: String,
    },
    /// The warehouse is not the one that was loaded, or was set back.
    #[error(
        "{detail}: its disk was lost or set back, or clickhouse.url and clickhouse.database name \
         another one; `spendfuse warehouse rebuild` loads again what the rows topics still have"
    )]
    Behind {
        /// How that is known.
        detail: String,
    },
    /// ClickHouse will not take these rows.
    #[error("ClickHouse refuses the rows of offsets {start} to {end} (exclusive): {detail}")]
    Refused {
        /// First offset of the batch.
        start: i64,
        /// Its end.
        end: i64,
        /// ClickHouse's words.
        detail: String,
    },
    /// It cannot be told whether an interrupted insert happened.
    #[error(
        "the insert of offsets {start} to {end} (exclusive) is in doubt: {detail}; \
         spendfuse audit compares the warehouse with the topic"
    )]
    Doubt {
        /// First offset of the batch.
        start: i64,
        /// Its end.
        end: i64,
        /// What speaks against going on.
        detail: String,
    },
}

impl StopReason {
    /// The sentence, with the command that accepts what is wrong.
    pub fn with_way_out(&self, topic: &str, partition: u32) -> String {
        let to = match self {
            Self::Start { .. } | Self::Behind { .. } => return self.to_string(),
            _ => self
                .end()
                .map_or_else(String::new, |end| format!(" --to {end}")),
        };
        format!(
            "{self}; `spendfuse gaps accept --topic {topic} --partition {partition}{to}` goes on behind it"
        )
    }

    /// The offset at which the partition stands for this reason; `None` where that says nothing of it.
    pub fn stands_at(&self) -> Option<i64> {
        match self {
            Self::Poison { offset, .. } => Some(*offset),
            Self::Lost { from, .. } => Some(*from),
            Self::Shorter { end, .. } => Some(*end),
            Self::Start { position, .. } => Some(*position),
            Self::Refused { start, .. } | Self::Doubt { start, .. } => Some(*start),
            Self::Behind { .. } => None,
        }
    }

    /// Where the partition goes on once what is wrong has been accepted; `None` where that does not
    /// help.
    pub fn end(&self) -> Option<i64> {
        match self {
            Self::Poison { offset, .. } => Some(offset + 1),
            Self::Lost { to, .. } => Some(*to),
            Self::Refused { end, .. } | Self::Doubt { end, .. } | Self::Shorter { end, .. } => {
                Some(*end)
            }
            Self::Start { .. } | Self::Behind { .. } => None,
        }
    }

    /// Whether somebody who lets the partition go on at `to` means this: never before its end, and
    /// exactly there where good records follow.
    pub fn is_accepted_by(&self, to: i64) -> bool {
        let Some(end) = self.end() else {
            return false;
        };
        match self {
            Self::Lost { .. } | Self::Shorter { .. } => to >= end,
            _ => to == end,
        }
    }
}

impl PartitionProtocol {
    /// Whether the partition is stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// The log does not have offset `from`, which would be read next, and goes on at `to`: behind it,
    /// or before it where it became shorter. What came before is still loaded.
    ///
    /// `true` where reading goes on at `to`: what is looked for is looked for in what the log has.
    pub fn gone(&mut self, from: i64, to: i64) -> bool {
        if self.obstacle.is_some() || self.is_stopped() {
            return false;
        }
        if let Some(region) = &mut self.region
            && (from..=region.until()).contains(&to)
        {
            region.begin_anew(&mut self.links);
            return true;
        }
        let reason = match to < from {
            true => StopReason::Shorter {
                read_to: from,
                end: to,
            },
            false => StopReason::Lost {
                from,
                to,
                detail: RETENTION.to_owned(),
            },
        };
        self.obstacle = Some((from, reason));
        false
    }

    /// A machine that waits for a person from the start.
    pub fn stopped(mut self) -> Self {
        self.state = State::Stopped;
        self
    }

    /// A person has accepted what is wrong before `to`: the partition goes on there. Records are then
    /// read from `to` on.
    pub fn go_on_at(&mut self, to: i64) -> Option<Action> {
        debug_assert!(self.is_stopped() && self.records.is_empty());
        let obstacle = self.obstacle.take();
        // What is looked for beyond the log's end would never come.
        let is_shorter = matches!(obstacle, Some((_, StopReason::Shorter { .. })));
        self.links = self.stored_links.clone();
        self.position = to;
        self.state = State::Reading;
        if self
            .region
            .as_ref()
            .is_some_and(|region| to < region.until() && !is_shorter)
        {
            return None;
        }
        Some(self.end_region(to))
    }

    /// Whether the log will never be read up to `end`.
    pub(super) fn is_gone_before(&self, end: i64) -> bool {
        let gone = |reason: &StopReason| {
            matches!(reason, StopReason::Lost { .. } | StopReason::Shorter { .. })
        };
        let mut obstacle = self.obstacle.iter();
        obstacle.any(|(offset, reason)| *offset < end && gone(reason))
    }

    /// The answer to [`Action::Insert`], [`Action::Inspect`] and the like: ClickHouse will never take
    /// the rows.
    pub fn refused(&mut self, detail: String) -> Option<Action> {
        let (start, end) = self.range_under_way()?;
        Some(self.stop(StopReason::Refused { start, end, detail }))
    }

    /// As [`Self::refused`] or [`Self::in_doubt`], whichever ClickHouse says.
    pub(crate) fn failed(&mut self, error: WarehouseError) -> Option<Action> {
        match error {
            WarehouseError::InDoubt { detail, .. } => self.in_doubt(detail),
            error => self.refused(error.to_string()),
        }
    }

    /// The answer to the same: the tables do not have what they should have.
    pub fn in_doubt(&mut self, detail: String) -> Option<Action> {
        let (_, end) = self.range_under_way()?;
        Some(self.doubt(end, detail))
    }

    fn range_under_way(&self) -> Option<(i64, i64)> {
        match &self.state {
            State::Inserting(batch)
            | State::Restoring(batch)
            | State::LookingFor(batch)
            | State::Inspecting(_, batch) => Some((batch.start, batch.end)),
            _ => None,
        }
    }

    pub(super) fn doubt(&mut self, end: i64, detail: String) -> Action {
        let start = self.position;
        self.stop(StopReason::Doubt { start, end, detail })
    }

    pub(super) fn stop(&mut self, reason: StopReason) -> Action {
        self.state = State::Stopped;
        self.records.clear();
        self.buffered_bytes = 0;
        self.buffered_rows = 0;
        Action::Stop(reason)
    }
}
