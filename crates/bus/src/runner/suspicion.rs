//! Finds the record that makes a batch fail, so that no event can stop a partition.
//!
//! Where a failure comes during the processing of a record, that record is to blame. Where it
//! comes at the end of a batch (an output too large, say), the same records are taken in smaller
//! and smaller batches, until the failure comes with a single one. Outlives the worker's lives.

use std::collections::HashMap;

use crate::error::{BusError, LogicError};

/// An input record's address.
pub(super) type Address = (usize, u32, i64);

/// What the worker was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing that a record can be blamed for.
    Other,
    /// Processing (or rejecting) this record.
    Record(Address),
    /// Writing the outputs of this partition.
    Finishing(u32),
    /// Waiting for acknowledgements and commit of all partitions.
    Committing,
}

/// What is known about records that make batches fail.
#[derive(Debug)]
pub(super) struct Suspicion {
    doing: Doing,
    inputs: usize,
    /// First and last offset of the open batch, by partition and input.
    batch: Vec<Option<Span>>,
    /// Records that are taken in small batches, by (input, partition).
    suspects: HashMap<(usize, u32), Suspects>,
    /// Records to reject, and how.
    rejected: HashMap<Address, Verdict>,
    progress: bool,
}

/// How a record is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) reason: String,
    /// Rejecting it failed as well: only where it lies is told.
    pub(super) is_place_only: bool,
}

/// Each step costs a restart, so few steps; a sixteenth of a full batch commits in no time.
const NARROWING: usize = 16;

/// Records before offset `end` may share a batch with at most `limit - 1` others.
#[derive(Debug, Clone, Copy)]
struct Suspects {
    end: i64,
    limit: usize,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
    records: usize,
}

impl Suspicion {
    pub(super) fn new(inputs: usize, partitions: u32) -> Self {
        Self {
            doing: Doing::Other,
            inputs,
            batch: vec![None; inputs * partitions as usize],
            suspects: HashMap::new(),
            rejected: HashMap::new(),
            progress: false,
        }
    }

    /// Notes what the worker is about to do.
    pub(super) fn now(&mut self, doing: Doing) {
        self.doing = doing;
    }

    /// Notes that a record belongs to the open batch and is about to be processed.
    pub(super) fn record(&mut self, address: Address) {
        self.doing = Doing::Record(address);
        let (input, partition, offset) = address;
        let span = &mut self.batch[partition as usize * self.inputs + input];
        match span {
            Some(span) => {
                span.last = offset;
                span.records += 1;
            }
            None => {
                *span = Some(Span {
                    first: offset,
                    last: offset,
                    records: 1,
                });
            }
        }
    }

    /// The largest batch that the record may be in, where it is a suspect.
    pub(super) fn limit(&self, (input, partition, offset): Address) -> Option<usize> {
        // Nearly always empty, and asked for each record.
        if self.suspects.is_empty() {
            return None;
        }
        let suspects = self.suspects.get(&(input, partition))?;
        (offset < suspects.end).then_some(suspects.limit)
    }

    /// How the record must be rejected, if it must.
    pub(super) fn verdict(&self, address: Address) -> Option<&Verdict> {
        if self.rejected.is_empty() {
            return None;
        }
        self.rejected.get(&address)
    }

    /// The batch is committed: its records are nobody's problem any more.
    pub(super) fn committed(&mut self) {
        self.progress = true;
        self.doing = Doing::Other;
        if !self.suspects.is_empty() || !self.rejected.is_empty() {
            let (batch, inputs) = (&self.batch, self.inputs);
            let is_past = |input: usize, partition: u32, offset: i64| {
                batch[partition as usize * inputs + input].is_some_and(|span| offset <= span.last)
            };
            self.suspects.retain(|(input, partition), suspects| {
                !is_past(*input, *partition, suspects.end - 1)
            });
            self.rejected
                .retain(|(input, partition, offset), _| !is_past(*input, *partition, *offset));
        }
        self.batch.fill(None);
    }

    /// The batch is dropped and its records will come again.
    pub(super) fn discarded(&mut self) {
        self.doing = Doing::Other;
        self.batch.fill(None);
    }

    /// Whether anything was committed since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Looks for the record that caused `error`. Returns whether the next life will do something
    /// different: reject a record, or look closer. The batch is forgotten.
    pub(super) fn blame(&mut self, error: &BusError) -> bool {
        let found = is_deterministic(error) && self.find_culprit(&error.to_string());
        self.discarded();
        found
    }

