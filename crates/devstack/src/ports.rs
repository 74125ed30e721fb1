//! Ports on 127.0.0.1 that stay ours for as long as a stack lives, restarts included.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::error::{DevStackError, while_doing};

/// Below Linux's ephemeral range (32768–60999). A client that keeps dialling the port of a killed
/// server, where that port is an ephemeral one, can be given the very port as its own source: it
/// then talks to itself, and the server cannot bind when it is restarted.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// Kafka's usual port.
pub const KAFKA_PORT: u16 = 9092;
/// ClickHouse's usual port.
pub const CLICKHOUSE_PORT: u16 = 8123;
/// Ports that belong to one part each: where another one must move, it passes them by.
const SPOKEN_FOR: [u16; 5] = [KAFKA_PORT, CLICKHOUSE_PORT, 4117, 4118, 4119];
/// How far a part moves at most.
const REACH: u16 = 200;

/// A port nobody listened on, and a lock file that keeps other stacks away from it.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    port: u16,
    _lock: File,
}

impl ReservedPort {
    pub(crate) fn number(&self) -> u16 {
        self.port
    }

    /// Reserves any free port.
    pub(crate) fn any() -> Result<Self, DevStackError> {
        // Processes begin at different places, so that they seldom try the same port.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let span = LAST - FIRST;
        let begin = std::process::id().wrapping_mul(97) % u32::from(span);
        let begin = u16::try_from(begin).expect("a remainder of a u16 is a u16");
        for _ in 0..span {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % span;
            let offset = (u32::from(begin) + u32::from(step)) % u32::from(span);
            let port = FIRST + u16::try_from(offset).expect("a remainder of a u16 is a u16");
            if let Some(reserved) = Self::exactly(port)? {
                return Ok(reserved);
            }
        }
        Err(DevStackError::NoFreePort {
            first: FIRST,
            last: LAST,
        })
    }

    /// Reserves `usual`, or the next free port above it.
    pub(crate) fn usual_or_next(usual: u16) -> Result<Self, DevStackError> {
        let last = usual.saturating_add(REACH);
        let others = (usual..=last)
            .skip(1)
            .filter(|port| !SPOKEN_FOR.contains(port));
        for port in std::iter::once(usual).chain(others) {
            if let Some(reserved) = Self::exactly(port)? {
                return Ok(reserved);
            }
        }
        Err(DevStackError::NoFreePort { first: usual, last })
    }

    /// Reserves this port, or returns `None` where it is taken.
    pub(crate) fn exactly(port: u16) -> Result<Option<Self>, DevStackError> {
        let path = lock_folder()?.join(port.to_string());
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(while_doing(format!("opening {}", path.display())))?;
        let is_ours = lock.try_lock().is_ok();
        let is_free = is_ours && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        Ok(is_free.then_some(Self { port, _lock: lock }))
    }
}

/// `usual` where nobody has it, else the next free port above it; `None` asks for any free port.
/// Nothing keeps others away from it: whoever asks should listen on it soon.
///
/// # Errors
/// [`DevStackError::NoFreePort`].
pub fn free_port(usual: Option<u16>) -> Result<u16, DevStackError> {
    let reserved = match usual {
        Some(usual) => ReservedPort::usual_or_next(usual),
        None => ReservedPort::any(),
    };
    reserved.map(|port| port.number())
}

fn lock_folder() -> Result<PathBuf, DevStackError> {
    let folder = std::env::temp_dir().join("spendfuse-devstack-ports");
    fs::create_dir_all(&folder).map_err(while_doing(format!("creating {}", folder.display())))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_whose_port_is_taken_moves_to_the_next_free_one_that_is_nobodys() {
        let usual = ReservedPort::any().unwrap().number();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).unwrap();
        let moved = free_port(Some(usual)).unwrap();
        assert!(moved > usual && moved <= usual + REACH, "{moved}");
        drop(taken);
        assert_eq!(free_port(Some(usual)).unwrap(), usual);
    }

    #[test]
    fn no_part_moves_to_another_parts_port() {
        let _first = ReservedPort::exactly(4117).unwrap();
        let moved = free_port(Some(4117)).unwrap();
        assert!(!SPOKEN_FOR.contains(&moved), "{moved}");
    }
}
