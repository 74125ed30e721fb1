//! What happens on a day besides traffic, and what each of it does.

use serde_json::json;
use spendfuse_domain::routing::partition_of;

use super::{Happening, LOADER_GROUP, World};
use crate::calendar::{self, DAY, HOUR, MINUTE};
use crate::loader::Lane;
use crate::random::Random;
use crate::traffic::Told;

impl World {
    pub(super) fn plan_incidents(&mut self, begin: i64) {
        let at = |random: &mut Random| begin + random.between(0, DAY);
        let random = &mut self.random;
        let mut planned = Vec::new();
        if random.one_in(8) {
            planned.push((at(random), Happening::Budgets));
        }
        if random.one_in(40) {
            planned.push((at(random), Happening::Prices));
        }
        if random.one_in(50) {
            planned.push((at(random), Happening::BudgetIsUnreadable));
        }
        if random.one_in(60) {
            planned.push((at(random), Happening::TopicsChange));
        }
        if random.one_in(90) {
            planned.push((at(random), Happening::KafkaIsLost));
        }
        if random.one_in(120) {
            let goes = at(random);
            let back_at = goes + random.between(8 * DAY, 12 * DAY);
            planned.push((goes, Happening::ProcessorIsGoneForLong { back_at }));
        }
        if random.one_in(15) {
            let goes = at(random);
            // Mostly a restart, now and then hours.
            let takes = random.pick(&[2_000, 30_000, 20 * MINUTE, 5 * HOUR, 30 * HOUR, 55 * HOUR]);
            planned.push((
                goes,
                Happening::ProcessorGoes {
                    back_at: goes + takes,
                },
            ));
        }
        if random.one_in(15) {
            let goes = at(random);
            let takes = random.pick(&[2_000, 20 * MINUTE, 9 * HOUR, 3 * DAY]);
            planned.push((
                goes,
                Happening::LoaderGoes {
                    back_at: goes + takes,
                },
            ));
        }
        for which in 0..self.sidecars.len() {
            if random.one_in(12) {
                planned.push((at(random), Happening::SidecarRestarts(which)));
            }
            if random.one_in(30) {
                let goes = at(random);
                let takes = random.pick(&[MINUTE, 7 * HOUR, 4 * DAY, 20 * DAY]);
                planned.push((
                    goes,
                    Happening::SidecarCutOff {
                        which,
                        back_at: goes + takes,
                    },
                ));
            }
        }
        for (at, what) in planned {
            self.plan(at, what);
        }
    }

    pub(super) fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::Told(told) => self.tell(told),
            Happening::Correct => self.correct(),
            Happening::CorrectionComesAgain(one) => self.send_correction(&one, true),
            Happening::Budgets => self.change_budgets()?,
            Happening::Prices => self.change_prices(),
            Happening::ProcessorGoes { back_at } if self.processor.is_up => {
                self.processor.stop();
                if self.random.one_in(4) {
                    for stage in ["meter", "ledger"] {
                        self.cluster.forget_group(&self.set.group(stage));
                    }
                }
                self.plan(back_at, Happening::ProcessorComes);
            }
            Happening::ProcessorComes => self.processor.start(&mut self.cluster)?,
            Happening::ProcessorIsGoneForLong { back_at } if self.processor.is_up => {
                // What is in flight between its own topics would be lost unseen.
                self.settle()?;
                self.processor.stop();
                self.plan(back_at, Happening::ProcessorComesTooLate);
            }
            Happening::ProcessorComesTooLate => self.accept_what_is_lost()?,
            Happening::TopicsChange => self.change_topics()?,
            Happening::KafkaIsLost => self.lose_kafka()?,
            Happening::BudgetIsUnreadable => self.write_unreadable_budget()?,
            Happening::LoaderGoes { back_at } if self.is_loading => {
                self.is_loading = false;
                self.lanes.iter_mut().for_each(Lane::die);
                self.openings.die();
                if self.random.one_in(4) {
                    self.cluster.forget_group(LOADER_GROUP);
                }
                self.plan(back_at, Happening::LoaderComes);
            }
            Happening::LoaderComes => self.start_loader()?,
            Happening::SidecarRestarts(which) => {
                if self.sidecars[which].is_up {
                    self.sidecars[which].stop();
                    self.sidecars[which].start(&self.cluster);
                }
            }
            Happening::SidecarCutOff { which, back_at } if self.sidecars[which].is_up => {
                self.sidecars[which].cut_off();
                self.plan(back_at, Happening::SidecarComes(which));
            }
            Happening::SidecarComes(which) => self.sidecars[which].come_back(&self.cluster),
            Happening::Look => return self.look(),
            // Who is away already cannot go.
            Happening::ProcessorGoes { .. }
            | Happening::ProcessorIsGoneForLong { .. }
            | Happening::LoaderGoes { .. }
            | Happening::SidecarCutOff { .. } => {}
        }
        // Sometimes everybody is at once at work, sometimes more comes before.
        if self.random.one_in(2) {
            self.work()?;
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, told: Told) {
        let now = self.cluster.now;
        let (value, session) = match &told {
            Told::Call(call) => (call.event(), call.session.clone()),
            Told::SessionEnd { workspace, session } => {
                let event = json!({
                    "specversion": "1.0", "type": "spendfuse.session_end", "source": "app",
                    "id": format!("end-{session}"), "time": calendar::text(now),
                    "data": {"workspace": workspace, "session": session},
                });
                (event, session.clone())
            }
        };
        // Most producers know the routing key, some do not.
        let partition = match self.random.one_in(4) {
            true => self.random.below(self.set.partitions as usize) as u32,
            false => partition_of(session.as_bytes(), self.set.partitions),
        };
        let value = value.to_string();
        let (topic, key) = (&self.set.topics.usage, session.as_bytes());
        let offset = self.cluster.send(topic, partition, key, value.as_bytes());
        if let Told::Call(call) = &told {
            self.reference.told(call, now, (partition, offset));
        }
    }

    /// The processor was away for longer than its input is kept: it stops, names what is lost, and goes
    /// on where that is accepted.
    fn accept_what_is_lost(&mut self) -> Result<(), String> {
        let (topic, group) = (&self.set.topics.usage, self.set.group("meter"));
        for partition in 0..self.set.partitions {
            let log = self.cluster.log(topic, partition);
            let committed = self.cluster.committed(&group, topic, partition);
            let (next, _) = committed.unwrap_or_default();
            if next < log.start() {
                self.reference.give_up(partition, next..log.start());
            }
        }
        self.processor.accept_lost_input = true;
        self.processor.start(&mut self.cluster)?;
        self.settle()?;
        self.processor.accept_lost_input = false;
        Ok(())
    }
}
