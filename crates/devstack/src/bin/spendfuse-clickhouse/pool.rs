//! Connections to the engine, each given to one request at a time, and their settings.
//!
//! A request without a session gets any connection, which is as new for it. The connection of a
//! named session stays that session's, with what its statements set.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::engine::{Connection, Engine, EngineError};
use crate::sessions::{SessionName, Sessions};

const DEFAULT_DATABASE: &str = "default";

/// Connections that are ready, and what a fresh one's settings are.
pub struct Pool {
    engine: &'static Engine,
    idle: Mutex<Vec<Session>>,
    named: Sessions,
    /// Values of a fresh connection, to go back to after a request: `SET name = DEFAULT` would
    /// restore the compiled default instead (26.7).
    base_settings: HashMap<String, String>,
    /// The engine stops with its last connection and is not meant to be started again in the
    /// same process.
    _keeps_engine_up: Mutex<Connection>,
}

/// A connection and what was changed on it.
pub struct Session {
    /// The connection itself.
    pub connection: Connection,
    database: String,
    changed: Vec<String>,
    /// The client's name for it, where the client keeps it.
    name: Option<SessionName>,
    /// What its own statements set it to, where that is not what fresh connections have.
    base_settings: Option<HashMap<String, String>>,
}

/// How a statement ended; decides what becomes of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The connection is as it was.
    Clean,
    /// The statement changed settings, temporary tables or the database of its session.
    Changed,
    /// The statement failed or was given up: its output would be put before the next result, and a
    /// failed stream stays in `system.processes` until the connection runs something else (26.7).
    Failed,
}

impl Pool {
    pub fn start(engine: &'static Engine) -> Result<Self> {
        let mut first = engine.connect()?;
        let base_settings = read_settings(&mut first).context("reading the engine's settings")?;
        Ok(Self {
            engine,
            idle: Mutex::new(Vec::new()),
            named: Sessions::default(),
            base_settings,
            _keeps_engine_up: Mutex::new(first),
        })
    }

    /// A ready connection, or a new one (1–2 ms); the session's own where one is named.
    pub fn take(&self, name: Option<&SessionName>) -> Result<Session, EngineError> {
        let ready = match name {
            Some(name) => self.named.take(name)?,
            None => self.idle().pop(),
        };
        if let Some(session) = ready {
            return Ok(session);
        }
        let connected = self.engine.connect();
        let connection = connected.map_err(|error| {
            self.forget(name);
            format!("Code: 210. DB::Exception: {error}")
        })?;
        Ok(Session {
            connection,
            database: DEFAULT_DATABASE.to_owned(),
            changed: Vec::new(),
            name: name.cloned(),
            base_settings: None,
        })
    }

    /// Takes back a connection. A failed one of no session is closed; that of a session is cleaned,
    /// because the client still holds its name.
    pub fn give_back(&self, mut session: Session, outcome: Outcome) {
        let Some(name) = session.name.clone() else {
            if outcome == Outcome::Clean && self.restore(&mut session).is_ok() {
                self.idle().push(session);
            }
            return;
        };
        let is_usable = match outcome {
            Outcome::Clean => Ok(()),
            Outcome::Changed => self.read_back(&mut session),
            // Takes away what the failed statement left.
            Outcome::Failed => run(&mut session.connection, "SELECT 1"),
        };
        match is_usable.and_then(|()| self.restore(&mut session)) {
            Ok(()) => self.named.keep(&name, session),
            Err(error) => {
                tracing::warn!(error, "a session is given up");
                self.named.forget(&name);
            }
        }
    }

    /// Learns what a session's own statements made of it.
    fn read_back(&self, session: &mut Session) -> Result<(), EngineError> {
        let settings = read_settings(&mut session.connection).map_err(|error| error.to_string())?;
        // A request's own settings are not the session's.
        let known = session.base_settings.take();
        let known = known.unwrap_or_else(|| self.base_settings.clone());
        let kept = settings
            .into_iter()
            .filter(|(name, _)| !session.changed.contains(name));
        session.base_settings = Some(known.into_iter().chain(kept).collect());
        let sql = "SELECT currentDatabase()";
        let database = session.connection.query(sql, "TSVRaw", &Vec::new())?;
        session.database = String::from_utf8_lossy(database.bytes())
            .trim_end()
            .to_owned();
        Ok(())
    }

    fn forget(&self, name: Option<&SessionName>) {
        if let Some(name) = name {
            self.named.forget(name);
        }
    }

    /// Sets a request's database and settings.
    pub fn prepare(
        &self,
        session: &mut Session,
        database: Option<&str>,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let database = match (database, &session.name) {
            (Some(database), _) => database.to_owned(),
            (None, Some(_)) => session.database.clone(),
            (None, None) => DEFAULT_DATABASE.to_owned(),
        };
        if session.database != database {
            let use_database = format!("USE `{}`", escape(&database, '`'));
            run(&mut session.connection, &use_database)?;
            session.database = database;
        }
        let different: Vec<(&str, &str)> = settings
            .iter()
            .filter(|(name, value)| self.base_of(session).get(*name) != Some(*value))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if different.is_empty() {
            return Ok(());
        }
        run(&mut session.connection, &set_statement(&different))?;
        session.changed = different
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        Ok(())
    }

    fn restore(&self, session: &mut Session) -> Result<(), EngineError> {
        if session.changed.is_empty() {
            return Ok(());
        }
        let mut base = Vec::new();
        for name in &session.changed {
            // An alias or custom setting is not in the table: such a connection is replaced.
            let value = self.base_of(session).get(name).ok_or("no base value")?;
            base.push((name.as_str(), value.as_str()));
        }
        let statement = set_statement(&base);
        run(&mut session.connection, &statement)?;
        session.changed.clear();
        Ok(())
    }

    fn base_of<'a>(&'a self, session: &'a Session) -> &'a HashMap<String, String> {
        session
            .base_settings
            .as_ref()
            .unwrap_or(&self.base_settings)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(connection: &mut Connection, sql: &str) -> Result<(), EngineError> {
    connection.query(sql, "Null", &Vec::new()).map(|_| ())
}

fn set_statement(settings: &[(&str, &str)]) -> String {
    let assignments: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("`{}` = '{}'", escape(name, '`'), escape(value, '\'')))
        .collect();
    format!("SET {}", assignments.join(", "))
}

fn escape(text: &str, quote: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\\' || letter == quote {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

fn read_settings(connection: &mut Connection) -> Result<HashMap<String, String>> {
    let sql = "SELECT toJSONString(map(name, value)) FROM system.settings";
    let result = connection
        .query(sql, "TSVRaw", &Vec::new())
        .map_err(|error| anyhow!(error))?;
    let mut settings = HashMap::new();
    for line in result.bytes().split(|byte| *byte == b'\n') {
        if !line.is_empty() {
            let one: HashMap<String, String> = serde_json::from_slice(line)?;
            settings.extend(one);
        }
    }
    Ok(settings)
}
