//! A guard that follows a lab's topics, as one in an application would.

use std::time::{Duration, Instant};

use spendfuse_bus::follower::{Follower, FollowerConfig, FollowerEvent};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, Nanos, UnixMillis, Verdict};
use spendfuse_guard::{CheckRequest, CheckResponse, Guard, GuardConfig, Now, State};

use crate::lab::{Lab, WORKSPACE};
use crate::traffic::now;
use crate::wait::eventually;

const BLOCKLIST: usize = 0;

/// A running guard.
pub struct GuardView {
    guard: Guard,
    clock: Instant,
    _follower: Follower,
}

impl GuardView {
    /// Follows the topics from their beginning.
    ///
    /// # Panics
    /// Where it has not caught up after 20 s.
    pub fn new(lab: &Lab) -> Self {
        let (mut writer, guard) = Guard::new(GuardConfig::new(lab.partitions()));
        let clock = Instant::now();
        let config = FollowerConfig {
            kafka: lab.kafka_config(),
            name: "test-guard",
            topics: vec![lab.topic("blocklist"), lab.topic("budgets")],
            partition: None,
        };
        let follower = Follower::start(config, move |event| match event {
            FollowerEvent::Record(record) => {
                let key = std::str::from_utf8(record.key.unwrap_or_default());
                let key = key.expect("keys are UTF-8");
                let logged = UnixMillis(record.timestamp_millis);
                let applied = if record.topic_index == BLOCKLIST {
                    writer.apply(key, record.value, logged, moment(clock))
                } else {
                    writer.apply_budget(key, record.value, record.offset.unsigned_abs() + 1)
                };
                applied.expect("the guard reads what the system writes");
                writer.publish(now());
            }
            FollowerEvent::CaughtUp => {
                writer.caught_up();
                writer.publish(now());
            }
            FollowerEvent::Reset => writer.begin_again(now()),
            FollowerEvent::EndOfPartition { .. } | FollowerEvent::Failed(_) => {}
        })
        .expect("a follower can be started");
        let view = Self {
            guard,
            clock,
            _follower: follower,
        };
        eventually("the guard has caught up", Duration::from_secs(20), || {
            let state = view
                .guard
                .check(&CheckRequest::default(), moment(clock))
                .state();
            match state.state {
                State::Cold => Err("cold".to_owned()),
                State::Live | State::Stale => Ok(()),
            }
        });
        view
    }

    /// The verdict for the next call of a customer.
    pub fn verdict(&self, customer: &str) -> Verdict {
        self.verdict_for(customer, Nanos::ZERO)
    }

    /// The verdict for a call of a customer that costs `estimate`.
    pub fn verdict_for(&self, customer: &str, estimate: Nanos) -> Verdict {
        let request = request(customer, estimate);
        self.guard.check(&request, moment(self.clock)).verdict()
    }

    /// The whole answer for the next call of a customer.
    pub fn answer(&self, customer: &str) -> CheckResponse {
        let (request, now) = (request(customer, Nanos::ZERO), moment(self.clock));
        self.guard.check_with_reasons(&request, now).explain()
    }

    /// Waits until a customer's verdict is `wanted`; how long that took.
    ///
    /// # Panics
    /// Where it is not after `patience`.
    pub fn await_verdict(&self, customer: &str, wanted: Verdict, patience: Duration) -> Duration {
        let begin = Instant::now();
        eventually(&format!("{customer} gets {wanted:?}"), patience, || {
            let verdict = self.verdict(customer);
            if verdict == wanted {
                return Ok(begin.elapsed());
            }
            Err(format!("it is {verdict:?}"))
        })
    }
}

fn request(customer: &str, estimate: Nanos) -> CheckRequest<'_> {
    CheckRequest {
        attribution: Attribution {
            workspace: WORKSPACE.into(),
            customer: customer.into(),
            feature: "agent".into(),
            ..Attribution::default()
        },
        estimate: Spend {
            cost: estimate,
            ..Spend::default()
        },
    }
}

fn moment(clock: Instant) -> Now {
    Now {
        wall: now(),
        monotonic_millis: i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX),
    }
}
