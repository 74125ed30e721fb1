//! Which input offsets a partition's state belongs to, as a record of its changelog.
//!
//! Written in every transaction of the partition next to the group's offsets. At start-up both
//! must agree: a changelog that was truncated, or a group whose offsets were moved, would
//! otherwise count events twice or never. Where the group has no offsets at all any more, they have
//! expired or were deleted: then this record is as good as they were, if the same group wrote it.

use std::fmt;

/// The changelog key of the position. Keys that begin with a zero byte are the runner's.
pub(super) const POSITION_KEY: &[u8] = b"\0position";

/// Layout: version byte, `seq` (u64), count (u16), then per input the name's length (u16), the
/// name, and the next offset (i64); then the group's name with its length (u16), which older
/// programs did not write; all big-endian. Later versions may append.
const VERSION: u8 = 1;

/// The number of a partition's last commit and the next offset of each input topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) seq: u64,
    /// By the order of the record; compared by name, so inputs may be reordered.
    pub(super) inputs: Vec<(String, i64)>,
    /// The group that committed these offsets; `None` where an older program wrote the record.
    pub(super) group: Option<String>,
}

impl Position {
    pub(super) fn offset_of(&self, topic: &str) -> Option<i64> {
        self.inputs
            .iter()
            .find(|(name, _)| name == topic)
            .map(|(_, offset)| *offset)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(length(self.inputs.len()));
        for (topic, offset) in &self.inputs {
            bytes.extend(length(topic.len()));
            bytes.extend(topic.as_bytes());
            bytes.extend(offset.to_be_bytes());
        }
        if let Some(group) = &self.group {
            bytes.extend(length(group.len()));
            bytes.extend(group.as_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut rest = Reader(bytes);
        let version = rest.take::<1>()?[0];
        if version != VERSION {
            return Err(format!(
                "the position record has version {version}, this program knows {VERSION}; it was \
                 written by a newer one"
            ));
        }
        let seq = u64::from_be_bytes(rest.take()?);
        let count = u16::from_be_bytes(rest.take()?);
        let mut inputs = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let topic = rest.name()?;
            inputs.push((topic, i64::from_be_bytes(rest.take()?)));
        }
        let group = match rest.0.is_empty() {
            true => None,
            false => Some(rest.name()?),
        };
        Ok(Self { seq, inputs, group })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (topic, offset) in &self.inputs {
            write!(formatter, "{topic}@{offset} ")?;
        }
        match &self.group {
            Some(group) => write!(formatter, "(commit {} of group {group})", self.seq),
            None => write!(formatter, "(commit {})", self.seq),
        }
    }
}

/// Names of topics and groups are far shorter, so nothing is cut.
fn length(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let slice = self.slice(N)?;
        Ok(std::array::from_fn(|index| slice[index]))
    }

    fn name(&mut self) -> Result<String, String> {
        let size = u16::from_be_bytes(self.take()?);
        Ok(String::from_utf8_lossy(self.slice(usize::from(size))?).into_owned())
    }

    fn slice(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("the position record is cut short")?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_record_and_damage_is_noticed() {
        let position = Position {
            seq: 7,
            inputs: vec![("usage".to_owned(), 42), ("rerouted".to_owned(), 0)],
            group: Some("spendfuse-meter".to_owned()),
        };
        let bytes = position.encode();
        assert_eq!(Position::decode(&bytes).unwrap(), position);
        assert!(Position::decode(&bytes[..bytes.len() - 1]).is_err());
        let of_older_program = Position {
            group: None,
            ..position
        };
        let without_group = &bytes[..bytes.len() - 2 - "spendfuse-meter".len()];
        assert_eq!(Position::decode(without_group).unwrap(), of_older_program);
        assert_eq!(of_older_program.encode(), without_group);
        assert!(Position::decode(&[9]).unwrap_err().contains("version 9"));
    }
}
