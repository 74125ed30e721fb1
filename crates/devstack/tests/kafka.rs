//! The broker is started, killed and restarted for real.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use spendfuse_devstack::{Kafka, KafkaOptions, wait_until};

#[test]
fn a_killed_broker_comes_back_on_its_port_and_a_dropped_one_is_gone() {
    let kafka = Kafka::start(KafkaOptions::default()).unwrap();
    let address = kafka.brokers();
    let folder = kafka.folder().to_owned();
    let first = kafka.process_id(0).unwrap();
    assert!(supports_transactions(&address));

    kafka.kill(0);
    assert!(TcpStream::connect(&address).is_err());
    kafka.restart(0).unwrap();
    kafka.wait_ready().unwrap();
    assert_eq!(kafka.brokers(), address);
    let second = kafka.process_id(0).unwrap();
    assert_ne!(first, second);

    drop(kafka);
    assert!(!Path::new(&format!("/proc/{second}")).exists());
    assert!(!folder.exists());
}

#[test]
fn nothing_is_left_when_the_starting_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut parent = Command::new(env!("CARGO_BIN_EXE_spendfuse-devstack"))
        .args(["up", "--ports=free", "--dir"])
        .arg(folder.path())
        .spawn()
        .unwrap();
    let address = wait_until("the addresses", Duration::from_secs(90), || {
        let text = std::fs::read_to_string(folder.path().join("env")).ok()?;
        let line = text.lines().find(|line| line.contains("KAFKA"))?;
        Some(line.split_once('=')?.1.to_owned())
    })
    .unwrap();
    assert!(TcpStream::connect(&address).is_ok());

    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("the broker's end", Duration::from_secs(30), || {
        TcpStream::connect(&address).err()
    })
    .unwrap();
}

/// Asks which requests the broker takes (`ApiVersions` version 0) and looks for
/// `InitProducerId`, without which nothing here works.
fn supports_transactions(address: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF];
    stream.write_all(&request).unwrap();
    let mut size = [0_u8; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0_u8; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).unwrap();
    // Correlation id, error code, number of entries, then (key, lowest, highest) of two bytes each.
    answer[10..]
        .chunks_exact(6)
        .any(|entry| entry[..2] == [0, 22])
}
