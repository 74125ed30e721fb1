//! Whether a worker gets anywhere: the broker answers, and partitions with a backlog move.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;

use super::batch::Slot;
use super::config::StageConfig;
use super::logic::{InputProgress, InputState};
use super::progress::Progress;
use crate::native::Poller;

/// A broker that has not answered for this long is away; shorter is a slow answer.
const AWAY_AFTER: Duration = Duration::from_secs(3);
/// A partition whose position has not moved for this long, although there is input, is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// The same, where an open transaction holds the input back: transactions have time-outs.
const HELD_AFTER: Duration = Duration::from_secs(60);
/// How long a worker without partitions may wait for an answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What a worker has seen of its own progress.
pub(super) struct Standing {
    answered_at: Instant,
    /// The position of each partition, and since when it is that.
    positions: HashMap<u32, (Vec<i64>, Instant)>,
    /// Before the first assignment there is nothing to be ready for.
    is_assigned: bool,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self {
            answered_at: Instant::now(),
            positions: HashMap::new(),
            is_assigned: false,
        }
    }

    /// Partitions were assigned and restored; perhaps none.
    pub(super) fn assigned(&mut self, config: &StageConfig) {
        self.is_assigned = true;
        self.answered_at = Instant::now();
        self.positions.clear();
        config.health.ready();
    }

    /// The group took the partitions back.
    pub(super) fn revoked(&mut self, config: &StageConfig) {
        self.is_assigned = false;
        config.health.not_ready("waiting for its partitions");
    }

    /// Once a tick, with what the broker said about each partition.
    pub(super) fn look<P>(
        &mut self,
        config: &StageConfig,
        poller: &Poller,
        slots: &[Slot<P>],
        progress: &Progress,
    ) {
        if !self.is_assigned {
            return;
        }
        let now = Instant::now();
        let answers = match slots {
            [] => broker_answers(config, poller),
            _ => progress.is_answered,
        };
        if answers {
            self.answered_at = now;
        }
        let partitions = slots.iter().map(|slot| slot.partition);
        let stalled = self.stalled(now, partitions.zip(&progress.inputs));
        let silent = now.duration_since(self.answered_at);
        if silent >= AWAY_AFTER {
            let (brokers, seconds) = (&config.kafka.brokers, silent.as_secs());
            let reason = format!("no answer from Kafka ({brokers}) for {seconds} s");
            config.health.not_ready(reason);
        } else if let Some(reason) = standing_still(slots) {
            config.health.not_ready(reason);
        } else if !stalled.is_empty() {
            let reason = format!("partitions {stalled:?} have input and do not move");
            config.health.not_ready(reason);
        } else {
            config.health.ready();
        }
    }

    /// Partitions that have not moved for long although there may be input.
    fn stalled<'p>(
        &mut self,
        now: Instant,
        progress: impl Iterator<Item = (u32, &'p Vec<InputProgress>)>,
    ) -> Vec<u32> {
        let mut stalled = Vec::new();
        for (partition, inputs) in progress {
            let reached: Vec<i64> = inputs.iter().map(|input| input.reached).collect();
            let has = |state| inputs.iter().any(|input| input.state == state);
            let patience = match has(InputState::Behind) {
                true => STALLED_AFTER,
                false => HELD_AFTER,
            };
            let is_complete = !has(InputState::Behind) && !has(InputState::Held);
            match self.positions.get(&partition) {
                Some((known, since)) if !is_complete && *known == reached => {
                    if now.duration_since(*since) >= patience {
                        stalled.push(partition);
                    }
                }
                _ => {
                    self.positions.insert(partition, (reached, now));
                }
            }
        }
        stalled
    }
}

/// The partitions that have lost input.
fn standing_still<P>(slots: &[Slot<P>]) -> Option<String> {
    let lost = |slot: &Slot<P>| Some((slot.partition, slot.lost.clone()?.sentence));
    let mut lost = slots.iter().filter_map(lost);
    let (partition, sentence) = lost.next()?;
    let others = match lost.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "partition {partition} is stopped: {sentence}{others}"
    ))
}

fn broker_answers(config: &StageConfig, poller: &Poller) -> bool {
    let client = poller.consumer().client();
    let asked = client.fetch_metadata(Some(&config.changelog), TIMEOUT);
    asked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_with_input_that_does_not_move_is_stalled_until_it_moves() {
        let mut standing = Standing::new();
        let begin = Instant::now();
        let mut at = |seconds: u64, moving: i64, stuck: i64, state: InputState| {
            let input = |reached, state| vec![InputProgress { reached, state }];
            let seen = [
                input(moving, InputState::Behind),
                input(stuck, state),
                input(3, InputState::Complete),
            ];
            let now = begin + Duration::from_secs(seconds);
            standing.stalled(now, (0..).zip(&seen))
        };
        assert!(at(0, 1, 7, InputState::Behind).is_empty());
        assert!(at(9, 2, 7, InputState::Behind).is_empty());
        assert_eq!(at(10, 3, 7, InputState::Behind), [1]);
        // A transaction may be open for a while.
        assert!(at(11, 4, 7, InputState::Held).is_empty());
        assert_eq!(at(60, 5, 7, InputState::Held), [1]);
        assert!(at(61, 6, 8, InputState::Behind).is_empty());
    }
}
