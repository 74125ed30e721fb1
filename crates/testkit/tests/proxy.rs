//! The fault proxy does what fault runs rely on.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use spendfuse_testkit::proxy::{ApiKey, Protocol, Proxy, Toward};
use tokio::runtime::Runtime;

/// A server that answers every request with its correlation id.
fn server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap()));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut size = [0; 4];
    while stream.read_exact(&mut size).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut frame).unwrap();
        let mut response = vec![0, 0, 0, 4];
        response.extend(&frame[4..8]);
        if stream.write_all(&response).is_err() {
            return;
        }
    }
}

struct Client(TcpStream);

impl Client {
    fn new(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        let patience = Duration::from_millis(1_000);
        stream.set_read_timeout(Some(patience)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, api: ApiKey, correlation: u8) {
        let api = api.0.to_be_bytes();
        let mut frame = vec![0, 0, 0, 10, api[0], api[1], 0, 1, 0, 0, 0, correlation];
        frame.extend([0xFF, 0xFF]);
        self.0.write_all(&frame).unwrap();
    }

    /// The correlation id of the next answer; an error's kind where none comes.
    fn hear(&mut self) -> Result<u8, ErrorKind> {
        let mut response = [0; 8];
        match self.0.read_exact(&mut response) {
            Ok(()) => Ok(response[7]),
            Err(error) => Err(error.kind()),
        }
    }
}

fn proxied() -> (Runtime, Proxy) {
    let runtime = Runtime::new().unwrap();
    let proxy = Proxy::listen(runtime.handle(), Protocol::Kafka, None).unwrap();
    proxy.forward_to(server());
    (runtime, proxy)
}

#[test]
fn exactly_the_named_response_is_lost_and_its_connection_with_it() {
    let (_runtime, proxy) = proxied();
    let mut client = Client::new(&proxy);
    proxy.lose_responses(ApiKey::END_TXN, 1);
    client.ask(ApiKey::PRODUCE, 1);
    assert_eq!(client.hear(), Ok(1));
    client.ask(ApiKey::END_TXN, 2);
    assert!(matches!(
        client.hear(),
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
    ));
    assert_eq!(proxy.lost(), 1);
    let mut again = Client::new(&proxy);
    again.ask(ApiKey::END_TXN, 3);
    assert_eq!(again.hear(), Ok(3), "only one was to be lost");
}

#[test]
fn what_was_sent_into_silence_arrives_afterwards() {
    let (_runtime, proxy) = proxied();
    let mut client = Client::new(&proxy);
    proxy.silence(Toward::Client, true);
    client.ask(ApiKey::PRODUCE, 1);
    let silence = client.hear().unwrap_err();
    assert!(matches!(
        silence,
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    proxy.heal();
    assert_eq!(client.hear(), Ok(1));
}

#[test]
fn a_connection_breaks_in_the_middle_of_a_response() {
    let (_runtime, proxy) = proxied();
    let mut client = Client::new(&proxy);
    client.ask(ApiKey::PRODUCE, 1);
    assert_eq!(client.hear(), Ok(1));
    proxy.cut_after(Toward::Client, 5);
    client.ask(ApiKey::PRODUCE, 2);
    let mut rest = Vec::new();
    // The end may come as a reset.
    let _ = client.0.read_to_end(&mut rest);
    assert_eq!(rest.len(), 5, "{rest:?}");
}

#[test]
fn a_half_closed_connection_ends_for_one_side_only() {
    let (_runtime, proxy) = proxied();
    let mut client = Client::new(&proxy);
    client.ask(ApiKey::PRODUCE, 1);
    assert_eq!(client.hear(), Ok(1));
    proxy.half_close(Toward::Client);
    assert_eq!(client.hear(), Err(ErrorKind::UnexpectedEof));
    client.ask(ApiKey::PRODUCE, 2);
}
