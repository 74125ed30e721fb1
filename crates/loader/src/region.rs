//! Offsets of which nobody wrote down whether they are in the warehouse: they are looked for before
//! anything new is loaded.
//!
//! Three things make one: a group without offsets (it expired, was deleted, or has another name), a
//! ClickHouse that was restarted and may have lost what it had acknowledged, and one that lost its disk
//! (another database, or an older one), where a person has to say that everything is looked for.

use spendfuse_warehouse::record::Link;

use crate::batch::RowsRecord;
use crate::checkpoint::{BrokenLink, Chain, Links, Unsynced};

/// The first look at a batch that is there in part divides it into so many.
const NARROWING: usize = 8;

/// Everything from where reading starts up to an offset.
#[derive(Clone, Debug)]
pub struct Region {
    until: i64,
    origin: Origin,
    /// Records in a batch at most, up to an offset: what is there in part is looked at more closely.
    limit: Option<(usize, i64)>,
}

#[derive(Clone, Debug)]
enum Origin {
    NoOffsets {
        ends: Links,
        accepts_loss: bool,
        /// The log has lost its beginning, and no block of it was read: only what it goes on with says
        /// whether others are missing.
        is_blank: bool,
    },
    Restart {
        unsynced: Unsynced,
    },
    /// The chains are known up to offset `links_at`.
    Rebuild {
        links_at: i64,
    },
}

impl Region {
    /// No offset is committed, and the warehouse has rows of this partition: each chain up to `ends`.
    /// The log has `first` to `until`; where that is empty, and retention has removed something, the
    /// region goes on to the next block. `accepts_loss` where somebody has accepted that blocks between
    /// `ends` and the log are lost.
    pub fn without_offsets(first: i64, until: i64, ends: Links, accepts_loss: bool) -> Self {
        let origin = Origin::NoOffsets {
            ends,
            accepts_loss,
            is_blank: first > 0 && !accepts_loss,
        };
        Self::of(until, origin)
    }

    /// Everything before `until` was acknowledged by a server that is gone; `unsynced` is what is known
    /// once it has been looked for.
    pub fn after_restart(until: i64, unsynced: Unsynced) -> Self {
        Self::of(until, Origin::Restart { unsynced })
    }

    /// Everything before `committed` was loaded, and what comes after it up to `until` was being
    /// loaded, into a warehouse that is gone or was set back; whatever is still in the log is looked
    /// for. The checkpoint's chains are those of `committed`.
    pub fn rebuilding(committed: i64, until: i64) -> Self {
        let links_at = committed;
        Self::of(until, Origin::Rebuild { links_at })
    }

    fn of(until: i64, origin: Origin) -> Self {
        Self {
            until,
            origin,
            limit: None,
        }
    }

    /// Whether it is there because the group has no offset.
    pub(crate) fn is_without_offsets(&self) -> bool {
        matches!(self.origin, Origin::NoOffsets { .. })
    }

    /// Its end: the first offset that is loaded in the ordinary way.
    pub(crate) fn until(&self) -> i64 {
        self.until
    }

    /// Everything before this offset was loaded, or accepted by a person.
    pub(crate) fn passed_until(&self) -> i64 {
        self.links_at().unwrap_or(0)
    }

    /// Whether it goes on until a block comes.
    pub(crate) fn awaits_block(&self) -> bool {
        matches!(self.origin, Origin::NoOffsets { is_blank: true, .. })
    }

    /// From where on the chains are followed; `None` where they are found out in the region.
    pub(crate) fn links_at(&self) -> Option<i64> {
        match self.origin {
            Origin::NoOffsets { .. } => None,
            Origin::Restart { .. } => Some(self.until),
            Origin::Rebuild { links_at } => Some(links_at),
        }
    }

    /// Whether other rows may have the same addresses, so that counting them says too little.
    pub(crate) fn compares_content(&self) -> bool {
        !matches!(self.origin, Origin::Restart { .. })
    }

    /// Whether the warehouse must have what comes before the region.
    pub(crate) fn must_be_attached(&self) -> bool {
        matches!(self.origin, Origin::Restart { .. })
    }

    pub(crate) fn unsynced_after(&self) -> Option<Unsynced> {
        match self.origin {
            Origin::NoOffsets { .. } | Origin::Rebuild { .. } => None,
            Origin::Restart { unsynced } => Some(unsynced),
        }
    }

    /// Checks a block against its chain.
    ///
    /// # Errors
    /// In words, where blocks are lost between the warehouse and the log.
    pub(crate) fn follow(
        &mut self,
        links: &mut Links,
        offset: i64,
        chain: Chain,
        link: Link,
    ) -> Result<Option<BrokenLink>, String> {
        let Origin::NoOffsets {
            ends,
            accepts_loss,
            is_blank,
        } = &mut self.origin
        else {
            let is_new = self.links_at().is_none_or(|known| offset >= known);
            return Ok(is_new.then(|| links.follow(chain, link).err()).flatten());
        };
        if std::mem::take(is_blank) {
            self.until = self.until.max(offset + 1);
        }
        if links.end_of(&chain).is_none() {
            // What went before in another epoch was read here, or is known to the warehouse.
            let expected = || {
                let read = links.expected(&chain, link);
                read.max(ends.expected(&chain, link))
            };
            let end = ends.end_of(&chain).unwrap_or_else(expected);
            if link.seq <= end || *accepts_loss {
                links.adopt(chain, link);
                return Ok(None);
            }
            if link.previous > end {
                return Err(format!(
                    "the warehouse has rows of {} up to commit {end} of partition {}, and the \
                     topic goes on behind commit {}",
                    chain.table, link.partition, link.previous
                ));
            }
            links.set(chain.clone(), end);
        }
        Ok(links.follow(chain, link).err())
    }

    /// Retention removed what would be read next: the log begins anew behind it, as it may where the
    /// region begins. The chains stand where the warehouse has them, or where what was read before
    /// takes them.
    pub(crate) fn begin_anew(&mut self, links: &mut Links) {
        if let Origin::NoOffsets { ends, .. } = &mut self.origin {
            ends.advance(std::mem::take(links));
        }
    }

    /// How many of the next records make a batch.
    pub(crate) fn limited(&self, records: &[RowsRecord]) -> usize {
        match self.limit {
            Some((limit, end)) if records[0].offset < end => {
                let within = records.partition_point(|record| record.offset < end);
                within.min(limit)
            }
            _ => records.len(),
        }
    }

    /// A batch of so many records up to `end` is there in part.
    pub(crate) fn look_closer(&mut self, records: usize, end: i64) {
        let end = match self.limit {
            Some((_, known)) => end.max(known),
            None => end,
        };
        self.limit = Some(((records / NARROWING).max(1), end));
    }

    /// A batch is there as a whole, or not at all: the next one may be twice as large. What is missing
    /// most often goes on to the end, and is not asked for record by record.
    pub(crate) fn look_wider(&mut self) {
        if let Some((records, _)) = &mut self.limit {
            *records = records.saturating_mul(2);
        }
    }

    /// At its end: chains without a block in the region stand where the warehouse has them.
    pub(crate) fn complete(&self, links: &mut Links) {
        if let Origin::NoOffsets { ends, .. } = &self.origin {
            links.add_unknown(ends);
        }
    }
}
