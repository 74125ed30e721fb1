//! A member's place in its group: the `group.instance.id`, of which there must be one.
//!
//! Kafka gives the place to whoever comes last and fences the one before, who does its work. So
//! a newcomer looks first whether the place is taken by somebody who lives. On the same machine that
//! is known at once: a socket with the place's name, which the system closes with its process. Of a
//! member elsewhere the group says only that it was there within the session time-out: where it is
//! still there after that time, it lives.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::config::KafkaConfig;
use crate::error::BusError;
use crate::native::{Member, Poller};
use crate::shutdown::Shutdown;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const BEFORE_LOOKING_AGAIN: Duration = Duration::from_millis(500);
/// The broker notices a dead member a little later than its session ends.
const GRACE: Duration = Duration::from_secs(2);
/// An orderly stop takes no longer for leaving the group.
const LEAVE: Duration = Duration::from_secs(2);

/// The place of one member, held until it is dropped.
#[derive(Debug)]
pub struct Place {
    group: String,
    instance: String,
    client_id: String,
    /// Whether nobody elsewhere has it. Asked once: whoever comes later waits for us.
    is_settled: Cell<bool>,
    _socket: Option<Socket>,
}

impl Place {
    /// Takes the place, as far as this machine is concerned.
    ///
    /// # Errors
    /// [`BusError::PlaceTaken`] where another process of this machine has it.
    pub fn claim(kafka: &KafkaConfig, group: &str, instance: &str) -> Result<Self, BusError> {
        let name = format!("spendfuse|{}|{group}|{instance}", kafka.brokers);
        let Ok(socket) = bind(&name) else {
            return Err(BusError::PlaceTaken {
                group: group.to_owned(),
                instance: instance.to_owned(),
                whose: "on this machine".to_owned(),
            });
        };
        Ok(Self {
            group: group.to_owned(),
            instance: instance.to_owned(),
            client_id: kafka.client_id.clone(),
            is_settled: Cell::new(false),
            _socket: socket,
        })
    }

    /// Waits until no member elsewhere has the place, at most until it must have been a dead one's.
    /// A member of this machine is one of the past: the place would not have been free otherwise.
    ///
    /// # Errors
    /// [`BusError::PlaceTaken`] where it lives; [`BusError::Request`] where the broker does not say;
    /// [`BusError::Stopped`].
    pub(crate) fn settle(
        &self,
        client: &Poller,
        session_timeout: Duration,
        shutdown: &Shutdown,
    ) -> Result<(), BusError> {
        if self.is_settled.get() {
            return Ok(());
        }
        let deadline = Instant::now() + session_timeout + GRACE;
        let mut is_told = false;
        while let Some(elsewhere) = self.taken_by(client)? {
            if Instant::now() >= deadline {
                return Err(BusError::PlaceTaken {
                    group: self.group.clone(),
                    instance: self.instance.clone(),
                    whose: format!("at {elsewhere}"),
                });
            }
            if !is_told {
                is_told = true;
                let (group, instance) = (&self.group, &self.instance);
                tracing::warn!(
                    group,
                    instance,
                    elsewhere,
                    "the group has a member of this instance id; waiting until its session ends, at most {session_timeout:?}"
                );
            }
            if shutdown.wait(BEFORE_LOOKING_AGAIN) {
                return Err(BusError::Stopped);
            }
        }
        self.is_settled.set(true);
        Ok(())
    }

    fn taken_by(&self, client: &Poller) -> Result<Option<String>, BusError> {
        let members = client.members(&self.group, REQUEST_TIMEOUT)?;
        let twin = members.into_iter().find(|member| {
            member.instance_id == self.instance && member.client_id != self.client_id
        });
        Ok(twin.map(|twin| twin.host))
    }

    /// At an orderly stop: where members of other processes can take over, the group is left, so that
    /// they do so at once. Alone the place is kept for the session time-out: nobody waits for it, and
    /// coming back costs nothing.
    pub(crate) fn give_up(&self, client: &Poller) {
        let Ok(members) = client.members(&self.group, LEAVE) else {
            return;
        };
        let own = process_of(&self.instance);
        let has_others = members
            .iter()
            .any(|member: &Member| process_of(&member.instance_id) != own);
        if has_others && client.leave(LEAVE) {
            let (group, instance) = (&self.group, &self.instance);
            tracing::debug!(group, instance, "left the group; others take over");
        }
    }
}

/// An instance id without the number of the worker.
fn process_of(instance: &str) -> &str {
    instance
        .rsplit_once('-')
        .filter(|(_, worker)| worker.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(instance, |(process, _)| process)
}

#[cfg(target_os = "linux")]
type Socket = std::os::unix::net::UnixListener;
#[cfg(not(target_os = "linux"))]
type Socket = ();

/// `Err` where another process has the name; no socket where the system gives none.
#[cfg(target_os = "linux")]
fn bind(name: &str) -> Result<Option<Socket>, std::io::Error> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    // Names have at most 107 bytes. FNV-1a: the same in all processes, whatever built them.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let address = SocketAddr::from_abstract_name(format!("spendfuse-{hash:016x}"))?;
    match UnixListener::bind_addr(&address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(error),
        Err(_) => Ok(None),
    }
}

/// Without names that end with their process only the group is asked.
#[cfg(not(target_os = "linux"))]
fn bind(_name: &str) -> Result<Option<Socket>, std::io::Error> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_a_process_are_no_strangers() {
        assert_eq!(process_of("host-1-processor-0"), "host-1-processor");
        assert_eq!(process_of("host-1-processor-12"), "host-1-processor");
        assert_eq!(process_of("loader"), "loader");
        assert_eq!(process_of("host-loader"), "host-loader");
    }
}
