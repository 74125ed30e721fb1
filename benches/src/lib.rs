//! What the benchmarks share: traffic, servers with the real binary on them, and clocks.
//!
//! `cargo bench -p spendfuse-benches` measures the parts; the binary `ratios` (`make bench`)
//! measures the whole next to what it is compared with, and prints a table; the binary `drain`
//! is the whole pipeline alone, for work on its speed. Figures of different runs or machines say
//! nothing about each other: whatever is compared is measured in one sitting.

// Benchmarks pace themselves: their pauses are the point.
#![allow(clippy::disallowed_methods)]

pub mod figures;
pub mod http;
pub mod lab;
pub mod load;
pub mod probe;
pub mod process;
pub mod random;
pub mod traffic;
pub mod windows;
pub mod workload;
