//! Where an estimate is counted. What somebody has measured instead may be less, and may name the call
//! otherwise or tell another time: what is less is taken back where the estimate was counted, else a
//! customer or a day that never had it could spend more than its limit. So an estimate that grows stays
//! in one place, too.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Event, Flags};
use spendfuse_domain::growth::Who;
use spendfuse_domain::{Attribution, Nanos, UnixMillis};

/// Texts of an estimate that is remembered, bytes: those of a few senders must not drive the calls of all
/// others out of the memory. A longer one grows like what was measured.
const MOST_TEXT: usize = 1024;

/// Time and names of an event that estimates. Names of nobody, not even a workspace, are those of several
/// estimates that contradict each other: the call is counted here and there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Estimated {
    pub(super) time: UnixMillis,
    pub(super) who: Attribution<'static>,
}

impl Estimated {
    /// Those of `event`, where it estimates.
    pub(super) fn of(event: &Event<'_>) -> Option<Box<Self>> {
        if !event.flags.contains(Flags::USAGE_ESTIMATED) {
            return None;
        }
        let who = &event.attribution;
        let tags = who
            .tags
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let bytes = who.texts().into_iter().map(|text| text.len()).chain(tags);
        (bytes.sum::<usize>() <= MOST_TEXT).then(|| {
            Box::new(Self {
                time: event.time,
                who: owned(who),
            })
        })
    }

    /// After `event` has estimated more: the same place, or none where it is somebody else's.
    pub(super) fn after(&self, event: &Event<'_>) -> Self {
        match self.is_contradicted_by(event) {
            false => self.clone(),
            true => Self {
                time: event.time,
                who: Attribution::default(),
            },
        }
    }

    /// `event` as it is counted here.
    pub(super) fn placed<'e>(&self, event: &Event<'e>) -> Event<'e> {
        Event {
            time: self.time,
            attribution: self.who.clone(),
            ..event.clone()
        }
    }

    /// Whether `event` is somebody else's: of what both name, one is wrong. One of several that contradict
    /// each other is wrong in any case.
    pub(super) fn is_contradicted_by(&self, event: &Event<'_>) -> bool {
        self.who.workspace.is_empty() || Who::disagree(&self.who, &event.attribution)
    }
}

fn owned(who: &Attribution<'_>) -> Attribution<'static> {
    let texts = who.texts();
    let tags = who.tags.iter();
    let tags = tags.map(|(name, value)| (name.to_string().into(), value.to_string().into()));
    Attribution::of(tags.collect(), |dimension| {
        texts[dimension as usize].to_string().into()
    })
}

/// Whether anything of it is less than nothing.
pub(super) fn is_less((more, at_ceiling): (Spend, Nanos)) -> bool {
    more.cost < Nanos::ZERO || more.tokens < 0 || at_ceiling < Nanos::ZERO
}
