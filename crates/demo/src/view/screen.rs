//! One frame: where everything stands.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{bars, panels};
use crate::board::{Board, Phase};

/// The colour of titles and figures.
pub const ACCENT: Color = Color::Cyan;

/// Draws the board.
pub fn draw(frame: &mut Frame<'_>, board: &Board) {
    let is_low = frame.area().height < 28;
    let rows = [
        Constraint::Length(2),
        Constraint::Length(if is_low { 4 } else { 5 }),
        Constraint::Fill(3),
        Constraint::Fill(2),
    ];
    let [head, figures, middle, news] = Layout::vertical(rows).areas(frame.area());
    header(frame, head, board);
    let [throughput, enforcement] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(figures);
    panels::throughput(frame, throughput, board);
    panels::enforcement(frame, enforcement, board);
    // Bars need the room that the figures beside them leave.
    let spend_share = if frame.area().width < 100 { 16 } else { 10 };
    let [spend, findings] =
        Layout::horizontal([Constraint::Fill(spend_share), Constraint::Fill(10)]).areas(middle);
    bars::spend(frame, spend, board);
    panels::findings(frame, findings, board);
    panels::news(frame, news, board);
}

fn header(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let dim = Style::new().add_modifier(Modifier::DIM);
    let length = board.length.as_secs();
    let what = match board.phase {
        Phase::Starting => "starting processor, loader and sidecar".to_owned(),
        Phase::Playing => format!("an hour of real model traffic in {length} s"),
        Phase::Settling => "the last rows arrive in ClickHouse".to_owned(),
        Phase::Checking | Phase::Over => "comparing ledger, ClickHouse and reference".to_owned(),
    };
    let title = Line::from(vec![
        Span::styled(" spendfuse ", bold.fg(Color::Black).bg(ACCENT)),
        Span::styled(format!("  {what}"), bold),
    ]);
    let time = format!(
        "{} {:>2} s  q stops ",
        clock_bar(board),
        board.elapsed().as_secs()
    );
    let width = u16::try_from(time.chars().count()).unwrap_or(0);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]).areas(area);
    let truth = "real: arrivals, token counts, agent runs · made up: who, what for, which model";
    frame.render_widget(
        Paragraph::new(vec![title, Line::styled(format!(" {truth}"), dim)]),
        Rect {
            width: area.width,
            ..left
        },
    );
    frame.render_widget(
        Paragraph::new(Line::styled(time, dim)),
        Rect { height: 1, ..right },
    );
}

/// How much of the replay has passed.
fn clock_bar(board: &Board) -> String {
    const CELLS: usize = 12;
    let length = board.length.as_secs_f64().max(1.0);
    let share = (board.elapsed().as_secs_f64() / length).min(1.0);
    let full = (share * CELLS as f64).round() as usize;
    format!("{}{}", "━".repeat(full), "╌".repeat(CELLS - full))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use spendfuse_domain::verdict::BlocklistEntry;

    use super::*;

    fn entry(budget: &str, scope: &str, spent: &str, verdict: &str) -> BlocklistEntry {
        let value = serde_json::json!({
            "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": verdict,
            "action": "block", "spent_usd": spent, "limit_usd": "0.60", "percent": 100.0,
            "window": "day:2026-11-22", "window_start": "2026-11-22T00:00:00Z",
            "resets_at": null, "expires_at": null, "counted_from": "2026-11-22T00:00:00Z",
            "downgrade_to": null, "version": 1, "decided_at": "2026-11-22T00:00:00Z",
            "caused_by": null,
        });
        serde_json::from_value(value).unwrap()
    }

    fn drawn(width: u16, height: u16) -> String {
        let mut board = Board {
            phase: Phase::Playing,
            began: Some(Instant::now()),
            length: Duration::from_secs(40),
            produced: 12_345,
            ..Board::default()
        };
        board.rates.extend([700, 800, 650]);
        let initech = entry("initech-day", "acme/customer=initech", "0.61", "block");
        board.scope("initech-day|acme/customer=initech", Some(initech));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &board)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_on_screens_of_usual_sizes() {
        for (width, height) in [(100, 30), (80, 24), (110, 34)] {
            let text = drawn(width, height);
            for part in [
                "12,345", "initech", "$0.61", "Findings", "blocked", "p99", "refused",
            ] {
                assert!(
                    text.contains(part),
                    "{part} is missing at {width}×{height}:\n{text}"
                );
            }
        }
    }

    #[test]
    fn a_tiny_terminal_does_no_harm() {
        for (width, height) in [(1, 1), (20, 5), (40, 10)] {
            drawn(width, height);
        }
    }
}
