//! Positions that logs do not have any more, or never had, and batches that no client can read.

use super::{LogConsumer, LogEvent, LogPartition};
use crate::error::BusError;
use crate::native::{PollFailure, TopicPartition};
use crate::unreadable::measure;

impl LogConsumer {
    /// The end lies behind the last record where that is followed by a marker. Retention may remove
    /// both, and a position between them would look like loss.
    pub(super) fn follow_end(&self, at: LogPartition, end: i64) {
        // What is read no more stays so.
        if let Some(next) = self.next.borrow_mut().get_mut(&at) {
            *next = end.max(*next);
        }
    }

    pub(super) fn pass_by(&self, at: &TopicPartition, base: i64) -> Result<LogEvent<'_>, BusError> {
        let patience = self.config.max_poll_interval / 3;
        let Some(place) = self.partition(at) else {
            return Ok(LogEvent::Nothing);
        };
        let next = self.next.borrow().get(&place).copied();
        let start = next.map_or(base, |next| base.max(next));
        let found = measure(&self.config.kafka, at, start, patience)?;
        if let Some(lost) = &found {
            self.next.borrow_mut().insert(place, lost.to);
        }
        self.start_again()?;
        Ok(
            found.map_or(LogEvent::Nothing, |lost| LogEvent::Unreadable {
                at: place,
                lost,
            }),
        )
    }

    /// Whether an offset is missed that nobody needs.
    pub(super) fn is_made_up(&self, failure: &PollFailure) -> Result<bool, BusError> {
        let Some(at) = failure.out_of_range() else {
            return Ok(false);
        };
        let next = self.partition(at);
        let next = next.and_then(|place| self.next.borrow().get(&place).copied());
        next.map_or(Ok(false), |next| Ok(!self.poller.is_gone(at, next)?))
    }

    /// A partition that lost its position; the others are read on.
    pub(super) fn gone(&self, failure: &PollFailure) -> Result<Option<LogEvent<'_>>, BusError> {
        let Some(missed) = failure.out_of_range() else {
            return Ok(None);
        };
        let place = self.partition(missed);
        let Some((at, from)) = place.and_then(|at| Some((at, self.next.borrow_mut().remove(&at)?)))
        else {
            return Ok(Some(LogEvent::Nothing));
        };
        let (first, end) = self.poller.bounds(missed)?;
        let to = from.clamp(first, end.max(first));
        if to == from {
            self.next.borrow_mut().insert(at, from);
            self.start_unpaused()?;
            return Ok(Some(LogEvent::Nothing));
        }
        self.start_unpaused()?;
        Ok(Some(LogEvent::Gone { at, from, to }))
    }
}
