//! Row blocks: their chains, and whether the warehouse has the rows that they hold.

use bytes::Bytes;
use spendfuse_engine::audit::{
    BrokenChain, Chains, Difference, Differences, Kind, SeqSums, Site, Tally,
};
use spendfuse_warehouse::RowBlock;

use crate::context::Context;
use crate::error::AuditError;
use crate::sql::{self, SeqRange};
use crate::tail::Tail;

/// Above this many blocks in a round they are summed up by a thousand commits.
const MANY: i64 = 200_000;
const COARSE: u64 = 1000;

/// Who writes a topic of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// The meter, topic `rows`.
    Meter,
    /// The ledger, topic `rows.ledger`.
    Ledger,
}

impl Writer {
    /// Its place in arrays.
    pub const ALL: [Self; 2] = [Self::Meter, Self::Ledger];

    fn name(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Ledger => "ledger",
        }
    }

    fn site(self, partition: u32) -> Site {
        match self {
            Self::Meter => Site::Meter(partition),
            Self::Ledger => Site::Ledger(partition),
        }
    }
}

/// Table and partition of its writer.
type Chain = (Writer, String, u32);

/// How far row blocks were read.
#[derive(Clone, Debug)]
pub struct Blocks {
    tails: [Tail; 2],
    chains: Chains<Chain>,
    /// Per writer and partition, the last commit that was compared.
    compared: [Vec<Option<u64>>; 2],
}

/// The blocks of one round.
pub struct BlocksRead {
    /// Per writer and partition, the commits that were read.
    pub ranges: [Vec<SeqRange>; 2],
    sums: SeqSums<Chain>,
    /// Whether there are more blocks, of rows that are not loaded yet.
    is_clipped: bool,
    /// Broken chains.
    pub differences: Differences,
}

impl Blocks {
    /// Nothing read yet.
    pub fn new(context: &Context<'_>) -> Result<Self, AuditError> {
        let topics = &context.topics;
        let tail = |topic: &str| Tail::new(context, topic, context.since);
        let tails = [tail(&topics.rows)?, tail(&topics.rows_ledger)?];
        let compared = [&tails[0], &tails[1]].map(|tail| vec![None; tail.partitions()]);
        Ok(Self {
            tails,
            chains: Chains::new(),
            compared,
        })
    }

    /// Whether retention has removed blocks that were not read.
    pub fn is_overtaken(&self, context: &Context<'_>) -> Result<bool, AuditError> {
        let [meter, ledger] = &self.tails;
        Ok(meter.is_overtaken(context)? || ledger.is_overtaken(context)?)
    }

    /// Reads the blocks that are there now; at most up to `limits`, where given: offsets by writer
    /// and partition.
    pub fn read(
        &mut self,
        context: &Context<'_>,
        limits: Option<&[Vec<i64>; 2]>,
    ) -> Result<BlocksRead, AuditError> {
        let limit = |writer: Writer| limits.map(|limits| limits[writer as usize].as_slice());
        let mut waiting = 0;
        for (tail, writer) in self.tails.iter().zip(Writer::ALL) {
            let ranges = tail.waiting(context, limit(writer))?;
            waiting += ranges
                .iter()
                .map(|range| range.to - range.from)
                .sum::<i64>();
        }
        let mut read = BlocksRead {
            ranges: Writer::ALL.map(|writer| self.begin(writer)),
            sums: SeqSums::new(if waiting > MANY { COARSE } else { 1 }),
            is_clipped: limits.is_some(),
            differences: Differences::default(),
        };
        for writer in Writer::ALL {
            let mut taking = Taking {
                writer,
                chains: &mut self.chains,
                read: &mut read,
            };
            self.tails[writer as usize].read(context, limit(writer), |record, is_whole| {
                let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
                taking.take(record.partition, record.offset, &value, is_whole);
                Ok(())
            })?;
        }
        if limits.is_some() {
            // The rest of a commit may lie beyond the limit.
            for range in read.ranges.iter_mut().flatten() {
                range.to = range.to.saturating_sub(1);
            }
        }
        for writer in Writer::ALL {
            let ranges = read.ranges[writer as usize].iter();
            for (compared, range) in self.compared[writer as usize].iter_mut().zip(ranges) {
                *compared = compared_to(*compared, *range);
            }
        }
        Ok(read)
    }

    fn begin(&self, writer: Writer) -> Vec<SeqRange> {
        let compared = self.compared[writer as usize].iter();
        compared.map(|compared| empty_after(*compared)).collect()
    }
}

/// The empty range after what was compared. In a log whose beginning is gone the first commit that
/// is seen may lack blocks: `from` 0 stands for "after the first that comes".
fn empty_after(compared: Option<u64>) -> SeqRange {
    SeqRange {
        from: compared.map_or(0, |seq| seq + 1),
        to: compared.unwrap_or(0),
    }
}

/// The last commit that is compared once `range` was; none as long as no block came, of a log that
/// retention has emptied as well.
fn compared_to(compared: Option<u64>, range: SeqRange) -> Option<u64> {
    let last = range.to.max(compared.unwrap_or(0));
    (last > 0).then_some(last)
}

struct Taking<'a> {
    writer: Writer,
    chains: &'a mut Chains<Chain>,
    read: &'a mut BlocksRead,
}

