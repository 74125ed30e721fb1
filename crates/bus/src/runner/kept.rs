//! State that outlives a rebalance: partitions that come back to the worker that had them need no
//! restore, where nobody has written in between.

use rdkafka::TopicPartitionList;

use super::assignment::committed_offset;
use super::batch::Slot;
use super::config::StageConfig;
use super::restore::Probe;
use crate::error::BusError;

/// A partition that was taken back after its last batch was committed.
pub(super) struct Kept<P> {
    slot: Slot<P>,
    /// End of its changelog then, uncommitted records included.
    end: i64,
}

/// Keeps the state of partitions that are taken back. None where the broker does not say in time how
/// far their changelogs go.
pub(super) fn keep<P>(config: &StageConfig, slots: Vec<Slot<P>>) -> Vec<Kept<P>> {
    let kept = Probe::open(config).and_then(|probe| {
        let each = slots.into_iter().map(|slot| {
            let (_, end) = probe.bounds(&config.changelog, slot.partition)?;
            Ok(Kept { slot, end })
        });
        let kept = each.collect::<Result<Vec<_>, BusError>>();
        probe.close();
        kept
    });
    kept.unwrap_or_default()
}

impl<P> Kept<P> {
    pub(super) fn partition(&self) -> u32 {
        self.slot.partition
    }

    /// The state, where it is still the one that changelog and group describe: the committed
    /// offsets are ours, and the changelog has grown by no more than the marker of our own last
    /// transaction. Whoever else had the partition would have written at least a record and a
    /// marker.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub(super) fn if_unchanged(
        mut self,
        config: &StageConfig,
        probe: &Probe,
        committed: &TopicPartitionList,
    ) -> Result<Option<Slot<P>>, BusError> {
        let slot = &mut self.slot;
        let is_ours =
            config.inputs.iter().zip(&slot.next).all(|(topic, next)| {
                committed_offset(committed, topic, slot.partition) == Some(*next)
            });
        if !is_ours {
            return Ok(None);
        }
        let (_, end) = probe.bounds(&config.changelog, slot.partition)?;
        slot.ends.fill(None);
        // Whether its input is lost shows anew.
        slot.lost = None;
        Ok((end - self.end <= 1).then_some(self.slot))
    }
}
