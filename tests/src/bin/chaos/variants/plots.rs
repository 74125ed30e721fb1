//! What provokes each broken guarantee.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_broken::Break;
use spendfuse_domain::event::decode;
use spendfuse_engine::codec;
use spendfuse_engine::meter::dedupe::{RememberedId, RememberedIds};
use spendfuse_testkit::proxy::{ApiKey, Toward};

use crate::clock::now;
use crate::events::{Events, PARTITIONS};
use crate::fault::{Fault, Link, Part};
use crate::quiet::Quiet;
use crate::run::World;
use crate::schedule::Planned;
use crate::sender::Running;
use spendfuse_tests::random::Random;

const KAFKA: Link = Link::Kafka(0);

/// What is done to provoke a broken guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    PlainTraffic,
    KillsOfProcessors,
    Zombie,
    OpenTransaction,
    Silences,
    KillsOfLoader,
    LostOffsets,
    LostAnswers,
    KillsOfSidecar,
    CallsThroughProxy,
    UnreadableBudget,
}

impl Plot {
    /// `None` where minutes are too short to show it.
    pub fn for_breaking(broken: Break) -> Option<Self> {
        Some(match broken {
            Break::OffsetsOutsideTransaction
            | Break::ChangelogOutsideTransaction
            | Break::DedupeNotRestored
            | Break::InitAfterRestore => Self::KillsOfProcessors,
            Break::TimerWithoutOffsets => Self::Zombie,
            Break::DedupeBeforeRerouting
            | Break::TokenNotTiedToRange
            | Break::ExpiredVerdictNotRepublished => Self::PlainTraffic,
            Break::RestoreToLastStableOffset => Self::OpenTransaction,
            Break::AbortAndGoOn => Self::Silences,
            Break::LoaderWithoutIntent => Self::KillsOfLoader,
            Break::LoaderTrustsOffsetsOnly => Self::LostOffsets,
            Break::DeduplicationWindowTooSmall | Break::ViewDeduplicationOff => Self::LostAnswers,
            Break::SidecarAcksEarly => Self::KillsOfSidecar,
            Break::StartsForgotten | Break::BrokenStreamNotCharged => Self::CallsThroughProxy,
            Break::UnreadableBudgetRemoved => Self::UnreadableBudget,
            // Shows after days only: a matter of the simulated year.
            Break::DedupeClaimsMore => return None,
            // Logs and topics would have to outlive their retention, or their names; tests notice.
            Break::TokenWithoutContent | Break::IdlePositionStays => return None,
            // A run has one set of topics; the simulated year has several.
            Break::AddressesWithoutEpoch => return None,
            // Nobody asks a guard all the time here; tests of guard and heartbeats notice.
            Break::HeartbeatBegunAnew => return None,
            // No role here tells people: `make notify ARGS=--variants`.
            Break::DeliveryStateOutsideTransaction => return None,
            // Nobody reserves here: `holds --variants`.
            Break::PendingDroppedTooEarly
            | Break::RollbackForgotten
            | Break::NewcomerAdmitsAlone => return None,
        })
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::PlainTraffic => "plain traffic",
            Self::KillsOfProcessors => "kills of both processors",
            Self::Zombie => "a processor that wakes up after it was replaced",
            Self::OpenTransaction => "a start while another worker's last transaction is open",
            Self::Silences => "a broker that is silent for longer than a transaction may take",
            Self::KillsOfLoader => "kills of the loader",
            Self::LostOffsets => "a loader whose group was deleted",
            Self::LostAnswers => "lost answers of ClickHouse",
            Self::KillsOfSidecar => "kills of the sidecar while the broker is silent",
            Self::CallsThroughProxy => "kills of the proxy at answers, and streams that break off",
            Self::UnreadableBudget => "a budget's record that nobody can read",
        }
    }

    /// Carries it out; those who send are still at it.
    pub fn carry_out(self, world: &mut World, random: &mut Random) -> Result<Vec<Running>> {
        match self {
            Self::PlainTraffic => world.under_faults(&[]),
            Self::KillsOfProcessors => world.under_faults(&kills_of_processors(random)),
            Self::Zombie => world.zombie(random),
            Self::OpenTransaction => world.open_transaction(),
            Self::Silences => world.under_faults(&silences(random)),
            Self::KillsOfLoader => world.under_faults(&kills_of_loader(random)),
            Self::LostOffsets => world.lost_offsets(),
            Self::LostAnswers => world.under_faults(&lost_answers(random)),
            Self::KillsOfSidecar => world.under_faults(&kills_of_sidecar(random)),
            Self::CallsThroughProxy => world.calls_through_proxy(random),
            Self::UnreadableBudget => world.unreadable_budget(),
        }
    }
}

