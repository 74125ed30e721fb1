//! `make attack`: a hostile program on this machine against a sidecar, while an honest one asks.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use spendfuse_tests::attack::{Plan, attack, attack_beside};
use spendfuse_tests::{Address, Lab, Role, eventually};

/// What it may come to at most, as docs/operations.md says.
const MOST_GROWTH: u64 = 450_000_000;
/// Honest answers may take twice as long as those of a sidecar beside the attacked one: attackers,
/// broker and processor take their share of the machine from both.
const MOST_SLOW_DOWN: f64 = 2.0;

const BUDGETS: &str = r#"
budgets:
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "5.00", window: day}
"#;

/// Holds slow connections and half bodies, sends hostile requests and invented names, and says what
/// an honest caller sees. Exit code 1 where it is reached.
#[derive(Debug, Parser)]
struct CommandLine {
    /// Connections that send half a head
    #[arg(long, default_value_t = 900)]
    slow: usize,
    /// Connections that send half of 8 MB
    #[arg(long, default_value_t = 60)]
    half: usize,
    /// Hostile requests
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    /// Of those, in a second
    #[arg(long, default_value_t = 1_000)]
    rate: usize,
    /// Invented models, customers and sessions
    #[arg(long, default_value_t = 100_000)]
    names: usize,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let plan = Plan {
        slow: line.slow,
        half: line.half,
        half_bytes: 4_000_000,
        requests: line.requests,
        requests_per_second: line.rate,
        names: line.names,
        phase: Duration::from_secs(20),
    };
    let lab = Lab::new("attack");
    let _processor = lab.processor("1");
    // A budget for each customer: an invented name costs an entry in every replica.
    lab.apply_budgets(BUDGETS);
    let victim = Sidecar::start(&lab, "victim");
    let other = Sidecar::start(&lab, "other");
    println!("another sidecar of this machine is attacked; honest callers ask this one:");
    let beside = attack_beside(other.api, victim.api, victim.admin, &plan);
    println!("{beside}\n\nthis one is attacked:");
    let report = attack(victim.api, victim.admin, &plan);
    let slow_down = report.slow_down(&beside);
    println!("{report}; honest p99 at most {slow_down:.2} times that beside an attacked one");
    let failures: usize = report.phases.iter().map(|phase| phase.failures).sum();
    let holds = failures == 0
        && report.growth() <= MOST_GROWTH
        && slow_down <= MOST_SLOW_DOWN
        && victim.role.is_running();
    println!("{}", if holds { "held" } else { "not held" });
    ExitCode::from(u8::from(!holds))
}

/// A sidecar that is ready.
struct Sidecar {
    api: Address,
    admin: Address,
    role: Role,
}

impl Sidecar {
    fn start(lab: &Lab, name: &str) -> Self {
        let (api, admin) = (Address::free(), Address::free());
        let settings = [
            ("admin.listen", &*admin.setting()),
            ("sidecar.listen", &*api.setting()),
        ];
        let role = lab.role("sidecar", name, &settings);
        eventually("a sidecar is ready", Duration::from_secs(30), || {
            let ready = admin.get("/readyz").filter(|(status, _)| *status == 200);
            ready.ok_or_else(|| role.log())
        });
        Self { api, admin, role }
    }
}
