//! The spool is its owner's: events name customers and what they cost.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const DIRECTORY_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// Makes `directory`, and tightens one that is there.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)?;
    tighten(directory, DIRECTORY_MODE);
    Ok(())
}

/// Makes or empties `file`.
pub(super) fn create(file: &Path) -> io::Result<File> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(file)?;
    tighten(file, FILE_MODE);
    Ok(opened)
}

/// Takes others' rights away. A mounted volume may belong to somebody else: that is said, and no
/// reason to refuse events.
pub(super) fn tighten(path: &Path, mode: u32) {
    let is_open = |found: &fs::Metadata| found.permissions().mode() & 0o777 & !mode != 0;
    if fs::metadata(path).is_ok_and(|found| is_open(&found))
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode))
    {
        let path = path.display();
        tracing::warn!(%path, %error, "the spool can be read by others, and that cannot be changed");
    }
}
