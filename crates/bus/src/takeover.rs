//! Whether another process really uses our `group.instance.id`.

use std::time::{Duration, Instant};

use crate::error::BusError;

/// Two processes that take a group's place from each other do so again at once.
const SUSPICIOUS_WITHIN: Duration = Duration::from_secs(30);

/// What a member of a group makes of being replaced. A join whose answer was lost is sent again, and
/// the broker takes the second for another process: Kafka cannot tell, and the member that it fences
/// is ours. So the first time is forgiven; another within 30 s means that there are two processes,
/// and the one that notices first gives up its place.
#[derive(Debug, Default)]
pub struct Takeovers {
    last: Option<Instant>,
}

impl Takeovers {
    /// Whether to join again after this error.
    pub fn forgive(&mut self, error: &BusError) -> bool {
        if !matches!(error, BusError::DuplicateInstance { .. }) {
            return false;
        }
        let before = self.last.replace(Instant::now());
        before.is_none_or(|at| at.elapsed() > SUSPICIOUS_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_takeover_is_forgiven_and_the_next_is_not() {
        let fenced = BusError::DuplicateInstance {
            group: "meter".to_owned(),
            instance: "p1-0".to_owned(),
        };
        let mut takeovers = Takeovers::default();
        assert!(!takeovers.forgive(&BusError::Stopped));
        assert!(takeovers.forgive(&fenced));
        assert!(!takeovers.forgive(&fenced));
    }
}