impl Taking<'_> {
    fn take(&mut self, partition: u32, offset: i64, value: &Bytes, is_whole: bool) {
        let site = self.writer.site(partition);
        let block = match RowBlock::decode(value) {
            Ok(block) => block,
            Err(error) => {
                self.read.differences.push(Difference {
                    kind: Kind::RowsDiffer,
                    site,
                    seq: None,
                    expected: Tally::default(),
                    found: Tally::default(),
                    detail: format!("record at offset {offset} is no row block: {error}"),
                });
                return;
            }
        };
        let seq = block.link.seq;
        let range = &mut self.read.ranges[self.writer as usize][partition as usize];
        if range.from == 0 && !is_whole {
            range.from = seq + 1;
        }
        range.to = range.to.max(seq);
        let is_wanted = seq >= range.from;
        let chain = (self.writer, block.table, partition);
        let followed = self
            .chains
            .follow(chain.clone(), block.link.previous, seq, is_whole);
        if let Err(broken) = followed {
            let detail = chain_detail(&format!("blocks of {}", chain.1), broken, offset);
            self.read.differences.push(Difference {
                kind: if broken.is_gap() {
                    Kind::RowGap
                } else {
                    Kind::RowOverlap
                },
                site,
                seq: Some(broken.seq.min(broken.expected + 1)),
                expected: Tally::default(),
                found: Tally::default(),
                detail,
            });
        }
        if is_wanted {
            let rows = Tally::new(i64::from(block.rows), spendfuse_domain::Nanos::ZERO);
            self.read.sums.add(chain, seq, rows);
        }
    }
}

/// What is wrong with a chain, in words.
pub fn chain_detail(what: &str, broken: BrokenChain, offset: i64) -> String {
    format!(
        "{what}: commit {} follows {}, expected to follow {} (offset {offset})",
        broken.seq, broken.previous, broken.expected
    )
}

impl BlocksRead {
    /// Compares the rows of the warehouse with the blocks.
    pub fn compare(&self, context: &Context<'_>) -> Result<Differences, AuditError> {
        let block = self.sums.commits_a_block();
        let mut found = SeqSums::new(block);
        let [meter, ledger] = &self.ranges;
        let spend = format!(
            "SELECT 'meter', meter_partition, intDiv(meter_seq, {block}), count() FROM spend \
             WHERE {} GROUP BY 1, 2, 3",
            sql::in_ranges(context.epoch, "meter_partition", "meter_seq", meter)
        );
        let mut questions = vec![("spend", spend)];
        for table in ["finding_changes", "verdicts", "budget_windows"] {
            for (writer, ranges) in Writer::ALL.into_iter().zip([meter, ledger]) {
                let name = writer.name();
                let condition =
                    sql::in_ranges(context.epoch, "stage_partition", "stage_seq", ranges);
                let question = format!(
                    "SELECT stage, stage_partition, intDiv(stage_seq, {block}), count() \
                     FROM {table} WHERE stage = '{name}' AND {condition} GROUP BY 1, 2, 3"
                );
                questions.push((table, question));
            }
        }
        for (table, question) in questions {
            for row in context.ask(&question)? {
                let writer = match row[0].as_str() {
                    "ledger" => Writer::Ledger,
                    _ => Writer::Meter,
                };
                let chain = (writer, table.to_owned(), sql::cell(&row, 1)?);
                let rows = Tally::new(sql::cell(&row, 3)?, spendfuse_domain::Nanos::ZERO);
                found.add_block(chain, sql::cell(&row, 2)?, rows);
            }
        }
        let mut differences = Differences::default();
        let range_of = |writer: Writer, partition: u32| {
            let ranges = self.ranges[writer as usize].get(partition as usize);
            ranges.copied().unwrap_or_default()
        };
        for ((writer, table, partition), seq, expected, is) in self.sums.unlike(&found) {
            // Of the last commits not all rows may be loaded.
            let last = range_of(*writer, *partition).to;
            if seq > last || (self.is_clipped && seq + block > last + 1) {
                continue;
            }
            differences.push(Difference {
                kind: Kind::RowsDiffer,
                site: writer.site(*partition),
                seq: Some(seq),
                expected,
                found: is,
                detail: format!(
                    "commit {seq}: {} rows in the blocks of {table}, {} in the warehouse",
                    expected.events, is.events
                ),
            });
        }
        Ok(differences)
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_warehouse::record::{IndexRange, Link};

    use super::*;

    fn take(range: SeqRange, previous: u64, seq: u64, is_whole: bool) -> SeqRange {
        let block = RowBlock {
            table: "spend".to_owned(),
            schema_version: 1,
            rows: 8,
            epoch: 0,
            link: Link {
                partition: 0,
                previous,
                seq,
            },
            indexes: IndexRange { first: 0, last: 7 },
            native: "native".into(),
        };
        let value: Bytes = block.encode().into();
        let mut read = BlocksRead {
            ranges: [vec![range], Vec::new()],
            sums: SeqSums::new(1),
            is_clipped: false,
            differences: Differences::default(),
        };
        let mut taking = Taking {
            writer: Writer::Meter,
            chains: &mut Chains::new(),
            read: &mut read,
        };
        taking.take(0, 7, &value, is_whole);
        assert!(read.differences.is_empty());
        read.ranges[0][0]
    }

    /// A partition without events for a week, whose log is empty but not new, gets one.
    #[test]
    fn what_retention_took_before_the_first_round_is_not_missing_in_a_later_one() {
        let nothing = empty_after(None);
        let idle = empty_after(compared_to(None, nothing));
        assert_eq!(idle, nothing);
        let (from, to) = (501, 500);
        let first = take(idle, 499, 500, false);
        assert_eq!(first, SeqRange { from, to });
        let next = empty_after(compared_to(None, first));
        assert_eq!(next, SeqRange { from, to });
        // Of a log that begins with its first record everything is compared.
        let first = take(idle, 0, 3, true);
        assert_eq!(first, SeqRange { from: 0, to: 3 });
        let next = empty_after(compared_to(None, first));
        assert_eq!(next, SeqRange { from: 4, to: 3 });
    }
}
