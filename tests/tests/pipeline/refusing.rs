//! A sidecar that refuses: a budget of nothing is in force.

use spendfuse_tests::http::{Answer, ask};
use spendfuse_tests::{Lab, PATIENCE, Role, eventually};
use std::net::{SocketAddr, TcpStream};

use crate::provider_clients::repository;

/// Customer `c-1` may spend nothing this year; nobody else has a budget.
const BUDGET: &str = "budgets:
  - {id: nothing, scope: {workspace: acme, customer: c-1}, limit: \"0\", window: year, action: block}
";

/// The question about the customer who may not.
pub const REFUSED: &str = "workspace=acme&customer=c-1";

/// A lab with a processor and a sidecar.
pub struct Refusing {
    pub sidecar: Role,
    pub address: SocketAddr,
    _processor: Role,
    // Dropped after its roles.
    pub lab: Lab,
}

impl Refusing {
    /// Starts the parts and waits until the customer is refused, with an end in sight.
    pub fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let lab = Lab::empty(name);
        lab.create_topics();
        let processor = lab.processor("1");
        let (sidecar, address) = start_sidecar(&lab, "1", settings);
        lab.apply_budgets(BUDGET);
        let refusing = Self {
            sidecar,
            address,
            _processor: processor,
            lab,
        };
        eventually("the sidecar refuses", PATIENCE, || {
            let answer = refusing.ask(&format!("/v1/authz?{REFUSED}"));
            match answer.header("retry-after") {
                Some(_) => Ok(()),
                None => Err(format!("{answer:?}")),
            }
        });
        refusing
    }

    /// Asks the sidecar.
    pub fn ask(&self, path: &str) -> Answer {
        ask_at(self.address, path)
    }
}

/// Starts a sidecar and waits until it answers; where.
pub fn start_sidecar(lab: &Lab, instance: &str, settings: &[(&str, &str)]) -> (Role, SocketAddr) {
    let listen = ("sidecar.listen", "127.0.0.1:0");
    let settings: Vec<_> = settings.iter().copied().chain([listen]).collect();
    let sidecar = lab.role("sidecar", instance, &settings);
    let address = address_of(&sidecar);
    (sidecar, address)
}

/// Starts a processor and a sidecar, with the sample's first budget (five cents a day for each customer
/// of acme) in force; where the sidecar is.
pub fn start_with_first_budget(lab: &Lab) -> (Role, Role, SocketAddr) {
    lab.create_topics();
    let processor = lab.processor("1");
    lab.apply_budgets(&first_budget());
    let (sidecar, address) = start_sidecar(lab, "1", &[]);
    eventually("the budget is in force", PATIENCE, || {
        let answer = ask_at(address, "/v1/state?workspace=acme&customer=c-1");
        match answer.body.contains("per-customer") {
            true => Ok(()),
            false => Err(answer.body),
        }
    });
    (processor, sidecar, address)
}

/// The sample's file of budgets.
pub fn first_budget() -> String {
    let file = repository().join("deploy/sample/first.yaml");
    std::fs::read_to_string(file).expect("the sample is there")
}

/// Waits until a sidecar answers that was started; where.
pub fn address_of(sidecar: &Role) -> SocketAddr {
    let line = sidecar.await_line("the sidecar answers", PATIENCE);
    let address = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("address="));
    let address = address.and_then(|address| address.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {line}"))
}

/// Asks the sidecar that listens there.
pub fn ask_at(address: SocketAddr, path: &str) -> Answer {
    let stream = TcpStream::connect(address).expect("the sidecar listens");
    ask(stream, "GET", path, &[]).expect("the sidecar answers")
}
