//! What becomes of an insert that was interrupted: decided from what was written down before it and
//! from what is in the tables now.

use spendfuse_domain::UnixMillis;

use crate::batch::{Batch, TableInsert};
use crate::checkpoint::{Checkpoint, Intent};
use crate::protocol::{ProtocolRules, StopReason};

/// Where loading of a partition goes on: its committed offset and metadata, in a log that begins at
/// offset `first`.
///
/// # Errors
/// [`StopReason::Start`] where the metadata cannot be used.
pub fn starting_point(
    (position, metadata): (i64, String),
    first: i64,
) -> Result<StartingPoint, StopReason> {
    let mut checkpoint = Checkpoint::decode(&metadata).map_err(|error| StopReason::Start {
        position,
        detail: error.to_string(),
    })?;
    if position >= first {
        return Ok(StartingPoint {
            position,
            checkpoint,
            lost: None,
        });
    }
    // What is left of an interrupted insert may be in the warehouse: it cannot be told.
    let interrupted = checkpoint.intent.take();
    let to = interrupted.map_or(first, |intent| intent.end.max(first));
    let lost = StopReason::Lost {
        from: position,
        to,
        detail: RETENTION.to_owned(),
    };
    Ok(StartingPoint {
        position,
        checkpoint,
        lost: Some(lost),
    })
}

/// Where loading of a partition goes on.
#[derive(Clone, Debug)]
pub struct StartingPoint {
    /// The committed offset.
    pub position: i64,
    /// Its metadata.
    pub checkpoint: Checkpoint,
    /// Why it does not go on before a person has accepted that.
    pub lost: Option<StopReason>,
}

/// How records get lost before they are loaded.
pub(crate) const RETENTION: &str = "the topic's retention removed them while no loader took them, and they are not in the warehouse";

/// What is in a table of an interrupted insert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFacts {
    /// Rows with addresses in the batch's ranges.
    pub found: u64,
    /// The table's insert counter now.
    pub inserts: u64,
    /// Rows at the same addresses that are others; 0 where that was not asked.
    pub others: u64,
    /// Whether the sums that views keep agree with the rows of the same commits.
    pub views_agree: bool,
    /// Whether the commit that the batch's first block follows has no rows in the table.
    pub is_detached: bool,
}

/// How much is there of a batch of which nobody knows whether it was inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Everything, in views as well.
    Whole,
    /// Something has to be put in.
    Missing,
    /// Some of its records may be there and others not.
    Part,
    /// What is there are not its rows alone.
    Doubt(String),
}

/// Decides about a batch that was looked for.
pub fn found_of(batch: &Batch, facts: &[TableFacts]) -> Found {
    debug_assert_eq!(batch.tables.len(), facts.len());
    let tables = || batch.tables.iter().zip(facts);
    if let Some((table, fact)) = tables().find(|(_, fact)| fact.others > 0) {
        return Found::Doubt(other_rows(table, fact));
    }
    if let Some((table, fact)) = tables().find(|(table, fact)| fact.found > table.rows) {
        return Found::Doubt(too_many(table, fact.found));
    }
    if tables().all(|(table, fact)| fact.found == table.rows && fact.views_agree) {
        return Found::Whole;
    }
    let is_clear = tables().all(|(table, fact)| match fact.found {
        0 => fact.views_agree,
        found => found == table.rows,
    });
    match is_clear || batch.records == 1 {
        true => Found::Missing,
        false => Found::Part,
    }
}

fn other_rows(table: &TableInsert, fact: &TableFacts) -> String {
    format!(
        "{} of its {} rows in the topic differ from those that {} has at their addresses: the topics \
         were made anew, or rows were changed",
        fact.others,
        table.rows,
        table.table()
    )
}

/// The doubt where a table has more rows at a batch's addresses than the batch.
pub(crate) fn too_many(table: &TableInsert, found: u64) -> String {
    format!(
        "{} has {found} rows at the addresses of {}",
        table.table(),
        table.rows
    )
}

/// What to do about an interrupted insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayDecision {
    /// Insert again with the same token what is not there, and complete it.
    Replay,
    /// Everything is there.
    Complete,
    /// Neither can be trusted.
    Doubt(String),
}

