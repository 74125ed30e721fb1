//! No event can stop a partition.

use std::sync::Arc;

use spendfuse_bus::{LogicError, Outputs};

use crate::broker::{eventually, numbers, produce};
use crate::summer::Stage;

#[test]
fn records_that_cannot_be_processed_are_rejected_and_all_others_counted_once() {
    let mut stage = Stage::with_topics("poison", 1);
    let output = stage.summer.output.clone();
    stage.summer.disturb = Arc::new(|number| match number {
        13 => Err(LogicError::Input("thirteen".to_owned())),
        17 => panic!("seventeen"),
        _ => Ok(()),
    });
    // Known only at the end of the batch: the runner must find out which number it was.
    stage.summer.disturb_finish = Arc::new(move |batch: &[u64], outputs: &mut Outputs<'_>| {
        if batch.contains(&42) {
            let too_large = vec![b'1'; 20 * 1024 * 1024];
            outputs.send(&output, 0, None, Some(&too_large), &[])?;
        }
        // Within the client's limit, beyond the topic's: only the broker refuses it.
        if batch.contains(&55) {
            let too_large = incompressible(3_000_000);
            outputs.send(&output, 0, None, Some(&too_large), &[])?;
        }
        Ok(())
    });
    produce("poison-in", 0, 1..=60);
    let running = stage.run();
    eventually("the good numbers", || numbers("poison-out").len() >= 56);
    running.stop().unwrap();
    let bad = [13, 17, 42, 55];
    let good: Vec<u64> = (1..=60).filter(|number| !bad.contains(number)).collect();
    assert_eq!(numbers("poison-out"), good);
    assert_eq!(numbers("poison-out-rejected"), bad);
}

fn incompressible(length: usize) -> Vec<u8> {
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        )
    };
    std::iter::successors(Some(1_u64), next)
        .map(|state| (state >> 56) as u8)
        .take(length)
        .collect()
}
