//! The settings in force, and what the roles are built from.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use spendfuse_bus::{BusError, KafkaConfig, Shutdown};
use spendfuse_domain::Topics;
use spendfuse_engine::meter::dedupe::SLACK_MINUTES;
use spendfuse_loader::LoaderConfig;
use spendfuse_pricing::{Multiplier, PricingPolicy};
use spendfuse_processor::ProcessorConfig;
use spendfuse_sidecar::keys::{Key, Keyring};
use spendfuse_sidecar::server::ServerLimits;
use spendfuse_sidecar::spool::SpoolConfig;
use spendfuse_sidecar::{CompatConfig, SidecarConfig, Token};
use spendfuse_warehouse::WarehouseConfig;

use super::keys::KeyFiles;
use super::notifier::Notifying;
use super::proxy::Forwarding;
use super::secrets::split_credentials;
use super::table::Values;
use super::{ResolvedSettings, SettingsError, Source, host_name, wrong};

/// A segment of the spool is closed at this size, bytes.
const SPOOL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings {
    resolved: ResolvedSettings,
    /// Each as what it is.
    pub values: Values,
    pricing: PricingPolicy,
    pub(super) notifying: Notifying,
    pub(super) forwarding: Forwarding,
    /// Shared by all roles of the process.
    keyring: Keyring,
    key_files: KeyFiles,
}

impl Settings {
    /// Settings from resolved values; every value is read once, so that mistakes show at the start.
    ///
    /// # Errors
    /// [`SettingsError::Value`] for the first value that cannot be read.
    pub fn new(resolved: ResolvedSettings) -> Result<Self, SettingsError> {
        let values = Values::read(&resolved)?;
        let key_files = KeyFiles::new(&resolved, values.keys_file.as_ref());
        let keyring = Keyring::new(key_files.read()?);
        let keyring = keyring.map_err(|error| key_files.wrong(&error.to_string()))?;
        let settings = Self {
            pricing: pricing(&values, &resolved)?,
            notifying: Notifying::read(&resolved, &values.notifier)?,
            forwarding: Forwarding::read(
                &resolved,
                &values.proxy,
                &values.sidecar.default_workspace,
            )?,
            keyring,
            key_files,
            values,
            resolved,
        };
        settings.check_kafka()?;
        Ok(settings)
    }

    /// Every value with its source.
    pub fn resolved(&self) -> &ResolvedSettings {
        &self.resolved
    }

    /// An error about the value of `key`.
    pub fn wrong(&self, key: &str, reason: &str) -> SettingsError {
        wrong(&self.resolved, key, reason)
    }

    /// Brokers and client properties.
    pub fn kafka(&self) -> KafkaConfig {
        let properties = free_table(&self.resolved, "kafka.properties.");
        let properties: BTreeMap<String, String> = properties
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        KafkaConfig {
            properties,
            // The machine tells a group's other members where a process runs.
            ..KafkaConfig::new(
                &self.values.kafka.brokers,
                &format!("spendfuse@{}", host_name()),
            )
        }
    }

    fn check_kafka(&self) -> Result<(), SettingsError> {
        match self.kafka().validate() {
            Err(BusError::Property { name, reason }) => {
                let key = if name == "brokers" {
                    "kafka.brokers".to_owned()
                } else {
                    format!("kafka.properties.{name}")
                };
                Err(self.wrong(&key, &reason))
            }
            // Nothing else is refused before a broker is asked.
            _ => Ok(()),
        }
    }

    /// Names of the topics.
    pub fn topics(&self) -> Topics {
        Topics::new(&self.values.topic_prefix.0)
    }

    /// Partitions of every stage topic.
    pub fn partitions(&self) -> u32 {
        self.values.partitions.get()
    }

    /// How long identities are remembered, milliseconds.
    pub fn dedupe_horizon_millis(&self) -> i64 {
        self.values.processor.dedupe_horizon.0
    }

    /// How far back an identity may be remembered, milliseconds: clocks of senders differ.
    pub fn remembered_millis(&self) -> i64 {
        self.dedupe_horizon_millis() + i64::from(SLACK_MINUTES) * 60_000
    }

    /// The processor role.
    pub fn processor(&self) -> ProcessorConfig {
        let own = &self.values.processor;
        ProcessorConfig {
            id_prefix: self.values.transactional_id_prefix.clone(),
            instance_id: self.values.instance_id.0.clone(),
            meter_workers: own.meter_workers,
            ledger_workers: own.ledger_workers,
            dedupe_horizon_millis: own.dedupe_horizon.0,
            dedupe_capacity: own.dedupe_capacity,
            session_idle_millis: own.session_idle.0,
            publish_rate: own.publish_rate,
            session_capacity: own.session_capacity,
            account_capacity: own.account_capacity,
            commit_min: own.commit_min,
            commit_interval: own.commit_interval,
            batch_max_events: own.batch_max_events,
            heartbeat: own.heartbeat.0,
            ..ProcessorConfig::new(self.kafka(), self.topics(), self.partitions())
        }
    }

    /// What the operator decided about prices.
    pub fn pricing(&self) -> PricingPolicy {
        self.pricing.clone()
    }

