//! What happens on a day besides traffic, and what each of it does.

use serde_json::json;
use spendfuse_domain::routing::partition_of;

use super::{Happening, PARTITIONS, World};
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
        if random.one_in(15) {
            let goes = at(random);
            // Mostly a restart, now and then hours.
            let takes = random.pick(&[2_000, 30_000, 20 * MINUTE, 5 * HOUR, 30 * HOUR]);
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
                let takes = random.pick(&[MINUTE, 7 * HOUR, 4 * DAY]);
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
            Happening::Budgets => self.change_budgets()?,
            Happening::Prices => self.change_prices(),
            Happening::ProcessorGoes { back_at } => {
                self.processor.stop();
                self.plan(back_at, Happening::ProcessorComes);
            }
            Happening::ProcessorComes => self.processor.start(&mut self.cluster)?,
            Happening::LoaderGoes { back_at } => {
                self.is_loading = false;
                self.lanes.iter_mut().for_each(Lane::die);
                self.plan(back_at, Happening::LoaderComes);
            }
            Happening::LoaderComes => self.start_loader()?,
            Happening::SidecarRestarts(which) => {
                if self.sidecars[which].is_up {
                    self.sidecars[which].stop();
                    self.sidecars[which].start(&self.cluster);
                }
            }
            Happening::SidecarCutOff { which, back_at } => {
                self.sidecars[which].cut_off();
                self.plan(back_at, Happening::SidecarComes(which));
            }
            Happening::SidecarComes(which) => self.sidecars[which].come_back(&self.cluster),
            Happening::Look => return self.look(),
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
            Told::Call(call) => {
                self.reference.told(call, now);
                (call.event(), call.session.clone())
            }
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
            true => self.random.below(PARTITIONS as usize) as u32,
            false => partition_of(session.as_bytes(), PARTITIONS),
        };
        let value = value.to_string();
        self.cluster.send(
            &self.topics.usage,
            partition,
            session.as_bytes(),
            value.as_bytes(),
        );
    }
}
