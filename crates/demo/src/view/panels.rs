//! Throughput, enforcement, findings, news.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph, Sparkline};
use spendfuse_domain::amount::grouped;
use spendfuse_domain::finding::Finding;
use spendfuse_domain::{Severity, printable};

use super::screen::ACCENT;
use crate::board::{Board, Tone, short_scope};

/// A frame with a title.
pub fn panel(title: &'static str) -> Block<'static> {
    let title = Span::styled(
        format!(" {title} "),
        Style::new().fg(ACCENT).add_modifier(Modifier::BOLD),
    );
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(Color::DarkGray))
        .title(title)
}

fn figure(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn word(text: &'static str) -> Span<'static> {
    Span::styled(text, Style::new().fg(Color::Gray))
}

/// Events and rows, with a line of the rate.
pub fn throughput(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let block = panel("Throughput");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [line, spark] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
    let rate = board.rates.back().copied().unwrap_or(0);
    let figures = Line::from(vec![
        figure(format!(" {}", grouped(board.produced))),
        word(" events  "),
        figure(grouped(rate)),
        word("/s  "),
        figure(grouped(board.warehouse.0)),
        word(" rows"),
    ]);
    frame.render_widget(Paragraph::new(figures), line);
    let cells = usize::from(spark.width.saturating_sub(2));
    let skipped = board.rates.len().saturating_sub(cells);
    let rates: Vec<u64> = board.rates.iter().skip(skipped).copied().collect();
    let sparkline = Sparkline::default()
        .data(rates)
        .style(Style::new().fg(ACCENT));
    let indented = Rect {
        x: spark.x.saturating_add(1).min(spark.right()),
        width: spark.width.saturating_sub(2),
        ..spark
    };
    frame.render_widget(sparkline, indented);
}

/// Lag, blocks, refusals.
pub fn enforcement(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let lag = &board.lag_millis;
    let checks = &board.check_micros;
    let is_narrow = area.width < 48;
    let (lag_title, check_title) = if is_narrow {
        (" lag    p50 ", " check  p50 ")
    } else {
        (" event to verdict  p50 ", " a check takes     p50 ")
    };
    let lines = vec![
        Line::from(vec![
            word(lag_title),
            figure(format!("{} ms", lag.percentile(50))),
            word("  p99 "),
            figure(format!("{} ms", lag.percentile(99))),
        ]),
        Line::from(vec![
            Span::styled(
                format!(" {}", board.blocked.len()),
                Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            ),
            word(" scopes blocked  "),
            Span::styled(
                grouped(board.refused),
                Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            ),
            word(" of "),
            figure(grouped(board.asked)),
            word(" refused"),
        ]),
        Line::from(vec![
            word(check_title),
            figure(format!("{} µs", checks.percentile(50))),
            word("  p99 "),
            figure(format!("{} µs", checks.percentile(99))),
        ]),
    ];
    let block = panel("Enforcement");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Findings, the latest first; those about budgets stand in the news.
pub fn findings(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let block = panel("Findings");
    let inner = block.inner(area);
    let mut findings: Vec<&Finding> = board
        .findings
        .values()
        .filter(|finding| finding.scope.contains("session="))
        .collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.opened_at));
    let width = usize::from(inner.width);
    let lines: Vec<Line<'_>> = findings
        .into_iter()
        .take(usize::from(inner.height))
        .map(|finding| finding_line(finding, width))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn finding_line(finding: &Finding, width: usize) -> Line<'static> {
    let colour = match finding.severity {
        Severity::Info => Color::Blue,
        Severity::Warning => Color::Yellow,
        Severity::Critical => Color::Red,
    };
    let detector = finding.detector.name().replace('_', " ");
    let room = width.saturating_sub(22);
    let scope = short_scope(&finding.scope);
    let session: String = scope.chars().take(room).collect();
    Line::from(vec![
        Span::styled(" ● ", Style::new().fg(colour)),
        Span::raw(format!("{detector:18} ")),
        word_of(session),
    ])
}

fn word_of(text: String) -> Span<'static> {
    Span::styled(text, Style::new().fg(Color::Gray))
}

/// What happened, the latest first.
pub fn news(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let block = panel("What happens");
    let inner = block.inner(area);
    let lines: Vec<Line<'_>> = board
        .news
        .iter()
        .rev()
        .take(usize::from(inner.height))
        .map(|news| {
            let colour = match news.tone {
                Tone::Good => Color::Green,
                Tone::Warning => Color::Yellow,
                Tone::Bad => Color::Red,
            };
            let seconds = news.at.as_secs_f64();
            Line::from(vec![
                Span::styled(
                    format!(" {seconds:5.1} s  "),
                    Style::new().fg(Color::DarkGray),
                ),
                Span::styled(printable(&news.text), Style::new().fg(colour)),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
