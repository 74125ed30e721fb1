//! The calls of sessions that were live when the last entry was counted.

use std::collections::BTreeMap;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::correction::StandingRecord;
use spendfuse_domain::recovered::RecoveredCall;
use spendfuse_warehouse::conditions;

use super::super::correct::entry::{Entry, Standing};
use super::super::correct::rows::{ask, by_entry, number};
use super::super::warehouse::Connection;
use super::super::{Failure, output};
use super::known::Before;
use super::send::Sending;
use crate::settings::Settings;

/// Calls that are looked at together, about 3 KB each.
const PIECE: u64 = 40_000;
/// How far back a session is followed: 7 days, milliseconds.
const LONGEST_SESSION: i64 = 7 * 24 * 60 * 60 * 1000;
/// What decides where a session's events are counted, and with which others they are.
const KEY: &str = "(workspace, if(root_session = '', session, root_session))";

/// A call, and what stands for it.
struct Counted {
    entry: Entry,
    standing: Standing,
}

/// Sends them, those of a session in the order of counting. Returns how many sessions and calls.
pub fn bring_back(
    settings: &Settings,
    connection: &Connection,
    before: &Before,
    sending: &mut Sending<'_>,
) -> Result<(u64, u64), Failure> {
    let idle = settings.values.processor.session_idle.0;
    let (own, newest) = (before.own_epoch, before.newest);
    let of_sessions = format!(
        "epoch < {own} AND kind IN ('usage', 'correction', 'rerate') \
         AND (session != '' OR root_session != '') AND received_at >= {}",
        conditions::time(newest.plus(-LONGEST_SESSION))
    );
    let live = format!(
        "{of_sessions} AND {KEY} IN (SELECT {KEY} FROM spend WHERE {of_sessions} \
         AND kind = 'usage' AND received_at >= {})",
        conditions::time(newest.plus(-idle))
    );
    let question = format!("SELECT toString(count()) FROM spend WHERE {live}");
    let count = ask(connection, &question)?;
    let count: u64 = count.first().map_or(Ok(0), |cells| number(&cells[0]))?;
    let slices = count.div_ceil(PIECE);
    let (mut sessions, mut calls) = (0, 0);
    for slice in 0..slices {
        // A session is in one slice as a whole.
        let condition = format!(
            "{live} AND cityHash64{KEY} % {slices} = {slice} \
             ORDER BY epoch, meter_partition, meter_seq, meter_index"
        );
        let entries = by_entry(connection, settings, &condition)?.into_values();
        let entries = entries.filter_map(|rows| Entry::of(rows, None));
        for of_session in sessions_of(entries, idle).into_values() {
            sessions += 1;
            calls += of_session.len() as u64;
            for call in &of_session {
                let home = call.standing.event.home(settings.partitions());
                sending.add_call(home, recovered(call))?;
            }
        }
        sending.say(format_args!("{sessions} sessions"));
    }
    Ok((sessions, calls))
}

fn recovered(call: &Counted) -> RecoveredCall {
    RecoveredCall {
        entry: call.entry.place,
        received_at: call.entry.received_at,
        stands: StandingRecord::of(&call.standing.stands()),
    }
}

/// By workspace and key, the calls of each session since it was last silent for longer than sessions
/// live, in the order of counting.
fn sessions_of(
    entries: impl Iterator<Item = Entry>,
    idle: i64,
) -> BTreeMap<(String, String), Vec<Counted>> {
    let mut sessions: BTreeMap<(String, String), Vec<Counted>> = BTreeMap::new();
    for entry in entries {
        let standing = match entry.standing() {
            Ok(Some(standing)) => standing,
            Ok(None) => continue,
            Err(error) => {
                output::warning(format!("entry {} is left out: {error}", entry.place));
                continue;
            }
        };
        let who = &standing.event.attribution;
        let key = standing.event.session_key().unwrap_or_default();
        let session = (who.workspace.to_string(), key.to_owned());
        let calls = sessions.entry(session).or_default();
        calls.push(Counted { entry, standing });
    }
    for calls in sessions.values_mut() {
        calls.sort_by_key(|call| (call.entry.received_at, call.entry.place));
        let arrivals: Vec<UnixMillis> = calls.iter().map(|call| call.entry.received_at).collect();
        calls.drain(..since_silence(&arrivals, idle));
    }
    sessions
}

/// Place of the first of these times after the last pause that is longer than `idle` milliseconds.
fn since_silence(times: &[UnixMillis], idle: i64) -> usize {
    let is_silence = |two: &[UnixMillis]| two[1].since(two[0]) > idle;
    let last = times.windows(2).rposition(is_silence);
    last.map_or(0, |place| place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_begins_after_its_last_silence() {
        let times = |millis: &[i64]| {
            millis
                .iter()
                .map(|one| UnixMillis(*one))
                .collect::<Vec<_>>()
        };
        assert_eq!(since_silence(&times(&[]), 10), 0);
        assert_eq!(since_silence(&times(&[5]), 10), 0);
        assert_eq!(since_silence(&times(&[0, 10, 20]), 10), 0);
        assert_eq!(since_silence(&times(&[0, 11, 20, 40, 45]), 10), 3);
    }
}
