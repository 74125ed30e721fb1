//! The script of the demo: the real hour, and what is injected beside it, in the order of time.
//!
//! [`traffic`] replays the real hour with made-up names, [`agent_runs`] the real agent runs.
//! [`apps`] are made-up apps that ask before each call, [`runaways`] sessions that the detectors
//! must find and near misses that they must not, [`broken`] events that cannot be counted.

mod agent_runs;
mod apps;
mod broken;
mod runaways;
mod traffic;

use std::time::Duration;

use spendfuse_domain::UnixMillis;

use crate::event::DemoEvent;
pub use apps::UPGRADING_CUSTOMER;
pub use runaways::Expected;

/// Replay time of the whole hour.
const WHOLE: Duration = Duration::from_secs(40);
/// Shorter than this the sessions would leave no time to refuse anybody.
const SHORTEST: Duration = Duration::from_secs(10);

/// Everything that is going to happen.
#[derive(Debug)]
pub struct Scenario {
    /// In the order of time.
    pub steps: Vec<Step>,
    /// How long it takes.
    pub length: Duration,
    /// Calls of the real hour among the steps.
    pub real_calls: usize,
    /// What the detectors must say about the injected sessions.
    pub expected: Vec<Expected>,
}

/// Something that happens at a time.
#[derive(Debug)]
pub struct Step {
    /// Since the beginning.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// What happens.
#[derive(Debug)]
pub enum Action {
    /// An app reports a call.
    Send {
        /// The call.
        event: DemoEvent,
        /// Where it goes.
        route: Route,
        /// Whether the app sends it again a while later, as retries do.
        repeat: bool,
    },
    /// An app asks whether it may call, and reports the call if it may.
    Ask(DemoEvent),
    /// An event that cannot be counted, and the reason that the DLQ must give.
    Broken {
        /// What is sent.
        value: String,
        /// Why it is rejected.
        reason: &'static str,
    },
    /// The upgrading customer's limit is raised.
    Upgrade,
}

/// How a producer picks the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the routing key, as Java's clients do: the event is at home at once.
    Home,
    /// By the routing key, as librdkafka's clients do by default (CRC32).
    Librdkafka,
    /// Without a key: anywhere.
    Anywhere,
}

impl Scenario {
    /// The script with the first `percent` of the hour; `now` is when it will be played.
    pub fn new(percent: u32, now: UnixMillis) -> Self {
        let length = (WHOLE * percent / 100).max(SHORTEST);
        let mut steps = traffic::steps(percent, length);
        let real_calls = steps.len();
        let (runaways, expected) = runaways::steps(length);
        steps.extend(agent_runs::steps(length));
        steps.extend(apps::steps(length));
        steps.extend(runaways);
        steps.extend(broken::steps(length, now));
        steps.sort_by_key(|step| step.at);
        Self {
            steps,
            length,
            real_calls,
            expected,
        }
    }
}

/// The moment at `share` (0 to 1) of `length`.
fn moment(length: Duration, share: f64) -> Duration {
    length.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Body;
    use std::collections::HashSet;

    #[test]
    fn every_event_has_its_own_identity_and_the_real_hour_is_whole() {
        let scenario = Scenario::new(100, UnixMillis(1_800_000_000_000));
        assert_eq!(scenario.real_calls, 28_185);
        let mut ids = HashSet::new();
        let mut tokens = 0;
        for step in &scenario.steps {
            let (Action::Send { event, .. } | Action::Ask(event)) = &step.action else {
                continue;
            };
            assert!(ids.insert((event.source, event.id.clone())), "{event:?}");
            if let (Body::Call(call), true) = (&event.body, event.id.starts_with("real-")) {
                tokens += call.usage.input + call.usage.output;
            }
        }
        assert_eq!(tokens, 18_059_974 + 245_896 + 22_361_870 + 4_088_665);
        assert!(scenario.steps.iter().all(|step| step.at <= scenario.length));
    }

    #[test]
    fn made_up_sessions_of_the_real_hour_grow_too_slowly_for_any_detector() {
        let scenario = Scenario::new(100, UnixMillis(1_800_000_000_000));
        let mut last: std::collections::HashMap<String, (u64, u64)> = Default::default();
        let mut longest = 0;
        for step in &scenario.steps {
            let Action::Send { event, .. } = &step.action else {
                continue;
            };
            let (Body::Call(call), true) = (&event.body, event.id.starts_with("real-")) else {
                continue;
            };
            if call.session.is_empty() {
                continue;
            }
            let now = (call.usage.input, call.usage.input + call.usage.output);
            let before = last.insert(call.session.clone(), now);
            if let Some((context, tokens)) = before {
                longest += 1;
                assert!(now.0 * 100 <= context * 120 || now.0 < 1000, "{call:?}");
                assert!(now.1 < tokens * 2 || now.1 < 1000, "{call:?}");
            }
        }
        assert!(longest > 5_000, "only {longest} steps follow another one");
    }
}
