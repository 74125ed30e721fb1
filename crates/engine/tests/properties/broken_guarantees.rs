//! Every promise that the property tests check can be broken: for each fault that the simulated
//! pipeline can inject, the check must report it, and the promise that it belongs to.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use spendfuse_testkit::check::Promise;
use spendfuse_testkit::pipeline::{Fault, Move, run_to_the_end};
use spendfuse_testkit::{Scenario, check, generate};

const CASES: usize = 400;
/// That a call is voided and told again is rare.
const CASES_OF_VOIDS: usize = 10 * CASES;

/// The same cases in every run.
fn cases(count: usize) -> Vec<(Scenario, Vec<Move>)> {
    let mut runner = TestRunner::deterministic();
    let strategy = (generate::scenario(25), generate::schedule(25));
    let case = |_| {
        let tree = strategy.new_tree(&mut runner).expect("a case");
        tree.current()
    };
    (0..count).map(case).collect()
}

/// How often each promise was reported broken over all cases.
fn broken(cases: &[(Scenario, Vec<Move>)], fault: Option<Fault>) -> BTreeMap<Promise, usize> {
    let mut counts = BTreeMap::new();
    for (scenario, schedule) in cases {
        if let Err(violation) = check(scenario, &run_to_the_end(scenario, schedule, fault)) {
            *counts.entry(violation.promise).or_default() += 1;
        }
    }
    counts
}

#[test]
fn every_injected_fault_is_reported_under_its_promise() {
    let cases = cases(CASES);
    assert_eq!(broken(&cases, None), BTreeMap::new(), "without a fault");
    for (fault, promise) in [
        (Fault::RestoreWithoutIds, Promise::CountedOnce),
        (Fault::RestoreWithoutCalls, Promise::CountedOnce),
        (Fault::RestoreWithoutOneRecord, Promise::DeltaChain),
        (Fault::DedupeOff, Promise::CountedOnce),
        (Fault::SeriesNotFiltered, Promise::Verdicts),
        (Fault::WindowByArrival, Promise::Verdicts),
        (Fault::PositionsOutsideTransaction, Promise::CountedOnce),
        (Fault::DeltaTwice, Promise::DeltaChain),
        (Fault::DeltaLost, Promise::DeltaChain),
        (Fault::NoTombstones, Promise::Verdicts),
        (Fault::ExpiredNotRepublished, Promise::Verdicts),
        (Fault::PublishedTooSeldom, Promise::Verdicts),
        (Fault::FindingsStayOpen, Promise::Findings),
        (Fault::RowTwice, Promise::Rows),
        (Fault::CorrectionsForgotten, Promise::CountedOnce),
        (Fault::NothingTakenBack, Promise::Rows),
        (Fault::OpeningIgnored, Promise::Verdicts),
    ] {
        let counts = broken(&cases, Some(fault));
        println!("{fault:?}: {counts:?}");
        let reported = counts.get(&promise).copied().unwrap_or(0);
        assert!(
            reported > 0,
            "{fault:?} is not seen as {promise:?}: {counts:?}"
        );
    }
}

#[test]
fn a_voided_call_that_counts_again_is_reported() {
    let counts = broken(&cases(CASES_OF_VOIDS), Some(Fault::VoidedCountsAgain));
    assert!(counts.contains_key(&Promise::CountedOnce), "{counts:?}");
}
