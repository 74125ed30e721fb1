//! Settings as what they are: numbers, durations, addresses, and what the roles are built from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use spendfuse_bus::{BusError, KafkaConfig};
use spendfuse_domain::Topics;
use spendfuse_guard::ColdStart;
use spendfuse_loader::LoaderConfig;
use spendfuse_pricing::{Multiplier, PricingPolicy};
use spendfuse_processor::ProcessorConfig;
use spendfuse_sidecar::server::ServerLimits;
use spendfuse_sidecar::spool::SpoolConfig;
use spendfuse_sidecar::{SidecarConfig, Token};
use spendfuse_warehouse::WarehouseConfig;

use super::secrets::split_credentials;
use super::table::variable;
use super::{ResolvedSettings, SettingsError, Source, host_name, shown};

/// A segment of the spool is closed at this size, bytes.
const SPOOL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// The settings in force, read on demand.
#[derive(Clone, Debug)]
pub struct Settings {
    resolved: ResolvedSettings,
}

impl Settings {
    /// Settings from resolved values; every value is read once, so that mistakes show at the start.
    ///
    /// # Errors
    /// [`SettingsError::Value`] for the first value that cannot be read.
    pub fn new(resolved: ResolvedSettings) -> Result<Self, SettingsError> {
        let settings = Self { resolved };
        settings.check_kafka()?;
        settings.processor()?;
        settings.pricing()?;
        settings.loader()?;
        settings.warehouse()?;
        settings.sidecar()?;
        settings.number::<u64>("sidecar.spool_max_bytes")?;
        Ok(settings)
    }

    /// Every value with its source.
    pub fn resolved(&self) -> &ResolvedSettings {
        &self.resolved
    }

    /// A value as text.
    pub fn text(&self, key: &str) -> &str {
        self.resolved
            .get(key)
            .map_or("", |resolved| &resolved.value)
    }

    /// A value as text, `None` where it is empty.
    pub fn given(&self, key: &str) -> Option<&str> {
        Some(self.text(key)).filter(|value| !value.is_empty())
    }

    /// A value as a number, or anything else with a text form.
    pub fn number<T: FromStr>(&self, key: &str) -> Result<T, SettingsError> {
        let text = self.text(key).replace('_', "");
        text.parse()
            .map_err(|_| self.wrong(key, "not a number in range; write digits"))
    }

    /// A value as `true` or `false`.
    pub fn flag(&self, key: &str) -> Result<bool, SettingsError> {
        self.text(key)
            .parse()
            .map_err(|_| self.wrong(key, "write true or false"))
    }

    /// A value as a duration such as `24h`, `1h 30m` or `5ms`.
    pub fn duration(&self, key: &str) -> Result<Duration, SettingsError> {
        let reason = "not a duration; write 24h, 15m, 10s or 5ms";
        let parsed: SignedDuration = self
            .text(key)
            .parse()
            .map_err(|_| self.wrong(key, reason))?;
        Duration::try_from(parsed).map_err(|_| self.wrong(key, reason))
    }

    /// How long clients have; in no time at all nobody could send anything.
    fn patience(&self, key: &str) -> Result<Duration, SettingsError> {
        let patience = self.duration(key)?;
        match patience.is_zero() {
            true => Err(self.wrong(key, "longer than nothing, such as 15s")),
            false => Ok(patience),
        }
    }

    fn millis(&self, key: &str) -> Result<i64, SettingsError> {
        let millis = self.duration(key)?.as_millis();
        i64::try_from(millis).map_err(|_| self.wrong(key, "too long"))
    }

    /// An error about the value of `key`.
    pub fn wrong(&self, key: &str, reason: &str) -> SettingsError {
        let place = self
            .resolved
            .get(key)
            .map_or_else(|| variable(key), |resolved| resolved.source.to_string());
        SettingsError::Value {
            key: key.to_owned(),
            value: shown(key, self.text(key)),
            place,
            reason: reason.to_owned(),
        }
    }

    fn free_table(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.resolved.iter().filter_map(move |(key, resolved)| {
            Some((key.strip_prefix(prefix)?, resolved.value.as_str()))
        })
    }

