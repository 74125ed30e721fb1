//! Many measured times as a few figures.

use std::time::Duration;

/// Measured times, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut sorted: Vec<Duration> = times.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }
}

impl Times {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of all stay below or at; zero where none was measured.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let place = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        let place = place.saturating_sub(1).min(last);
        self.0.get(place).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// `p50 1.2 / p99 3.4`, milliseconds.
    pub fn in_millis(&self) -> String {
        let millis = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        format!("p50 {:.1} / p99 {:.1} ms", millis(50.0), millis(99.0))
    }

    /// `p50 1.2 / p99 3.4`, microseconds.
    pub fn in_micros(&self) -> String {
        let micros = |percent| self.percentile(percent).as_secs_f64() * 1e6;
        format!("p50 {:.1} / p99 {:.1} µs", micros(50.0), micros(99.0))
    }

    /// `p50 120 / p99 340`, nanoseconds.
    pub fn in_nanos(&self) -> String {
        let nanos = |percent| self.percentile(percent).as_nanos();
        format!("p50 {} / p99 {} ns", nanos(50.0), nanos(99.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_measured_time() {
        let times: Times = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(times.percentile(50.0), Duration::from_millis(100));
        assert_eq!(times.percentile(99.0), Duration::from_millis(198));
        assert_eq!(times.longest(), Duration::from_millis(200));
        assert_eq!(Times::default().percentile(99.0), Duration::ZERO);
    }
}
