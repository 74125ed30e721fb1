//! How the meter's guarantee about duplicates is broken on purpose.

use std::cell::RefCell;
use std::collections::HashSet;

use spendfuse_bus::InputRecord;
use spendfuse_domain::Identity;
use spendfuse_domain::event::Event;

use super::REROUTED;

thread_local! {
    static HANDED_OVER: RefCell<HashSet<u128>> = RefCell::default();
}

/// Looks for duplicates where an event arrives, before it is handed over, and not again at home.
/// Returns whether the event goes on.
pub(super) fn judge_first(record: &InputRecord<'_>, event: &mut Event<'_>, home: u32) -> bool {
    if record.topic_index == REROUTED {
        // Nobody has this identity: judged already.
        let place = u128::from(record.offset.unsigned_abs()) << 32 | u128::from(record.partition);
        event.identity = Identity(u128::MAX - place);
        return true;
    }
    home == record.partition || HANDED_OVER.with_borrow_mut(|known| known.insert(event.identity.0))
}
