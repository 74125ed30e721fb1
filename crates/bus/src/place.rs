//! A member's place in its group: the `group.instance.id`, of which there must be one.
//!
//! Kafka gives the place to whoever comes last and fences the one before, who does its work. So
//! a newcomer looks first whether the place is taken by somebody who lives. On the same machine that
//! is known at once: a socket with the place's name, which the system closes with its process. Of a
//! member elsewhere the group says only that it was there within the session time-out: where it is
//! still there after that time, it lives.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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

    /// Waits until no member elsewhere has the place, and nobody in the group reads other topics than
    /// `topics`, at most until these must have been dead ones. A member of this machine in this place
    /// is one of the past: the place would not have been free otherwise.
    ///
    /// # Errors
    /// [`BusError::PlaceTaken`], [`BusError::GroupShared`] where they live; [`BusError::Request`] where the broker does not say;
    /// [`BusError::Stopped`].
    pub(crate) fn settle(
        &self,
        client: &Poller,
        topics: &[String],
        session_timeout: Duration,
        shutdown: &Shutdown,
    ) -> Result<(), BusError> {
        if self.is_settled.get() {
            return Ok(());
        }
        let deadline = Instant::now() + session_timeout + GRACE;
        let mut is_told = false;
        loop {
            let obstacle = match self.obstacle(client, topics) {
                Ok(None) => break,
                Ok(Some(obstacle)) => obstacle,
                Err(error) if is_moving(&error) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(obstacle);
            }
            if !is_told {
                is_told = true;
                tracing::warn!(
                    error = %obstacle,
                    "waiting before joining, at most {session_timeout:?}"
                );
            }
            if shutdown.wait(BEFORE_LOOKING_AGAIN) {
                return Err(BusError::Stopped);
            }
        }
        self.is_settled.set(true);
        Ok(())
    }

    fn obstacle(&self, client: &Poller, topics: &[String]) -> Result<Option<BusError>, BusError> {
        let members = client.members(&self.group, REQUEST_TIMEOUT)?;
        Ok(self.obstacle_among(&members, topics))
    }

    fn obstacle_among(&self, members: &[Member], topics: &[String]) -> Option<BusError> {
        let group = self.group.clone();
        let own = process_of(&self.instance);
        members.iter().find_map(|member| {
            let is_past =
                member.client_id == self.client_id && process_of(&member.instance_id) == own;
            if is_past {
                return None;
            }
            if member.instance_id == self.instance {
                return Some(BusError::PlaceTaken {
                    group: group.clone(),
                    instance: self.instance.clone(),
                    whose: format!("at {}", member.host),
                });
            }
            let foreign = member.topics.first()?;
            let shares = member.topics.iter().any(|topic| topics.contains(topic));
            (!shares).then(|| BusError::GroupShared {
                group: group.clone(),
                host: member.host.clone(),
                topic: foreign.clone(),
            })
        })
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

/// Whether the group's coordinator is just moving to another broker, or being found for the first time.
fn is_moving(error: &BusError) -> bool {
    let BusError::Request {
        error: KafkaError::AdminOp(code),
        ..
    } = error
    else {
        return false;
    };
    matches!(
        code,
        RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
    )
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
    fn who_reads_other_topics_in_the_group_is_of_another_installation() {
        let kafka = KafkaConfig::new("localhost:9092", "here-1");
        let place = Place::claim(&kafka, "a-group-of-this-test", "host-0").unwrap();
        let member = |instance: &str, client: &str, topic: &str| Member {
            instance_id: instance.to_owned(),
            client_id: client.to_owned(),
            host: "/10.0.0.9".to_owned(),
            topics: vec![topic.to_owned()],
        };
        let own = ["usage".to_owned()];
        let obstacle = |member: Member| {
            let found = place.obstacle_among(&[member], &own);
            found.map(|error| error.to_string())
        };
        assert_eq!(obstacle(member("other-0", "there-1", "usage")), None);
        assert_eq!(obstacle(member("host-1", "here-1", "old.usage")), None);
        let twin = obstacle(member("host-0", "there-1", "usage")).unwrap();
        assert!(twin.contains("at /10.0.0.9 runs"), "{twin}");
        let shared = obstacle(member("other-0", "there-1", "old.usage")).unwrap();
        assert!(shared.contains("`old.usage`") && shared.contains("transactional_id_prefix"));
    }

    #[test]
    fn workers_of_a_process_are_no_strangers() {
        assert_eq!(process_of("host-1-processor-0"), "host-1-processor");
        assert_eq!(process_of("host-1-processor-12"), "host-1-processor");
        assert_eq!(process_of("loader"), "loader");
        assert_eq!(process_of("host-loader"), "host-loader");
    }
}
