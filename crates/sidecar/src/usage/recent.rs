//! The events that this sidecar took lately, so that who sends another one of the same identity is
//! told at once. The meter, which sees the events of all senders, judges for good.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spendfuse_domain::growth::{Again, Content};
use spendfuse_domain::{Identity, UnixMillis};

/// Events of a generation. Two generations are kept: the last 50,000 to 100,000 events, in at most
/// 25 MB.
const GENERATION: usize = 50_000;

/// Identities with the contents that stand for them, the oldest forgotten.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Identity, Taken>,
    old: HashMap<Identity, Taken>,
}

#[derive(Debug)]
struct Taken {
    content: Content,
    minute: u32,
}

impl Recent {
    /// What was taken before under `identity`, after `since`: what is older the meter may have
    /// forgotten, too.
    pub(super) fn before(
        &self,
        identity: Identity,
        content: &Content,
        since: UnixMillis,
    ) -> Option<Again> {
        let generations = self.lock();
        let taken = generations.young.get(&identity);
        let taken = taken.or_else(|| generations.old.get(&identity))?;
        (i64::from(taken.minute) > since.minute()).then(|| taken.content.compared(content))
    }

    /// Remembers events that are safe.
    pub(super) fn remember(
        &self,
        taken: impl Iterator<Item = (Identity, Content)>,
        now: UnixMillis,
    ) {
        let minute = u32::try_from(now.minute()).unwrap_or(0);
        let mut generations = self.lock();
        for (identity, content) in taken {
            if generations.young.len() == GENERATION {
                generations.old = std::mem::take(&mut generations.young);
            }
            generations
                .young
                .insert(identity, Taken { content, minute });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::growth::Growth;

    use super::*;

    #[test]
    fn the_latest_are_known_and_the_memory_is_bounded() {
        let recent = Recent::default();
        let now = UnixMillis::from_minute(10_000);
        let begin = UnixMillis::from_minute(0);
        let taken =
            (0..175_000_u32).map(|number| (Identity(number.into()), Content::of_hash(number)));
        recent.remember(taken, now);
        let known = |number: u32, since| {
            recent.before(Identity(number.into()), &Content::of_hash(number), since)
        };
        assert_eq!(known(174_999, begin), Some(Again::Same));
        assert_eq!(known(125_000, begin), Some(Again::Same));
        assert_eq!(known(10, begin), None);
        assert_eq!(known(174_999, now), None);
        let other = recent.before(Identity(174_999), &Content::of_hash(7), begin);
        assert_eq!(other, Some(Again::Other(Growth::Conflict)));
        let generations = recent.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
