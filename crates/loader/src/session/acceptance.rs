//! Partitions that wait for a person, and go on once somebody has accepted what stops them.

use std::time::Duration;

use spendfuse_bus::{AcceptedGap, AcceptedGaps, BusError, LogPartition};

use super::{REQUEST_TIMEOUT, Session};
use crate::LoaderError;
use crate::protocol::StopReason;

/// How long others wait for the answer.
const QUESTION: Duration = Duration::from_millis(500);

/// What a person has said to a partition that stands still.
enum Answer {
    Accepted(Result<Option<AcceptedGap>, BusError>),
    Asked(Result<Option<(i64, String)>, BusError>),
}

impl Session<'_> {
    /// What somebody has accepted last for a partition.
    pub(super) fn accepted_gap(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Option<AcceptedGap>, LoaderError> {
        let gaps = AcceptedGaps::open(&self.config.kafka, &self.config.group_id)?;
        let last = gaps.last(topic, partition, REQUEST_TIMEOUT);
        gaps.close();
        Ok(last?)
    }

    /// Lets partitions go on where somebody has accepted what stops them.
    pub(super) fn look_for_acceptance(&mut self) -> Result<(), LoaderError> {
        let stopped = self.lanes.values().filter(|lane| lane.stopped_by.is_some());
        let stopped: Vec<LogPartition> = stopped.map(|lane| lane.at).collect();
        if stopped.is_empty() {
            return Ok(());
        }
        let gaps = AcceptedGaps::open(&self.config.kafka, &self.config.group_id)?;
        let answers: Vec<_> = stopped
            .iter()
            .map(|at| {
                let (topic, partition) = (self.topic(*at), at.partition);
                match self.waits_for_rebuild(*at) {
                    true => Answer::Asked(gaps.asked(topic, partition, QUESTION)),
                    false => Answer::Accepted(gaps.last(topic, partition, QUESTION)),
                }
            })
            .collect();
        gaps.close();
        for (at, answer) in stopped.into_iter().zip(answers) {
            let topic = self.topic(at).to_owned();
            // A broker that does not answer is asked again.
            let gap = match answer {
                Answer::Accepted(Ok(Some(gap))) => gap,
                Answer::Asked(Ok(Some((position, database)))) => {
                    self.rebuild_if_meant(at, position, &database)?;
                    continue;
                }
                _ => continue,
            };
            let Some(lane) = self.lanes.get(&at) else {
                continue;
            };
            let Some(reason) = &lane.stopped_by else {
                continue;
            };
            // What was accepted for an earlier stop begins elsewhere or leads no further, and the rest
            // of what is wrong is not loaded: it may be there.
            let is_meant = gap.from == lane.committed.unwrap_or(0);
            let leads_on = reason.is_accepted_by(gap.to);
            let is_start = (lane.committed.is_none() || lane.protocol.looks_without_offsets())
                && matches!(reason, StopReason::Lost { .. });
            if is_meant && leads_on {
                self.go_on(at, &topic, gap, is_start)?;
            }
        }
        Ok(())
    }

    fn go_on(
        &mut self,
        at: LogPartition,
        topic: &str,
        gap: AcceptedGap,
        is_start: bool,
    ) -> Result<(), LoaderError> {
        let (partition, from, to) = (at.partition, gap.from, gap.to);
        tracing::error!(
            topic,
            partition,
            from,
            to,
            "goes on behind what was accepted"
        );
        self.standing.goes_on(topic, partition);
        if is_start {
            if let Some(lane) = self.open_lane(at)? {
                self.lanes.insert(at, lane);
            }
        } else if let Some(lane) = self.lanes.get_mut(&at) {
            let action = lane.protocol.go_on_at(to);
            lane.stopped_by = None;
            self.carry_out(at, action)?;
        }
        let Some(lane) = self.lanes.get_mut(&at) else {
            return Ok(());
        };
        lane.read_again();
        let position = lane.protocol.position();
        for lane in self.lanes.values_mut() {
            lane.assigned_again();
        }
        Ok(self.consumer.begin(at, position)?)
    }
}
