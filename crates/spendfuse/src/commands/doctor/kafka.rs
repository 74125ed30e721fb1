//! Brokers, topics and their settings, what is set aside, and the sidecar.

use std::collections::BTreeMap;

use spendfuse_bus::topics::{self, Cluster};
use spendfuse_domain::installation::NEWEST_FORMAT;
use tokio::runtime::Runtime;

use super::super::{dlq, kafka, output};
use super::report::Report;
use crate::settings::Settings;
use crate::sidecar_client::{self, SidecarAway};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Kafka's default; a processor may be down for as long.
const LEAST_OFFSETS_RETENTION_MINUTES: u64 = 7 * 24 * 60;
/// Below this a weekend without a processor or loader loses events.
const LEAST_RETENTION_MILLIS: i64 = 3 * DAY_MILLIS;
/// The stages' transactions.
const LEAST_TRANSACTION_MILLIS: u64 = 5_000;

/// Whether a broker answers.
pub(super) fn look(settings: &Settings, report: &mut Report) -> bool {
    let specs = super::super::topics::specs(settings);
    let cluster = match topics::cluster(&settings.kafka(), &specs, kafka::PATIENCE) {
        Ok(cluster) => cluster,
        Err(error) => {
            let found = kafka::failure(settings, &error).to_string();
            report.wrong(
                "brokers",
                found,
                "nothing else about Kafka can be looked at until one answers",
            );
            return false;
        }
    };
    brokers(&cluster, report);
    copies(&cluster, report);
    match topics::check(&settings.kafka(), &specs, kafka::PATIENCE) {
        Ok(mismatches) if mismatches.is_empty() => {
            report.ok("topics", format!("all {} are as they must be", specs.len()));
        }
        Ok(mismatches) => {
            for mismatch in mismatches {
                let todo = match &*mismatch.setting {
                    "exists" => "spendfuse topics create".to_owned(),
                    "partitions" => {
                        "see \"Growing the number of partitions\" in docs/operations.md".to_owned()
                    }
                    setting => set_on_topic(&mismatch.topic, setting, &mismatch.expected),
                };
                report.wrong("topics", mismatch.to_string(), todo);
            }
        }
        Err(error) => {
            let found = kafka::failure(settings, &error).to_string();
            report.unknown(
                "topics",
                found,
                "let this client describe topics and their settings",
            );
        }
    }
    epoch(settings, report);
    retention(settings, &cluster, report);
    offsets_retention(&cluster.broker_settings, report);
    true
}

/// The epoch of the set of topics, whether they are those that it was recorded for, and the format
/// in which records are stored.
fn epoch(settings: &Settings, report: &mut Report) {
    let known = match super::super::topics::looked(settings) {
        Ok(known) => known,
        Err(error) => {
            let todo = "let this client read the topic of the installation and describe topics";
            report.unknown("epoch", error.to_string(), todo);
            return;
        }
    };
    let installation = &known.installation;
    let found = format!("epoch {}", installation.epoch());
    match known.complaint() {
        Some(complaint) => {
            let todo = "do what it says before a processor or loader is started";
            report.wrong("epoch", complaint.to_string(), todo);
        }
        None if installation.topics.is_none() => report.warning(
            "epoch",
            "nothing is recorded about the topics, so that topics made anew would not be noticed",
            "spendfuse topics create",
        ),
        None => report.ok("epoch", found),
    }
    let format = format!("records are stored in format {}", installation.format);
    match installation.is_finalized() {
        true => report.ok("format", format),
        false => report.warning(
            "format",
            format!("{format}; this release also writes {NEWEST_FORMAT}"),
            "once every process runs this release: spendfuse finalize --yes",
        ),
    }
}

