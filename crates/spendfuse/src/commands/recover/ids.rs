//! Which events were counted within the horizon of the meters' memory.

use spendfuse_domain::recovered::RecoveredId;
use spendfuse_domain::routing::home;
use spendfuse_domain::{Identity, UnixMillis};
use spendfuse_warehouse::conditions;

use super::super::Failure;
use super::super::correct::rows::{ask, number};
use super::super::warehouse::Connection;
use super::send::Sending;
use crate::settings::Settings;

/// Events that are asked for at once, about 100 bytes each.
const PIECE: u64 = 200_000;
const MINUTE_MILLIS: i64 = 60_000;

/// Sends the identities of everything that was counted since `since` in earlier epochs than `epoch`, in
/// the order of arrival. Returns how many there are.
pub fn bring_back(
    settings: &Settings,
    connection: &Connection,
    epoch: u32,
    since: UnixMillis,
    sending: &mut Sending<'_>,
) -> Result<u64, Failure> {
    // Events alone have identities, and their rows no other row's id.
    let counted = format!("epoch < {epoch} AND kind IN ('usage', 'revenue') AND amends_seq = 0");
    let question = format!(
        "SELECT toString(intDiv(toUnixTimestamp64Milli(received_at), {MINUTE_MILLIS}) AS minute), \
                toString(count()) \
         FROM spend WHERE {counted} AND minute >= {} GROUP BY minute ORDER BY minute",
        since.minute()
    );
    let mut spans: Vec<(i64, i64, u64)> = Vec::new();
    let mut total = 0;
    for cells in ask(connection, &question)? {
        let (minute, count): (i64, u64) = (number(&cells[0])?, number(&cells[1])?);
        total += count;
        match spans.last_mut() {
            Some((_, to, in_span)) if *in_span + count <= PIECE => {
                *to = minute + 1;
                *in_span += count;
            }
            _ => spans.push((minute, minute + 1, count)),
        }
    }
    if sending.is_dry() {
        return Ok(total);
    }
    let partitions = settings.partitions();
    for (from, to, _) in spans {
        let time = |minute: i64| conditions::time(UnixMillis::from_minute(minute));
        let question = format!(
            "SELECT workspace, source, event_id, root_session, session, \
                    toString(toUnixTimestamp64Milli(received_at)) \
             FROM spend WHERE {counted} AND received_at >= {} AND received_at < {} \
             ORDER BY received_at",
            time(from),
            time(to)
        );
        for cells in ask(connection, &question)? {
            let [workspace, source, id, root, session, at] = &cells[..] else {
                continue;
            };
            let identity = Identity::of(workspace, source, id, "final");
            let keys = [root, session].map(String::as_str);
            let key = keys.into_iter().find(|key| !key.is_empty());
            let id = RecoveredId::new(identity, UnixMillis(number(at)?));
            sending.add_id(home(key, identity, partitions), id)?;
        }
        sending.say(format_args!(
            "identities up to {}",
            UnixMillis::from_minute(to)
        ));
    }
    Ok(total)
}
