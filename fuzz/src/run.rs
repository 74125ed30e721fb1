//! Runs a target on its corpus and on mutations of it.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::mutate::{Choices, mutate};

/// Something that reads foreign bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Further folders with inputs, from the repository's root.
    pub examples: &'static [&'static str],
    /// Words of its language.
    pub words: &'static [&'static str],
    /// The most memory that a run may hold at a time, in bytes.
    pub most_bytes: u64,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// An input for which a promise does not hold.
#[derive(Debug)]
pub struct Broken {
    target: &'static str,
    what: String,
    input: Vec<u8>,
}

impl Broken {
    /// The input, as short as it was found.
    pub fn input(&self) -> &[u8] {
        &self.input
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            what,
            input,
        } = self;
        let shown = String::from_utf8_lossy(&input[..input.len().min(2_000)]);
        write!(formatter, "target {target}: {what}\ninput: {shown:?}")
    }
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The saved inputs of a target, in the order of their names.
///
/// # Panics
/// Where the target has none: the run would try nothing.
pub fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let own = format!("fuzz/corpus/{}", target.name);
    let folders = target.examples.iter().copied().chain([own.as_str()]);
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(root().join(folder)) else {
            continue;
        };
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let read = files.iter().filter(|path| path.is_file()).map(fs::read);
    let seeds: Vec<_> = read.flatten().collect();
    assert!(!seeds.is_empty(), "target {} has no corpus", target.name);
    seeds
}

/// Runs `target` on every seed, and then on `runs` mutations of them that follow from `seed`.
///
/// # Errors
/// The first input for which a promise does not hold.
pub fn explore(
    target: &Target,
    seeds: &[Vec<u8>],
    runs: usize,
    seed: u64,
) -> Result<(), Box<Broken>> {
    // What is made once for all inputs is no input's memory. Where it panics, it does so again below.
    if let Some(input) = seeds.first() {
        let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    }
    for input in seeds {
        attempt(target, input)?;
    }
    let mut choices = Choices::new(seed);
    for _ in 0..runs {
        let mut input = choices.of(seeds).clone();
        mutate(&mut input, seeds, target.words, &mut choices);
        attempt(target, &input)?;
    }
    Ok(())
}

fn attempt(target: &Target, input: &[u8]) -> Result<(), Box<Broken>> {
    let broken = |what| {
        Box::new(Broken {
            target: target.name,
            what,
            input: input.to_vec(),
        })
    };
    let mut outcome = Ok(());
    let memory = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        return Err(broken(text.unwrap_or("it panicked").to_owned()));
    }
    if memory.bytes_max > target.most_bytes {
        let (held, most) = (memory.bytes_max, target.most_bytes);
        return Err(broken(format!("it held {held} bytes, {most} are enough")));
    }
    Ok(())
}
