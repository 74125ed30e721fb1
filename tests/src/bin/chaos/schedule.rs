//! Which faults come when: by the seed alone, so that a seed means the same faults again.

use std::time::Duration;

use spendfuse_testkit::proxy::{ApiKey, Toward};

use crate::events::PARTITIONS;
use crate::fault::{Fault, Link, Part};
use crate::retention::{LONGER_THAN_KEPT, Life};
use spendfuse_tests::random::Random;

/// Whether one release runs, or two take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Releases {
    /// The present one.
    One,
    /// The present one, in topics that a release before has made, until the installation is finalized.
    Upgraded,
    /// The present one and the one before.
    TakeTurns,
}

/// A fault and its time since the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    /// When.
    pub at: Duration,
    pub fault: Fault,
}

/// Between two faults, milliseconds: from and to.
const GAP: (u64, u64) = (300, 1_700);
/// Shorter runs have no quiet phases.
pub const LEAST_FOR_QUIET: Duration = Duration::from_secs(240);
/// Shorter runs lose no power: it is off until 18 s after the fault began.
const LEAST_FOR_POWER_LOSS: Duration = Duration::from_secs(80);
/// Shorter runs lose it once.
const LEAST_FOR_POWER_LOSSES: Duration = Duration::from_secs(300);
/// The last faults begin this long before the end, so that they end before it.
const LAST: Duration = Duration::from_secs(4);

impl Releases {
    /// Those of a seed, where there is no previous executable.
    pub fn of(seed: u64) -> Self {
        match seed % 2 {
            0 => Self::Upgraded,
            _ => Self::One,
        }
    }
}

