//! Clocks that are wrong and disks that are full: what `shim.c`, loaded into a part, looks at.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::clock;

const SOURCE: &str = include_str!("shim.c");
/// Where the two numbers lie.
const CLOCK_MILLIS: u64 = 0;
const DISK_IS_FULL: u64 = 8;

/// Compiles the library that goes into every part.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SOURCE)?;
    let built = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .context("starting cc")?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "cc refuses shim.c: {said}");
    Ok(library)
}

/// Clock and disk of one part.
pub struct Levers {
    file: File,
    environment: Vec<(String, String)>,
}

impl Levers {
    /// For a part called `name` whose disk is `disk`, with the library that was built into `folder`.
    pub fn new(folder: &Path, library: &Path, name: &str, disk: &Path) -> Result<Self> {
        let path = folder.join(format!("{name}.faults"));
        let file = File::create(&path)?;
        file.set_len(16)?;
        file.write_all_at(&clock::ahead().to_le_bytes(), CLOCK_MILLIS)?;
        let variable = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
        Ok(Self {
            file,
            environment: vec![
                variable("LD_PRELOAD", library),
                variable("SPENDFUSE_FAULTS", &path),
                variable("SPENDFUSE_FAULTS_FOLDER", disk),
            ],
        })
    }

    /// What the part must be started with.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Sets the wall clock so much ahead of the run's, or behind where negative.
    pub fn clock(&self, millis: i64) -> Result<()> {
        let ahead = clock::ahead() + millis;
        Ok(self.file.write_all_at(&ahead.to_le_bytes(), CLOCK_MILLIS)?)
    }

    /// Fills the disk, or makes room.
    pub fn disk(&self, is_full: bool) -> Result<()> {
        let number = i64::from(is_full).to_le_bytes();
        Ok(self.file.write_all_at(&number, DISK_IS_FULL)?)
    }
}
