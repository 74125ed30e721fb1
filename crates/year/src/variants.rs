//! The years must be able to fail: guarantees are broken on purpose, one at a time, each in a process
//! of its own, and the look at the books must notice.

use std::process::{Command, ExitCode};

use spendfuse_broken::Break;
use spendfuse_year::broken::{Habit, VARIABLE};

/// Those that a simulation can show. The others are about clients, connections and processes, which
/// only `make chaos ARGS=--variants` has.
const SHOWN: [Break; 13] = [
    Break::OffsetsOutsideTransaction,
    Break::ChangelogOutsideTransaction,
    Break::IdlePositionStays,
    Break::DedupeNotRestored,
    Break::DedupeClaimsMore,
    Break::DedupeBeforeRerouting,
    Break::HeartbeatBegunAnew,
    Break::LoaderWithoutIntent,
    Break::LoaderTrustsOffsetsOnly,
    Break::TokenNotTiedToRange,
    Break::AddressesWithoutEpoch,
    Break::DeduplicationWindowTooSmall,
    Break::UnreadableBudgetRemoved,
];
/// Years that are lived until one notices.
const ATTEMPTS: u64 = 4;

/// Lives years with each of these guarantees broken.
pub fn run(first_seed: u64, days: u32) -> ExitCode {
    let of_parts = SHOWN.map(|broken| ("SPENDFUSE_BREAK", broken.name()));
    let of_people = Habit::ALL.map(|broken| (VARIABLE, broken.name()));
    let all = of_parts.into_iter().chain(of_people);
    let unnoticed = all.filter(|(variable, name)| !is_noticed(variable, name, first_seed, days));
    let unnoticed = unnoticed.count();
    let all = SHOWN.len() + Habit::ALL.len();
    println!(
        "{} of {all} broken guarantees were noticed",
        all - unnoticed
    );
    ExitCode::from(u8::from(unnoticed > 0))
}

fn is_noticed(variable: &str, name: &str, first_seed: u64, days: u32) -> bool {
    for seed in first_seed..first_seed + ATTEMPTS {
        let program = std::env::current_exe().expect("a running program has a path");
        let arguments = format!("--seeds 1 --seed {seed} --days {days}");
        let lived = Command::new(program)
            .args(arguments.split(' '))
            .env(variable, name)
            .output();
        let lived = lived.expect("this program can be started once more");
        let told = String::from_utf8_lossy(&lived.stdout);
        if !lived.status.success() && told.starts_with("seed ") {
            println!(
                "{name}: noticed, {}",
                told.lines().next().unwrap_or_default()
            );
            return true;
        }
    }
    println!("{name}: NOT noticed");
    false
}
