//! The live view on a terminal.
//!
//! [`draw`] owns terminal and keyboard while the demo is played; what a frame shows is a pure
//! function of the board ([`screen`]).

mod bars;
mod panels;
mod screen;

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use spendfuse_bus::Shutdown;

use crate::board::{SharedBoard, open};
use crate::error::DemoError;

/// Ten frames a second.
const FRAME: Duration = Duration::from_millis(100);

/// Draws until `over`; q, Esc and Ctrl-C request `shutdown`. The terminal is restored in any case.
///
/// # Errors
/// [`DemoError::Terminal`]; then `shutdown` is requested as well.
pub fn draw(board: &SharedBoard, over: &Shutdown, shutdown: &Shutdown) -> Result<(), DemoError> {
    let drawn = ratatui::try_init().and_then(|mut terminal| {
        let drawn = frames(&mut terminal, board, over, shutdown);
        let restored = ratatui::try_restore();
        drawn.and(restored)
    });
    if drawn.is_err() {
        shutdown.request();
    }
    Ok(drawn?)
}

fn frames(
    terminal: &mut DefaultTerminal,
    board: &SharedBoard,
    over: &Shutdown,
    shutdown: &Shutdown,
) -> io::Result<()> {
    while !over.is_requested() {
        let shown = open(board).clone();
        terminal.draw(|frame| screen::draw(frame, &shown))?;
        if event::poll(FRAME)? && asks_to_stop(&event::read()?) {
            shutdown.request();
        }
    }
    Ok(())
}

/// In raw mode Ctrl-C is a key, not a signal.
fn asks_to_stop(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c') => is_control,
            KeyCode::Char('q') | KeyCode::Esc => true,
            _ => false,
        }
}

/// Columns of the terminal, if standard output is one.
pub fn width() -> Option<u16> {
    let (columns, _) = terminal::size()
        .ok()
        .filter(|_| io::stdout().is_terminal())?;
    Some(columns)
}
