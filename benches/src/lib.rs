//! What the benchmarks share: the traffic that they measure with.
//!
//! `cargo bench -p spendfuse-benches` measures the parts, the binary `drain` the whole pipeline;
//! `make bench` runs both. Figures of different runs or machines say nothing about each other: each
//! benchmark prints what it compares side by side.

pub mod traffic;
