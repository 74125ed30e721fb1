//! Calls through the proxy: what their provider has answered is counted, or named as lost.

use super::Check;
use super::input::Input;
use crate::proxied::{Known, Seen};
use crate::system::System;

/// Each call that reached its provider is counted, or the proxy has named it after a kill; nothing else
/// is. That it is counted once, and at which price, the checks of rows say.
pub(super) fn counted(system: &System, input: &Input) -> Check {
    let calls = &system.calls;
    let named = system.named_by_proxy();
    let all = calls.all();
    let mut differences = Vec::new();
    if calls.reach_nobody() {
        differences.push("clients have tried, and no call has reached the provider".to_owned());
    }
    let mut found = 0;
    for (number, known) in &all {
        let is_there = input.times(*number) > 0;
        found += usize::from(is_there);
        let wrong = match known.asked {
            0 if is_there => Some("did not reach its provider, and is counted".to_owned()),
            1 if !is_there && !named.contains(number) => {
                Some("reached its provider, is not counted, and nobody names it".to_owned())
            }
            0 | 1 => oddly_seen(known, calls.is_cut_by_kill(known)),
            times => Some(format!("was sent {times} times")),
        };
        differences.extend(wrong.map(|wrong| format!("call-{number} {wrong}: {known:?}")));
    }
    let answered = all.values().filter(|known| known.asked > 0).count();
    Check {
        name: "calls through the proxy are counted, or named where it was killed",
        compared: format!(
            "{} calls, {answered} reached their provider, {found} counted",
            all.len()
        ),
        differences,
    }
}

/// What a client should not have seen of its call, whose proxy was killed meanwhile or was not.
fn oddly_seen(known: &Known, is_killed: bool) -> Option<String> {
    let seen = known.ended.as_ref().map(|(seen, _)| seen);
    match seen {
        Some(Seen::Whole) if known.asked == 0 => {
            Some("was answered by somebody else than its provider".to_owned())
        }
        Some(Seen::Whole) if known.is_broken_off => {
            Some("was broken off, and its client took it for whole".to_owned())
        }
        Some(Seen::Refused) if known.asked > 0 => {
            Some("was refused, and reached its provider".to_owned())
        }
        Some(Seen::Cut) if !is_killed && !known.is_broken_off => {
            Some("was cut by nobody".to_owned())
        }
        Some(Seen::Wrong(answer)) => Some(format!("was answered {answer:?}")),
        None => Some("never ended".to_owned()),
        _ => None,
    }
}

/// A killed proxy has lost no other calls than those under way, and the next one has named each.
pub(super) fn losses(system: &System, input: &Input) -> Check {
    let calls = &system.calls;
    let (open, named) = (calls.open_at_kills(), system.named_by_proxy());
    let all = calls.all();
    let mut differences = Vec::new();
    for number in open.difference(&named) {
        differences.push(format!(
            "call-{number} was left open by a kill, and is not named"
        ));
    }
    for number in named.difference(&open) {
        differences.push(format!(
            "call-{number} is named, and no kill has left it open"
        ));
    }
    for number in &named {
        let known = all.get(number);
        if !known.is_some_and(|known| calls.may_be_lost(known)) {
            differences.push(format!(
                "call-{number} was not under way at any kill: {known:?}"
            ));
        }
    }
    let under_way = all.values().filter(|known| calls.is_cut_by_kill(known));
    let lost = named.iter().filter(|number| input.times(**number) == 0);
    Check {
        name: "a killed proxy has lost calls under way only, and each is named",
        compared: format!(
            "{} kills, {} calls under way then, {} named, {} of them not counted",
            calls.kill_count(),
            under_way.count(),
            named.len(),
            lost.count()
        ),
        differences,
    }
}
