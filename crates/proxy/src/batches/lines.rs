//! Lines that come in pieces. One that is short enough is kept until its end, of a longer one what says
//! its cost.

use spendfuse_sidecar::server::{BodyMemory, Share};

use crate::wire::Pruned;

/// Bytes of a line that is kept as it is.
const LONGEST: usize = 1024 * 1024;

/// The line that is read.
pub(super) struct Lines {
    line: Vec<u8>,
    /// What is left of a line that is not kept.
    pruned: Option<Pruned>,
    memory: BodyMemory,
    /// Room for `line`.
    share: Share,
}

impl Lines {
    pub(super) fn new(memory: &BodyMemory) -> Self {
        Self {
            line: Vec::new(),
            pruned: None,
            memory: memory.clone(),
            share: memory.share(),
        }
    }

    /// Takes `bytes` up to the end of the line, and says how many that were with the end; `None` where
    /// the line goes on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.push(&bytes[..end.unwrap_or(bytes.len())]);
        end.map(|end| end + 1)
    }

    /// Whether the line begins as no JSON object does, `more` of it included.
    pub(super) fn is_begun_by_another(&self, more: &[u8]) -> bool {
        let mut begun = self.line.iter().chain(more).copied();
        let first = begun.find(|byte| !byte.is_ascii_whitespace());
        self.pruned.is_none() && first.is_some_and(|byte| byte != b'{')
    }

    /// The line that was taken; the next one begins once [`Self::forget_line`] was called.
    pub(super) fn line(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        let pruned = self.pruned.take();
        pruned.map_or(line, Pruned::into_object)
    }

    /// The line that was taken is behind: others may have its memory.
    pub(super) fn forget_line(&mut self) {
        self.share = self.memory.share();
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(pruned) = &mut self.pruned {
            return pruned.push(bytes);
        }
        let length = self.line.len() + bytes.len();
        if length <= LONGEST && self.share.grow_to(length) {
            self.line.extend_from_slice(bytes);
            return;
        }
        let mut pruned = Pruned::default();
        pruned.push(&std::mem::take(&mut self.line));
        pruned.push(bytes);
        self.pruned = Some(pruned);
        self.forget_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_behind_leaves_its_memory_to_others() {
        let memory = BodyMemory::new(LONGEST);
        for size in [LONGEST, 2 * LONGEST] {
            let mut lines = Lines::new(&memory);
            let line = "x".repeat(size) + "\n";
            let end = line
                .as_bytes()
                .chunks(1000)
                .find_map(|piece| lines.take(piece));
            assert!(end.is_some());
            lines.line();
            lines.forget_line();
            assert!(memory.share().grow_to(LONGEST), "{size}");
        }
    }

    #[test]
    fn lines_are_whole_however_they_are_cut_and_long_ones_say_what_they_cost() {
        let long = format!(
            r#"{{"x":"{}","result":{{"message":{{"usage":{{"a":1}}}}}}}}"#,
            "y".repeat(2 * LONGEST)
        );
        let text = format!("{{\"a\":1}}\n\n{long}\n{{\"b\":2}}");
        let pruned = r#"{"result":{"message":{"usage":{"a":1}}}}"#;
        for (memory, size) in [(usize::MAX, 7), (usize::MAX, 64 * 1024), (0, 4096)] {
            let mut lines = Lines::new(&BodyMemory::new(memory));
            let mut found = Vec::new();
            for mut piece in text.as_bytes().chunks(size) {
                while let Some(end) = lines.take(piece) {
                    found.push(lines.line());
                    lines.forget_line();
                    piece = &piece[end..];
                }
            }
            found.push(lines.line());
            let found: Vec<&str> = found
                .iter()
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            assert_eq!(found, ["{\"a\":1}", "", pruned, "{\"b\":2}"]);
        }
    }
}