/// A fault every so often.
fn every(millis: u64, times: u64, mut fault: impl FnMut(u64) -> Fault) -> Vec<Planned> {
    let planned = (0..times).map(|number| Planned {
        at: Duration::from_millis(4_000 + number * millis),
        fault: fault(number),
    });
    planned.collect()
}

fn kills_of_processors(random: &mut Random) -> Vec<Planned> {
    let millis = 1_500 + random.below(500);
    every(millis, 8, |number| Fault::Kill {
        part: Part::Processor(number as usize % 2),
        down: random.millis(0, 300),
    })
}

fn silences(random: &mut Random) -> Vec<Planned> {
    every(10_000, 2, |_| Fault::Silence {
        link: KAFKA,
        toward: Toward::Server,
        time: random.millis(6_000, 7_500),
    })
}

fn kills_of_loader(random: &mut Random) -> Vec<Planned> {
    // What is inserted when the loader dies stays uncommitted.
    let mut planned = every(1_100, 12, |_| Fault::Kill {
        part: Part::Loader,
        down: random.millis(0, 200),
    });
    let lost = planned.clone().into_iter().map(|kill| Planned {
        at: kill.at - Duration::from_millis(500),
        fault: Fault::Lose {
            api: ApiKey::OFFSET_COMMIT,
            is_response: false,
            count: 1,
        },
    });
    planned.extend(lost.collect::<Vec<_>>());
    planned
}

fn lost_answers(random: &mut Random) -> Vec<Planned> {
    every(700, 16, |_| Fault::Cut {
        link: Link::ClickHouse,
        toward: Toward::Client,
        bytes: random.below(100),
    })
}

fn kills_of_sidecar(random: &mut Random) -> Vec<Planned> {
    let mut planned = Vec::new();
    for silence in every(4_000, 4, |_| Fault::Silence {
        link: KAFKA,
        toward: Toward::Server,
        time: Duration::from_millis(2_000),
    }) {
        planned.push(silence);
        planned.push(Planned {
            at: silence.at + random.millis(500, 1_500),
            fault: Fault::Kill {
                part: Part::Sidecar,
                down: random.millis(0, 500),
            },
        });
    }
    planned
}

fn faults_of_proxy(random: &mut Random) -> Vec<Planned> {
    every(1_500, 10, |number| match number % 3 {
        0 => Fault::KillAtAnswer {
            down: random.millis(0, 300),
        },
        _ => Fault::BreakStreams { count: 2 },
    })
}

impl World {
    /// Everything runs under load, and the faults happen.
    fn under_faults(&mut self, planned: &[Planned]) -> Result<Vec<Running>> {
        self.start_roles()?;
        let senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
        let last = planned.iter().map(|planned| planned.at).max();
        let length = last.unwrap_or(Duration::from_secs(12)) + Duration::from_secs(3);
        self.carry_out(planned, length)?;
        Ok(senders)
    }

    /// The same, and calls go through the proxy.
    fn calls_through_proxy(&mut self, random: &mut Random) -> Result<Vec<Running>> {
        let mut senders = self.call_through_proxy();
        senders.extend(self.under_faults(&faults_of_proxy(random))?);
        Ok(senders)
    }

