//! The planned faults, each with its end, in the order of time.

use std::time::Duration;

use spendfuse_testkit::proxy::Toward;

use crate::fault::{Fault, Link, Part};
use crate::schedule::Planned;

/// What happens to a part, and when.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Fault(Fault),
    Start(Part),
    Restart(Part),
    Resume(Part),
    Fast(Link),
    Loud(Link, Toward),
    RightClock(Part),
    Room(Part),
    PowerOff,
    PowerOn,
    Sending,
    LoseOffsets,
    Exchange(Part),
}

/// Begins and ends of all faults in the order of time, with the fault's number.
pub fn timeline(planned: &[Planned]) -> Vec<(Duration, usize, Step)> {
    let mut all = Vec::new();
    for (number, Planned { at, fault }) in planned.iter().copied().enumerate() {
        let mut steps = Vec::new();
        steps.push((at, Step::Fault(fault)));
        match fault {
            Fault::Kill { part, down } => steps.push((at + down, Step::Start(part))),
            Fault::KillAtAnswer { down } => steps.push((at + down, Step::Start(Part::Proxy))),
            Fault::Pause { part, time } => steps.push((at + time, Step::Resume(part))),
            Fault::Storm { rounds, every } => {
                let part = Part::Processor(1);
                steps.extend((1..=rounds).map(|round| (at + every * round, Step::Restart(part))));
            }
            Fault::Slow { link, time, .. } => steps.push((at + time, Step::Fast(link))),
            Fault::Silence { link, toward, time } => {
                steps.push((at + time, Step::Loud(link, toward)));
            }
            Fault::Clock { part, time, .. } => steps.push((at + time, Step::RightClock(part))),
            Fault::FullDisk { part, time } => steps.push((at + time, Step::Room(part))),
            Fault::PowerLoss { back, down } => {
                steps.push((at + back, Step::PowerOff));
                steps.push((at + back + down, Step::PowerOn));
            }
            Fault::Exchange { part, down } => steps.push((at + down, Step::Exchange(part))),
            Fault::Quiet { time, .. } => steps.push((at + time, Step::Sending)),
            Fault::OffsetsLost { down } => steps.push((at + down, Step::LoseOffsets)),
            Fault::BreakStreams { .. }
            | Fault::Lose { .. }
            | Fault::HalfClose { .. }
            | Fault::Cut { .. }
            | Fault::Budgets
            | Fault::Finalize
            | Fault::Prices
            | Fault::Correct => {}
        }
        all.extend(steps.into_iter().map(|(at, step)| (at, number, step)));
    }
    // Stable: what begins at the same time stays in its order.
    all.sort_by_key(|(at, ..)| *at);
    all
}
