//! What everything that reads foreign bytes must withstand, and a bounded run that tries it.
//!
//! A [`Target`] is a function of bytes that panics where a promise is broken: a decoder that
//! panics, a record that does not come back as it was written, an answer 500. [`explore`] runs it
//! on a saved corpus and on mutations of it, always the same ones for the same seed, and watches
//! how much memory each run takes.
//!
//! `cargo test --release -p spendfuse-fuzz` is the bounded run. `SPENDFUSE_FUZZ_RUNS` and
//! `SPENDFUSE_FUZZ_SEED` make it longer and different:
//! `SPENDFUSE_FUZZ_RUNS=10000000 SPENDFUSE_FUZZ_SEED=7 cargo test --release -p spendfuse-fuzz event`.
//! What breaks a promise is written to a file, whose name is printed; once mended, the file belongs
//! into `corpus/<target>/`, so that it is tried for ever.

mod mutate;
mod run;
pub mod samples;
pub mod targets;

pub use run::{Broken, Target, explore, seeds};
