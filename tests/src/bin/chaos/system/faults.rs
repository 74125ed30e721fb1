//! What faults do to the parts, and their end.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spendfuse_testkit::proxy::Proxy;
use spendfuse_tests::pause;

use super::{CLICKHOUSE, ID_PREFIX, KAFKA, LOADER, PROXY, System, actor_of};
use crate::fault::Part;
use crate::levers::Levers;
use crate::retention;

const FORGET_PATIENCE: Duration = Duration::from_secs(4);

impl System {
    /// Keeps what ClickHouse's disk holds at this instant.
    pub fn save_disk(&self) -> Result<()> {
        let (data, saved) = self.disks();
        if saved.exists() {
            fs::remove_dir_all(&saved)?;
        }
        self.stack.clickhouse.pause();
        let copied = Command::new("cp").arg("-a").arg(data).arg(saved).output();
        self.stack.clickhouse.resume();
        let copied = copied?;
        ensure!(copied.status.success(), "{copied:?}");
        Ok(())
    }

    /// ClickHouse dies with its machine, whose disk has not got what came since [`Self::save_disk`].
    pub fn power_off(&mut self) -> Result<()> {
        let (data, saved) = self.disks();
        // Another loss of power may have come first.
        if saved.exists() {
            self.stack.clickhouse.kill();
            fs::remove_dir_all(&data)?;
            fs::rename(&saved, &data)?;
            self.power_is_off = true;
        }
        Ok(())
    }

    /// The machine is back.
    pub fn power_on(&mut self) -> Result<()> {
        self.power_is_off = false;
        self.start_part(Part::ClickHouse)
    }

    /// ClickHouse's disk, and where it is kept.
    fn disks(&self) -> (PathBuf, PathBuf) {
        let folder = self.stack.clickhouse.folder();
        (folder.join("data"), folder.join("saved"))
    }

    /// Ends a role in order, without waiting.
    pub fn terminate(&mut self, part: Part) {
        self.actors[actor_of(part)].terminate();
    }

    /// A role goes on as the other release.
    pub fn exchange(&mut self, part: Part) -> Result<()> {
        self.kill(part);
        let Some(previous) = &self.options.previous else {
            return self.start_part(part);
        };
        let role = actor_of(part);
        let present = &self.options.program;
        let is_present = fs::read_link(self.release_of(role))? == *present;
        self.install(role, if is_present { previous } else { present })?;
        self.start_part(part)
    }

    /// Every role is the present release from its next start on; those that are not end.
    fn upgrade(&mut self) -> Result<()> {
        for part in Self::ROLES {
            let role = actor_of(part);
            if fs::read_link(self.release_of(role))? != self.options.program {
                self.actors[role].stop();
                let program = self.options.program.clone();
                self.install(role, &program)?;
            }
        }
        Ok(())
    }

    /// Starts a part where it does not run.
    pub fn start_part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::ClickHouse if self.power_is_off => Ok(()),
            Part::ClickHouse => Ok(self.stack.clickhouse.restart()?),
            Part::Kafka(node) => Ok(self.stack.kafka.restart(node)?),
            Part::Loader if self.loader_is_held => Ok(()),
            role => {
                let index = actor_of(role);
                if index < LOADER && !self.actors[index].is_running() {
                    self.order.started(&self.actors[index].name);
                }
                self.actors[index].start()
            }
        }
    }

    /// The loader ends, and nobody starts it before it has lost its offsets.
    pub fn hold_loader(&mut self) {
        self.kill(Part::Loader);
        self.loader_is_held = true;
    }

    /// The loader's group is deleted, as a broker does after `offsets.retention.minutes` without
    /// members, and the loader starts.
    pub fn lose_loader_offsets(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.loader_is_held) {
            return Ok(());
        }
        let group = format!("{ID_PREFIX}-loader");
        let begin = Instant::now();
        // A broker that is just away, or that still waits for the member that died.
        while let Err(error) = retention::forget_group(&self.stack.kafka.brokers(), &group) {
            if begin.elapsed() > FORGET_PATIENCE {
                eprintln!("group {group} is not deleted: {error:#}");
                break;
            }
            pause(Duration::from_millis(300));
        }
        self.start_part(Part::Loader)
    }

    /// SIGKILL.
    pub fn kill(&mut self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.kill(),
            Part::Kafka(node) => self.stack.kafka.kill(node),
            Part::Proxy => {
                let from = Instant::now();
                self.actors[PROXY].kill();
                self.calls.killed(from, &self.proxy_spool());
            }
            role => self.actors[actor_of(role)].kill(),
        }
    }

    /// SIGSTOP.
    pub fn pause(&self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.pause(),
            Part::Kafka(node) => self.stack.kafka.pause(node),
            role => self.actors[actor_of(role)].pause(),
        }
    }

    /// SIGCONT.
    pub fn resume(&self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.resume(),
            Part::Kafka(node) => self.stack.kafka.resume(node),
            role => self.actors[actor_of(role)].resume(),
        }
    }

    /// Clock and disk of a role or a server. All nodes of Kafka have one clock.
    pub fn levers(&self, part: Part) -> &Levers {
        &self.levers[match part {
            Part::ClickHouse => CLICKHOUSE,
            Part::Kafka(_) => KAFKA,
            role => actor_of(role),
        }]
    }

    /// Ends all faults: everything runs and can reach everything.
    pub fn heal(&mut self) -> Result<()> {
        self.proxies.iter().for_each(Proxy::heal);
        for levers in &self.levers {
            levers.clock(0)?;
            levers.disk(false)?;
        }
        self.upgrade()?;
        self.lose_loader_offsets()?;
        self.power_is_off = false;
        let nodes = (0..self.stack.kafka.node_count()).map(Part::Kafka);
        let parts: Vec<Part> = nodes.chain([Part::ClickHouse]).chain(Self::ROLES).collect();
        for part in parts {
            self.resume(part);
            self.start_part(part)?;
        }
        self.stack.kafka.wait_ready()?;
        self.stack.clickhouse.wait_ready()?;
        Ok(())
    }

    /// Lets time pass, and starts roles again that ended by themselves.
    pub fn wait_until(&mut self, time: Instant) -> Result<()> {
        loop {
            for actor in &mut self.actors {
                actor.supervise()?;
            }
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            pause(left.min(Duration::from_millis(100)));
        }
    }
}
