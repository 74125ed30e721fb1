//! What is done to the system, and what it is done to.

use std::fmt;
use std::time::Duration;

use spendfuse_testkit::proxy::{ApiKey, Toward};

/// A part that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One of the two processors, 0 or 1.
    Processor(usize),
    Loader,
    Sidecar,
    /// Between clients and a provider.
    Proxy,
    /// The warehouse's server.
    ClickHouse,
    /// A node of Kafka, from 0.
    Kafka(usize),
}

/// A way between parts, through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// From all roles to a node of Kafka.
    Kafka(usize),
    /// From the loader to ClickHouse.
    ClickHouse,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// SIGKILL, and a new start after `down`.
    Kill { part: Part, down: Duration },
    /// SIGKILL of the proxy as soon as its provider has given an answer, and a new start after `down`.
    KillAtAnswer { down: Duration },
    /// The provider breaks off the next streams in their middle.
    BreakStreams { count: u64 },
    /// SIGSTOP, and SIGCONT after `time`.
    Pause { part: Part, time: Duration },
    /// The second processor is stopped and started again, `rounds` times, every `every`.
    Storm { rounds: u32, every: Duration },
    /// The next responses (or requests) of an API break their connection instead of arriving.
    Lose {
        api: ApiKey,
        is_response: bool,
        count: u32,
    },
    /// Everything arrives later.
    Slow {
        link: Link,
        by: Duration,
        time: Duration,
    },
    /// Nothing arrives in one direction; connections stay open.
    Silence {
        link: Link,
        toward: Toward,
        time: Duration,
    },
    /// Open connections end in one direction.
    HalfClose { link: Link, toward: Toward },
    /// Open connections break after so many more bytes in one direction.
    Cut {
        link: Link,
        toward: Toward,
        bytes: u64,
    },
    /// A role's wall clock is so much ahead, or behind.
    Clock {
        part: Part,
        millis: i64,
        time: Duration,
    },
    /// Nothing more can be written to the disk of the sidecar's spool or of ClickHouse's data.
    FullDisk { part: Part, time: Duration },
    /// ClickHouse's disk is what it was `back` ago, as after a loss of power, and it starts `down` later.
    PowerLoss { back: Duration, down: Duration },
    /// Records are stored in the newest format from now on.
    Finalize,
    /// Nothing is sent to a partition, or to none, for longer than logs keep their records.
    Quiet {
        partition: Option<u32>,
        time: Duration,
    },
    /// A role ends in order, and starts as the other release; it is the present one first.
    Exchange { part: Part, down: Duration },
    /// The loader is away for `down`, and its group is deleted meanwhile.
    OffsetsLost { down: Duration },
    /// Limits and steps of all budgets change; one comes, and one goes.
    Budgets,
    /// A new version of the price book.
    Prices,
    /// Some calls that were counted are taken back, or amended.
    Correct,
}

impl Fault {
    /// The group it is counted in.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill { part, .. } => format!("kill -9 {}", part.kind()),
            Self::KillAtAnswer { .. } => "kill -9 proxy at an answer".to_owned(),
            Self::BreakStreams { .. } => "streams broken off by the provider".to_owned(),
            Self::Pause { part, .. } => format!("SIGSTOP {}", part.kind()),
            Self::Storm { .. } => "rebalance storm".to_owned(),
            Self::Lose {
                api, is_response, ..
            } => {
                let what = if *is_response { "response" } else { "request" };
                format!("lost {what} of {}", api.name())
            }
            Self::Slow { link, .. } => format!("slow network to {link}"),
            Self::Silence { link, .. } => format!("silent network to {link}"),
            Self::HalfClose { link, .. } => format!("half-closed connections to {link}"),
            Self::Cut { link, .. } => format!("connections to {link} cut after N bytes"),
            Self::Clock { part, .. } => format!("clock of a {} jumps", part.kind()),
            Self::FullDisk { part, .. } => format!("full disk of {}", part.kind()),
            Self::PowerLoss { .. } => "loss of power of ClickHouse".to_owned(),
            Self::Finalize => "finalized".to_owned(),
            Self::Quiet {
                partition: Some(_), ..
            } => "quiet partition".to_owned(),
            Self::Quiet { .. } => "nothing sent to anybody".to_owned(),
            Self::Exchange { part, .. } => format!("another release of a {}", part.kind()),
            Self::OffsetsLost { .. } => "group of the loader lost".to_owned(),
            Self::Budgets => "budgets changed".to_owned(),
            Self::Prices => "prices changed".to_owned(),
            Self::Correct => "calls corrected".to_owned(),
        }
    }
}

impl Part {
    fn kind(self) -> &'static str {
        match self {
            Self::Processor(_) => "processor",
            Self::Loader => "loader",
            Self::Sidecar => "sidecar",
            Self::Proxy => "proxy",
            Self::ClickHouse => "ClickHouse",
            Self::Kafka(_) => "Kafka node",
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kafka(_) => "Kafka",
            Self::ClickHouse => "ClickHouse",
        })
    }
}
