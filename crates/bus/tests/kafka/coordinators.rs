//! Coordinators that take requests and do not answer.

use spendfuse_bus::StageEvent;
use spendfuse_testkit::proxy::ApiKey;

use crate::broker::{eventually, numbers_at, produce_at};
use crate::proxied::Proxied;
use crate::summer::Stage;

/// Within the time that a transaction may take, whichever step it is.
#[test]
fn a_worker_starts_again_where_a_step_of_its_transaction_is_not_answered() {
    let proxied = Proxied::start();
    Stage::create_topics(&proxied.direct(), "unanswered", 1);
    let stage = Stage::existing_at(&proxied.kafka().brokers, "unanswered", 1);
    let running = stage.run();
    eventually("the stage", || stage.is_running());
    let steps = [
        (ApiKey::PRODUCE, "acknowledgements"),
        (ApiKey::ADD_PARTITIONS_TO_TXN, "acknowledgements"),
        (ApiKey::ADD_OFFSETS_TO_TXN, "send_offsets_to_transaction"),
        (ApiKey::TXN_OFFSET_COMMIT, "send_offsets_to_transaction"),
        (ApiKey::END_TXN, "commit_transaction"),
    ];
    for (number, (api, step)) in (1..).zip(steps) {
        stage.summer.inside.lock().unwrap().events.clear();
        proxied.proxy.leave_unanswered(api, true);
        produce_at(&proxied.direct(), "unanswered-in", 0, [number]);
        eventually(&format!("giving up on {}", api.name()), || {
            stage.has_event(|event| {
                matches!(event, StageEvent::Restarting { reason: "timeout", error } if error.contains(step))
            })
        });
        proxied.proxy.leave_unanswered(api, false);
        eventually("the number, counted", || {
            numbers_at(&proxied.direct(), "unanswered-out").len() == number as usize
        });
    }
    running.stop().unwrap();
    assert_eq!(
        numbers_at(&proxied.direct(), "unanswered-out"),
        [1, 2, 3, 4, 5]
    );
}
