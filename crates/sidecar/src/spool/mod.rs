//! The disk spool: events that were accepted while the broker could not take them.
//!
//! Append-only segments of checked frames in one directory, synced to disk before anybody is told
//! that an event is safe, replayed in order. A position file says what the broker already has; it
//! may lag behind, and then events go out twice with the same ids, which the meter counts once.
//! After `kill -9` or a power cut a torn tail is cut off: nobody was told that it was safe. Events that
//! the disk did not keep are passed over, and those behind them are sent.
//!
//! Blocking I/O without tokio; callers put it on a blocking thread.

mod frame;
mod position;
mod private;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

pub use frame::SpooledEvent;
use position::Position;

/// Where a spool lies and how large it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Its own directory, made where it does not exist.
    pub directory: PathBuf,
    /// All segments together stay below this, bytes.
    pub max_bytes: u64,
    /// A segment is closed when it has reached this, bytes.
    pub segment_bytes: u64,
}

/// Why the spool did not take or give events.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Taking the events would exceed [`SpoolConfig::max_bytes`].
    #[error("the spool is full: {held} of {max} bytes are held until the broker takes them")]
    Full {
        /// Bytes held.
        held: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The file system said no.
    #[error("spool file {path}: {source}; check the disk and its permissions")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Read at once; more than the largest event.
const MAX_READ_BYTES: u64 = 8 * 1024 * 1024;

/// A segment file: `00000000000000000007.seg`.
#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

/// The spool of one sidecar. One process at a time may have it open.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    /// From the one being replayed to the one being written; never empty.
    segments: VecDeque<Segment>,
    /// The last segment's file; `None` where the disk was full when it was to be made.
    writer: Option<File>,
    position: Position,
    /// Where the batch read last ends.
    read_to: Option<Position>,
    /// Half an event may lie at the end of the last segment: go on in a new one.
    damaged: bool,
    _lock: File,
}

impl Spool {
    /// Opens or makes the spool and cuts off what was not written whole. A full disk is no reason
    /// not to start: nothing can be appended then, but what is there can be replayed.
    ///
    /// # Errors
    /// [`SpoolError::Io`], also where another process has it open.
    pub fn open(config: SpoolConfig) -> Result<Self, SpoolError> {
        let directory = &config.directory;
        private::create_directory(directory).map_err(at(directory))?;
        let lock_path = directory.join("lock");
        let lock = private::create(&lock_path).map_err(at(&lock_path))?;
        lock.try_lock()
            .map_err(|error| at(&lock_path)(error.into()))?;
        let position = Position::load(directory)?;
        let mut segments = VecDeque::new();
        for number in segment_numbers(directory)? {
            let path = segment_path(directory, number);
            if number < position.segment {
                fs::remove_file(&path).map_err(at(&path))?;
            } else {
                private::tighten(&path, private::FILE_MODE);
                let bytes = cut_torn_tail(&path)?;
                segments.push_back(Segment { number, bytes });
            }
        }
        let next = segments
            .back()
            .map_or(position.segment, |last| last.number + 1);
        let writer = match begin_segment(directory, next) {
            Ok(file) => Some(file),
            Err(SpoolError::Io { path, source }) if is_full(&source) => {
                tracing::error!(path = %path.display(), error = %source, "the spool has no room");
                None
            }
            Err(error) => return Err(error),
        };
        segments.push_back(Segment {
            number: next,
            bytes: 0,
        });
        let mut spool = Self {
            config,
            segments,
            writer,
            position,
            read_to: None,
            damaged: false,
            _lock: lock,
        };
        spool.skip_finished()?;
        Ok(spool)
    }

    /// Bytes that wait for the broker, including what it has of the segment being replayed.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether the broker has everything.
    pub fn is_empty(&self) -> bool {
        let waiting = |segment: &Segment| {
            segment.number > self.position.segment && segment.bytes > 0
                || segment.number == self.position.segment && segment.bytes > self.position.offset
        };
        !self.segments.iter().any(waiting)
    }

