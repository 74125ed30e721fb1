//! Calls under way as the proxy writes them down, and as it names those that a kill has left open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{TAG, number_after};

/// Calls whose starts in the spool's folder have no end.
pub fn left_open(folder: &Path) -> BTreeSet<usize> {
    let text = fs::read(folder.join("starts")).unwrap_or_default();
    open_in(&String::from_utf8_lossy(&text))
}

fn open_in(text: &str) -> BTreeSet<usize> {
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        if let Some(call) = line.strip_prefix('-') {
            open.remove(call);
            continue;
        }
        // A line that the kill has cut says nothing.
        let start: Value = serde_json::from_str(line).unwrap_or_default();
        let number = start["who"][TAG]
            .as_str()
            .and_then(|text| text.parse().ok());
        if let (Some(call), Some(number)) = (start["call"].as_str(), number) {
            open.insert(call.to_owned(), number);
        }
    }
    open.into_values().collect()
}

/// Calls that these lines of the proxy's log name.
pub fn named_in(lines: &[String]) -> BTreeSet<usize> {
    let mark = format!("\"{TAG}\": \"");
    lines
        .iter()
        .filter_map(|line| number_after(line, &mark))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_without_ends_are_open_and_torn_lines_are_nothing() {
        let start = |call: &str, number: u32| {
            format!("{{\"call\":\"{call}\",\"who\":{{\"{TAG}\":\"{number}\"}}}}\n")
        };
        let mut text = start("sf-a-0", 7) + &start("sf-a-1", 8) + &start("sf-a-2", 9);
        text.push_str("-sf-a-1\n-sf-b-0\n{\"call\":\"sf-a-3\",\"who\":{\"tags");
        assert_eq!(open_in(&text), BTreeSet::from([7, 9]));
    }

    #[test]
    fn the_proxy_names_calls_by_their_tag() {
        let line = "2027-01-01T00:00:00Z  WARN a call was under way when the proxy was killed: it may not be counted call=\"sf-a-0\" who={\"customer\": \"via-1\", \"tags.call\": \"12\", \"workspace\": \"proxied\"}";
        assert_eq!(named_in(&[line.to_owned()]), BTreeSet::from([12]));
    }
}
