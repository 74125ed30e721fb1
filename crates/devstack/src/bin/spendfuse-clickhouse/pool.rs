//! Connections to the engine, each given to one request at a time, and their settings.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::engine::{Connection, Engine, EngineError};

const DEFAULT_DATABASE: &str = "default";

/// Connections that are ready, and what a fresh one's settings are.
pub struct Pool {
    engine: &'static Engine,
    idle: Mutex<Vec<Session>>,
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
}

impl Pool {
    /// Starts the engine.
    pub fn start(engine: &'static Engine) -> Result<Self> {
        let mut first = engine.connect()?;
        let base_settings = read_settings(&mut first).context("reading the engine's settings")?;
        Ok(Self {
            engine,
            idle: Mutex::new(Vec::new()),
            base_settings,
            _keeps_engine_up: Mutex::new(first),
        })
    }

    /// A ready connection, or a new one (1–2 ms).
    pub fn take(&self) -> Result<Session, EngineError> {
        let ready = self.idle().pop();
        match ready {
            Some(session) => Ok(session),
            None => Ok(Session {
                connection: self
                    .engine
                    .connect()
                    .map_err(|error| format!("Code: 210. DB::Exception: {error}"))?,
                database: DEFAULT_DATABASE.to_owned(),
                changed: Vec::new(),
            }),
        }
    }

    /// Takes back a connection whose statement succeeded. One whose statement failed must be
    /// dropped instead: output of the failed statement would be put before the next result, and a
    /// failed stream stays in `system.processes` (26.7).
    pub fn give_back(&self, mut session: Session) {
        if self.restore(&mut session).is_ok() {
            self.idle().push(session);
        }
    }

    /// Sets a request's database and settings.
    pub fn prepare(
        &self,
        session: &mut Session,
        database: Option<&str>,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let database = database.unwrap_or(DEFAULT_DATABASE);
        if session.database != database {
            let use_database = format!("USE `{}`", escape(database, '`'));
            run(&mut session.connection, &use_database)?;
            session.database = database.to_owned();
        }
        let different: Vec<(&str, &str)> = settings
            .iter()
            .filter(|(name, value)| self.base_settings.get(*name) != Some(*value))
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
            let value = self.base_settings.get(name).ok_or("no base value")?;
            base.push((name.as_str(), value.as_str()));
        }
        run(&mut session.connection, &set_statement(&base))?;
        session.changed.clear();
        Ok(())
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
