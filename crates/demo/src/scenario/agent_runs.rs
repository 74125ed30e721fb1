//! The real agent runs: every step with the counts that Gemini reported, each run compressed into
//! the length of the demo.

use std::time::Duration;

use spendfuse_domain::UnixMillis;

use super::{Action, Route, Step, moment};
use crate::event::{Call, DemoEvent, GEMINI_3_FLASH, Usage};

const RUNS: &str = include_str!("../../../../data/agent_runs.csv");

/// Begins the session names of the runs.
pub const SESSIONS: &str = "run-";

struct RunStep<'a> {
    run: &'a str,
    step: &'a str,
    time: UnixMillis,
    usage: Usage,
    tool_calls: u32,
    call_hash: &'a str,
}

pub fn steps(length: Duration) -> Vec<Step> {
    let lines = RUNS.lines().skip(1);
    let read: Vec<RunStep<'_>> = lines
        .map(|line| read(line).expect("the file in the binary is well-formed; a test reads it"))
        .collect();
    let mut steps = Vec::with_capacity(read.len());
    for run in read.chunk_by(|one, other| one.run == other.run) {
        let first = run.first().map_or(UnixMillis(0), |step| step.time);
        let whole = run.last().map_or(1, |step| step.time.since(first)).max(1);
        for one in run {
            let share = one.time.since(first) as f64 / whole as f64;
            steps.push(Step {
                at: moment(length, 0.05 + 0.85 * share),
                action: Action::Send {
                    event: one.event(),
                    route: Route::Home,
                    repeat: false,
                },
            });
        }
    }
    steps
}

fn read(line: &str) -> Option<RunStep<'_>> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let number = |index: usize| -> Option<u64> { fields.get(index)?.parse().ok() };
    let cache_read = number(6)?;
    Some(RunStep {
        run: fields.first()?,
        step: fields.get(1)?,
        time: UnixMillis::parse_rfc3339(fields.get(2)?).ok()?,
        usage: Usage {
            input: number(4)?.checked_sub(cache_read)?,
            cache_read,
            output: number(5)?,
            reasoning: number(7)?,
            tool_input: number(8)?,
            ..Usage::default()
        },
        tool_calls: u32::try_from(number(10)?).ok()?,
        call_hash: fields.get(12)?,
    })
}

impl RunStep<'_> {
    fn event(&self) -> DemoEvent {
        let name = self.run.split("__").next().unwrap_or(self.run);
        let call = Call {
            customer: "acme-labs".to_owned(),
            plan: "internal",
            feature: "coding-agent",
            agent: "gemini-cli",
            session: format!("{SESSIONS}{name}"),
            model: GEMINI_3_FLASH,
            usage: self.usage,
            tool_calls: self.tool_calls,
            // The file has the first eight digits of a hash.
            tool_fingerprint: if self.call_hash.is_empty() {
                String::new()
            } else {
                format!("{:0<16}", self.call_hash)
            },
            ..Call::default()
        };
        DemoEvent::call("gemini-cli", format!("{}-{}", self.run, self.step), call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_every_run_is_replayed_in_order() {
        let steps = steps(Duration::from_secs(40));
        assert_eq!(steps.len(), 176);
    }
}
