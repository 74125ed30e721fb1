//! Which calls were under way when a proxy was killed: their costs are not counted, so they are named.
//!
//! A line is appended when a call is permitted, and another one once its event is safe. Nothing is
//! synced: what a killed process has written stays, and a loss of power takes the last second with it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use metrics::counter;
use serde::{Deserialize, Serialize};
use spendfuse_broken::{Break, is_broken};

use crate::metrics::LOST_CALLS;

const NAME: &str = "starts";
/// The file is written anew with the open calls alone when it has reached this, bytes, and is twice as long
/// as they are.
const LONGEST: u64 = 1024 * 1024;
const END: &str = "-";

/// A call as its line says it; no prompt, no key.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Start {
    pub(crate) call: String,
    pub(crate) at: String,
    pub(crate) upstream: String,
    pub(crate) model: String,
    pub(crate) who: BTreeMap<String, String>,
}

/// Calls under way, in memory and on the disk.
#[derive(Debug, Default)]
pub(crate) struct Starts(Option<Mutex<Journal>>);

#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// How long it becomes before it is written anew.
    most_bytes: u64,
    /// Lines of calls that are not counted yet, by the names of the calls.
    open: HashMap<String, String>,
    has_failed: bool,
}

impl Starts {
    /// Begins in this folder, and tells of the calls that the last process has left open there.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(folder: Option<&Path>) -> io::Result<(Self, Vec<Start>)> {
        let Some(folder) = folder else {
            return Ok((Self::default(), Vec::new()));
        };
        let path = folder.join(NAME);
        // What a full disk has cut in the middle of a letter is no text.
        let lost = match fs::read(&path) {
            Ok(bytes) => left_open(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for one in &lost {
            counter!(LOST_CALLS).increment(1);
            let Start {
                call,
                at,
                upstream,
                model,
                who,
            } = one;
            tracing::warn!(
                call,
                at,
                upstream,
                model,
                ?who,
                "a call was under way when the proxy was killed: its provider may have charged it, and it may not be counted"
            );
        }
        let journal = Journal {
            file: begin(&path, &HashMap::new())?,
            path,
            bytes: 0,
            most_bytes: LONGEST,
            open: HashMap::new(),
            has_failed: false,
        };
        Ok((Self(Some(Mutex::new(journal))), lost))
    }

    /// A call is about to be made.
    pub(crate) fn begin(&self, start: impl FnOnce() -> Start) {
        let journal = self.0.as_ref();
        let Some(journal) = journal.filter(|_| !is_broken(Break::StartsForgotten)) else {
            return;
        };
        let start = start();
        let Ok(line) = serde_json::to_string(&start) else {
            return;
        };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(&line);
        journal.open.insert(start.call, line);
    }

    /// A call is counted, or costs nothing.
    pub(crate) fn end(&self, call: &str) {
        let Some(journal) = &self.0 else {
            return;
        };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.open.remove(call).is_some() {
            journal.append(&format!("{END}{call}"));
        }
    }
}

impl Journal {
    fn append(&mut self, line: &str) {
        let written = self.written(line);
        // A full disk is told once: calls go on.
        if let Err(error) = &written
            && !self.has_failed
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "calls under way are not written down");
        }
        self.has_failed = written.is_err();
    }

    fn written(&mut self, line: &str) -> io::Result<()> {
        if self.bytes > self.most_bytes {
            self.file = begin(&self.path, &self.open)?;
            self.bytes = self.open.values().map(|line| line.len() as u64 + 1).sum();
            self.most_bytes = LONGEST.max(2 * self.bytes);
        }
        // Half a line that a full disk has left is not to spoil this one.
        let begin = if self.has_failed { "\n" } else { "" };
        let line = format!("{begin}{line}\n");
        self.bytes += line.len() as u64;
        // In one piece: a process is killed between two.
        self.file.write_all(line.as_bytes())
    }
}

/// A file with these lines, put in the place of what is there.
fn begin(path: &Path, open: &HashMap<String, String>) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = opened.open(&new)?;
    let lines: String = open.values().map(|line| format!("{line}\n")).collect();
    file.write_all(lines.as_bytes())?;
    fs::rename(&new, path)?;
    Ok(file)
}

/// Starts without ends; half a line at the end says nothing.
fn left_open(text: &str) -> Vec<Start> {
    let mut open: Vec<Start> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix(END) {
            Some(call) => open.retain(|start| start.call != call),
            None => open.extend(serde_json::from_str::<Start>(line)),
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn start(call: &str) -> Start {
        Start {
            call: call.to_owned(),
            at: "2026-11-29T00:00:00Z".to_owned(),
            upstream: "openai".to_owned(),
            model: "gpt-4o".to_owned(),
            who: [("customer".to_owned(), "c-42".to_owned())].into(),
        }
    }

    #[test]
    fn what_was_under_way_is_named_at_the_next_start_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Starts::open(Some(folder.path())).unwrap();
        let (starts, lost) = open();
        assert!(lost.is_empty());
        for call in ["a", "b", "c"] {
            starts.begin(|| start(call));
        }
        starts.end("b");
        starts.end("unknown");
        let mut file = OpenOptions::new()
            .append(true)
            .open(folder.path().join(NAME))
            .unwrap();
        file.write_all(b"{\"call\":\"torn \xc3").unwrap();
        // Killed.
        let (_, lost) = open();
        assert_eq!(lost, [start("a"), start("c")]);
        assert!(open().1.is_empty());
    }

    #[test]
    fn the_file_stays_short_and_keeps_what_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let (starts, _) = Starts::open(Some(folder.path())).unwrap();
        starts.begin(|| start("first"));
        for number in 0..20_000 {
            let call = format!("call-{number}");
            starts.begin(|| start(&call));
            starts.end(&call);
        }
        let length = fs::metadata(folder.path().join(NAME)).unwrap().len();
        assert!(length < 2 * LONGEST, "{length}");
        let (_, lost) = Starts::open(Some(folder.path())).unwrap();
        assert_eq!(lost, [start("first")]);
    }

    #[test]
    fn many_calls_under_way_do_not_have_the_file_written_anew_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let (starts, _) = Starts::open(Some(folder.path())).unwrap();
        let file = || fs::metadata(folder.path().join(NAME)).unwrap().ino();
        let begin = |number: u32| starts.begin(|| start(&format!("call-{number}")));
        // Longer than the file usually is.
        (0..10_000).for_each(begin);
        let before = file();
        (10_000..10_100).for_each(begin);
        assert_eq!(file(), before);
        drop(starts);
        let (_, lost) = Starts::open(Some(folder.path())).unwrap();
        assert_eq!(lost.len(), 10_100);
    }

    #[test]
    fn without_a_folder_nothing_is_written() {
        let (starts, lost) = Starts::open(None).unwrap();
        starts.begin(|| unreachable!());
        starts.end("a");
        assert!(lost.is_empty());
    }
}
