//! A guard that follows a lab's topics, as one in an application would.

use std::time::{Duration, Instant};

use spendfuse_bus::Follower;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, Nanos, Topics, Verdict};
use spendfuse_guard::{
    CheckRequest, CheckResponse, Clock, Followed, Following, Guard, GuardConfig, State, follow,
};

use crate::lab::{Lab, WORKSPACE};
use crate::wait::eventually;

/// A running guard.
pub struct GuardView {
    guard: Guard,
    clock: Clock,
    _follower: Follower,
}

impl GuardView {
    /// Follows the topics from their beginning.
    ///
    /// # Panics
    /// Where it has not caught up after 20 s.
    pub fn new(lab: &Lab) -> Self {
        let (writer, guard) = Guard::new(GuardConfig::new(lab.partitions()));
        let clock = Clock::new();
        let topics = Topics::new(&lab.topic(""));
        let following = Following {
            kafka: &lab.kafka_config(),
            name: "test-guard",
            topics: &topics,
            others: &[],
            clock,
        };
        let follower = follow(following, writer, |event| {
            if let Followed::Bad(_, error) = event {
                panic!("the guard reads what the system writes: {error}");
            }
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
                .check(&CheckRequest::default(), clock.now())
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
        self.guard.check(&request, self.clock.now()).verdict()
    }

    /// The whole answer for the next call of a customer.
    pub fn answer(&self, customer: &str) -> CheckResponse {
        let (request, now) = (request(customer, Nanos::ZERO), self.clock.now());
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
        ..CheckRequest::default()
    }
}