/// Decides about an interrupted insert whose records are the same as then.
///
/// While ClickHouse surely remembers the tokens (less than half of its memory used since), inserting
/// again is right whatever is there, and heals torn tables and views; against tokens that a crash took
/// see `is_there` in `inserting`. Later nothing and everything are safe, and, where what is missing can
/// be put in without a token, a part of the same rows.
pub fn decide_replay(
    rules: &ProtocolRules,
    intent: &Intent,
    batch: &Batch,
    facts: &[TableFacts],
    now: UnixMillis,
) -> ReplayDecision {
    debug_assert_eq!(batch.tables.len(), facts.len());
    // Other rows have these addresses: those of earlier topics, or somebody's copy.
    let more = batch.tables.iter().zip(facts);
    if let Some((table, fact)) = more
        .into_iter()
        .find(|(table, fact)| fact.found > table.rows)
    {
        return ReplayDecision::Doubt(too_many(table, fact.found));
    }
    let remembered = batch.tables.iter().zip(facts).all(|(table, fact)| {
        let then = intent.inserts.get(table.table()).copied().unwrap_or(0);
        // A counter that went back (parts dropped) says nothing: treated as forgotten.
        let since = fact.inserts.checked_sub(then).unwrap_or(u64::MAX);
        since <= rules.deduplication_window / 2
    });
    // An intent far ahead of this machine's clock is as old as anything: the clock was set back, or is
    // wrong since a start without a time server.
    let recent = now.since(intent.at).abs() <= rules.deduplication_millis / 2;
    if remembered && recent {
        return ReplayDecision::Replay;
    }
    let tables = || batch.tables.iter().zip(facts);
    // A table without the rows whose views have them lost them in a crash: see `healing`.
    if tables().all(|(_, fact)| fact.found == 0 && fact.views_agree) {
        return ReplayDecision::Replay;
    }
    if tables().all(|(table, fact)| fact.found == table.rows && fact.views_agree) {
        return ReplayDecision::Complete;
    }
    if rules.completes_parts {
        return match tables().find(|(_, fact)| fact.others > 0) {
            Some((table, fact)) => ReplayDecision::Doubt(other_rows(table, fact)),
            None => ReplayDecision::Replay,
        };
    }
    let detail: Vec<String> = tables()
        .map(|(table, fact)| {
            let views = if fact.views_agree {
                ""
            } else {
                ", sums of views differ"
            };
            format!(
                "{} has {} of {} rows{views}",
                table.table(),
                fact.found,
                table.rows
            )
        })
        .collect();
    ReplayDecision::Doubt(format!(
        "it is too old for ClickHouse to remember its token, and {}",
        detail.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::batch::{BatchLimits, RowsRecord};
    use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

    const RULES: ProtocolRules = ProtocolRules {
        limits: BatchLimits {
            rows: 100,
            bytes: 1000,
        },
        flush_interval: 10,
        deduplication_window: 1000,
        deduplication_millis: 1_000_000,
        epoch: 0,
        content_tokens: true,
        completes_parts: false,
    };

    fn batch() -> Batch {
        let block = RowBlock {
            table: "spend".to_owned(),
            schema_version: 1,
            rows: 8,
            epoch: 0,
            link: Link {
                partition: 0,
                previous: 0,
                seq: 1,
            },
            indexes: IndexRange { first: 0, last: 7 },
            native: "native".into(),
        };
        let record = RowsRecord::read(5, UnixMillis(0), block.encode().into()).unwrap();
        Batch::of("rows", 0, 5, &[record], RULES.tokens())
    }

    /// The decision where the table's counter was 100 at the intent, at time 0.
    fn decide(found: u64, inserts: u64, views_agree: bool, now: i64) -> ReplayDecision {
        let fact = TableFacts {
            found,
            inserts,
            views_agree,
            ..TableFacts::default()
        };
        decide_by(&RULES, fact, now)
    }

    fn decide_by(rules: &ProtocolRules, fact: TableFacts, now: i64) -> ReplayDecision {
        let batch = batch();
        let intent = Intent {
            end: batch.end,
            records: batch.records,
            hash: batch.hash,
            at: UnixMillis(0),
            inserts: BTreeMap::from([("spend".to_owned(), 100)]),
            tokens: RULES.tokens(),
        };
        decide_replay(rules, &intent, &batch, &[fact], UnixMillis(now))
    }

    #[test]
    fn while_the_token_is_remembered_the_insert_is_repeated_whatever_is_there() {
        for views_agree in [true, false] {
            for found in [0, 3, 8] {
                assert_eq!(decide(found, 600, views_agree, 1), ReplayDecision::Replay);
            }
            let more = decide(9, 600, views_agree, 1);
            assert!(matches!(more, ReplayDecision::Doubt(_)), "{more:?}");
        }
    }

    #[test]
    fn beyond_half_the_window_only_nothing_or_everything_is_trusted() {
        // Too many inserts since, a counter that went back, too much time, a clock that was set back.
        for (inserts, now) in [(601, 1), (99, 1), (100, 500_001), (100, -500_001)] {
            assert_eq!(decide(0, inserts, true, now), ReplayDecision::Replay);
            assert_eq!(decide(8, inserts, true, now), ReplayDecision::Complete);
            for (found, views_agree) in [(0, false), (3, true), (8, false), (9, true)] {
                let decision = decide(found, inserts, views_agree, now);
                assert!(matches!(decision, ReplayDecision::Doubt(_)), "{decision:?}");
            }
        }
    }

    /// A loss of power takes inserts and their counters, and what came after it may be torn.
    #[test]
    fn a_part_of_the_same_rows_is_completed_where_that_needs_no_token() {
        let rules = ProtocolRules {
            completes_parts: true,
            ..RULES
        };
        let part = TableFacts {
            found: 3,
            inserts: 99,
            ..TableFacts::default()
        };
        assert_eq!(decide_by(&rules, part, 1), ReplayDecision::Replay);
        for (found, others) in [(3, 1), (9, 0)] {
            let wrong = TableFacts {
                found,
                others,
                ..part
            };
            let decision = decide_by(&rules, wrong, 1);
            assert!(matches!(decision, ReplayDecision::Doubt(_)), "{decision:?}");
        }
    }

    #[test]
    fn a_partition_goes_on_where_it_was_committed_or_waits_for_a_person() {
        let at = |offset: i64, metadata: &str| (offset, metadata.to_owned());
        let start = starting_point(at(9, ""), 7).unwrap();
        assert_eq!((start.position, start.lost), (9, None));
        let lost = |start: StartingPoint| start.lost.and_then(|reason| reason.end());
        assert_eq!(lost(starting_point(at(6, ""), 7).unwrap()), Some(7));
        // The rest of an insert that may have happened is not loaded a second time.
        let metadata = r#"{"v":1,"intent":{"end":9,"records":1,"hash":"07","at":0,"inserts":{}}}"#;
        let start = starting_point(at(6, metadata), 7).unwrap();
        assert_eq!(start.checkpoint.intent, None);
        assert_eq!(lost(start), Some(9));
        assert!(starting_point(at(9, "?"), 7).is_err(), "foreign metadata");
    }
}
