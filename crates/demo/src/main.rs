//! The `spendfuse` command with the demo in it, which `spendfuse demo` becomes.

mod command;

use std::process::ExitCode;

// As in `spendfuse`: the roles run in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spendfuse::main(Some(command::run))
}
