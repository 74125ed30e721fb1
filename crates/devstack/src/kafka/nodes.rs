//! Ports, folders and settings of the nodes.

use std::fs;
use std::path::Path;

use super::KafkaOptions;
use super::java::JavaCommand;
use super::properties::{LOGGING, NodeAddress, Role, server_properties};
use crate::child::ServerProcess;
use crate::error::{DevStackError, while_doing};
use crate::ports::ReservedPort;

const PORTS_FILE: &str = "ports";

/// Two ports a node: the ones the folder was used with before where they are free, for clients
/// that remember them. The first is `usual` or close to it, where one is wanted.
pub(super) fn reserve_ports(
    folder: &Path,
    count: usize,
    usual: Option<u16>,
) -> Result<Vec<ReservedPort>, DevStackError> {
    let remembered = folder.join(PORTS_FILE);
    let text = fs::read_to_string(&remembered).unwrap_or_default();
    let words = text.split_whitespace();
    let before: Vec<u16> = words.filter_map(|word| word.parse().ok()).collect();
    let mut reserved = Vec::new();
    if let Some(usual) = usual {
        reserved.push(ReservedPort::usual_or_next(usual)?);
    }
    let wanted = reserved.len();
    for port in before.iter().skip(wanted) {
        reserved.extend(ReservedPort::exactly(*port)?);
    }
    if reserved.len() != count {
        reserved.truncate(wanted);
        while reserved.len() < count {
            reserved.push(ReservedPort::any()?);
        }
    }
    let words: Vec<String> = reserved
        .iter()
        .map(|port| port.number().to_string())
        .collect();
    fs::write(&remembered, words.join(" "))
        .map_err(while_doing(format!("writing {}", remembered.display())))?;
    Ok(reserved)
}

pub(super) fn addresses(ports: &[ReservedPort], controller_apart: bool) -> Vec<NodeAddress> {
    let role = if controller_apart {
        Role::Broker
    } else {
        Role::Both
    };
    (1..)
        .zip(ports.chunks_exact(2))
        .map(|(id, pair)| NodeAddress {
            id,
            role,
            broker: pair[0].number(),
            controller: pair[1].number(),
            detour: None,
        })
        .collect()
}

/// Writes a node's configuration, formats its storage where that is new, and says how it starts.
pub(super) fn prepare_node(
    node_folder: &Path,
    java: &JavaCommand,
    address: &NodeAddress,
    all: &[NodeAddress],
    options: &KafkaOptions,
) -> Result<ServerProcess, DevStackError> {
    let data = node_folder.join("data");
    let configuration = node_folder.join("server.properties");
    let logging = node_folder.join("log4j2.properties");
    fs::create_dir_all(&data).map_err(while_doing(format!("creating {}", data.display())))?;
    let (more, overrides) = (&options.more_listeners, &options.properties);
    let text = server_properties(address, all, &data, more, overrides);
    fs::write(&configuration, text)
        .map_err(while_doing(format!("writing {}", configuration.display())))?;
    fs::write(&logging, LOGGING).map_err(while_doing(format!("writing {}", logging.display())))?;

    if !data.join("meta.properties").is_file() {
        java.format_storage(&configuration)?;
    }
    // `env` becomes the broker: same process.
    let variables = options.environment.iter();
    let mut arguments: Vec<String> = variables
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    arguments.push(java.program.display().to_string());
    arguments.extend(java.broker_arguments(&logging, &configuration));
    Ok(ServerProcess::new(
        match address.role {
            Role::Controller => "Kafka's controller".to_owned(),
            Role::Both | Role::Broker => format!("Kafka node {}", address.id),
        },
        "env".into(),
        arguments,
        node_folder.join("kafka.log"),
    ))
}
