//! What is remembered of events when clocks and partitions are not in step.

use spendfuse_domain::UnixMillis;
use spendfuse_engine::meter::Counted;

use super::{MINUTE, book, call, count, meter, start};

#[test]
fn a_memory_is_not_short_before_its_partition_has_any_time() {
    let mut meter = meter(book(1, vec![], vec![]));
    meter.remembers_since(start());
    meter.advance(UnixMillis::default());
    assert_eq!(meter.finish().told.alerts, []);
    meter.begin(2);
    meter.advance(start());
    assert_eq!(meter.finish().told.alerts.len(), 1);
}

#[test]
fn an_event_handed_over_too_late_is_not_counted_a_second_time() {
    let mut meter = meter(book(1, vec![], vec![]));
    let event = call("twice", "s-1", start());
    assert!(matches!(
        count(&mut meter, &event, start(), 1),
        Counted::AtAddress(_)
    ));
    // Hours of other traffic: the memory forgets what is beyond its horizon.
    for number in 0..600 {
        let time = start().plus(number * MINUTE);
        count(
            &mut meter,
            &call(&format!("e{number}"), "s-2", time),
            time,
            1,
        );
    }
    // Its copy arrived elsewhere at that time and was handed over only now.
    assert_eq!(count(&mut meter, &event, start(), 1), Counted::Late);
}

#[test]
fn a_clock_that_ran_back_for_a_while_makes_nothing_count_twice() {
    let mut meter = meter(book(1, vec![], vec![]));
    count(&mut meter, &call("before", "s-1", start()), start(), 1);
    // Half an hour back; the event's time is clamped to the stamp.
    let back = start().plus(-30 * MINUTE);
    let first = count(&mut meter, &call("twice", "s-1", back), back, 1);
    assert!(matches!(first, Counted::AtAddress(_)));
    // The clock is right again. What is sent again is not late, so it must be known.
    let again = call("twice", "s-1", start());
    let later = start().plus(50 * MINUTE);
    assert_eq!(count(&mut meter, &again, later, 1), Counted::Duplicate);
}