    fn find_culprit(&mut self, reason: &str) -> bool {
        let candidates: Vec<(usize, u32, Span)> = match self.doing {
            Doing::Other => return false,
            Doing::Record(address) => return self.reject(address, reason),
            Doing::Finishing(partition) => self.candidates(Some(partition)),
            Doing::Committing => self.candidates(None),
        };
        let records: usize = candidates.iter().map(|(.., span)| span.records).sum();
        match candidates.as_slice() {
            [] => false,
            [(input, partition, span)] if records == 1 => {
                self.reject((*input, *partition, span.first), reason)
            }
            _ => {
                let limit = (records / NARROWING).max(1);
                for (input, partition, span) in candidates {
                    let end = span.last + 1;
                    let suspects = Suspects { end, limit };
                    self.suspects.insert((input, partition), suspects);
                }
                true
            }
        }
    }

    fn candidates(&self, partition: Option<u32>) -> Vec<(usize, u32, Span)> {
        let spans = self.batch.iter().enumerate();
        spans
            .filter_map(|(index, span)| {
                let found = u32::try_from(index / self.inputs).ok()?;
                let is_asked = partition.is_none_or(|asked| asked == found);
                let span = (*span).filter(|_| is_asked)?;
                Some((index % self.inputs, found, span))
            })
            .collect()
    }

    /// A record that fails even while it is rejected is rejected without what is in it; where that
    /// fails too, nothing is left to try.
    fn reject(&mut self, address: Address, reason: &str) -> bool {
        match self.rejected.get_mut(&address) {
            None => {
                let verdict = Verdict {
                    reason: reason.to_owned(),
                    is_place_only: false,
                };
                self.rejected.insert(address, verdict);
                true
            }
            // The reason why it was rejected first stays.
            Some(verdict) => !std::mem::replace(&mut verdict.is_place_only, true),
        }
    }
}

/// Whether the same records would fail again.
fn is_deterministic(error: &BusError) -> bool {
    match error {
        BusError::TooLarge { .. } | BusError::Panicked { .. } => true,
        BusError::Logic(LogicError::Input(_)) => true,
        BusError::Logic(LogicError::Output(inner)) => is_deterministic(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_large() -> BusError {
        BusError::TooLarge {
            topic: "rows".to_owned(),
            partition: 0,
            bytes: 1,
        }
    }

    #[test]
    fn a_failing_end_of_batch_is_narrowed_down_to_its_record() {
        const CULPRIT: i64 = 777;
        let mut suspicion = Suspicion::new(2, 4);
        let mut next = 0;
        let mut failures = 0;
        // A worker with batches of 1000 that fails at the end of each batch with the culprit.
        while next < 3000 && suspicion.verdict((1, 3, CULPRIT)).is_none() {
            let limit = suspicion.limit((1, 3, next)).unwrap_or(1000) as i64;
            for offset in next..next + limit {
                suspicion.record((1, 3, offset));
            }
            if (next..next + limit).contains(&CULPRIT) {
                failures += 1;
                suspicion.now(Doing::Finishing(3));
                assert!(suspicion.blame(&too_large()));
            } else {
                next += limit;
                suspicion.committed();
            }
        }
        assert_eq!(next, CULPRIT);
        assert_eq!(failures, 4, "1000, 62, 3, 1");
        assert!(suspicion.limit((0, 3, CULPRIT)).is_none());

        // Rejecting it fails as well: its place alone is told, and where not even that can be
        // written, nothing is left to try.
        let is_place_only =
            |suspicion: &Suspicion| suspicion.verdict((1, 3, CULPRIT)).unwrap().is_place_only;
        assert!(!is_place_only(&suspicion));
        suspicion.record((1, 3, CULPRIT));
        suspicion.now(Doing::Finishing(3));
        assert!(suspicion.blame(&too_large()));
        assert!(is_place_only(&suspicion));
        suspicion.record((1, 3, CULPRIT));
        assert!(!suspicion.blame(&too_large()));

        for offset in CULPRIT..1000 {
            suspicion.record((1, 3, offset));
        }
        suspicion.committed();
        assert!(suspicion.suspects.is_empty() && suspicion.rejected.is_empty());
    }

    #[test]
    fn an_error_that_may_pass_blames_nobody() {
        let mut suspicion = Suspicion::new(1, 1);
        suspicion.record((0, 0, 1));
        assert!(!suspicion.blame(&BusError::Stopped));
        assert!(suspicion.verdict((0, 0, 1)).is_none());
    }
}
