//! Everybody who is there works: in batches of any size, by the clock, until nothing waits, or dying.

use spendfuse_bus::StageLogic;

use super::{LOADER_GROUP, World};
use crate::calendar::HOUR;
use crate::cluster::Cluster;
use crate::process::Processor;
use crate::random::Random;
use crate::stage::{Death, Worker};

/// A worker dies in one of so many batches or ticks.
const DEATHS: usize = 150;
/// A loader dies in one of so many turns.
const LOADER_DEATHS: usize = 60;
/// What is due by time is done so often between two happenings, at most.
const DUES: usize = 4;

impl World {
    pub(super) fn start_loader(&mut self) -> Result<(), String> {
        self.is_loading = true;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.is_running()) {
            lane.start(&self.cluster, &self.warehouse)?;
        }
        Ok(())
    }

    /// Goes on to `to`: every hour, and when something is due, everybody looks at the clock.
    pub(super) fn pass_time(&mut self, to: i64) -> Result<(), String> {
        let mut dues = 0;
        while self.cluster.now < to {
            let now = self.cluster.now;
            let hour = (now / HOUR + 1) * HOUR;
            let due = self.processor.next_due().filter(|_| dues < DUES);
            let due = due.map(|due| due.max(now + 100));
            dues += 1;
            self.cluster.now = to.min(hour).min(due.unwrap_or(to));
            if self.cluster.now == hour {
                dues = 0;
                self.attend();
                self.cluster.clean();
                self.work()?;
                self.note_processed_corrections();
            }
            if self.cluster.now < to {
                self.tick()?;
            }
        }
        Ok(())
    }

    pub(super) fn attend(&mut self) {
        if self.processor.is_up {
            self.processor.attend(&mut self.cluster);
        }
        if self.is_loading {
            self.cluster.attend(LOADER_GROUP);
        }
    }

    /// Everybody who is there works on what waits, in batches of any size, and may die of it.
    pub(super) fn work(&mut self) -> Result<(), String> {
        if self.processor.is_up {
            self.processor.follow(&self.cluster);
            self.processor.restart_workers(&mut self.cluster)?;
            let Processor {
                meters, ledgers, ..
            } = &mut self.processor;
            for worker in meters {
                turn(
                    worker,
                    &mut self.cluster,
                    &mut self.random,
                    &mut self.year.deaths,
                )?;
            }
            for worker in ledgers {
                turn(
                    worker,
                    &mut self.cluster,
                    &mut self.random,
                    &mut self.year.deaths,
                )?;
            }
        }
        self.load(true)?;
        self.follow();
        Ok(())
    }

    pub(super) fn tick(&mut self) -> Result<(), String> {
        if self.processor.is_up {
            self.processor.restart_workers(&mut self.cluster)?;
            let Processor {
                meters, ledgers, ..
            } = &mut self.processor;
            for worker in meters {
                let death = death(&mut self.random, &mut self.year.deaths);
                worker.tick(&mut self.cluster, death)?;
            }
            for worker in ledgers {
                let death = death(&mut self.random, &mut self.year.deaths);
                worker.tick(&mut self.cluster, death)?;
            }
        }
        Ok(())
    }

    pub(super) fn load(&mut self, may_die: bool) -> Result<(), String> {
        if !self.is_loading {
            return Ok(());
        }
        self.start_loader()?;
        // Before what waits is loaded: sums that are asked for too early lack it.
        self.tell_openings(may_die);
        for lane in &mut self.lanes {
            let dies = may_die && self.random.one_in(LOADER_DEATHS);
            let fuse = dies.then(|| self.random.below(4));
            self.year.deaths += u64::from(dies);
            lane.work(
                &mut self.cluster,
                &mut self.warehouse,
                &mut self.random,
                fuse,
            )?;
        }
        Ok(())
    }

    /// What was spent before counts began, maybe dying in the middle of it.
    fn tell_openings(&mut self, may_die: bool) {
        let now = self.cluster.now;
        let budgets = self.reference.budgets().into_iter();
        let budgets = budgets.map(|(id, (budget, _))| {
            let counted_from = self.reference.counted_from(&budget, now);
            (id, (budget, counted_from))
        });
        let budgets = budgets.collect();
        let dies = may_die && self.random.one_in(LOADER_DEATHS);
        let most = match dies {
            true => self.random.below(4),
            false => usize::MAX,
        };
        let (cluster, warehouse) = (&mut self.cluster, &self.warehouse);
        let told = self.openings.turn(cluster, warehouse, &budgets, most);
        self.year.openings += told as u64;
        if dies {
            self.year.deaths += 1;
            self.openings.die();
        }
    }

    pub(super) fn follow(&mut self) {
        let cluster = &self.cluster;
        self.sidecars
            .iter_mut()
            .filter(|one| one.is_up)
            .for_each(|one| one.follow(cluster));
    }

    /// Everybody works until nothing waits, and some time passes.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for round in 0.. {
            self.cluster.now += 300;
            self.work()?;
            self.tick()?;
            if self.is_drained() {
                break;
            }
            if round == 300 {
                return Err("stuck: something waits and nobody takes it".to_owned());
            }
        }
        // Figures that moved little are told within a minute; then heartbeats follow each other as they
        // do all the time.
        for pause in [31_000, 31_000, 31_000, 1_000, 1_000, 1_000, 1_000] {
            self.cluster.now += pause;
            self.processor.restart_workers_if_up(&mut self.cluster)?;
            self.tick_in_peace()?;
            self.load(false)?;
            self.follow();
        }
        // What was written last waits for the loader's flush.
        self.cluster.now += 300;
        self.load(false)
    }

    pub(super) fn tick_in_peace(&mut self) -> Result<(), String> {
        let Processor {
            meters,
            ledgers,
            is_up,
            ..
        } = &mut self.processor;
        if !*is_up {
            return Ok(());
        }
        for worker in meters {
            while worker.work(&mut self.cluster, 100, None)? {}
            worker.tick(&mut self.cluster, None)?;
        }
        for worker in ledgers {
            while worker.work(&mut self.cluster, 100, None)? {}
            worker.tick(&mut self.cluster, None)?;
        }
        Ok(())
    }

    pub(super) fn is_drained(&self) -> bool {
        let stages = !self.processor.is_up || self.processor.is_drained(&self.cluster);
        let lanes = !self.is_loading || self.lanes.iter().all(|lane| lane.is_done(&self.cluster));
        // Nobody tells what was spent before while the loader is away.
        let openings = !self.is_loading || !self.processor.wants_openings();
        stages && lanes && openings
    }
}

fn death(random: &mut Random, deaths: &mut u64) -> Option<Death> {
    let dies = random.one_in(DEATHS);
    *deaths += u64::from(dies);
    dies.then(|| random.pick(&Death::ALL))
}

fn turn<L: StageLogic>(
    worker: &mut Worker<L>,
    cluster: &mut Cluster,
    random: &mut Random,
    deaths: &mut u64,
) -> Result<(), String> {
    let most = random.pick(&[1, 3, 10, 500]);
    let death = death(random, deaths);
    worker.work(cluster, most, death)?;
    Ok(())
}
