//! Dimensions that whoever sends an event cannot choose.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

/// Members with their values as they are written, so that no number changes on the way.
type Members<'v> = BTreeMap<String, Cow<'v, RawValue>>;

/// `event`, a structured CloudEvent, with these dimensions in its data in place of what it says of
/// them itself; names are dotted (`tags.team`). `None` where that cannot be done: it is no such event.
pub fn impose<'v, 'i>(
    event: Cow<'v, [u8]>,
    imposed: impl Iterator<Item = (&'i str, &'i str)>,
) -> Option<Cow<'v, [u8]>> {
    let mut imposed = imposed.peekable();
    if imposed.peek().is_none() {
        return Some(event);
    }
    imposed_on(&event, imposed).map(Cow::Owned)
}

fn imposed_on<'i>(
    event: &[u8],
    imposed: impl Iterator<Item = (&'i str, &'i str)>,
) -> Option<Vec<u8>> {
    let mut envelope = members(event)?;
    let data = envelope.get("data")?.clone();
    let mut data = members(data.get().as_bytes())?;
    let said = data.get("tags").cloned();
    let said = said
        .as_ref()
        .and_then(|tags| members(tags.get().as_bytes()));
    let mut tags = said.unwrap_or_default();
    let mut has_tags = false;
    for (name, value) in imposed {
        let value = Cow::Owned(to_raw_value(value).ok()?);
        match name.strip_prefix("tags.") {
            Some(tag) => {
                has_tags = true;
                tags.insert(tag.to_owned(), value);
            }
            None => drop(data.insert(name.to_owned(), value)),
        }
    }
    if has_tags {
        let tags = to_raw_value(&tags).ok()?;
        data.insert("tags".to_owned(), Cow::Owned(tags));
    }
    let data = to_raw_value(&data).ok()?;
    envelope.insert("data".to_owned(), Cow::Owned(data));
    serde_json::to_vec(&envelope).ok()
}

fn members(object: &[u8]) -> Option<Members<'_>> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(object).ok()?;
    let members = members.into_iter();
    Some(
        members
            .map(|(name, value)| (name, Cow::Borrowed(value)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode;
    use crate::time::UnixMillis;

    #[test]
    fn what_is_imposed_stands_whatever_the_event_says_and_nothing_else_changes() {
        let event = br#"{"specversion":"1.0","type":"spendfuse.usage","source":"s","id":"i",
            "time":"2026-11-22T10:15:30Z","data":{"work\u0073pace":"other","workspace":"other",
            "customer":"c","tags":{"team":"theirs","site":"x"},"model":"m",
            "usage":{"input_tokens":5},"units":{"audio_seconds":0.30000000000000004}}}"#;
        let imposed = [
            ("workspace", "acme"),
            ("tags.team", "growth"),
            ("user", "u\"1"),
        ];
        let changed = impose(Cow::Borrowed(&event[..]), imposed.into_iter()).unwrap();
        let text = std::str::from_utf8(&changed).unwrap();
        assert!(
            !text.contains("other") && text.contains("0.30000000000000004"),
            "{text}"
        );
        let event = decode(&changed, &[], UnixMillis(1_795_000_000_000)).unwrap();
        let who = &event.attribution;
        assert_eq!(
            (&*who.workspace, &*who.customer, &*who.user),
            ("acme", "c", "u\"1")
        );
        let tags: Vec<_> = who
            .tags
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(tags, [("site", "x"), ("team", "growth")]);
    }

    #[test]
    fn what_is_no_event_has_nothing_imposed() {
        for text in ["[]", "{", r#"{"specversion":"1.0"}"#, r#"{"data":7}"#] {
            let event = Cow::Borrowed(text.as_bytes());
            assert!(
                impose(event, [("workspace", "a")].into_iter()).is_none(),
                "{text}"
            );
        }
        let event = impose(Cow::Borrowed(&b"{\"data\":{}}"[..]), std::iter::empty());
        assert!(matches!(event, Some(Cow::Borrowed(_))));
    }
}