/// The faults of a run over `length` with `nodes` of Kafka.
pub fn schedule(
    seed: u64,
    length: Duration,
    nodes: usize,
    life: Life,
    releases: Releases,
) -> Vec<Planned> {
    let mut random = Random::new(seed, 1);
    // The broker dies while everybody joins their groups for the first time.
    let first = Planned {
        at: random.millis(200, 1_500),
        fault: Fault::Kill {
            part: Part::Kafka(random.below(nodes as u64) as usize),
            down: node_down(&mut random, nodes),
        },
    };
    let mut at = first.at + random.millis(3_000, 6_000);
    let mut planned = vec![first];
    while at + LAST < length {
        let fault = pick(&mut random, nodes, life, releases);
        planned.push(Planned { at, fault });
        if let Fault::FullDisk {
            part: Part::Sidecar,
            time,
        } = fault
        {
            // The spool is needed only where the broker is away.
            let fault = Fault::Silence {
                link: Link::Kafka(random.below(nodes as u64) as usize),
                toward: Toward::Server,
                time: time + random.millis(1_000, 3_000),
            };
            planned.push(Planned { at, fault });
        }
        at += random.millis(GAP.0, GAP.1);
    }
    planned.extend(rare(&mut random, length));
    if releases == Releases::Upgraded {
        planned.push(Planned {
            at: length * random.below(60) as u32 / 100 + length / 5,
            fault: Fault::Finalize,
        });
    }
    if releases == Releases::TakeTurns {
        planned.extend(exchanges(&mut random, length));
    } else {
        planned.extend(of_proxy(seed, length));
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// What a run has at its times: a partition and then everybody is quiet for longer than logs remember,
/// the loader loses its offsets, and ClickHouse its power. One loss of power after the other would take
/// what was loaded between them, until retention has taken it from the log as well.
fn rare(random: &mut Random, length: Duration) -> Vec<Planned> {
    let mut rare = Vec::new();
    let mut at = |share: u32, fault| {
        let at = length * share / 100;
        rare.push(Planned { at, fault });
    };
    if length >= LEAST_FOR_QUIET {
        let time = LONGER_THAN_KEPT;
        let partition = Some(random.below(u64::from(PARTITIONS)) as u32);
        at(15, Fault::Quiet { partition, time });
        let partition = None;
        at(55, Fault::Quiet { partition, time });
    }
    for share in if length >= LEAST_FOR_QUIET {
        vec![40, 85]
    } else {
        vec![50]
    } {
        let down = random.millis(10_500, 12_500);
        at(share, Fault::OffsetsLost { down });
    }
    let shares: &[u32] = match length {
        length if length >= LEAST_FOR_POWER_LOSSES => &[5, 30, 92],
        // Soon after the loader has lost its offsets.
        length if length >= LEAST_FOR_POWER_LOSS => &[65],
        _ => &[],
    };
    for share in shares {
        let back = random.millis(500, 12_000);
        let down = random.millis(200, 6_000);
        at(*share, Fault::PowerLoss { back, down });
    }
    rare
}

/// Roles change their release again and again. A loader does not: the previous one refuses tables that
/// were migrated.
fn exchanges(random: &mut Random, length: Duration) -> Vec<Planned> {
    let roles = [Part::Processor(0), Part::Processor(1), Part::Sidecar];
    let mut exchanges = Vec::new();
    let mut at = random.millis(5_000, 8_000);
    while at + LAST < length {
        let fault = Fault::Exchange {
            part: random.one_of(&roles),
            down: random.millis(1_000, 3_000),
        };
        exchanges.push(Planned { at, fault });
        at += random.millis(3_000, 6_000);
    }
    exchanges
}

/// What happens to the proxy and its provider, beside all else.
fn of_proxy(seed: u64, length: Duration) -> Vec<Planned> {
    let mut random = Random::new(seed, 10);
    let mut planned = Vec::new();
    let mut at = random.millis(5_000, 8_000);
    while at + LAST < length {
        let down = random.millis(0, 1_500);
        let fault = match random.below(10) {
            0..3 => Fault::Kill {
                part: Part::Proxy,
                down,
            },
            3..6 => Fault::KillAtAnswer { down },
            6..8 => Fault::BreakStreams {
                count: 2 + random.below(4),
            },
            _ => Fault::Pause {
                part: Part::Proxy,
                time: random.millis(200, 3_000),
            },
        };
        planned.push(Planned { at, fault });
        // A proxy that has just started asks first what is spent and held.
        at += random.millis(3_500, 8_000);
    }
    planned
}

fn pick(random: &mut Random, nodes: usize, life: Life, releases: Releases) -> Fault {
    let processor = Part::Processor(random.below(2) as usize);
    let node = random.below(nodes as u64) as usize;
    let toward = random.one_of(&[Toward::Client, Toward::Server]);
    let kafka = Link::Kafka(node);
    let kill = |part, down| Fault::Kill { part, down };
    let pause = |part, time| Fault::Pause { part, time };
    // A release before knows no corrections.
    let kinds = if releases == Releases::One { 118 } else { 112 };
    match random.below(kinds) {
        0..14 => kill(processor, random.millis(0, 3_000)),
        14..22 => pause(processor, stall(random)),
        22..30 => kill(Part::Loader, random.millis(0, 2_000)),
        30..33 => pause(Part::Loader, stall(random)),
        33..39 => kill(Part::Sidecar, random.millis(0, 1_500)),
        39..42 => pause(Part::Sidecar, random.millis(200, 3_000)),
        42..47 => kill(Part::ClickHouse, random.millis(0, 2_000)),
        47..51 => pause(Part::ClickHouse, random.millis(200, 4_000)),
        51..54 => kill(Part::Kafka(node), node_down(random, nodes)),
        54..57 => pause(Part::Kafka(node), frost(random)),
        57..60 => Fault::Storm {
            rounds: 2 + random.below(3) as u32,
            every: random.millis(150, 900),
        },
        60..74 => lose(random),
        74..77 => Fault::Slow {
            link: random.one_of(&[kafka, Link::ClickHouse]),
            by: random.millis(5, 250),
            time: random.millis(500, 3_000),
        },
        77..83 => Fault::Silence {
            link: random.one_of(&[kafka, Link::ClickHouse]),
            toward,
            time: random.millis(300, 6_500),
        },
        83..87 => Fault::HalfClose {
            link: random.one_of(&[kafka, Link::ClickHouse]),
            toward,
        },
        87..94 => Fault::Cut {
            link: random.one_of(&[kafka, Link::ClickHouse]),
            toward,
            bytes: random.below(40_000),
        },
        94..97 => Fault::Budgets,
        97..100 => Fault::Prices,
        100..106 if life == Life::JumpingBroker && random.below(2) == 0 => Fault::Clock {
            part: Part::Kafka(0),
            millis: jump_of_broker(random),
            time: random.millis(500, 8_000),
        },
        100..106 => Fault::Clock {
            part: random.one_of(&[processor, processor, Part::Loader, Part::Sidecar]),
            millis: jump(random),
            time: random.millis(500, 8_000),
        },
        106..109 => Fault::FullDisk {
            part: Part::Sidecar,
            time: random.millis(2_000, 5_000),
        },
        112.. => Fault::Correct,
        _ => Fault::FullDisk {
            part: Part::ClickHouse,
            time: random.millis(500, 4_000),
        },
    }
}

/// How long a node of Kafka is down. The only one stays down until its controller has noticed (2 s):
/// started before, it would believe that it still leads, and Kafka would drop ends of transactions
/// (`KafkaOptions::controller_apart`).
fn node_down(random: &mut Random, nodes: usize) -> Duration {
    match nodes {
        1 => random.millis(2_300, 3_500),
        _ => random.millis(0, 2_000),
    }
}

/// Mostly short; now and then longer than a member of a group may be silent.
fn stall(random: &mut Random) -> Duration {
    match random.below(6) {
        0 => random.millis(10_500, 13_000),
        _ => random.millis(100, 3_500),
    }
}

/// Mostly short; one in four outlives the broker's session (9 s), so that it comes back fenced, and a
/// cluster of one names no broker for a moment.
fn frost(random: &mut Random) -> Duration {
    match random.below(4) {
        0 => random.millis(11_000, 13_000),
        _ => random.millis(200, 4_000),
    }
}

/// Two seconds to two hours, ahead or behind.
fn jump(random: &mut Random) -> i64 {
    let most = random.one_of(&[10_000, 120_000, 1_800_000, 7_200_000]);
    let millis = 2_000 + random.below(most - 2_000 + 1);
    either_way(random, millis)
}

/// As clocks of brokers differ from each other; or six minutes to two hours, which nobody believes. A
/// jump in between is believed (`crates/bus/src/runner/clock.rs`), and when it ends time stands still
/// for as long, and guards grow stale.
fn jump_of_broker(random: &mut Random) -> i64 {
    let (from, to) = random.one_of(&[(500, 2_000), (360_000, 7_200_000)]);
    let millis = from + random.below(to - from + 1);
    either_way(random, millis)
}

fn either_way(random: &mut Random, millis: u64) -> i64 {
    let millis = millis.cast_signed();
    if random.below(2) == 0 {
        millis
    } else {
        -millis
    }
}

fn lose(random: &mut Random) -> Fault {
    let api = random.one_of(&[
        ApiKey::END_TXN,
        ApiKey::END_TXN,
        ApiKey::END_TXN,
        ApiKey::TXN_OFFSET_COMMIT,
        ApiKey::TXN_OFFSET_COMMIT,
        ApiKey::PRODUCE,
        ApiKey::PRODUCE,
        ApiKey::ADD_PARTITIONS_TO_TXN,
        ApiKey::OFFSET_COMMIT,
        ApiKey::INIT_PRODUCER_ID,
        ApiKey::JOIN_GROUP,
    ]);
    Fault::Lose {
        api,
        is_response: random.below(4) > 0,
        count: 1 + random.below(3) as u32,
    }
}
