//! The spendfuse command.

fn main() {}
