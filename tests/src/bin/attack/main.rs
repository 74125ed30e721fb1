//! `make attack`: a hostile program against a sidecar, while an honest one asks.

mod busy;

use std::env;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use busy::{BUSY_FLAG, BusyProcessors};
use clap::Parser;
use spendfuse_tests::attack::{Observer, Plan, columns, obey};
use spendfuse_tests::{Address, Lab, Role, eventually};

/// What it may come to at most, as docs/operations.md says.
const MOST_GROWTH: u64 = 450_000_000;
/// Honest answers may take twice as long as in calm, 99 of 100.
const MOST_SLOW_DOWN: f64 = 2.0;

const BUDGETS: &str = r#"
budgets:
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "5.00", window: day}
"#;

const TURNS: &str = "\
The attacker is a process of the lowest priority (SCHED_IDLE), because whoever attacks a sidecar
from elsewhere does not take its machine's processors; so are the broker and the spendfuse
processor, which have machines of their own, and whichever part is not looked at. The sidecar and
the honest caller have the usual one. In turns: nobody attacks; another sidecar of this machine is
attacked while honest callers ask this one (what the machine makes of it); this one is attacked,
while the other one has the lowest priority too: its guard follows every name that is invented here.
Answers on a busy machine are compared with those on a busy one: in calm, other programs of the
lowest priority compute on every processor. The first line is that of a machine at rest.
";

/// Holds slow connections and half bodies, sends hostile requests and invented names, and says what
/// an honest caller sees. Exit code 1 where it is reached.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    plan: Plan,
    /// Be the attacker of the sidecar at this port of 127.0.0.1; orders come on standard input
    #[arg(long, hide = true)]
    attacker: Option<u16>,
    /// Compute until standard input ends
    #[arg(long = BUSY_FLAG, hide = true)]
    busy: bool,
}

fn main() -> Result<ExitCode> {
    let line = CommandLine::parse();
    if let Some(port) = line.attacker {
        obey(Address::on_port(port), &line.plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    if line.busy {
        busy::compute();
    }
    let holds = take_turns(&line)?;
    println!("{}", if holds { "held" } else { "not held" });
    Ok(ExitCode::from(u8::from(!holds)))
}

/// Whether honest callers are reached in no turn.
fn take_turns(line: &CommandLine) -> Result<bool> {
    let plan = &line.plan;
    let program = env::current_exe().context("the path of this program")?;
    let lab = Lab::new("attack");
    let processor = lab.processor("1");
    // A budget for each customer: an invented name costs an entry in every replica.
    lab.apply_budgets(BUDGETS);
    let victim = Sidecar::start(&lab, "victim");
    let other = Sidecar::start(&lab, "other");
    for process in [processor.process_id(), lab.kafka().process_id(0)] {
        lower_priority(process.context("a part has ended")?)?;
    }
    println!("{TURNS}\n{}", columns());
    let asked = victim.observer;
    println!("{}", asked.calm("at rest", plan));
    let calm = || -> Result<_> {
        let busy = BusyProcessors::start(&program)?;
        let phase = asked.calm("calm", plan);
        drop(busy);
        println!("{phase}");
        Ok(phase)
    };
    let before = calm()?;
    println!("another sidecar of this machine is attacked:");
    let beside = asked.attack(other.observer.api, &program, plan);
    println!("{beside}");
    lower_priority(
        other
            .role
            .process_id()
            .context("the other sidecar has ended")?,
    )?;
    let between = calm()?;
    println!("this one is attacked:");
    let attacked = asked.attack(asked.api, &program, plan);
    println!("{attacked}");
    let after = calm()?;

    let growth = attacked.growth(&between);
    let failures: usize = attacked.phases.iter().map(|phase| phase.failures).sum();
    let mut calm = [before, between, after].map(|phase| phase.p99);
    calm.sort_unstable();
    let slow_down = ratio(attacked.p99(), calm[1]);
    println!(
        "memory grew by {} MB; honest p99 at most {slow_down:.2} times that in calm (the middle one \
         of three), {:.2} times while another one was attacked",
        growth / 1_000_000,
        ratio(beside.p99(), calm[1])
    );
    Ok(failures == 0
        && growth <= MOST_GROWTH
        && slow_down <= MOST_SLOW_DOWN
        && victim.role.is_running())
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

/// From here on a process and its threads get what others leave over.
fn lower_priority(process_id: u32) -> Result<()> {
    let process_id = process_id.to_string();
    let arguments = ["--all-tasks", "--idle", "--pid", "0", &process_id];
    let status = Command::new("chrt").args(arguments).status();
    let is_lower = status.context("chrt (util-linux)")?.success();
    ensure!(is_lower, "chrt cannot lower the priority of {process_id}");
    Ok(())
}

/// A sidecar that is ready.
struct Sidecar {
    observer: Observer,
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
        let observer = Observer { api, admin };
        Self { observer, role }
    }
}
