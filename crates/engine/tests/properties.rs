//! The core against the reference model, over random histories and random schedules.
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};
use spendfuse_testkit::{check, generate, run};

proptest! {
    #![proptest_config(Config { cases: 20_000, ..Config::default() })]
    #[test]
    fn small_histories_agree_with_the_reference(
        scenario in generate::scenario(12),
        schedule in generate::schedule(14),
    ) {
        let finished = run(&scenario, &schedule, None);
        check(&scenario, &finished).map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    }
}
