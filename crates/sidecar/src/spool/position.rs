//! What of the spool the broker has, kept in a small file that is replaced as a whole.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::{SpoolError, at, private, sync_directory};

const FILE: &str = "position";

/// A place in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Bytes of it that the broker has.
    pub(super) offset: u64,
}

impl Position {
    /// The stored position; the beginning where there is none or it cannot be read, which only
    /// sends events again.
    pub(super) fn load(directory: &Path) -> Result<Self, SpoolError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = fs::read(&path).map_err(at(&path))?;
        let text = String::from_utf8_lossy(&bytes);
        let parsed = text.trim().split_once(' ').and_then(|(segment, offset)| {
            Some(Self {
                segment: segment.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        });
        Ok(parsed.unwrap_or_default())
    }

    /// Stores the position so that it survives a power cut.
    pub(super) fn store(self, directory: &Path) -> Result<(), SpoolError> {
        let path = directory.join(FILE);
        let new_path = directory.join("position.new");
        let mut file = private::create(&new_path).map_err(at(&new_path))?;
        writeln!(file, "{} {}", self.segment, self.offset)
            .and_then(|()| file.sync_data())
            .map_err(at(&new_path))?;
        fs::rename(&new_path, &path).map_err(at(&path))?;
        sync_directory(directory)
    }
}
