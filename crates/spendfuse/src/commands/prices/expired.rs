//! Price books that nobody needs any more, so that the topic, which everybody reads from its beginning,
//! does not grow by each version for ever.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::UnixMillis;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// How long a version stays after another one has come: longer than any log keeps what was priced by it
/// (7 days), and than events wait in the DLQ (30).
const KEPT_MILLIS: i64 = 35 * DAY_MILLIS;
const MANIFEST: &str = "manifest";

/// The versions of a prices topic.
#[derive(Debug, Default)]
pub struct Versions {
    /// Keys of the records that are there, by version.
    keys: BTreeMap<String, BTreeSet<String>>,
    /// Offset of each version's manifest, and when that was written.
    completed: BTreeMap<String, (i64, UnixMillis)>,
}

impl Versions {
    /// Takes a record; `is_there`: it is no tombstone.
    pub fn accept(&mut self, key: &str, offset: i64, at: UnixMillis, is_there: bool) {
        let Some((version, part)) = key.rsplit_once('/') else {
            return;
        };
        let keys = self.keys.entry(version.to_owned()).or_default();
        match is_there {
            true => keys.insert(key.to_owned()),
            false => keys.remove(key),
        };
        if part == MANIFEST {
            match is_there {
                true => self.completed.insert(version.to_owned(), (offset, at)),
                false => self.completed.remove(version),
            };
        }
    }

    /// Keys of the versions after which another one came long ago. `next` is being published.
    pub fn expired(&self, next: &str, now: UnixMillis) -> Vec<String> {
        let mut in_order: Vec<(i64, UnixMillis, &String)> = { self.completed.iter() }
            .map(|(version, (offset, at))| (*offset, *at, version))
            .collect();
        in_order.sort_unstable();
        let replaced = in_order.windows(2).map(|two| (two[0].2, two[1].1));
        let expired = replaced
            .filter(|(version, at)| version.as_str() != next && now.since(*at) > KEPT_MILLIS)
            .flat_map(|(version, _)| &self.keys[version]);
        expired.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_expires_once_it_was_replaced_long_ago() {
        let mut versions = Versions::default();
        let day = |day: i64| UnixMillis(day * DAY_MILLIS);
        let mut offset = 0;
        let mut publish = |versions: &mut Versions, version: &str, at| {
            for part in ["0", "1", MANIFEST] {
                offset += 1;
                versions.accept(&format!("{version}/{part}"), offset, at, true);
            }
        };
        publish(&mut versions, "litellm/a", day(0));
        publish(&mut versions, "litellm/b", day(10));
        publish(&mut versions, "litellm/c", day(80));
        let of_a = ["litellm/a/0", "litellm/a/1", "litellm/a/manifest"];
        assert_eq!(versions.expired("litellm/d", day(45)), [""; 0]);
        assert_eq!(versions.expired("litellm/d", day(46)), of_a);
        // `b` was in force until day 80, and whoever puts `a` into force again needs it.
        assert_eq!(versions.expired("litellm/d", day(100)), of_a);
        assert_eq!(versions.expired("litellm/a", day(100)), [""; 0]);
        // The last one stays in force, however old.
        assert_eq!(versions.expired("litellm/d", day(900)).len(), 6);
        for key in of_a {
            versions.accept(key, 100, day(101), false);
        }
        assert_eq!(versions.expired("litellm/d", day(101)), [""; 0]);
    }
}
