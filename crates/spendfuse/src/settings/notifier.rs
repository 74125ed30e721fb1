//! The notifier's channels and routes, whose names people choose.

use std::collections::BTreeMap;

use spendfuse_domain::{AlertPlace, Severity};
use spendfuse_engine::alert::AlertKind;
use spendfuse_notify::{
    Channel, ChannelError, ChannelKind, Channels, NotifierConfig, Route, RouteFilter, RouteOptions,
    Routes, Smtp,
};

use super::values::free_table;
use super::{ResolvedSettings, Settings, SettingsError, wrong};

/// What a channel has.
pub(super) const CHANNEL_FIELDS: [&str; 3] = ["kind", "url", "secret"];
/// What a route has.
pub(super) const ROUTE_FIELDS: [&str; 5] = ["to", "workspace", "severity", "kinds", "budgets"];
const CHANNELS: &str = "notifier.channels.";
const ROUTES: &str = "notifier.routes.";

/// Channels and routes as they are set.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifying {
    channels: BTreeMap<String, Channel>,
    routes: Vec<Route>,
}

/// The fields of each name of a table.
type Named = BTreeMap<String, BTreeMap<String, String>>;

impl Notifying {
    /// # Errors
    /// [`SettingsError::Value`] for the first one that cannot be used.
    pub(super) fn read(resolved: &ResolvedSettings) -> Result<Self, SettingsError> {
        let mut read = Self::default();
        for (name, fields) in named(resolved, CHANNELS, &CHANNEL_FIELDS)? {
            let channel = channel(resolved, &name, fields)?;
            read.channels.insert(name, channel);
        }
        for (name, fields) in named(resolved, ROUTES, &ROUTE_FIELDS)? {
            let route = read.route(resolved, name, fields)?;
            read.routes.push(route);
        }
        Ok(read)
    }

    fn route(
        &self,
        resolved: &ResolvedSettings,
        name: String,
        fields: BTreeMap<String, String>,
    ) -> Result<Route, SettingsError> {
        let bad = |field: &str, reason: &str| {
            let key = format!("{ROUTES}{name}.{field}");
            Err(wrong(resolved, &key, reason))
        };
        let list = |field: &str| -> Vec<String> {
            let text = fields.get(field).map_or("", String::as_str);
            let parts = text.split(',').map(str::trim);
            parts
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let to = list("to");
        if to.is_empty() {
            return bad(
                "to",
                "name a channel, or a mail address as mailto:ops@example.com",
            );
        }
        for place in &to {
            let known = match AlertPlace::parse(place) {
                Some(AlertPlace::Mail(_)) => true,
                Some(AlertPlace::Channel(name)) => self.channels.contains_key(name),
                None => false,
            };
            if !known {
                return bad("to", &unknown_place(place));
            }
        }
        let severity = match fields.get("severity").map_or("", String::as_str) {
            "" | "info" => Severity::Info,
            "warning" => Severity::Warning,
            "critical" => Severity::Critical,
            _ => return bad("severity", "write info, warning or critical"),
        };
        let mut kinds = Vec::new();
        for kind in list("kinds") {
            match AlertKind::named(&kind) {
                Some(kind) => kinds.push(kind),
                None => return bad("kinds", &format!("{kind} is no kind of alert")),
            }
        }
        let workspace = fields.get("workspace").filter(|text| !text.is_empty());
        let filter = RouteFilter {
            workspace: workspace.cloned(),
            severity,
            kinds,
            budgets: list("budgets"),
        };
        Ok(Route {
            name,
            to,
            filter,
            options: RouteOptions::default(),
        })
    }
}

fn unknown_place(place: &str) -> String {
    format!("{place} is neither a channel of notifier.channels nor a mailto: address")
}

fn channel(
    resolved: &ResolvedSettings,
    name: &str,
    mut fields: BTreeMap<String, String>,
) -> Result<Channel, SettingsError> {
    let key = format!("{CHANNELS}{name}.kind");
    if AlertPlace::parse(name) != Some(AlertPlace::Channel(name)) {
        let reason = "names of channels have a-z, 0-9 and - only";
        return Err(wrong(resolved, &key, reason));
    }
    let kind = fields.remove("kind").unwrap_or_default();
    let names = ChannelKind::ALL.map(ChannelKind::name).join(", ");
    let kind = ChannelKind::named(&kind)
        .ok_or_else(|| wrong(resolved, &key, &format!("write one of {names}")))?;
    Ok(Channel {
        kind,
        url: fields.remove("url").unwrap_or_default(),
        secret: fields.remove("secret").unwrap_or_default(),
    })
}

/// The names of a table with their fields.
fn named(
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

impl Settings {
    /// The notifier role.
    pub fn notifier(&self) -> NotifierConfig {
        let options = self.route_options();
        let mut routes = self.notifying.routes.clone();
        for route in &mut routes {
            route.options = options.clone();
        }
        NotifierConfig {
            kafka: self.kafka(),
            topics: self.topics(),
            partitions: self.partitions(),
            id_prefix: self.values.transactional_id_prefix.clone(),
            instance_id: self.values.instance_id.clone(),
            routes: Routes { routes, options },
            health: Default::default(),
        }
    }

    fn route_options(&self) -> RouteOptions {
        let own = &self.values.notifier;
        let millis =
            |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        RouteOptions {
            fall_back_after_millis: millis(own.fall_back_after.0),
            remind_every_millis: own.remind_every.map(|span| millis(span.0)),
            quiet: own.quiet_hours.clone(),
            storm: own.storm.get(),
        }
    }

    /// The channels, ready to be used.
    ///
    /// # Errors
    /// [`ChannelError`] for addresses and secrets that are none.
    pub fn channels(&self) -> Result<Channels, ChannelError> {
        let own = &self.values.notifier;
        let smtp = (!own.smtp_host.is_empty()).then(|| Smtp {
            host: own.smtp_host.clone(),
            port: own.smtp_port,
            security: own.smtp_security,
            user: own.smtp_user.clone(),
            password: own.smtp_password.0.clone(),
            from: own.mail_from.clone(),
        });
        let channels = self.notifying.channels.clone();
        Channels::new(channels, smtp, own.ca_file.clone(), own.timeout.0)
    }

    /// Why nothing could be told at this place; `None` where it can.
    pub fn complaint_about_place(&self, place: &str) -> Option<String> {
        let is_known = match AlertPlace::parse(place) {
            Some(AlertPlace::Mail(_)) => !self.values.notifier.smtp_host.is_empty(),
            Some(AlertPlace::Channel(name)) => self.notifying.channels.contains_key(name),
            None => false,
        };
        match AlertPlace::parse(place) {
            _ if is_known => None,
            Some(AlertPlace::Mail(_)) => Some(format!(
                "{place} needs a mail server: set notifier.smtp_host"
            )),
            _ => Some(unknown_place(place)),
        }
    }
}