    /// Takes all of `events`, or none: they are on the disk when this returns.
    ///
    /// # Errors
    /// [`SpoolError::Full`], or [`SpoolError::Io`] (a full disk, for one).
    pub fn append(&mut self, events: &[SpooledEvent]) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        for event in events {
            event.write(&mut bytes);
        }
        let held = self.bytes();
        if held + bytes.len() as u64 > self.config.max_bytes {
            return Err(SpoolError::Full {
                held,
                max: self.config.max_bytes,
            });
        }
        let is_long = self.last().bytes >= self.config.segment_bytes;
        if self.writer.is_some() && (self.damaged || is_long) {
            let number = self.last().number + 1;
            self.writer = Some(begin_segment(&self.config.directory, number)?);
            self.segments.push_back(Segment { number, bytes: 0 });
            self.damaged = false;
        }
        let Segment { number, bytes: end } = self.last();
        let path = segment_path(&self.config.directory, number);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            missing => missing.insert(begin_segment(&self.config.directory, number)?),
        };
        let written = writer.write_all(&bytes).and_then(|()| writer.sync_data());
        if let Err(error) = written {
            // What is half there must not be replayed: nobody was told that it was safe.
            let cut = writer.set_len(end);
            let cut = cut.and_then(|()| writer.seek(SeekFrom::Start(end)));
            self.damaged = cut.is_err();
            return Err(at(&path)(error));
        }
        let last = self.segments.len() - 1;
        self.segments[last].bytes += bytes.len() as u64;
        Ok(())
    }

    /// The oldest events that the broker does not have, of one segment, at most `at_most`. The same
    /// again until [`Self::confirm`] is called.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn next_batch(&mut self, at_most: usize) -> Result<Vec<SpooledEvent>, SpoolError> {
        self.skip_finished()?;
        let path = segment_path(&self.config.directory, self.position.segment);
        let mut file = File::open(&path).map_err(at(&path))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.position.offset))
            .and_then(|_| file.take(MAX_READ_BYTES).read_to_end(&mut bytes))
            .map_err(at(&path))?;
        let mut events = Vec::new();
        let mut length = passed_over(&path, &bytes);
        let mut from = self.position.offset;
        if bytes.is_empty() && !self.is_empty() {
            // What was written there is gone, and waited for in vain.
            from = from.max(self.segments[0].bytes);
            tracing::error!(path = %path.display(), "a file of the spool is shorter than what was written: its last events are lost");
        }
        while events.len() < at_most
            && let Some((event, frame)) = SpooledEvent::read(&bytes[length..])
        {
            events.push(event);
            length += frame;
        }
        self.read_to = Some(Position {
            segment: self.position.segment,
            offset: from + length as u64,
        });
        Ok(events)
    }

    /// Gives all events that the broker does not have, oldest first; those that are appended or
    /// confirmed meanwhile change nothing.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn each_waiting(&self, mut take: impl FnMut(SpooledEvent)) -> Result<(), SpoolError> {
        for segment in &self.segments {
            let path = segment_path(&self.config.directory, segment.number);
            if segment.number < self.position.segment || segment.bytes == 0 {
                continue;
            }
            let bytes = fs::read(&path).map_err(at(&path))?;
            let mut from = 0;
            if segment.number == self.position.segment {
                from = usize::try_from(self.position.offset).unwrap_or(usize::MAX);
            }
            while let Some(rest) = bytes.get(from..)
                && let Some(start) = frame::next_sound(rest)
                && let Some((event, length)) = SpooledEvent::read(&rest[start..])
            {
                take(event);
                from += start + length;
            }
        }
        Ok(())
    }

    /// The broker has the batch that [`Self::next_batch`] gave last.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; then the batch may go out again after a restart.
    pub fn confirm(&mut self) -> Result<(), SpoolError> {
        if let Some(position) = self.read_to.take() {
            self.position = position;
            self.skip_finished()?;
            self.position.store(&self.config.directory)?;
        }
        Ok(())
    }

    /// Removes segments that the broker has whole; the one being written stays.
    fn skip_finished(&mut self) -> Result<(), SpoolError> {
        while self.segments.len() > 1 {
            let first = self.segments[0];
            let replayed =
                first.number == self.position.segment && self.position.offset >= first.bytes;
            if first.number >= self.position.segment && !replayed {
                break;
            }
            let path = segment_path(&self.config.directory, first.number);
            fs::remove_file(&path).map_err(at(&path))?;
            self.segments.pop_front();
        }
        let first = self.segments[0];
        if first.number > self.position.segment {
            self.position = Position {
                segment: first.number,
                offset: 0,
            };
        }
        Ok(())
    }

    fn last(&self) -> Segment {
        *self
            .segments
            .back()
            .expect("there is always a segment to write to")
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> SpoolError + use<'_> {
    move |source| SpoolError::Io {
        path: path.to_owned(),
        source,
    }
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.seg"))
}

fn segment_numbers(directory: &Path) -> Result<Vec<u64>, SpoolError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let name = entry.map_err(at(directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn begin_segment(directory: &Path, number: u64) -> Result<File, SpoolError> {
    let path = segment_path(directory, number);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(private::FILE_MODE)
        .open(&path)
        .map_err(at(&path))?;
    if let Err(error) = sync_directory(directory) {
        // Its number is used again; that it stays where this fails shows at the next start.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// A new name is on the disk only when its directory is.
fn sync_directory(directory: &Path) -> Result<(), SpoolError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(at(directory))
}

/// How many of `bytes` no event can be read from, until one can or they end. Where there is more behind
/// them, one may have begun in them.
fn passed_over(path: &Path, bytes: &[u8]) -> usize {
    let to_end = match bytes.len() as u64 == MAX_READ_BYTES {
        true => bytes.len() - frame::MAX_BYTES,
        false => bytes.len(),
    };
    let lost = frame::next_sound(bytes).unwrap_or(to_end);
    if lost > 0 {
        tracing::error!(path = %path.display(), lost, "bytes of the spool are damaged: their events are lost");
    }
    lost
}

/// Cuts a segment behind its last whole frame and says how long it is then.
fn cut_torn_tail(path: &Path) -> Result<u64, SpoolError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let sound = frame::sound_length(&bytes);
    if sound < bytes.len() {
        let lost = bytes.len() - sound;
        tracing::warn!(path = %path.display(), lost, "bytes behind the last whole event cut off");
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at(path))?;
        let cut = file.set_len(sound as u64).and_then(|()| file.sync_all());
        cut.map_err(at(path))?;
    }
    Ok(sound as u64)
}

#[cfg(test)]
mod tests;
