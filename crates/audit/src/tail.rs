//! The part of a topic that was not read yet.

use std::ops::ControlFlow;

use spendfuse_bus::{InputRecord, PartitionRange};

use crate::context::Context;
use crate::error::AuditError;

/// How far a topic was read.
#[derive(Clone, Debug)]
pub struct Tail {
    topic: String,
    /// Per partition, the next offset to read.
    next: Vec<i64>,
    /// Per partition, whether it is read from the first record that it ever held.
    whole: Vec<bool>,
}

impl Tail {
    /// A topic of which nothing was read, from its beginning or from a time on.
    pub fn new(context: &Context<'_>, topic: &str, since: Option<i64>) -> Result<Self, AuditError> {
        let ranges = context.ranges(topic, since)?;
        let first = ranges.iter().map(|range| range.from);
        Ok(Self {
            topic: topic.to_owned(),
            whole: first.clone().map(|from| from == 0).collect(),
            next: first.collect(),
        })
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.next.len()
    }

    /// Whether everything that a partition ever held is read.
    pub fn is_whole(&self, partition: usize) -> bool {
        self.whole[partition]
    }

    /// What is there to be read now; at most up to `limits`, where given.
    pub fn waiting(
        &self,
        context: &Context<'_>,
        limits: Option<&[i64]>,
    ) -> Result<Vec<PartitionRange>, AuditError> {
        let mut ranges = context.ranges(&self.topic, None)?;
        for (range, next) in ranges.iter_mut().zip(&self.next) {
            let limit = limits.map_or(i64::MAX, |limits| limits[range.partition as usize]);
            range.from = range.from.max(*next);
            range.to = range.to.min(limit).max(range.from);
        }
        Ok(ranges)
    }

    /// Reads what is there now; at most up to `limits`, where given.
    pub fn read(
        &mut self,
        context: &Context<'_>,
        limits: Option<&[i64]>,
        mut handler: impl FnMut(&InputRecord<'_>) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let ranges = self.waiting(context, limits)?;
        let mut failed = Ok(());
        context.read(&self.topic, &ranges, &mut |record| {
            failed = handler(record);
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        failed?;
        for range in ranges {
            let place = range.partition as usize;
            // What retention removed in between was not read.
            self.whole[place] &= self.next[place] == range.from || range.from == 0;
            self.next[place] = range.to;
        }
        Ok(())
    }
}
