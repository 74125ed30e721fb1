//! The folder a stack keeps its data and logs in: named and kept, or temporary and removed.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::{DevStackError, while_doing};

const TEMPORARY_PREFIX: &str = "spendfuse-devstack-";
const LOCK_FILE: &str = "in-use.lock";

/// A data folder, locked against other stacks while this value lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    is_temporary: bool,
    _lock: File,
}

impl DataFolder {
    /// Opens (creates) a folder whose content is kept.
    ///
    /// # Errors
    /// [`DevStackError::FolderInUse`] where another live process holds it.
    pub fn named(path: &Path) -> Result<Self, DevStackError> {
        fs::create_dir_all(path).map_err(while_doing(format!("creating {}", path.display())))?;
        let path = path
            .canonicalize()
            .map_err(while_doing(format!("resolving {}", path.display())))?;
        match lock(&path)? {
            Some(lock) => Ok(Self {
                path,
                is_temporary: false,
                _lock: lock,
            }),
            None => Err(DevStackError::FolderInUse { path }),
        }
    }

    /// Makes a folder that is removed when this value is dropped. Folders that killed processes
    /// left behind are removed here, since nobody else would.
    ///
    /// # Errors
    /// Where the system's folder for temporary files cannot be written.
    pub fn temporary() -> Result<Self, DevStackError> {
        remove_abandoned();
        loop {
            let path = tempfile::Builder::new()
                .prefix(TEMPORARY_PREFIX)
                .tempdir()
                .map_err(while_doing("creating a temporary folder"))?
                .keep();
            // Another process that looks for abandoned folders may take the lock first, and the
            // folder with it, before this process locks what is left of the file.
            if let Some(lock) = lock(&path)?
                && path.join(LOCK_FILE).exists()
            {
                return Ok(Self {
                    path,
                    is_temporary: true,
                    _lock: lock,
                });
            }
        }
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another live process holds the folder.
    pub fn is_in_use(path: &Path) -> bool {
        path.join(LOCK_FILE).exists() && matches!(lock(path), Ok(None))
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed now is removed by the next stack that starts.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn lock(folder: &Path) -> Result<Option<File>, DevStackError> {
    let path = folder.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(while_doing(format!("opening {}", path.display())))?;
    Ok(file.try_lock().is_ok().then_some(file))
}

fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
        let path = entry.path();
        if !is_ours || !path.join(LOCK_FILE).exists() {
            continue;
        }
        if let Ok(Some(_lock)) = lock(&path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_and_a_freed_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let held = DataFolder::named(&path).unwrap();
        assert!(DataFolder::is_in_use(&path));
        assert!(matches!(
            DataFolder::named(&path),
            Err(DevStackError::FolderInUse { .. })
        ));
        drop(held);
        assert!(!DataFolder::is_in_use(&path));
        DataFolder::named(&path).unwrap();
    }

    #[test]
    fn a_temporary_folder_is_removed_by_its_owner_or_else_by_the_next_one() {
        let owned = DataFolder::temporary().unwrap();
        let owned_path = owned.path().to_owned();
        drop(owned);
        assert!(!owned_path.exists());

        let abandoned = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempdir()
            .unwrap()
            .keep();
        fs::write(abandoned.join(LOCK_FILE), "").unwrap();
        let _next = DataFolder::temporary().unwrap();
        assert!(!abandoned.exists());
    }
}
