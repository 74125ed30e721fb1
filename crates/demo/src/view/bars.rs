//! Spend by scope against its limit.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Amount, Verdict};

use super::panels::panel;
use crate::board::{Board, short_scope};

/// Budgets in the order in which they are shown, and how many of their scopes.
const SHOWN: [(&str, usize); 6] = [
    ("workspace-month", 1),
    ("feature-day", 4),
    ("customer-day", 3),
    ("initech-day", 1),
    ("hooli-day", 1),
    ("free-plan", 3),
];
const LABEL: usize = 16;
const FIGURES: usize = 20;

/// Draws bars as far as they fit.
pub fn spend(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let block = panel("Spend against limits");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let width = usize::from(inner.width);
    let lines: Vec<Line<'_>> = fitting(board, usize::from(inner.height))
        .into_iter()
        .map(|entry| bar(entry, width))
        .collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

/// The scopes to show: of each budget the fullest; where there is little room, fewer of each.
fn fitting(board: &Board, rows: usize) -> Vec<&BlocklistEntry> {
    let mut most = 4;
    loop {
        let mut entries = Vec::new();
        for (budget, count) in SHOWN {
            let of_budget = board.scopes.values().filter(|entry| entry.budget == budget);
            let mut of_budget: Vec<&BlocklistEntry> = of_budget.collect();
            of_budget.sort_by_cached_key(|entry| Reverse(permille(entry)));
            entries.extend(of_budget.into_iter().take(count.min(most)));
        }
        if entries.len() <= rows || most == 1 {
            entries.truncate(rows);
            return entries;
        }
        most -= 1;
    }
}

fn permille(entry: &BlocklistEntry) -> i128 {
    let number = |amount: Option<Amount>| amount.map_or(0, Amount::number);
    let (spent, limit) = (number(entry.figures.spent), number(entry.figures.limit));
    spent * 1000 / limit.max(1)
}

fn bar(entry: &BlocklistEntry, width: usize) -> Line<'static> {
    let colour = match entry.verdict {
        Verdict::Ok => Color::Green,
        Verdict::Warn | Verdict::Downgrade => Color::Yellow,
        Verdict::Block => Color::Red,
    };
    let cells = width.saturating_sub(LABEL + FIGURES + 3).max(1);
    let permille = permille(entry).clamp(0, 1000);
    let eighths = usize::try_from(permille).unwrap_or(0) * cells * 8 / 1000;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let full = format!("{}{partial}", "█".repeat(eighths / 8));
    let empty = cells.saturating_sub(full.chars().count());
    let scope = short_scope(&entry.scope);
    let label: String = scope.chars().take(LABEL).collect();
    let figures = format!(
        "{} of {}",
        shown(entry.figures.spent),
        shown(entry.figures.limit)
    );
    let strong = if entry.verdict == Verdict::Block {
        Style::new().fg(colour).add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    Line::from(vec![
        Span::styled(format!(" {label:LABEL$} "), strong),
        Span::styled(full, Style::new().fg(colour)),
        Span::styled("·".repeat(empty), Style::new().fg(Color::DarkGray)),
        Span::styled(format!(" {figures:>FIGURES$}"), strong),
    ])
}

/// Cents, or as many digits as a small amount needs.
fn shown(amount: Option<Amount>) -> String {
    let nanos = match amount {
        Some(Amount::Usd(nanos)) => nanos.get(),
        Some(counted) => return format!("{:#}", counted.figure()),
        None => return "-".to_owned(),
    };
    if nanos < 50_000_000 {
        return format!(
            "${}.{:04}",
            nanos / 1_000_000_000,
            nanos % 1_000_000_000 / 100_000
        );
    }
    format!(
        "${}.{:02}",
        nanos / 1_000_000_000,
        nanos % 1_000_000_000 / 10_000_000
    )
}
