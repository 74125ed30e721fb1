//! Debian's `redis-server` on a free port and a socket, with as many values as customers.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_benches::lab::{Servers, free_address};
use spendfuse_devstack::ServerProcess;

use crate::client::{Address, RedisProtocol, answers};
use crate::sitting::fetch;

/// A running Redis. Dropped, it is killed.
pub struct Redis {
    process: ServerProcess,
    /// Its port, as host and port.
    pub tcp: String,
    /// Its socket.
    pub unix: PathBuf,
}

impl Redis {
    /// Starts it and fills it; `customers` values of the size of a blocklist entry.
    pub fn start(servers: &Servers, customers: usize) -> Result<Self> {
        let fetched = fetch("redis")?;
        let tcp = free_address()?;
        let unix = servers.folder().join("redis.sock");
        let port = tcp.rsplit(':').next().context("an address without port")?;
        let libraries = fetched.join("usr/lib/x86_64-linux-gnu");
        // `env` sets the library path where the packages were unpacked rather than installed.
        let arguments = [
            format!("LD_LIBRARY_PATH={}", libraries.display()),
            fetched.join("usr/bin/redis-server").display().to_string(),
            "--port".to_owned(),
            port.to_owned(),
            "--bind".to_owned(),
            "127.0.0.1".to_owned(),
            "--unixsocket".to_owned(),
            unix.display().to_string(),
            "--save".to_owned(),
            String::new(),
            "--dir".to_owned(),
            servers.folder().display().to_string(),
        ];
        let log = servers.folder().join("redis.log");
        let process = ServerProcess::new("redis".to_owned(), "env".into(), arguments.into(), log);
        process.start()?;
        let redis = Self { process, tcp, unix };
        redis.fill(customers)?;
        let address = Address::Unix(redis.unix.clone());
        ensure!(
            answers(&address, &RedisProtocol { customers }),
            "Redis does not answer"
        );
        Ok(redis)
    }

    pub fn process_id(&self) -> Result<u32> {
        self.process.process_id().context("Redis does not run")
    }

    fn fill(&self, customers: usize) -> Result<()> {
        let began = Instant::now();
        let mut stream = loop {
            match TcpStream::connect(&self.tcp) {
                Ok(stream) => break stream,
                Err(error) => {
                    ensure!(
                        began.elapsed() < Duration::from_secs(10),
                        "Redis does not listen: {error}"
                    );
                    thread::sleep(Duration::from_millis(50));
                }
            }
        };
        let value = "v".repeat(500);
        let mut commands = String::new();
        for number in 0..customers {
            let key = RedisProtocol::key(number);
            let (length, size) = (key.len(), value.len());
            write!(
                commands,
                "*3\r\n$3\r\nSET\r\n${length}\r\n{key}\r\n${size}\r\n{value}\r\n"
            )?;
        }
        stream.write_all(commands.as_bytes())?;
        let mut answers = vec![0; customers * "+OK\r\n".len()];
        stream.read_exact(&mut answers)?;
        Ok(())
    }

    /// Its version, as it says.
    pub fn version() -> Result<String> {
        let fetched = fetch("redis")?;
        let output = Command::new(fetched.join("usr/bin/redis-server"))
            .env("LD_LIBRARY_PATH", fetched.join("usr/lib/x86_64-linux-gnu"))
            .arg("--version")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.split_whitespace().find(|word| word.starts_with("v="));
        Ok(version.unwrap_or("v=?").trim_start_matches("v=").to_owned())
    }
}
