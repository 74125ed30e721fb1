//! Asks a broker whether it is ready, in Kafka's own protocol but without a client library.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// A `Metadata` request, version 4, for no topic: size, api key 3, version 4, correlation id 7,
/// null client id, an empty list of topics, no creation of topics.
const METADATA_REQUEST: [u8; 19] = [
    0, 0, 0, 15, // size of what follows
    0, 3, 0, 4, // api key, version
    0, 0, 0, 7, // correlation id
    0xFF, 0xFF, // client id: null
    0, 0, 0, 0, // topics: none
    0, // allow_auto_topic_creation: no
];

/// How many live (unfenced) brokers the one on this port knows, itself included. An open port
/// alone says little: a broker listens before it is part of the cluster, and topics created then
/// are refused.
pub(super) fn live_brokers(port: u16) -> Result<usize, String> {
    ask(port).map_err(|error| format!("port {port}: {error}"))
}

fn ask(port: u16) -> io::Result<usize> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&METADATA_REQUEST)?;
    // Answer: size, correlation id, throttle time (version 3 and later), number of brokers.
    let mut head = [0_u8; 16];
    stream.read_exact(&mut head)?;
    if head[4..8] != METADATA_REQUEST[8..12] {
        return Err(io::Error::other("what listens there is not Kafka"));
    }
    let brokers = [head[12], head[13], head[14], head[15]];
    Ok(u32::from_be_bytes(brokers) as usize)
}
