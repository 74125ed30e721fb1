//! How long those waited who were admitted or refused by the log.

use crate::table::Line;

/// Cumulated observations: upper bounds in seconds, and how many up to each.
#[derive(Clone, Debug, Default)]
pub struct Waits(Vec<(f64, u64)>);

impl Waits {
    /// What a sidecar's metrics say.
    pub fn read(metrics: &str) -> Self {
        Self(metrics.lines().filter_map(bucket).collect())
    }

    fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// Adds what came since `before`; a process that was started again has begun anew.
    pub fn add(&mut self, after: &Self, before: &Self) {
        let is_new = after.count() < before.count();
        let before = before.0.iter().map(|(_, count)| *count);
        let before = before.chain(std::iter::repeat(0));
        self.0.resize(self.0.len().max(after.0.len()), (0.0, 0));
        for ((sum, (bound, count)), before) in self.0.iter_mut().zip(&after.0).zip(before) {
            sum.0 = *bound;
            sum.1 += count - if is_new { 0 } else { before };
        }
    }

    /// As a line; `target` is what is wanted, and seconds.
    pub fn line(&self, row: &'static str, what: &str, target: Option<(&'static str, f64)>) -> Line {
        let all = self.count();
        let p99 = self.0.iter().find(|(_, count)| *count * 100 >= all * 99);
        let p99 = p99.map_or(f64::INFINITY, |(bound, _)| *bound);
        let within = |bound: f64| {
            let known = self.0.iter().find(|(up_to, _)| *up_to >= bound);
            known.map_or(0, |(_, count)| *count)
        };
        let percent = |bound| within(bound) as f64 * 100.0 / all.max(1) as f64;
        let figures = format!(
            "{all} waits, p99 at most {:.0} ms; {:.1} % within 10 ms, {:.1} % within 30 ms",
            p99 * 1e3,
            percent(0.01),
            percent(0.03)
        );
        let line = Line::new(row, what.to_owned(), figures).note(
            "all of this sitting, callers, broker and processor on the same cores; the bound of a bucket",
        );
        match target {
            Some((words, bound)) => line.target(words, within(bound) * 100 >= all * 99),
            None => line,
        }
    }
}

/// Upper bound and count of a line of the histogram.
fn bucket(line: &str) -> Option<(f64, u64)> {
    let rest = line.strip_prefix("spendfuse_inflight_wait_seconds_bucket{le=\"")?;
    let (bound, count) = rest.split_once("\"}")?;
    let bound = match bound {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    Some((bound, count.trim().parse().ok()?))
}
