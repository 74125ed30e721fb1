//! The years must be able to fail: guarantees are broken on purpose, one at a time, each in a process
//! of its own, and the look at the books must notice.

use std::process::{Command, ExitCode};

use spendfuse_broken::Break;

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
    let unnoticed = SHOWN
        .into_iter()
        .filter(|broken| !is_noticed(*broken, first_seed, days));
    let unnoticed = unnoticed.count();
    println!(
        "{} of {} broken guarantees were noticed",
        SHOWN.len() - unnoticed,
        SHOWN.len()
    );
    ExitCode::from(u8::from(unnoticed > 0))
}

fn is_noticed(broken: Break, first_seed: u64, days: u32) -> bool {
    let name = broken.name();
    for seed in first_seed..first_seed + ATTEMPTS {
        let program = std::env::current_exe().expect("a running program has a path");
        let arguments = format!("--seeds 1 --seed {seed} --days {days}");
        let lived = Command::new(program)
            .args(arguments.split(' '))
            .env("SPENDFUSE_BREAK", name)
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
