//! Progress in lines, where there is no terminal to draw on.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use spendfuse_bus::Shutdown;
use spendfuse_domain::amount::grouped;

use crate::board::{Board, Phase, SharedBoard, open};

const EVERY: Duration = Duration::from_secs(4);

/// Writes a line to standard error every few seconds, until dropped.
pub struct ProgressLines {
    over: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl ProgressLines {
    /// Starts writing.
    pub fn start(board: &SharedBoard) -> Self {
        let over = Shutdown::new();
        let (board, until) = (Arc::clone(board), over.clone());
        let thread = thread::spawn(move || {
            while !until.wait(EVERY) {
                let line = line(&open(&board));
                // Nobody is left to tell where this fails.
                let _ = writeln!(io::stderr(), "{line}");
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for ProgressLines {
    fn drop(&mut self) {
        self.over.request();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the demo itself goes on.
            let _ = thread.join();
        }
    }
}

fn line(board: &Board) -> String {
    let seconds = board.elapsed().as_secs();
    match board.phase {
        Phase::Starting => "starting the roles".to_owned(),
        Phase::Playing | Phase::Settling => format!(
            "{seconds:3} s  {} of {} events, {} rows, {} findings, {} scopes blocked, {} calls refused, lag p99 {} ms",
            grouped(board.produced),
            grouped(board.planned),
            grouped(board.warehouse.0),
            board.findings.len(),
            board.blocked.len(),
            grouped(board.refused),
            board.lag_millis.percentile(99)
        ),
        Phase::Checking | Phase::Over => "comparing ledger, ClickHouse and reference".to_owned(),
    }
}