fn brokers(cluster: &Cluster, report: &mut Report) {
    let count = output::counted(cluster.brokers.len() as u64, "broker");
    match cluster.brokers.len() {
        3.. => report.ok("brokers", count),
        _ => report.warning(
            "brokers",
            format!("{count}: while one is down nothing is counted, and its disk is the only copy"),
            "in production run three, kafka.replication_factor = 3, min.insync.replicas = 2",
        ),
    }
}

fn copies(cluster: &Cluster, report: &mut Report) {
    let mut are_well = true;
    for (topic, state) in &cluster.topics {
        if !state.without_leader.is_empty() {
            are_well = false;
            report.wrong(
                "replication",
                format!(
                    "topic {topic}: nobody leads partitions {:?}",
                    state.without_leader
                ),
                "start the brokers that have them",
            );
        }
        if !state.behind.is_empty() {
            are_well = false;
            report.wrong(
                "replication",
                format!(
                    "topic {topic}: copies of partitions {:?} are behind or away",
                    state.behind
                ),
                "look at the broker that is missing: another loss stops the partition",
            );
        }
        let in_sync = state
            .settings
            .get("min.insync.replicas")
            .and_then(|text| text.parse::<usize>().ok());
        if cluster.brokers.len() >= 3 && (state.replicas < 3 || in_sync.unwrap_or(1) < 2) {
            are_well = false;
            report.warning(
                "replication",
                format!("topic {topic}: {} copies, min.insync.replicas {}", state.replicas, in_sync.unwrap_or(1)),
                "with three copies and two in sync, the loss of a broker loses no acknowledged event",
            );
        }
    }
    if are_well {
        report.ok(
            "replication",
            "every partition has its leader and its copies",
        );
    }
}

/// How long the inputs of stages and loader are kept: a role may be down for as long.
fn retention(settings: &Settings, cluster: &Cluster, report: &mut Report) {
    let names = settings.topics();
    let horizon = settings.dedupe_horizon_millis();
    let least = LEAST_RETENTION_MILLIS.max(horizon);
    let mut shortest: Option<(i64, &str)> = None;
    for topic in [
        &names.usage,
        &names.rerouted,
        &names.corrections,
        &names.deltas,
        &names.rows,
        &names.rows_ledger,
    ] {
        let Some(kept) = retention_millis(cluster, topic) else {
            continue;
        };
        if kept < horizon {
            report.wrong(
                "retention",
                format!(
                    "topic {topic} keeps records for {}, less than the dedupe horizon",
                    output::span(kept)
                ),
                set_on_topic(topic, "retention.ms", &(7 * DAY_MILLIS).to_string()),
            );
        }
        if shortest.is_none_or(|(other, _)| kept < other) {
            shortest = Some((kept, topic));
        }
    }
    match shortest {
        Some((kept, topic)) if (horizon..least).contains(&kept) => report.warning(
            "retention",
            format!(
                "topic {topic} keeps records for {}: whoever is down for longer loses them",
                output::span(kept)
            ),
            "raise retention.ms to a week",
        ),
        Some((kept, _)) if kept >= least => {
            report.ok(
                "retention",
                format!("inputs are kept for {} and longer", output::span(kept)),
            );
        }
        _ => {}
    }
}

/// The command that gives a topic a setting. A list stands in brackets: else its second item would be
/// taken for another setting.
fn set_on_topic(topic: &str, setting: &str, value: &str) -> String {
    let value = match value.contains(',') {
        true => format!("[{value}]"),
        false => value.to_owned(),
    };
    format!(
        "kafka-configs.sh --bootstrap-server BROKERS --alter --entity-type topics --entity-name {topic} --add-config {setting}={value}"
    )
}

/// `None` where a topic is not there, or keeps its records for ever.
pub(super) fn retention_millis(cluster: &Cluster, topic: &str) -> Option<i64> {
    let kept = cluster.topics.get(topic)?.settings.get("retention.ms")?;
    kept.parse().ok().filter(|millis| *millis >= 0)
}

