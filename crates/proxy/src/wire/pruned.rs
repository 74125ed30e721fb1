//! An object of a batch's results that is too long to be kept: what is left of it are the members that
//! say what it costs, where they stood.

use super::Texts;

/// None of the members that matter is longer.
const LONGEST: usize = 64 * 1024;
/// What is left of an object is not longer, but for the ends of what it has begun.
const MOST: usize = 256 * 1024;
/// Members whose objects have more such members in them.
const OUTER: [&[u8]; 4] = [b"result", b"message", b"response", b"body"];
/// How deep these stand in each other.
const MOST_DEPTH: usize = 4;
/// Members that are kept as they are.
const WANTED: [&[u8]; 17] = [
    b"custom_id",
    b"key",
    b"error",
    b"status_code",
    b"request_id",
    b"object",
    b"type",
    b"id",
    b"model",
    b"service_tier",
    b"usage",
    b"usage_info",
    b"responseId",
    b"modelVersion",
    b"usageMetadata",
    b"tokenCount",
    b"status",
];

/// Prunes an object that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Pruned {
    kept: Vec<u8>,
    /// How many objects were begun in `kept`.
    depth: usize,
    /// The member that is read: its name, or all of it where it is wanted.
    member: Vec<u8>,
    /// How deep the member's value is read.
    inner: usize,
    texts: Texts,
    /// Whether the name is behind.
    has_name: bool,
    /// Whether the rest of the member is nobody's business.
    is_skipped: bool,
}

impl Pruned {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            self.take(*byte);
        }
    }

    /// What is left of the object; no JSON where its end has not come.
    pub(crate) fn into_object(self) -> Vec<u8> {
        self.kept
    }

    fn take(&mut self, byte: u8) {
        if self.texts.take(byte) {
            return self.keep(byte);
        }
        match byte {
            b'{' if self.depth == 0 && self.inner == 0 && self.kept.is_empty() => {
                self.kept.push(byte);
                self.depth = 1;
                return;
            }
            b'{' if self.inner == 0 && self.is_outer() => {
                self.put();
                self.kept.push(byte);
                self.depth += 1;
                return;
            }
            b'{' | b'[' => self.inner += 1,
            b'}' | b']' if self.inner > 0 => self.inner -= 1,
            b'}' => {
                self.end();
                if self.depth > 0 {
                    self.kept.push(byte);
                    self.depth -= 1;
                }
                return;
            }
            b',' if self.inner == 0 => return self.end(),
            b':' if self.inner == 0 && !self.has_name => {
                self.has_name = true;
                let is_kept = is_named(&self.member, &WANTED) || is_named(&self.member, &OUTER);
                self.is_skipped |= !is_kept || self.kept.len() > MOST;
            }
            _ => {}
        }
        self.keep(byte);
    }

    fn is_outer(&self) -> bool {
        let is_outer = is_named(&self.member, &OUTER);
        self.has_name && !self.is_skipped && is_outer && self.depth < MOST_DEPTH
    }

    fn keep(&mut self, byte: u8) {
        if !self.is_skipped {
            self.member.push(byte);
            self.is_skipped = self.member.len() > LONGEST;
        }
    }

    fn end(&mut self) {
        if self.has_name && !self.is_skipped {
            self.put();
        }
        self.member.clear();
        self.has_name = false;
        self.is_skipped = false;
    }

    /// Puts the member, or its beginning, behind those that are kept.
    fn put(&mut self) {
        if self.kept.last() != Some(&b'{') {
            self.kept.push(b',');
        }
        self.kept.append(&mut self.member);
        self.has_name = false;
    }
}

fn is_named(member: &[u8], names: &[&[u8]]) -> bool {
    let Some(name) = member.trim_ascii_start().strip_prefix(b"\"") else {
        return false;
    };
    let is = |wanted: &&[u8]| {
        let rest = name.strip_prefix(*wanted);
        rest.is_some_and(|rest| rest.starts_with(b"\""))
    };
    names.iter().any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pruned(text: &str, size: usize) -> String {
        let mut pruned = Pruned::default();
        for piece in text.as_bytes().chunks(size) {
            pruned.push(piece);
        }
        String::from_utf8(pruned.into_object()).unwrap()
    }

    #[test]
    fn cut_at_every_byte_the_members_that_matter_stay_where_they_stood() {
        for (text, wanted) in [
            (
                r#" {"x":[{"usage":1}],"custom_id":"a","result":{"type":"succeeded","message":{"id":"m","content":[{"id":"}\""}],"usage":{"a":[1,{"b":","}]}}}} "#,
                r#"{"custom_id":"a","result":{"type":"succeeded","message":{"id":"m","usage":{"a":[1,{"b":","}]}}}}"#,
            ),
            (
                r#"{"response":{"status_code":200,"body":{"choices":[{"message":{"id":7}}],"usage":{"c":3}}},"error":null}"#,
                r#"{"response":{"status_code":200,"body":{"usage":{"c":3}}},"error":null}"#,
            ),
            (
                r#"{"response":{"body":{"pages":[{"markdown":"x"}],"usage_info":{"pages_processed":1}}}}"#,
                r#"{"response":{"body":{"usage_info":{"pages_processed":1}}}}"#,
            ),
            (
                r#"{"key":"a","response":{"embedding":{"values":[0.5,-1e-3]},"tokenCount":7}}"#,
                r#"{"key":"a","response":{"tokenCount":7}}"#,
            ),
            (
                r#"{"response":null,"result":"text","tools":{}}"#,
                r#"{"response":null,"result":"text"}"#,
            ),
        ] {
            for size in 1..=text.len() {
                assert_eq!(pruned(text, size), wanted, "{size}");
            }
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_no_object_says_nothing() {
        let long = format!(r#"{{"id":"{}","model":"m"}}"#, "x".repeat(LONGEST));
        assert_eq!(pruned(&long, 1000), r#"{"model":"m"}"#);
        let many = format!(r#""id":"{}","#, "x".repeat(1000)).repeat(10_000);
        assert!(pruned(&format!("{{{many}"), 4096).len() < 2 * MOST);
        let deep = r#"{"body":"#.repeat(100_000);
        assert!(pruned(&deep, 4096).len() < 100);
        for text in ["", "[DONE]", "7", r#"["usage",{"usage":1}]"#, "}}}]]]"] {
            let left = pruned(text, 1);
            assert!(
                serde_json::from_str::<serde_json::Value>(&left).is_err(),
                "{left}"
            );
        }
    }
}
