//! The members of a JSON object that say what an answer costs, where the whole is too long to be kept,
//! or something else in it is not as it should be.

use super::Texts;

/// None of those that matter is longer.
const LONGEST: usize = 64 * 1024;
/// As every language calls them.
const WANTED: [&[u8]; 16] = [
    b"id",
    b"model",
    b"service_tier",
    b"serviceTier",
    b"agent",
    b"usage",
    b"usage_info",
    b"meta",
    b"status",
    b"background",
    b"created_at",
    b"responseId",
    b"modelVersion",
    b"usageMetadata",
    b"type",
    b"text",
];

/// Finds members in an object that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Of those that were found, the text with its name.
    found: Vec<Vec<u8>>,
    /// The member that is read: its name, or all of it where it is wanted.
    member: Vec<u8>,
    depth: usize,
    texts: Texts,
    /// Whether the name is behind.
    has_name: bool,
    /// Whether the rest of the member is nobody's business.
    is_skipped: bool,
}

impl Members {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            self.take(*byte);
        }
    }

    /// An object of the members that came whole; of one that came twice, the last.
    pub(crate) fn object(&self) -> Vec<u8> {
        let mut object = b"{".to_vec();
        for (index, member) in self.found.iter().enumerate() {
            if index > 0 {
                object.push(b',');
            }
            object.extend_from_slice(member);
        }
        object.push(b'}');
        object
    }

    fn take(&mut self, byte: u8) {
        if self.texts.take(byte) {
            return self.keep(byte);
        }
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == 1 {
                    return;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return self.end();
                }
            }
            b',' if self.depth == 1 => return self.end(),
            b':' if self.depth == 1 && !self.has_name => {
                self.has_name = true;
                self.is_skipped |= name_of(&self.member).is_none();
            }
            _ => {}
        }
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        if !self.is_skipped {
            self.member.push(byte);
            self.is_skipped = self.member.len() > LONGEST;
        }
    }

    fn end(&mut self) {
        let member = std::mem::take(&mut self.member);
        let is_found = std::mem::take(&mut self.has_name) && !self.is_skipped;
        self.is_skipped = false;
        if is_found {
            self.found
                .retain(|known| name_of(known) != name_of(&member));
            self.found.push(member);
        }
    }
}

/// The name at the beginning of a member, where it is wanted.
fn name_of(member: &[u8]) -> Option<&'static [u8]> {
    let name = member.trim_ascii_start().strip_prefix(b"\"")?;
    let is_named = |wanted: &&&[u8]| {
        let rest = name.strip_prefix(**wanted);
        rest.is_some_and(|rest| rest.starts_with(b"\""))
    };
    WANTED.iter().find(is_named).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str, size: usize) -> String {
        let mut members = Members::default();
        for piece in text.as_bytes().chunks(size) {
            members.push(piece);
        }
        String::from_utf8(members.object()).unwrap()
    }

    #[test]
    fn cut_at_every_byte_the_members_are_the_same() {
        let text = r#" {"output":[{"usage":{"no":1},"x":"}],\"usage\":{"}], "id" : "r\"1",
            "usage":{"a":[1,{"b":","}]},"model":"m","usage_of":{"usage":2},"usage":{"c":3} } "#;
        for size in 1..=text.len() {
            let wanted = r#"{ "id" : "r\"1","model":"m","usage":{"c":3} }"#;
            assert_eq!(object(text, size), wanted, "{size}");
        }
    }

    #[test]
    fn what_is_no_object_or_too_long_says_nothing() {
        let long = format!(r#"{{"id":"{}","model":"m"}}"#, "x".repeat(LONGEST));
        assert_eq!(object(&long, 1000), r#"{"model":"m"}"#);
        for text in [
            "",
            "[DONE]",
            "7",
            r#"["usage",{"usage":1}]"#,
            r#"{"usage":"#,
            "}}}]]]",
            r#"{"usage"}"#,
        ] {
            assert_eq!(object(text, 1), "{}", "{text}");
        }
    }
}
