//! Records that bring back what the meters of earlier topics knew.

use spendfuse_bus::InputRecord;
use spendfuse_domain::recovered::{RecoveredId, RecoveredRecord};

use super::MeterPartition;
use super::corrections::standing;

impl MeterPartition {
    /// Remembers what a record brings back. Of one that is wrong nothing is taken.
    pub(super) fn recover(&mut self, record: &InputRecord<'_>) {
        if let Err(why) = self.take_back(record) {
            Self::refuse(record, "malformed", &why);
        }
    }

    fn take_back(&mut self, record: &InputRecord<'_>) -> Result<(), String> {
        let read = RecoveredRecord::parse(record.value.unwrap_or_default());
        let read = read.map_err(|error| error.to_string())?;
        let epoch = self.tables.row_format.epoch();
        if read.epoch != epoch {
            let theirs = read.epoch;
            return Err(format!("it is for epoch {theirs}, this is epoch {epoch}"));
        }
        let calls = read.calls.iter();
        let calls =
            calls.map(|call| Ok((standing(&call.stands, call.received_at)?, call.received_at)));
        let calls = calls.collect::<Result<Vec<_>, String>>()?;
        let ids = read.ids.iter().map(RecoveredId::read);
        let ids = ids.collect::<Result<Vec<_>, _>>();
        let ids = ids.map_err(|error| error.to_string())?;
        let home = |event: &spendfuse_domain::Event<'_>| event.home(self.config.partitions);
        if let Some((stray, _)) = calls
            .iter()
            .find(|(call, _)| home(&call.event) != self.config.partition)
        {
            let home = home(&stray.event);
            return Err(format!("a call of it belongs to partition {home}"));
        }
        for (call, arrival) in &calls {
            self.tallies.recovered += u64::from(self.meter.recover_call(call, *arrival));
        }
        for (identity, arrival) in ids {
            self.tallies.recovered += u64::from(self.meter.recover_identity(identity, arrival));
        }
        Ok(())
    }
}
