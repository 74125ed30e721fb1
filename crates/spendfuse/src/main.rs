//! The `spendfuse` command.

use std::process::ExitCode;

// The processor makes and drops many small strings on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spendfuse::main(None)
}