    /// The loader role.
    pub fn loader(&self) -> LoaderConfig {
        let values = &self.values;
        let (prefix, instance) = (&values.transactional_id_prefix, &values.instance_id.0);
        LoaderConfig {
            flush_interval: values.loader.flush_interval,
            dedupe_horizon_millis: self.dedupe_horizon_millis(),
            ..LoaderConfig::new(self.kafka(), &self.topics(), prefix, instance)
        }
    }

    /// How to reach ClickHouse.
    pub fn warehouse(&self) -> WarehouseConfig {
        let own = &self.values.clickhouse;
        let (url, credentials) = split_credentials(&own.url);
        let (user, password) = credentials.unwrap_or_default();
        // Settings of their own count for more than what stands in the address.
        let or_of_address = |key: &str, given: &str, other: String| {
            let source = self.resolved.get(key).map(|found| &found.source);
            match source {
                Some(Source::Default) if !other.is_empty() => other,
                _ => given.to_owned(),
            }
        };
        WarehouseConfig {
            url,
            user: or_of_address("clickhouse.user", &own.user, user),
            password: or_of_address("clickhouse.password", &own.password.0, password),
            ca_file: own.ca_file.clone(),
            database: own.database.clone(),
            replicated: own.replicated,
            spend_retention_months: own.retention_months.0,
            history_retention_months: own.history_retention_months.0,
            ..WarehouseConfig::default()
        }
    }

    /// The keys in force.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        self.keyring.keys()
    }

    /// Reads keys again whenever their files change, until the process stops.
    pub fn follow_keys(&self, shutdown: &Shutdown) {
        self.key_files.follow(&self.keyring, shutdown);
    }

    /// A spool in this folder.
    pub(super) fn spool(&self, directory: &Option<PathBuf>) -> Option<SpoolConfig> {
        directory.clone().map(|directory| SpoolConfig {
            directory,
            max_bytes: self.values.sidecar.spool_max_bytes,
            segment_bytes: SPOOL_SEGMENT_BYTES,
        })
    }

    fn compat(&self) -> CompatConfig {
        let own = &self.values.compat;
        CompatConfig {
            margint_downgrade: own.margint_downgrade,
            margindash_poll: own.margindash_poll.0,
            margindash_widen: own.margindash_widen,
        }
    }

    /// The sidecar role.
    pub fn sidecar(&self) -> SidecarConfig {
        let own = &self.values.sidecar;
        SidecarConfig {
            listen: own.listen,
            unix_socket: own.socket.clone(),
            token: Token::new(own.token.0.as_str()),
            keys: self.keyring.clone(),
            default_workspace: own.default_workspace.clone(),
            instance: self.values.instance_id.0.clone(),
            source: own.source.clone(),
            dedupe_horizon_millis: self.dedupe_horizon_millis(),
            stale_after: own.stale_after.0,
            entry_capacity: own.entry_capacity,
            max_reservations: own.max_reservations,
            reserve_rule: own.reserve_rule,
            cold_start: own.cold_start,
            refusal_status: own.refusal_status,
            strict: own.strict,
            spool: self.spool(&own.spool_dir),
            limits: ServerLimits {
                connections: own.max_connections.get(),
                header_timeout: own.header_timeout.0,
                body_timeout: own.body_timeout.0,
            },
            max_body_memory: own.max_body_memory,
            compat: self.compat(),
            ..SidecarConfig::new(self.partitions())
        }
    }
}

/// The entries of a table whose keys are free, without what begins them.
pub(super) fn free_table<'r>(
    resolved: &'r ResolvedSettings,
    prefix: &'static str,
) -> impl Iterator<Item = (&'r str, &'r str)> {
    resolved
        .iter()
        .filter_map(move |(key, found)| Some((key.strip_prefix(prefix)?, found.value.as_str())))
}

/// The fields of each name of a table.
pub(super) type Named = BTreeMap<String, BTreeMap<String, String>>;

/// The names of a table with their fields.
pub(super) fn named(
    resolved: &ResolvedSettings,
    table: &'static str,
    fields: &[&str],
) -> Result<Named, SettingsError> {
    let mut names = Named::new();
    for (key, value) in free_table(resolved, table) {
        match key.rsplit_once('.') {
            Some((name, field)) if fields.contains(&field) => {
                let name = names.entry(name.to_owned()).or_default();
                name.insert(field.to_owned(), value.to_owned());
            }
            _ => {
                let reason = format!("after a name comes one of {}", fields.join(", "));
                return Err(wrong(resolved, &format!("{table}{key}"), &reason));
            }
        }
    }
    Ok(names)
}

fn pricing(values: &Values, resolved: &ResolvedSettings) -> Result<PricingPolicy, SettingsError> {
    let mut price_multiplier = HashMap::new();
    for (account, factor) in free_table(resolved, "pricing.price_multiplier.") {
        let key = format!("pricing.price_multiplier.{account}");
        let factor = Multiplier::parse(factor);
        let factor = factor.map_err(|error| wrong(resolved, &key, &error.to_string()))?;
        price_multiplier.insert(account.to_owned(), factor);
    }
    Ok(PricingPolicy {
        trust_reported_cost: values.pricing.trust_reported_cost.0.clone(),
        free: values.pricing.free.0.clone(),
        price_multiplier,
        ..PricingPolicy::default()
    })
}
