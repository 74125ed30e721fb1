//! A gateway in small: asks the sidecar about every call and passes its refusal on as it is.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::http::{ask, header, read_request};

/// What a permitted call gets.
const PERMITTED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 2\r\nConnection: close\r\n\r\n{}";

/// A running relay; it runs as long as the process.
pub struct Relay {
    address: SocketAddr,
    attempts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Relay {
    /// A relay that asks `sidecar` about calls of the customer that `question` names, such as
    /// `workspace=acme&customer=c-1`.
    ///
    /// A call's path begins with a name to count attempts by, such as `/openai.429/v1/…`; what follows
    /// its dot is asked for as `deny_status`, unless it is `auto`.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn start(sidecar: SocketAddr, question: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        let attempts = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let counted = Arc::clone(&attempts);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                thread::spawn(move || relay(caller, sidecar, question, &counted));
            }
        });
        Self { address, attempts }
    }

    /// Where calls go.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many calls came with this name.
    pub fn attempts(&self, name: &str) -> usize {
        let attempts = self.attempts.lock();
        let attempts = attempts.unwrap_or_else(PoisonError::into_inner);
        attempts.get(name).copied().unwrap_or_default()
    }
}

fn relay(
    mut caller: TcpStream,
    sidecar: SocketAddr,
    question: &str,
    attempts: &Mutex<BTreeMap<String, usize>>,
) -> io::Result<()> {
    let head = read_request(&mut caller)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let path = path.trim_start_matches('/');
    let (name, rest) = path.split_once('/').unwrap_or((path, ""));
    let rest = rest.split('?').next().unwrap_or_default();
    let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    *attempts.entry(name.to_owned()).or_default() += 1;
    drop(attempts);
    let status = match name.rsplit_once('.') {
        None | Some((_, "auto")) => String::new(),
        Some((_, status)) => format!("&deny_status={status}"),
    };
    // As gateways do: the caller's headers, its content type without a body, its key.
    let passed_on = ["user-agent", "authorization", "content-type"];
    let headers = passed_on
        .into_iter()
        .filter_map(|name| Some((name, header(&head, name)?)));
    let headers: Vec<_> = headers.chain([("x-forwarded-method", "POST")]).collect();
    let asked = format!("/v1/authz/{rest}?{question}{status}");
    let answer = ask(TcpStream::connect(sidecar)?, "POST", &asked, &headers)?;
    match answer.status {
        200 => caller.write_all(PERMITTED.as_bytes()),
        _ => caller.write_all(&answer.bytes),
    }
}
