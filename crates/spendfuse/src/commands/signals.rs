//! Ctrl-C and SIGTERM to a command that writes in transactions.
//!
//! Everything behind a transaction that nobody ends waits until it times out, for half a minute. So a
//! command that is asked to stop ends between two of them; asked again it ends at once.

use std::io;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// What a shell says of a process that the signal has killed.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// Held while a transaction is open.
static OPEN: Mutex<()> = Mutex::new(());

/// From now on signals end this process between its transactions. Not for roles, which have an order of
/// their own to stop in.
pub fn end_between_transactions() -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::work)?;
    let (mut terminate, mut interrupt) = runtime.block_on(listeners()).map_err(Failure::work)?;
    let listen = move || {
        runtime.block_on(async {
            let code = next(&mut terminate, &mut interrupt).await;
            thread::spawn(move || end(code));
            process::exit(next(&mut terminate, &mut interrupt).await);
        });
    };
    let listener = thread::Builder::new().name("signals".to_owned());
    listener.spawn(listen).map(drop).map_err(Failure::work)
}

/// A transaction is open until this is dropped.
pub fn in_transaction() -> MutexGuard<'static, ()> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listeners() -> io::Result<(Signal, Signal)> {
    let terminate = signal(SignalKind::terminate())?;
    Ok((terminate, signal(SignalKind::interrupt())?))
}

/// Ends the process once no transaction is open.
fn end(code: i32) {
    let _none_is_open = in_transaction();
    process::exit(code);
}

/// Exit code after the next signal.
async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => TERMINATED,
        _ = interrupt.recv() => INTERRUPTED,
    }
}
