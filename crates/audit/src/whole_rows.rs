//! Since when rows have every dimension: blocks of before `spendfuse finalize` lack some.

use spendfuse_bus::BusError;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::installation::{FORMAT_KEY, FormatRecord};

use crate::budgets::CountedBudget;
use crate::context::Context;
use crate::error::AuditError;
use crate::sql;

/// Processors store in a new format within 15 s after it was recorded, and a count may take rows of ten
/// minutes before it began.
const FOLLOWED_WITHIN_MILLIS: i64 = 15 * 60_000;

/// Since when rows have every dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeRows {
    /// Not yet.
    Never,
    /// All that there are.
    Always,
    /// Those that were counted from then on.
    Since(UnixMillis),
}

impl WholeRows {
    /// Asks the installation, and the warehouse whether there are rows of before.
    pub fn ask(context: &Context<'_>) -> Result<Self, AuditError> {
        let mut finalized_at = None;
        let read = context.read_since(&context.topics.installation, None, |record| {
            let is_format = record.key == Some(FORMAT_KEY.as_bytes());
            let Some(value) = record.value.filter(|_| is_format) else {
                return;
            };
            let format = serde_json::from_slice(value).map_or(0, |one: FormatRecord| one.format);
            finalized_at = (format >= 2).then_some(UnixMillis(record.timestamp_millis));
        });
        match read {
            // A release before had no such topic.
            Err(AuditError::Kafka(BusError::TopicMissing { .. })) => return Ok(Self::Never),
            read => read?,
        }
        let Some(finalized_at) = finalized_at else {
            return Ok(Self::Never);
        };
        let older = context.ask(&format!(
            "SELECT count() FROM (SELECT 1 FROM spend WHERE epoch = {} AND received_at < {} LIMIT 1)",
            context.epoch,
            sql::time(finalized_at)
        ))?;
        let is_older = older.first().map(|row| sql::cell::<u64>(row, 0));
        Ok(match is_older.transpose()?.unwrap_or(0) {
            0 => Self::Always,
            _ => Self::Since(finalized_at.plus(FOLLOWED_WITHIN_MILLIS)),
        })
    }

    /// Whether all rows that count in a budget are among them.
    pub fn has_all_of(self, counted: &CountedBudget) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Since(since) => !counted.began_before && counted.began_at >= since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_domain::budget::{Budget, CompiledBudget};

    #[test]
    fn a_count_over_projects_is_compared_where_it_began_after_rows_had_them() {
        let record = br#"{"v":1,"scope":{"project":"*"},"window":"lifetime","limit":"1.00","steps":[{"at":100,"do":"block"}],"counted_from":"2026-01-01T00:00:00Z"}"#;
        let counted = |began_at, began_before| CountedBudget {
            compiled: CompiledBudget::new(Budget::from_record("all", record).expect("a record")),
            began_offset: 0,
            began_at: UnixMillis(began_at),
            began_before,
            is_in_rows: true,
        };
        let since = WholeRows::Since(UnixMillis(1_000));
        assert!(since.has_all_of(&counted(1_000, false)));
        assert!(!since.has_all_of(&counted(999, false)));
        assert!(!since.has_all_of(&counted(1_000, true)));
        assert!(WholeRows::Always.has_all_of(&counted(0, true)));
        assert!(!WholeRows::Never.has_all_of(&counted(2_000, false)));
    }
}
