//! Two processors share the partitions and take over from each other.

use std::time::{Duration, Instant};

use spendfuse_domain::Verdict;
use spendfuse_domain::routing::partition_of;
use spendfuse_tests::lab::{PARTITIONS, WORKSPACE};
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Expected, GuardView, Lab, Load, PATIENCE, Role, Traffic, eventually};

const BUDGETS: &str = "budgets:
  - {id: one-call, scope: {workspace: acme, customer: \"*\"}, where: {feature: agent}, limit_calls: 1, window: lifetime}
";
const TAKE_OVER: Duration = Duration::from_secs(15);

#[test]
fn verdicts_of_a_dead_or_hanging_processors_partitions_flow_again_within_15_s() {
    let lab = Lab::new("take_over");
    lab.apply_budgets(BUDGETS);
    let first = lab.processor("1");
    let second = lab.processor("2");
    let _loader = lab.loader();
    await_shares(&[&first, &second]);
    let guard = GuardView::new(&lab);
    let mut probes = Probes::new(&lab);
    probes.send("before");
    probes.await_verdicts(&guard, "before", PATIENCE);

    let load = Load::start(&lab, Traffic::new(&lab, 4), 1_000, 40_000);
    load.await_sent(3_000);
    let killed_at = Instant::now();
    first.kill();
    probes.send("after");
    probes.await_verdicts(&guard, "after", TAKE_OVER);
    println!(
        "kill -9 of one of two processors -> verdicts of every partition: {:.1} s",
        killed_at.elapsed().as_secs_f64()
    );
    assert!(killed_at.elapsed() <= TAKE_OVER);

    let third = lab.processor("3");
    await_shares(&[&second, &third]);
    probes.send("third");
    probes.await_verdicts(&guard, "third", TAKE_OVER);

    // A process that hangs loses its partitions; what it had begun is fenced when it wakes.
    second.pause();
    probes.send("hanging");
    probes.await_verdicts(&guard, "hanging", TAKE_OVER);
    second.resume();
    await_shares(&[&second, &third]);
    probes.send("awake");
    probes.await_verdicts(&guard, "awake", TAKE_OVER);

    let mut expected = load.finish();
    expected.merge(&probes.expected());
    lab.settle(&expected, PATIENCE);
}

/// Waits until every processor counts its share of the partitions in both stages.
pub fn await_shares(processors: &[&Role]) {
    let wanted = PARTITIONS as usize / processors.len();
    eventually("the partitions are shared", PATIENCE, || {
        for processor in processors {
            let log = processor.log();
            for stage in ["meter", "ledger"] {
                let running = format!("stage=\"{stage}\"");
                let last = log
                    .lines()
                    .rfind(|line| line.contains(&running) && line.contains("partitions=["));
                let share = last.and_then(|line| {
                    let (_, rest) = line.split_once("partitions=[")?;
                    Some(rest.split_once(']')?.0.split(',').count())
                });
                if share != Some(wanted) {
                    return Err(format!("{stage}: {last:?}\n{log}"));
                }
            }
        }
        Ok(())
    });
}

/// Events of customers that were never seen, some for every pair of meter and ledger partition;
/// one call each, which is their limit.
struct Probes {
    sender: Sender,
    traffic: Traffic,
}

impl Probes {
    fn new(lab: &Lab) -> Self {
        Self {
            sender: Sender::new(lab),
            // Other event ids than the load's: those count from 1.
            traffic: Traffic::new(lab, 5).counting_from(1_000_000_000),
        }
    }

    fn send(&mut self, round: &str) {
        for (customer, session) in customers(round) {
            self.sender
                .send(&self.traffic.call(&customer, &session, 10, 0, 1));
        }
        self.sender.flush();
    }

    fn await_verdicts(&self, guard: &GuardView, round: &str, patience: Duration) {
        let begin = Instant::now();
        for (customer, _) in customers(round) {
            let left = patience.saturating_sub(begin.elapsed());
            guard.await_verdict(&customer, Verdict::Block, left);
        }
    }

    fn expected(&self) -> Expected {
        self.traffic.expected().clone()
    }
}

/// Customer and session, for each meter partition enough of them to meet every ledger partition.
fn customers(round: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for meter in 0..PARTITIONS {
        let session = (0..)
            .map(|number| format!("probe-{round}-{number}"))
            .find(|session| partition_of(session.as_bytes(), PARTITIONS) == meter)
            .expect("every partition has sessions");
        for ledger in 0..PARTITIONS {
            let customer = (0..)
                .map(|number| format!("probe-{round}-{meter}-{number}"))
                .find(|customer| {
                    let scope = format!("{WORKSPACE}/customer={customer}");
                    partition_of(scope.as_bytes(), PARTITIONS) == ledger
                })
                .expect("every partition has scopes");
            found.push((customer, session.clone()));
        }
    }
    found
}