    /// Brokers and client properties.
    pub fn kafka(&self) -> KafkaConfig {
        let properties: BTreeMap<String, String> = self
            .free_table("kafka.properties.")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        KafkaConfig {
            properties,
            // The machine tells a group's other members where a process runs.
            ..KafkaConfig::new(
                self.text("kafka.brokers"),
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
        Topics::new(self.text("topic_prefix"))
    }

    /// Partitions of every stage topic.
    pub fn partitions(&self) -> Result<u32, SettingsError> {
        let partitions = self.number("partitions")?;
        if partitions == 0 {
            return Err(self.wrong("partitions", "at least 1"));
        }
        Ok(partitions)
    }

    /// How long identities are remembered, milliseconds.
    pub fn dedupe_horizon_millis(&self) -> Result<i64, SettingsError> {
        self.millis("processor.dedupe_horizon")
    }

    /// The processor role.
    pub fn processor(&self) -> Result<ProcessorConfig, SettingsError> {
        let defaults = ProcessorConfig::new(self.kafka(), self.topics(), self.partitions()?);
        Ok(ProcessorConfig {
            id_prefix: self.text("transactional_id_prefix").to_owned(),
            instance_id: self.text("instance_id").to_owned(),
            meter_workers: self.number("processor.meter_workers")?,
            ledger_workers: self.number("processor.ledger_workers")?,
            dedupe_horizon_millis: self.dedupe_horizon_millis()?,
            dedupe_capacity: self.number("processor.dedupe_capacity")?,
            session_idle_millis: self.millis("processor.session_idle")?,
            publish_rate: self.number("processor.publish_rate")?,
            session_capacity: self.number("processor.session_capacity")?,
            account_capacity: self.number("processor.account_capacity")?,
            commit_min: self.duration("processor.commit_min")?,
            commit_interval: self.duration("processor.commit_interval")?,
            batch_max_events: self.number("processor.batch_max_events")?,
            heartbeat: self.duration("processor.heartbeat")?,
            accept_lost_input: self.flag("processor.accept_lost_input")?,
            ..defaults
        })
    }

    /// What the operator decided about prices.
    pub fn pricing(&self) -> Result<PricingPolicy, SettingsError> {
        let mut price_multiplier = HashMap::new();
        for (account, factor) in self.free_table("pricing.price_multiplier.") {
            let key = format!("pricing.price_multiplier.{account}");
            let factor =
                Multiplier::parse(factor).map_err(|error| self.wrong(&key, &error.to_string()))?;
            price_multiplier.insert(account.to_owned(), factor);
        }
        let trusted = self
            .text("pricing.trust_reported_cost")
            .split(',')
            .map(str::trim);
        let trust_reported_cost: HashSet<String> = trusted
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(PricingPolicy {
            trust_reported_cost,
            price_multiplier,
            ..PricingPolicy::default()
        })
    }

    /// The loader role.
    pub fn loader(&self) -> Result<LoaderConfig, SettingsError> {
        let (prefix, instance) = (
            self.text("transactional_id_prefix"),
            self.text("instance_id"),
        );
        Ok(LoaderConfig {
            flush_interval: self.duration("loader.flush_interval")?,
            ..LoaderConfig::new(self.kafka(), &self.topics(), prefix, instance)
        })
    }

    /// How to reach ClickHouse.
    pub fn warehouse(&self) -> Result<WarehouseConfig, SettingsError> {
        let (url, credentials) = split_credentials(self.text("clickhouse.url"));
        let (user, password) = credentials.unwrap_or_default();
        // Settings of their own count for more than what stands in the address.
        let or_of_address = |key: &str, other: String| match self.resolved.get(key) {
            Some(given) if given.source != Source::Default || other.is_empty() => {
                given.value.clone()
            }
            _ => other,
        };
        Ok(WarehouseConfig {
            url,
            user: or_of_address("clickhouse.user", user),
            password: or_of_address("clickhouse.password", password),
            ca_file: self.given("clickhouse.ca_file").map(Into::into),
            database: self.text("clickhouse.database").to_owned(),
            replicated: self.flag("clickhouse.replicated")?,
            spend_retention_months: self.number("clickhouse.retention_months")?,
            ..WarehouseConfig::default()
        })
    }

    /// The sidecar role.
    pub fn sidecar(&self) -> Result<SidecarConfig, SettingsError> {
        let no_address = "write an address such as 127.0.0.1:4117, or nothing for none";
        let listen = self.given("sidecar.listen").map(str::parse).transpose();
        let listen = listen.map_err(|_| self.wrong("sidecar.listen", no_address))?;
        let limits = ServerLimits {
            connections: self.number("sidecar.max_connections")?,
            header_timeout: self.patience("sidecar.header_timeout")?,
            body_timeout: self.patience("sidecar.body_timeout")?,
        };
        if limits.connections == 0 {
            return Err(self.wrong("sidecar.max_connections", "at least 1"));
        }
        let cold_start = match self.text("sidecar.cold_start") {
            "allow" => ColdStart::Allow,
            "block" => ColdStart::Block,
            _ => return Err(self.wrong("sidecar.cold_start", "write allow or block")),
        };
        let refusal_status = self.text("sidecar.refusal_status");
        let refusal_status = refusal_status
            .parse()
            .map_err(|reason| self.wrong("sidecar.refusal_status", reason))?;
        let spool = match self.given("sidecar.spool_dir") {
            None => None,
            Some(directory) => Some(SpoolConfig {
                directory: directory.into(),
                max_bytes: self.number("sidecar.spool_max_bytes")?,
                segment_bytes: SPOOL_SEGMENT_BYTES,
            }),
        };
        Ok(SidecarConfig {
            listen,
            unix_socket: self.given("sidecar.socket").map(Into::into),
            token: Token::new(self.text("sidecar.token")),
            default_workspace: self.text("sidecar.default_workspace").to_owned(),
            source: self.text("sidecar.source").to_owned(),
            dedupe_horizon_millis: self.dedupe_horizon_millis()?,
            stale_after: self.duration("sidecar.stale_after")?,
            entry_capacity: self.number("sidecar.entry_capacity")?,
            cold_start,
            refusal_status,
            strict: self.flag("sidecar.strict")?,
            spool,
            limits,
            max_body_memory: self.number("sidecar.max_body_memory")?,
            ..SidecarConfig::new(self.partitions()?)
        })
    }
}
