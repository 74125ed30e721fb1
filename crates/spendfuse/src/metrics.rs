//! The process's metrics: the recorder that every crate tells, and the process's own.

mod process;

use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use spendfuse_bus::Shutdown;
use spendfuse_metrics::{Kind, Metric};
use spendfuse_sidecar::background::{Share, let_others_go_first};

use crate::commands::{self, Failure};

spendfuse_metrics::table! {
    /// Always 1; its label `version` says what runs.
    gauge BUILD_INFO = "spendfuse_build_info";
    /// Times that `up` started a role again because it had failed, by `role`.
    counter ROLE_RESTARTS = "spendfuse_role_restarts_total";
    /// Seconds since the price book in force was published; the loader tells it.
    gauge PRICE_BOOK_AGE = "spendfuse_price_book_age_seconds";
    /// Prices and lost models that the last look at the sources left for somebody to accept; the
    /// loader tells it.
    gauge PRICES_WAITING = "spendfuse_prices_waiting";
    /// Calls that several instruments had reported and that count once again; the loader tells it.
    counter COUNTED_TWICE_SETTLED = "spendfuse_counted_twice_settled_total";
    /// Seconds from the arrival of such a call's last event until it counted once again, of the last
    /// one; the loader tells it.
    gauge VOID_LAG = "spendfuse_void_lag_seconds";
}

/// How often observations are sorted into their buckets. Until then each takes memory, and where
/// nobody asks for metrics nothing else would sort them (metrics-exporter-prometheus 0.18).
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Every metric of every crate.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    [
        ALL,
        process::ALL,
        spendfuse_bus::metrics::ALL,
        spendfuse_processor::metrics::ALL,
        spendfuse_loader::metrics::ALL,
        spendfuse_guard::metrics::ALL,
        spendfuse_sidecar::metrics::ALL,
        spendfuse_notify::metrics::ALL,
        spendfuse_proxy::metrics::ALL,
        commands::audit::METRICS,
    ]
    .into_iter()
    .flatten()
}

/// The metrics in Prometheus' text format.
#[derive(Clone)]
pub struct MetricsHandle {
    recorded: PrometheusHandle,
}

impl MetricsHandle {
    /// All of them, as they are now.
    pub fn render(&self) -> String {
        let mut text = self.recorded.render();
        process::render(&mut text);
        text
    }
}

/// Installs the recorder of all metrics, and keeps it tidy for as long as the process lives.
pub fn install() -> Result<MetricsHandle, Failure> {
    let mut builder = PrometheusBuilder::new();
    for metric in all() {
        if let Kind::Histogram(buckets) = metric.kind {
            let matcher = Matcher::Full(metric.name.to_owned());
            builder = builder
                .set_buckets_for_metric(matcher, buckets)
                .map_err(Failure::work)?;
        }
    }
    let recorded = builder.install_recorder().map_err(Failure::work)?;
    for metric in all() {
        let help = help(metric);
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, help),
            Kind::Histogram(_) => metrics::describe_histogram!(metric.name, help),
        }
    }
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let tidied = recorded.clone();
    let never = Shutdown::new();
    let tidy = move || {
        let_others_go_first(Share::Tenth);
        while !never.wait(TIDY_EVERY) {
            tidied.run_upkeep();
        }
    };
    let spawned = thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(tidy);
    spawned.map_err(Failure::work)?;
    Ok(MetricsHandle { recorded })
}

/// The doc comment in one line, without its Markdown.
fn help(metric: &Metric) -> String {
    let words: Vec<_> = metric.help.split_whitespace().collect();
    words.join(" ").replace('`', "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCS: [&str; 2] = [
        include_str!("../../../docs/operations.md"),
        include_str!("../../../README.md"),
    ];

    /// Words that look like metrics.
    fn named(page: &str) -> BTreeSet<&str> {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words = page.split(|letter| !is_part(letter));
        let is_metric =
            |word: &&str| word.starts_with("spendfuse_") || word.starts_with("process_");
        words.filter(is_metric).collect()
    }

    #[test]
    fn every_metric_is_in_the_documentation_and_every_documented_one_exists() {
        let known: BTreeSet<&str> = all().map(|metric| metric.name).collect();
        let documented = named(DOCS[0]);
        let missing: Vec<_> = known.difference(&documented).collect();
        assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
        for page in DOCS {
            let invented: Vec<_> = named(page).difference(&known).copied().collect();
            assert!(
                invented.is_empty(),
                "in the documentation only: {invented:?}"
            );
        }
    }

    #[test]
    fn names_follow_their_kind_and_base_units() {
        for metric in all() {
            let name = metric.name;
            assert_eq!(
                metric.kind == Kind::Counter,
                name.ends_with("_total"),
                "{name}: counters end with _total, and nothing else does"
            );
            for unit in [
                "_ms",
                "_millis",
                "_milliseconds",
                "_micros",
                "_kb",
                "_mb",
                "_minutes",
            ] {
                assert!(!name.contains(unit), "{name}: write seconds or bytes");
            }
            assert!(help(metric).len() > 10, "{name} has no help");
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(
                    name.ends_with("_seconds") || name.ends_with("_bytes"),
                    "{name}"
                );
                assert!(buckets.is_sorted(), "{name}");
            }
        }
    }
}
