//! The text of `server.properties`: a small broker with production's semantics.

use std::collections::BTreeMap;
use std::path::Path;

/// What a process does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Both,
    Broker,
    Controller,
}

/// A controller apart is numbered after its broker.
const CONTROLLER_ID: u16 = 100;

/// One node's number (from 1) and its two ports on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodeAddress {
    pub(super) id: u16,
    pub(super) role: Role,
    pub(super) broker: u16,
    pub(super) controller: u16,
    pub(super) detour: Option<Detour>,
}

impl NodeAddress {
    /// The number of the controller that goes with it.
    fn voter_id(&self) -> u16 {
        match self.role {
            Role::Both => self.id,
            Role::Broker | Role::Controller => CONTROLLER_ID + self.id,
        }
    }
}

/// A second listener, whose clients are told another port than the one it listens on: a proxy's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detour {
    pub(super) port: u16,
    pub(super) advertised: u16,
}

/// Everything to standard output, which goes to the node's log file.
pub(super) const LOGGING: &str = "\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %m (%c{1})%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
";

/// Our rows block may have 8 MiB; the broker leaves room for headers and batching.
const MAX_MESSAGE_BYTES: u32 = 16 * 1024 * 1024;

pub(super) fn server_properties(
    node: &NodeAddress,
    all: &[NodeAddress],
    data: &Path,
    more_listeners: &[(&str, u16)],
    overrides: &[(String, String)],
) -> String {
    let voters: Vec<String> = all
        .iter()
        .map(|node| format!("{}@127.0.0.1:{}", node.voter_id(), node.controller))
        .collect();
    let replicas = all.len().to_string();
    let in_sync = if all.len() == 1 { "1" } else { "2" };
    let max_message = MAX_MESSAGE_BYTES.to_string();

    let broker = format!("PLAINTEXT://127.0.0.1:{}", node.broker);
    let controller = format!("CONTROLLER://127.0.0.1:{}", node.controller);
    let (roles, id, listeners) = match node.role {
        Role::Both => (
            "broker,controller",
            node.id,
            format!("{broker},{controller}"),
        ),
        Role::Broker => ("broker", node.id, broker),
        Role::Controller => ("controller", node.voter_id(), controller),
    };

    let mut lines: BTreeMap<&str, String> = BTreeMap::from([
        ("process.roles", roles.to_owned()),
        ("node.id", id.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listeners", listeners),
        ("log.dirs", data.display().to_string()),
        // A topic that nobody created is a mistake that must show.
        ("auto.create.topics.enable", "false".to_owned()),
        ("default.replication.factor", replicas.clone()),
        ("min.insync.replicas", in_sync.to_owned()),
        ("offsets.topic.replication.factor", replicas.clone()),
        ("offsets.topic.num.partitions", "4".to_owned()),
        ("transaction.state.log.replication.factor", replicas),
        ("transaction.state.log.min.isr", in_sync.to_owned()),
        ("transaction.state.log.num.partitions", "4".to_owned()),
        // A transaction whose client is gone holds readers back: look for it every second
        // instead of every ten.
        (
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "1000".to_owned(),
        ),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("message.max.bytes", max_message.clone()),
        ("replica.fetch.max.bytes", max_message),
        ("log.cleaner.enable", "true".to_owned()),
        ("log.cleaner.threads", "1".to_owned()),
        // The default of 128 MiB is taken from the heap.
        ("log.cleaner.dedupe.buffer.size", "16777216".to_owned()),
        // A killed broker is refused as its own duplicate until its old session has ended: with
        // the default of 9 s a restart takes 12 s, with this one 4 s.
        ("broker.session.timeout.ms", "2000".to_owned()),
        ("broker.heartbeat.interval.ms", "250".to_owned()),
        ("num.network.threads", "2".to_owned()),
        ("num.io.threads", "4".to_owned()),
    ]);
    if let Some(detour) = node.detour {
        let listeners = lines.entry("listeners").or_default();
        listeners.push_str(&format!(",DETOUR://127.0.0.1:{}", detour.port));
        let advertised = format!(
            "PLAINTEXT://127.0.0.1:{},DETOUR://127.0.0.1:{}",
            node.broker, detour.advertised
        );
        lines.insert("advertised.listeners", advertised);
        let plain = ["PLAINTEXT", "CONTROLLER", "DETOUR"].map(|name| format!("{name}:PLAINTEXT"));
        lines.insert("listener.security.protocol.map", plain.join(","));
    }
    for (protocol, port) in more_listeners {
        let listeners = lines.entry("listeners").or_default();
        listeners.push_str(&format!(",{protocol}://127.0.0.1:{port}"));
        let map = lines
            .entry("listener.security.protocol.map")
            .or_insert_with(|| "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned());
        map.push_str(&format!(",{protocol}:{protocol}"));
    }
    for (name, value) in overrides {
        lines.insert(name, value.clone());
    }
    lines
        .into_iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_replaces_our_line() {
        let node = NodeAddress {
            id: 1,
            role: Role::Both,
            broker: 1,
            controller: 2,
            detour: None,
        };
        let overrides = [("num.io.threads".to_owned(), "8".to_owned())];
        let text = server_properties(&node, &[node], Path::new("/data"), &[], &overrides);
        assert!(text.contains("num.io.threads=8\n"), "{text}");
        assert_eq!(text.matches("num.io.threads").count(), 1, "{text}");
    }
}