    /// A processor stands still until the other has its partitions, and goes on while that one
    /// cannot write over what it does. It stands still between batches, so that what it does first
    /// is a tick.
    fn zombie(&mut self, random: &mut Random) -> Result<Vec<Running>> {
        self.start_roles()?;
        let (first, second) = (Part::Processor(0), Part::Processor(1));
        let mut senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
        self.wait(Duration::from_secs(8))?;
        for (zombie, successor) in [(first, second), (second, first)] {
            for sender in senders {
                sender.finish()?;
            }
            self.wait(random.millis(400, 600))?;
            self.system.pause(zombie);
            senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
            self.wait(random.millis(14_000, 15_000))?;
            self.system.pause(successor);
            self.system.resume(zombie);
            self.wait(random.millis(1_200, 1_800))?;
            self.system.kill(successor);
            self.system.start_part(successor)?;
            self.wait(Duration::from_secs(6))?;
        }
        Ok(senders)
    }

    /// Another worker has counted events, and its transaction is still open when a processor takes
    /// over; it ends well. Then the same events come again.
    fn open_transaction(&mut self) -> Result<Vec<Running>> {
        let ledger = Arc::clone(&self.ledger);
        let mut events = Events::new(1, 9, Quiet::default());
        let counted: Vec<_> = (0..200).map(|_| events.counted_before(&ledger)).collect();
        let logs = self.system.logs();
        let worker: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &logs.kafka.brokers)
            .set("transactional.id", "another-worker")
            .create()?;
        let patience = Duration::from_secs(20);
        worker.init_transactions(patience)?;
        worker.begin_transaction()?;
        let topic = logs.topic("meter.ids");
        for partition in 0..PARTITIONS {
            let mut ids = RememberedIds::default();
            for event in &counted {
                let decoded = decode(&event.record.value, &[], now());
                let decoded = decoded.ok().context("the run's own event")?;
                if decoded.home(PARTITIONS) == partition {
                    let id = RememberedId::new(decoded.identity, decoded.content, now());
                    ids.ids.push(id);
                }
            }
            let value = codec::encode(&ids);
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic)
                .partition(partition.cast_signed())
                .payload(&value);
            worker.send(record).map_err(|(error, _)| error)?;
        }
        worker.flush(patience)?;
        self.start_roles()?;
        self.wait(Duration::from_secs(8))?;
        worker.commit_transaction(patience)?;
        let sender = self.kafka_sender()?;
        for event in &counted {
            sender.send(event)?;
        }
        sender.flush(patience)?;
        let senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
        self.wait(Duration::from_secs(6))?;
        Ok(senders)
    }

    /// The loader is killed, its group is deleted once nobody is in it any more, and it starts again
    /// under load.
    fn lost_offsets(&mut self) -> Result<Vec<Running>> {
        self.start_roles()?;
        let senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
        self.wait(Duration::from_secs(8))?;
        self.system.kill(Part::Loader);
        self.wait(Duration::from_secs(12))?;
        self.system.delete_group("loader")?;
        self.system.start_part(Part::Loader)?;
        self.wait(Duration::from_secs(5))?;
        Ok(senders)
    }

    /// Somebody's newer version writes a budget in words that this one does not know. What runs goes
    /// on with what the budget said before.
    fn unreadable_budget(&mut self) -> Result<Vec<Running>> {
        self.start_roles()?;
        let senders = vec![self.send_to_kafka()?, self.send_to_sidecar()];
        self.wait(Duration::from_secs(6))?;
        let logs = self.system.logs();
        let newer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &logs.kafka.brokers)
            .create()?;
        let topic = logs.topic("budgets");
        let record = BaseRecord::to(&topic)
            .key("customers")
            .payload(r#"{"v":99}"#);
        newer.send(record).map_err(|(error, _)| error)?;
        newer.flush(Duration::from_secs(20))?;
        self.wait(Duration::from_secs(8))?;
        Ok(senders)
    }

    fn wait(&mut self, time: Duration) -> Result<()> {
        self.system.wait_until(Instant::now() + time)
    }
}
