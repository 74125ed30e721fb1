//! A path as the servers behind the proxy may read it: they differ in what they undo.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What stands between the parts. Some servers take one for the other.
const SLASHES: [char; 2] = ['/', '\\'];

/// `path` with its escapes undone, and without empty parts, `.` and `..`: `v1/chat/completions`.
/// A call is guarded however its path is written.
pub(crate) fn plain(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split(SLASHES) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The part that follows the part `name`, of a path as [`plain`] has it but that escapes are undone part
/// by part: an ARN has slashes.
pub(crate) fn part_after(path: &str, name: &str) -> Option<String> {
    let mut parts: Vec<Cow<'_, str>> = Vec::new();
    for part in path.split(SLASHES) {
        let part = percent_decode_str(part).decode_utf8_lossy();
        match &*part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut parts = parts.into_iter();
    parts.find(|part| part.eq_ignore_ascii_case(name))?;
    parts.next().map(Cow::into_owned)
}

/// Whether `..` leads out of where the path begins, which may be a folder of its server: by servers that
/// undo escaped slashes before, or by those that do not.
pub(crate) fn leads_out(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let parts = path.split(SLASHES);
    let parts = parts.map(|part| percent_decode_str(part).decode_utf8_lossy());
    climbs(decoded.split(SLASHES).map(Cow::Borrowed)) || climbs(parts)
}

fn climbs<'p>(parts: impl Iterator<Item = Cow<'p, str>>) -> bool {
    let mut depth = 0_usize;
    for part in parts {
        match &*part {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// Whether the last parts of a plain path are `last`. Azure takes them in any case.
pub(crate) fn ends(path: &str, last: &str) -> bool {
    let begin = path.len().checked_sub(last.len());
    let Some((before, end)) = begin.and_then(|begin| path.split_at_checked(begin)) else {
        return false;
    };
    end.eq_ignore_ascii_case(last) && (before.is_empty() || before.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        for path in [
            "/v1/chat/completions",
            "//v1//chat///completions/",
            "/v1/chat/completion%73",
            "/v1/chat%2Fcompletions",
            "/v1/chat\\completions",
            "/v1%5Cchat%5ccompletions",
            "/v1/./chat/x/../completions",
            "/v1/chat/completions/x/%2e%2e",
            "/../v1/chat/completions/.",
        ] {
            assert_eq!(plain(path), "v1/chat/completions", "{path}");
        }
        assert_eq!(plain(""), "");
        assert_eq!(plain("/%ff"), "\u{fffd}");
    }

    #[test]
    fn a_path_stays_within_its_upstream() {
        for (path, wanted) in [
            ("/v1/x/../y", false),
            ("/v1/..", false),
            ("", false),
            ("/..", true),
            ("/v1//../../x", true),
            ("/v1/%2e%2E/.%2e/x", true),
            ("/..%2fx", true),
            ("\\..\\x", true),
            ("/x%2Fy/../../z", true),
        ] {
            assert_eq!(leads_out(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_part_is_found_by_the_one_before() {
        assert_eq!(
            part_after("//Model/arn%3Ax%2Fy/converse", "model").as_deref(),
            Some("arn:x/y")
        );
        // Where `..` is undone behind the proxy, another model answers than the first one named.
        for path in [
            "/model/cheap/../dear/converse",
            "/model/cheap/%2e%2E/../model/./dear/converse",
        ] {
            assert_eq!(part_after(path, "model").as_deref(), Some("dear"), "{path}");
        }
        assert_eq!(part_after("/model/", "model"), None);
        assert_eq!(part_after("/v1/models/x", "model"), None);
        assert!(ends("v1/Chat/Completions", "chat/completions"));
        assert!(!ends("v1/my-embeddings", "embeddings") && !ends("é", "ab"));
    }
}
