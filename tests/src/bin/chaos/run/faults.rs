//! What a run does to the system, step by step.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::World;
use crate::changes::Change;
use crate::clock;
use crate::fault::{Fault, Part};
use crate::ledger::{Amendment, COUNTED_BY_THEN, WHOLE_BY_THEN};
use crate::timeline::Step;

/// Every processor knows after this time that the installation is finalized, kills and all.
const FOLLOWED: Duration = Duration::from_secs(45);
const CORRECTED_AT_ONCE: u32 = 4;
/// How long a kill waits for an answer of the provider.
const ANSWER_PATIENCE: Duration = Duration::from_millis(300);

impl World {
    pub(super) fn step(&mut self, step: Step) -> Result<()> {
        writeln!(self.diary, "{} {step:?}", clock::now())?;
        match step {
            Step::Fault(fault) => {
                *self.faults.entry(fault.kind()).or_default() += 1;
                self.begin(fault)?;
            }
            Step::Start(part) => self.system.start_part(part)?,
            Step::Restart(part) => {
                self.system.kill(part);
                self.system.start_part(part)?;
            }
            Step::Resume(part) => self.system.resume(part),
            Step::Fast(link) => self.system.proxy(link).delay(Duration::ZERO),
            Step::Loud(link, toward) => self.system.proxy(link).silence(toward, false),
            Step::RightClock(part) => self.system.levers(part).clock(0)?,
            Step::PowerOff => self.system.power_off()?,
            Step::PowerOn => self.system.power_on()?,
            Step::Sending => self.quiet.end(),
            Step::Exchange(part) => self.system.exchange(part)?,
            Step::LoseOffsets => self.system.lose_loader_offsets()?,
            Step::Room(part) => {
                self.system.levers(part).disk(false)?;
                // It may have found no room to start.
                if part == Part::ClickHouse {
                    self.system.start_part(part)?;
                }
            }
        }
        Ok(())
    }

    /// Begins a fault; its end is a step of its own.
    fn begin(&mut self, fault: Fault) -> Result<()> {
        let system = &mut self.system;
        match fault {
            Fault::Kill { part, .. } => system.kill(part),
            Fault::Pause { part, .. } => system.pause(part),
            Fault::Storm { .. } => system.actors[1].terminate(),
            Fault::Lose {
                api,
                is_response,
                count,
            } => {
                // Whichever node answers next.
                let kafka = system.proxies().len() - 1;
                for proxy in &system.proxies()[..kafka] {
                    match is_response {
                        true => proxy.lose_responses(api, count),
                        false => proxy.lose_requests(api, count),
                    }
                }
            }
            Fault::Slow { link, by, .. } => system.proxy(link).delay(by),
            Fault::Silence { link, toward, .. } => system.proxy(link).silence(toward, true),
            Fault::HalfClose { link, toward } => system.proxy(link).half_close(toward),
            Fault::Cut {
                link,
                toward,
                bytes,
            } => system.proxy(link).cut_after(toward, bytes),
            Fault::Clock { part, millis, .. } => system.levers(part).clock(millis)?,
            Fault::FullDisk { part, .. } => system.levers(part).disk(true)?,
            Fault::PowerLoss { .. } => system.save_disk()?,
            Fault::KillAtAnswer { .. } => {
                system.calls.await_answer(ANSWER_PATIENCE);
                system.kill(Part::Proxy);
            }
            Fault::BreakStreams { count } => system.calls.break_streams(count),
            Fault::Finalize => {
                self.finalized_at = Some(Instant::now());
                self.tell(Change::Finalize);
            }
            Fault::Quiet { partition, .. } => self.quiet.begin(partition),
            Fault::Exchange { part, .. } => system.terminate(part),
            Fault::OffsetsLost { .. } => system.hold_loader(),
            Fault::Budgets => {
                // Processors learn of it one after the other, and those that come meanwhile are whole in
                // some partitions only.
                let is_being_finalized =
                    self.finalized_at.is_some_and(|at| at.elapsed() < FOLLOWED);
                if !is_being_finalized {
                    self.budgets.come_and_go();
                }
                self.budgets.change();
                self.tell(Change::Budgets(self.budgets.yaml()));
            }
            Fault::Prices => {
                let mut rate =
                    |usual: u64| i128::from(usual / 2 + self.random.below(usual)) * 1000 + 250;
                let rates = [rate(35_000), rate(8_750), rate(140_000)];
                self.tell(Change::Prices(rates));
            }
            Fault::Correct => self.correct(),
        }
        Ok(())
    }

    /// Each call once: what stands for it is known then.
    fn correct(&mut self) {
        for turn in 0..CORRECTED_AT_ONCE {
            let is_void = turn % 2 == 0;
            let age = if is_void {
                COUNTED_BY_THEN
            } else {
                WHOLE_BY_THEN
            };
            let Some(call) = self.ledger.any_old_call(&mut self.random, age) else {
                continue;
            };
            if !self.corrected.insert(call) {
                continue;
            }
            let change = match is_void {
                true => Change::Void(call),
                false => Change::Amend(call, Amendment::any(&mut self.random)),
            };
            self.tell(change);
        }
    }

    fn tell(&self, change: Change) {
        // An operator that gave up says why when it is asked for its result.
        let _ = self.changes.send(change);
    }
}
