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

fn lock_folder() -> Result<PathBuf, DevStackError> {
    let folder = std::env::temp_dir().join("spendfuse-devstack-ports");
    fs::create_dir_all(&folder).map_err(while_doing(format!("creating {}", folder.display())))?;
    Ok(folder)
}
