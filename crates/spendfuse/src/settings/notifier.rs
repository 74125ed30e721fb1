//! The notifier's channels and routes, whose names people choose.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use spendfuse_domain::{AlertPlace, Severity};
use spendfuse_engine::alert::AlertKind;
use spendfuse_notify::{
    Channel, ChannelError, ChannelKind, Channels, NotifierConfig, Route, RouteFilter, RouteOptions,
    Routes, Smtp,
};

use super::kinds::{Kind, Patience};
use super::table;
use super::values::named;
use super::{ResolvedSettings, Settings, SettingsError, wrong};

/// What a channel has.
pub(super) const CHANNEL_FIELDS: [&str; 3] = ["kind", "url", "secret"];
/// What a route has.
pub(super) const ROUTE_FIELDS: [&str; 9] = [
    "to",
    "workspace",
    "severity",
    "kinds",
    "budgets",
    "fall_back_after",
    "remind_every",
    "quiet_hours",
    "storm",
];
const CHANNELS: &str = "notifier.channels.";
const ROUTES: &str = "notifier.routes.";

/// Channels and routes as they are set.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifying {
    channels: BTreeMap<String, Channel>,
    routes: Vec<Route>,
    /// How those tell that say nothing of their own.
    options: RouteOptions,
}

impl Notifying {
    /// # Errors
    /// [`SettingsError::Value`] for the first one that cannot be used.
    pub(super) fn read(
        resolved: &ResolvedSettings,
        values: &table::Notifier,
    ) -> Result<Self, SettingsError> {
        let mut read = Self {
            options: options(values),
            ..Self::default()
        };
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
        let options = self.options_of(resolved, &name, &fields)?;
        Ok(Route {
            name,
            to,
            filter,
            options,
        })
    }

    /// How a route tells: as it says itself, else as all do.
    fn options_of(
        &self,
        resolved: &ResolvedSettings,
        route: &str,
        fields: &BTreeMap<String, String>,
    ) -> Result<RouteOptions, SettingsError> {
        let own = Own {
            resolved,
            route,
            fields,
        };
        let all = &self.options;
        let fall_back_after = own.read("fall_back_after")?;
        let remind_every: Option<Option<Patience>> = own.read("remind_every")?;
        let quiet = own.read("quiet_hours")?;
        let storm = own.read("storm")?;
        Ok(RouteOptions {
            fall_back_after_millis: fall_back_after.map_or(all.fall_back_after_millis, millis),
            remind_every_millis: remind_every
                .map_or(all.remind_every_millis, |every| every.map(millis)),
            quiet: quiet.unwrap_or_else(|| all.quiet.clone()),
            storm: storm.map_or(all.storm, NonZeroUsize::get),
        })
    }
}

/// What a route says of itself.
struct Own<'s> {
    resolved: &'s ResolvedSettings,
    route: &'s str,
    fields: &'s BTreeMap<String, String>,
}

impl Own<'_> {
    /// Nothing where the route does not name the field.
    fn read<T: Kind>(&self, field: &str) -> Result<Option<T>, SettingsError> {
        let text = self.fields.get(field);
        let value = text.map(|text| T::read(text)).transpose();
        let key = || format!("{ROUTES}{}.{field}", self.route);
        value.map_err(|reason| wrong(self.resolved, &key(), reason))
    }
}

/// How routes tell that say nothing of their own.
fn options(values: &table::Notifier) -> RouteOptions {
    RouteOptions {
        fall_back_after_millis: millis(values.fall_back_after),
        remind_every_millis: values.remind_every.map(millis),
        quiet: values.quiet_hours.clone(),
        storm: values.storm.get(),
    }
}

fn millis(span: Patience) -> i64 {
    i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)
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

impl Settings {
    /// The notifier role.
    pub fn notifier(&self) -> NotifierConfig {
        NotifierConfig {
            kafka: self.kafka(),
            topics: self.topics(),
            partitions: self.partitions(),
            id_prefix: self.values.transactional_id_prefix.clone(),
            instance_id: self.values.instance_id.0.clone(),
            routes: Routes {
                routes: self.notifying.routes.clone(),
                options: self.notifying.options.clone(),
            },
            health: Default::default(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    fn settings(overrides: &[&str]) -> Result<Settings, SettingsError> {
        let nothing = BTreeMap::<String, String>::new();
        let to = "notifier.routes.all.to=mailto:ops@example.com";
        let mut all = vec![to.to_owned()];
        all.extend(overrides.iter().map(|one| (*one).to_owned()));
        Settings::new(resolve(None, &nothing, &all)?)
    }

    fn told(overrides: &[&str]) -> RouteOptions {
        let routes = settings(overrides).unwrap().notifier().routes;
        routes.options("all").clone()
    }

    #[test]
    fn a_route_tells_as_it_says_itself_or_else_as_all_do() {
        let for_all = [
            "notifier.fall_back_after=2m",
            "notifier.remind_every=4h",
            "notifier.quiet_hours=22:00-07:00 Europe/Berlin",
            "notifier.storm=7",
        ];
        let all = told(&for_all);
        assert_eq!(all.fall_back_after_millis, 120_000);
        assert_eq!(all.remind_every_millis, Some(14_400_000));
        assert!(all.quiet.is_some());
        assert_eq!(all.storm, 7);

        let mut both = for_all.to_vec();
        both.extend([
            "notifier.routes.all.fall_back_after=30s",
            "notifier.routes.all.remind_every=",
            "notifier.routes.all.quiet_hours=",
            "notifier.routes.all.storm=100",
        ]);
        let own = RouteOptions {
            fall_back_after_millis: 30_000,
            remind_every_millis: None,
            quiet: None,
            storm: 100,
        };
        assert_eq!(told(&both), own);
        // Budgets that name their places themselves tell as all do.
        let routes = settings(&both).unwrap().notifier().routes;
        assert_eq!(routes.options("budget cap").storm, 7);
    }

    #[test]
    fn a_wrong_value_of_a_route_is_named() {
        let error = settings(&["notifier.routes.all.storm=0"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("notifier.routes.all.storm"), "{error}");
        let error = settings(&["notifier.routes.all.quiet=1"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("quiet_hours"), "{error}");
    }
}
