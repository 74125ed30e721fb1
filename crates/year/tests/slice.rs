//! A slice of what `make year` lives, for every test run.
#![allow(clippy::unwrap_used)]

#[test]
fn the_books_balance_every_day_of_a_year_and_nothing_grows() {
    let year = spendfuse_year::live(1, 365).unwrap_or_else(|trouble| panic!("{trouble}"));
    // A year in which nothing happened would show nothing.
    assert!(
        year.calls > 10_000 && year.deaths > 1_000 && year.looks > 300 && year.corrections > 300,
        "{year:?}"
    );
    assert!(year.openings > 50 && year.recovered > 50, "{year:?}");
}

#[test]
fn other_seeds_live_other_months() {
    for seed in 2..5 {
        spendfuse_year::live(seed, 60).unwrap_or_else(|trouble| panic!("{trouble}"));
    }
}
