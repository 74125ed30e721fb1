//! The spool of the proxy: what of it is not in the log yet.

use std::cmp::Ordering;
use std::fs::{self, DirEntry};
use std::path::Path;

/// Whether everything that lay in this folder's spool (`crates/sidecar/src/spool`) was sent: no segment
/// goes on behind the position.
pub fn is_sent(folder: &Path) -> bool {
    let position = fs::read_to_string(folder.join("position")).unwrap_or_default();
    let mut numbers = position.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or_default();
    let (segment, offset) = (next(), next());
    let goes_on = |file: DirEntry| {
        let name = file.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
            return false;
        };
        let bytes = file.metadata().map_or(0, |data| data.len());
        match number.cmp(&segment) {
            // It is about to be removed.
            Ordering::Less => false,
            Ordering::Equal => bytes > offset,
            Ordering::Greater => bytes > 0,
        }
    };
    let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
    !files.any(goes_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_sent_where_no_segment_goes_on_behind_the_position() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
        assert!(is_sent(&path.join("none")));
        for (position, segments, wanted) in [
            (None, &[(0, "")][..], true),
            (None, &[(0, "event")][..], false),
            (Some("0 5\n"), &[(0, "event")][..], true),
            (Some("0 5\n"), &[(0, "event more")][..], false),
            (Some("0 10\n"), &[(0, "event more"), (1, "")][..], true),
            (
                Some("0 10\n"),
                &[(0, "event more"), (1, "event")][..],
                false,
            ),
            (Some("1 5\n"), &[(0, "event more"), (1, "event")][..], true),
        ] {
            if let Some(position) = position {
                write("position", position);
            }
            for (number, text) in segments {
                write(&format!("{number:020}.seg"), text);
            }
            write("lock", "");
            assert_eq!(is_sent(path), wanted, "{position:?} {segments:?}");
        }
    }
}
