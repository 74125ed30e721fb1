//! The clients of Margint and MarginDash, unchanged, against a sidecar on the real parts.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use spendfuse_tests::{Lab, PATIENCE, Role, eventually};

use crate::provider_clients::{installed, repository};
use crate::refusing::ask_at;

/// A call of 1,000 tokens in and 100 out costs $0.0035 at gpt-4o's prices.
const BUDGETS: &str = "budgets:
  - {id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.28\", window: lifetime, action: block}
  - {id: nothing, scope: {workspace: acme, customer: c-2}, limit: \"0\", window: year, action: block}
";

#[test]
fn margints_and_margindashs_clients_are_guarded_and_counted_once_through_a_restart() {
    let lab = Lab::empty("peers");
    lab.create_topics();
    let _processor = lab.processor("1");
    lab.apply_budgets(BUDGETS);
    let address = free_address();
    let mut sidecar = start(&lab, address);
    let folder = lab.file("peers");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let python = installed(
        "python-venv",
        "tests/clients/peers/requirements.txt",
        &folder,
    );
    let mut app = App::start(&python.join("bin/python"), address);

    let refused = |seen: &Value| seen["seen"]["c-2"].to_string().contains("udget");
    eventually("both refuse who may spend nothing", PATIENCE, || {
        let seen = [app.step("margint_asks"), app.step("margindash_asks")];
        let whole = json!(seen);
        match seen.iter().all(refused)
            && seen[0]["seen"]["c-1"] == "ran"
            && seen[1]["seen"]["c-1"] == "ran"
        {
            true => Ok(()),
            false => Err(whole.to_string()),
        }
    });
    let asked = app.step("margint_asks");
    let breach = &asked["seen"]["c-2"]["breaches"][0];
    assert_eq!(
        (&breach["budget_id"], &breach["limit_cents"]),
        (&json!("nothing"), &json!(0))
    );
    assert_eq!(asked["seen"]["7"], "ran", "a number is a customer");
    let priced = app.step("margindash_asks");
    assert!(priced["cost"].to_string().contains("0.0035"), "{priced}");

    app.step("margint_tracks");
    app.step("margindash_tracks");
    assert_eq!(app.step("margint_flushes")["queued"], 0);
    // Its client counts refusals among its errors.
    let flushed = app.step("margindash_flushes");
    let errors = flushed["errors"].as_array().expect("a list");
    let refusal = "Request blocked by customer budget limit (c-2)";
    assert!(errors.iter().all(|one| one == refusal), "{flushed}");
    spent(address, "0.14");

    // Nobody answers: what is tracked waits in the clients, and goes out once somebody does.
    sidecar.kill();
    app.step("margint_tracks");
    app.step("margint_flushes");
    app.step("margindash_tracks");
    sidecar.restart();
    eventually(
        "the sidecar answers again",
        PATIENCE,
        || match std::net::TcpStream::connect(address) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
    );
    eventually("everything is sent", PATIENCE, || {
        let told = app.step("margint_flushes");
        match told["queued"] == 0 {
            true => Ok(()),
            false => Err(told.to_string()),
        }
    });
    app.step("margindash_flushes");
    spent(address, "0.28");

    eventually("both refuse who has spent all", PATIENCE, || {
        let seen = [app.step("margint_asks"), app.step("margindash_asks")];
        let is_refused = seen.iter().all(|one| one["seen"]["c-1"] != "ran");
        match is_refused && seen[1]["seen"]["c-3"] == "ran" {
            true => Ok(()),
            false => Err(json!(seen).to_string()),
        }
    });
    let by_margindash = app.step("margindash_asks");
    let text = by_margindash["seen"]["c-1"].to_string();
    assert!(text.contains("customer budget limit"), "{text}");
}

fn start(lab: &Lab, address: SocketAddr) -> Role {
    let address = address.to_string();
    let settings = [
        ("sidecar.listen", &*address),
        ("sidecar.default_workspace", "acme"),
    ];
    let sidecar = lab.role("sidecar", "1", &settings);
    sidecar.await_line("the sidecar answers", PATIENCE);
    sidecar
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    listener.local_addr().expect("it is bound")
}

/// Waits until the ledger says so.
fn spent(address: SocketAddr, dollars: &str) {
    eventually("every call is counted, and once", PATIENCE, || {
        let answer = ask_at(address, "/v1/state?workspace=acme&customer=c-1");
        let state: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        match state["budgets"][0]["spent_usd"] == dollars {
            true => Ok(()),
            false => Err(state.to_string()),
        }
    });
}

/// The app that has both clients.
struct App {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl App {
    fn start(python: &std::path::Path, sidecar: SocketAddr) -> Self {
        let mut process = Command::new(python)
            .arg(repository().join("tests/clients/peers/calls.py"))
            .arg(format!("http://{sidecar}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self {
            process,
            input,
            output,
        }
    }

    /// What it says of one step.
    fn step(&mut self, name: &str) -> Value {
        writeln!(self.input, "{name}").expect("the app runs");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the app runs");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name}: {line}"));
        println!("{told}");
        told
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
