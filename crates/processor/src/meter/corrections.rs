//! Records of the corrections topic, applied to the entries of this partition.

use metrics::counter;
use spendfuse_bus::InputRecord;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::{CorrectionRecord, StandingRecord};
use spendfuse_domain::row::Origin;
use spendfuse_engine::delta::CountedThen;
use spendfuse_engine::meter::{Charge, Corrected, Correction, Standing};
use spendfuse_warehouse::RowFormat;

use super::MeterPartition;
use crate::metrics::CORRECTIONS_REFUSED;

impl MeterPartition {
    /// Applies a correction. What is refused changes nothing: whoever made it waits for its rows, and
    /// is told of by a line in the log and a metric.
    pub(super) fn correct(&mut self, record: &InputRecord<'_>) {
        let refused = match self.apply(record) {
            Ok(Corrected::Applied { .. }) => {
                self.tallies.corrections += 1;
                return;
            }
            Ok(Corrected::Twice) => return,
            Ok(Corrected::Conflict) => (
                "conflict",
                "another correction of this entry came first".to_owned(),
            ),
            Ok(Corrected::Late) => (
                "late",
                "it is too old to know whether another correction of this entry came first"
                    .to_owned(),
            ),
            Ok(Corrected::NoEntry) => (
                "no_entry",
                "this partition has counted no entry of that address".to_owned(),
            ),
            Err(why) => ("malformed", why),
        };
        let (reason, why) = refused;
        Self::refuse(record, reason, &why);
    }

    /// Says that a correction changes nothing.
    pub(super) fn refuse(record: &InputRecord<'_>, reason: &'static str, why: &str) {
        counter!(CORRECTIONS_REFUSED, "reason" => reason).increment(1);
        tracing::error!(
            partition = record.partition,
            offset = record.offset,
            reason,
            "correction refused: {why}; nothing is changed"
        );
    }

    fn apply(&mut self, record: &InputRecord<'_>) -> Result<Corrected, String> {
        let value = record.value.unwrap_or_default();
        let read = CorrectionRecord::parse(value).map_err(|error| error.to_string())?;
        if self.tables.row_format == RowFormat::Schema1 {
            let todo = "rows of the release before cannot amend others: `spendfuse finalize --yes`";
            return Err(todo.to_owned());
        }
        let epoch = self.tables.row_format.epoch();
        if read.entry.epoch != epoch {
            let theirs = read.entry.epoch;
            return Err(format!(
                "its entry is of epoch {theirs}, this is epoch {epoch}"
            ));
        }
        let (before, after) = (side(&read, &read.before)?, side(&read, &read.after)?);
        let entry_id = before.as_ref().or(after.as_ref());
        let entry_id = entry_id.map(|one| one.event.id.to_string());
        let correction = Correction {
            id: &read.id,
            identity: read.identity(),
            content: read.content(),
            entry: read.entry.address(),
            entry_id: &entry_id.unwrap_or_default(),
            counted: CountedThen {
                budget_version: read.budget_version,
                arrival: read.received_at,
            },
            judged_at: read.judged_at,
            before,
            after,
            reason: &read.says(),
            is_rerate: read.is_rerate(),
        };
        let origin = Origin {
            rerouted: false,
            partition: record.partition,
            offset: record.offset,
            arrival: UnixMillis(record.timestamp_millis),
        };
        Ok(self.meter.correct(&correction, origin, &mut self.rows))
    }
}

fn side<'r>(
    record: &CorrectionRecord,
    one: &'r Option<StandingRecord>,
) -> Result<Option<Standing<'r>>, String> {
    let one = one.as_ref();
    one.map(|one| standing(one, record.received_at)).transpose()
}

/// What stands for an entry whose event arrived at `received_at`, with its flags and its price.
pub(super) fn standing(
    record: &StandingRecord,
    received_at: UnixMillis,
) -> Result<Standing<'_>, String> {
    let stands = record.read(received_at);
    let stands = stands.map_err(|error| error.to_string())?;
    Ok(Standing {
        charge: Charge {
            cost: stands.cost,
            at_ceiling: stands.at_ceiling,
            priced: stands.priced,
            price_version: stands.price_version,
            priced_as: stands.priced_as,
            ..Charge::default()
        },
        event: stands.event,
    })
}