fn offsets_retention(broker: &BTreeMap<String, String>, report: &mut Report) {
    let number = |name: &str| broker.get(name).and_then(|text| text.parse::<u64>().ok());
    match number("offsets.retention.minutes") {
        Some(minutes) if minutes < LEAST_OFFSETS_RETENTION_MINUTES => report.warning(
            "offsets",
            format!("the brokers forget the offsets of a group that is away for {minutes} minutes; roles that were away longer go on by what they have written, after a wait"),
            "set offsets.retention.minutes of the brokers to 10080 or more",
        ),
        Some(minutes) => report.ok("offsets", format!("kept for {} days after a group has ended", minutes / (24 * 60))),
        None => report.unknown(
            "offsets",
            "the brokers do not tell offsets.retention.minutes",
            "let this client describe the cluster's settings, or look yourself: 10080 or more",
        ),
    }
    if let Some(millis) =
        number("transaction.max.timeout.ms").filter(|millis| *millis < LEAST_TRANSACTION_MILLIS)
    {
        report.wrong(
            "transactions",
            format!("the brokers allow transactions of {millis} ms, and the stages need {LEAST_TRANSACTION_MILLIS}"),
            "raise transaction.max.timeout.ms of the brokers",
        );
    }
}

/// What waits in the DLQ since yesterday, as `dlq list` counts it.
pub(super) fn rejected(settings: &Settings, report: &mut Report) {
    let since = output::now().plus(-DAY_MILLIS);
    let counted = kafka::ranges_since(settings, &settings.topics().dlq, since).and_then(|ranges| {
        let waiting = dlq::waiting_in(settings, &ranges, kafka::PATIENCE)?;
        // Ends of transactions and notes among them.
        let offsets = ranges
            .iter()
            .map(|range| range.to - range.from)
            .sum::<i64>();
        Ok((waiting, offsets))
    });
    let found = match counted {
        Ok((Some(0), _)) => {
            report.ok("rejected", "no event of the last 24 h waits in the DLQ");
            return;
        }
        Ok((Some(waiting), _)) => output::counted(waiting, "event"),
        Ok((None, offsets)) => format!(
            "more events than can be counted within {} s, at most {offsets},",
            kafka::PATIENCE.as_secs()
        ),
        Err(error) => {
            report.unknown("rejected", error.to_string(), "spendfuse topics check");
            return;
        }
    };
    report.warning(
        "rejected",
        format!("{found} of the last 24 h in the DLQ: spend that no budget sees"),
        "spendfuse dlq list",
    );
}

/// The sidecar at `sidecar.url`, where one answers.
pub(super) fn sidecar(settings: &Settings, own: &str, report: &mut Report) {
    let Ok(runtime) = Runtime::new() else { return };
    match sidecar_client::get(settings, &runtime, "/openapi.json") {
        Ok(answer) => match answer["info"]["version"].as_str() {
            Some(version) if version == own => report.ok(
                "sidecar",
                format!("of this version, at {}", sidecar_client::address(settings)),
            ),
            version => report.warning(
                "sidecar",
                format!(
                    "the one at {} is of version {}",
                    sidecar_client::address(settings),
                    version.unwrap_or("unknown")
                ),
                "run one version of all roles, but for the time of a rolling update",
            ),
        },
        Err(SidecarAway::Silent { url }) => report.unknown(
            "sidecar",
            format!("none answers at {url}"),
            "where one runs elsewhere, name it with sidecar.url",
        ),
        Err(error) => report.warning("sidecar", error.to_string(), "see its log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_mends_a_topic_is_one_that_kafka_takes() {
        let said = set_on_topic("spendfuse.inflight", "cleanup.policy", "compact,delete");
        assert!(
            said.ends_with("--add-config cleanup.policy=[compact,delete]"),
            "{said}"
        );
        let said = set_on_topic("spendfuse.usage", "retention.ms", "604800000");
        assert!(
            said.ends_with("--add-config retention.ms=604800000"),
            "{said}"
        );
    }
}
