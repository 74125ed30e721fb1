//! `make notify`: alerts to places that fail half the time, while notifier and broker are killed.

use std::process::ExitCode;

use clap::Parser;
use spendfuse_broken::Break;
use spendfuse_tests::Lab;
use spendfuse_tests::deliveries::{Plan, Report, run};
use spendfuse_tests::lab::has_broken_executable;

/// What the notifier's deliveries rest on.
const VARIANTS: [Break; 1] = [Break::DeliveryStateOutsideTransaction];
/// A broken guarantee shows long before.
const VARIANT_ALERTS: usize = 1800;
const VARIANT_STRIKES: usize = 6;

/// Sends alerts to places that fail half the time while notifier and broker are killed. Exit code 1
/// where one does not arrive, comes twice under its key, or out of its scope's order.
#[derive(Debug, Parser)]
#[command(after_help = "Example: notify --alerts 1000 --strikes 6 --seed 7")]
struct CommandLine {
    #[command(flatten)]
    plan: Plan,
    /// Break the guarantee on purpose instead, and show that the checks notice
    #[arg(long)]
    variants: bool,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let is_right = match line.variants {
        false => whole(&line.plan),
        true => VARIANTS.iter().all(|broken| is_caught(&line.plan, *broken)),
    };
    ExitCode::from(u8::from(!is_right))
}

fn whole(plan: &Plan) -> bool {
    let lab = Lab::for_kills_of_the_broker("notify");
    lab.create_topics();
    let report = run(&lab, plan);
    print(&report);
    report.is_well()
}

fn is_caught(plan: &Plan, broken: Break) -> bool {
    if !has_broken_executable() {
        return false;
    }
    let plan = Plan {
        alerts: VARIANT_ALERTS,
        strikes: VARIANT_STRIKES,
        ..*plan
    };
    let mut lab = Lab::for_kills_of_the_broker("notify_broken");
    lab.create_topics();
    lab.break_on_purpose(broken);
    let report = run(&lab, &plan);
    print(&report);
    let verdict = if report.is_well() {
        "NOT CAUGHT"
    } else {
        "caught"
    };
    println!("{verdict}  {}", broken.name());
    !report.is_well()
}

fn print(report: &Report) {
    println!("{report}");
    if !report.is_well() {
        let lines: Vec<&str> = report.log.lines().collect();
        let end = &lines[lines.len().saturating_sub(20)..];
        println!("the end of the notifier's log:\n{}", end.join("\n"));
    }
}
