//! ClickHouse on this machine: its own engine in a child process that speaks its HTTP interface.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child::ServerProcess;
use crate::error::{DevStackError, while_doing};
use crate::folder::DataFolder;
use crate::locate;
use crate::ports::ReservedPort;

const PORT_FILE: &str = "port";
/// Merges and inserts take what the broker and the roles leave: rows are not on the path to
/// enforcement, and all share one machine here.
const NICENESS: &str = "10";

/// How to start ClickHouse.
#[derive(Debug, Clone)]
pub struct ClickHouseOptions {
    /// Where data and log are kept; `None` is a temporary folder that goes with the value.
    pub folder: Option<PathBuf>,
    /// Its port, or the next free one above it; `None` is any free port.
    pub port: Option<u16>,
    /// The password of the user `default`; `None` lets everybody in, with any credentials.
    pub password: Option<String>,
    /// How long it may take to get ready.
    pub patience: Duration,
    /// Variables of its environment, besides those of this process.
    pub environment: Vec<(String, String)>,
}

impl Default for ClickHouseOptions {
    fn default() -> Self {
        Self {
            folder: None,
            port: None,
            password: None,
            // A tenth of a second when the library is in the page cache, seconds when it is not.
            patience: Duration::from_secs(90),
            environment: Vec::new(),
        }
    }
}

/// A running ClickHouse. Dropped, it is killed.
#[derive(Debug)]
pub struct ClickHouse {
    // The process before the folder: it ends before its data is removed.
    process: ServerProcess,
    port: ReservedPort,
    patience: Duration,
    folder: DataFolder,
}

impl ClickHouse {
    /// Starts ClickHouse and waits until it answers.
    ///
    /// # Errors
    /// [`DevStackError::NotSetUp`] without the engine, [`DevStackError::ClickHouseNotBuilt`]
    /// without the executable; [`DevStackError::Ended`] or [`DevStackError::NotReady`], with the
    /// end of the log, where it does not come up.
    pub fn start(options: ClickHouseOptions) -> Result<Self, DevStackError> {
        let executable = locate::clickhouse_executable()?;
        let library = locate::libchdb()?;
        let folder = match &options.folder {
            Some(path) => DataFolder::named(path)?,
            None => DataFolder::temporary()?,
        };
        let port = reserve_port(folder.path(), options.port)?;
        let mut arguments = vec!["-n".to_owned(), NICENESS.to_owned(), "env".to_owned()];
        // `nice` becomes `env`, and that the server: same process.
        let variables = options.environment.iter();
        arguments.extend(variables.map(|(name, value)| format!("{name}={value}")));
        arguments.extend([
            executable.display().to_string(),
            format!("--library={}", library.display()),
            format!("--path={}", folder.path().join("data").display()),
            format!("--port={}", port.number()),
        ]);
        if let Some(password) = options.password {
            arguments.push(format!("--password={password}"));
        }
        let log = folder.path().join("clickhouse.log");
        let clickhouse = Self {
            process: ServerProcess::new("ClickHouse".to_owned(), "nice".into(), arguments, log),
            port,
            patience: options.patience,
            folder,
        };
        clickhouse.restart()?;
        clickhouse.wait_ready()?;
        Ok(clickhouse)
    }

    /// Address of the HTTP interface.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Where data and log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL: what a crash of the server looks like.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// SIGTERM: lets running queries end. Returns whether it ended within 20 s; if not, it is
    /// killed.
    pub fn stop(&self) -> bool {
        self.process.stop(Duration::from_secs(20))
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// SIGCONT: ends a pause.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Starts it after a kill or stop, on the same port and data, without waiting.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn restart(&self) -> Result<(), DevStackError> {
        self.process.start()
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// [`DevStackError::Ended`] or [`DevStackError::NotReady`].
    pub fn wait_ready(&self) -> Result<(), DevStackError> {
        self.process.wait_ready(self.patience, || {
            ping(self.port.number()).map_err(|error| error.to_string())
        })
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.process_id()
    }

    /// Stops it (SIGTERM, then SIGKILL) and keeps the data of a named folder.
    pub fn shut_down(self) {
        self.stop();
    }
}

fn reserve_port(folder: &Path, usual: Option<u16>) -> Result<ReservedPort, DevStackError> {
    if let Some(usual) = usual {
        return ReservedPort::usual_or_next(usual);
    }
    let remembered = folder.join(PORT_FILE);
    let before = fs::read_to_string(&remembered)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let reserved = match before {
        Some(port) => ReservedPort::exactly(port)?,
        None => None,
    };
    let reserved = match reserved {
        Some(port) => port,
        None => ReservedPort::any()?,
    };
    fs::write(&remembered, reserved.number().to_string())
        .map_err(while_doing(format!("writing {}", remembered.display())))?;
    Ok(reserved)
}

fn ping(port: u16) -> io::Result<()> {
    let timeout = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.ends_with("Ok.\n") {
        Ok(())
    } else {
        Err(io::Error::other(format!("unexpected answer {answer:?}")))
    }
}
