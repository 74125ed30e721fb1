//! Views, rollups and the audit's sums over rows of `spend`.

use spendfuse_domain::Nanos;
use spendfuse_domain::event::Body;
use spendfuse_warehouse::SpendBlock;

use crate::common::{call_event, row, warehouse};
use crate::{LINK, clickhouse, insert};

#[tokio::test]
async fn views_say_what_stands_after_corrections() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    // One call was moved to another customer, one to another feature, another one was taken back.
    let entries = "INSERT INTO spend (time, kind, calls, workspace, customer, model, session, feature, agent, cost, priced, meter_seq) \
        SELECT now64(3), entry.1, entry.2, 'acme', entry.3, entry.3, entry.4, entry.5, entry.5, entry.2, 'ceiling', 1 \
        FROM (SELECT arrayJoin([('usage', 1, 'old', 'moved', ''), ('correction', -1, 'old', 'moved', ''), \
            ('correction', 1, 'new', 'moved', ''), ('usage', 1, 'gone', 'void', ''), \
            ('correction', -1, 'gone', 'void', ''), ('usage', 1, 'same', 'renamed', 'a-before'), \
            ('correction', -1, 'same', 'renamed', 'a-before'), \
            ('correction', 1, 'same', 'renamed', 'b-after')]) AS entry)";
    warehouse.execute(entries, "a test").await.unwrap();
    let rows = async |sql: &str| warehouse.query_table(sql).await.unwrap().rows;
    let sessions =
        "SELECT session, customer, feature, agent, calls, cost FROM top_sessions ORDER BY session";
    let expected = [
        ["moved", "new", "", "", "1", "1"],
        ["renamed", "same", "b-after", "b-after", "1", "1"],
    ];
    assert_eq!(rows(sessions).await, expected);
    let unpriced = rows("SELECT model, calls, charged FROM unpriced_models ORDER BY model").await;
    assert_eq!(unpriced, [["new", "1", "1"], ["same", "1", "1"]]);
    let counted = rows("SELECT feature, sessions, cost FROM session_percentiles ORDER BY feature");
    assert_eq!(counted.await, [["", "1", "1"], ["b-after", "1", "1"]]);
}

#[tokio::test]
async fn rollups_and_audit_sum_what_is_there_and_a_token_counts_once() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let mut block = SpendBlock::new("spendfuse.usage");
    let mut record = Vec::new();
    // The second half of the rows lies in another month, so that the insert has several parts.
    for index in 0..1000_u32 {
        let mut event = call_event(&format!("id-{index}"));
        event.attribution.customer = format!("c-{}", index % 7).into();
        if index >= 500 {
            event.time = event.time.plus(30 * 24 * 3600 * 1000);
        }
        if index % 10 == 0 {
            event.body = Body::Revenue(Nanos::from_dollars(i64::from(index)));
        }
        let mut written = row(&event, 999 + u64::from(index) / 500, index);
        if index % 10 == 0 {
            written.cost = Default::default();
        }
        block.push(&written);
        if index == 999 {
            record = block.finish_record(LINK).unwrap();
        }
    }
    for _ in 0..3 {
        insert(&warehouse, record.clone(), "spend:rows:3:0-1").await;
    }
    let totals = warehouse.totals().await.unwrap();
    assert_eq!((totals.entries, totals.calls), (1000, 900));
    assert_eq!(totals.cost, Nanos::new(15_000_000_006 * 900));
    assert_eq!(
        totals.revenue,
        Nanos::from_dollars((0..1000).step_by(10).sum())
    );
    for rollup in ["spend_hourly", "spend_daily"] {
        let sums = format!(
            "SELECT sum(entries), sum(calls), sum(cost), sum(revenue), sum(reasoning_tokens) FROM {rollup}"
        );
        let rows = "SELECT count(), countIf(kind = 'usage'), sum(cost), sum(revenue), sum(reasoning_tokens) FROM spend";
        assert_eq!(
            warehouse.query_table(&sums).await.unwrap().rows,
            warehouse.query_table(rows).await.unwrap().rows,
            "{rollup}"
        );
    }
    let audit = warehouse.audit_sums().await.unwrap();
    let blocks: Vec<(u64, u64)> = audit.iter().map(|sum| (sum.seq_block, sum.rows)).collect();
    assert_eq!(blocks, [(0, 500), (1, 500)]);
    assert_eq!(audit.iter().map(|sum| sum.cost).sum::<Nanos>(), totals.cost);

    let margins = "SELECT sum(revenue), sum(cost), sum(margin), count() FROM margin_by_customer";
    let margins = &warehouse.query_table(margins).await.unwrap().rows[0];
    assert_eq!(margins[0], "49500");
    assert_eq!(margins[2], "35999.9999946");
    assert_eq!(margins[3], "7");
    let sessions = "SELECT session, calls FROM top_sessions";
    let sessions = warehouse.query_table(sessions).await.unwrap();
    assert_eq!(sessions.rows, [["s-1", "900"]]);
    let days = "SELECT count(), sum(calls) FROM spend_by_customer_daily";
    let days = warehouse.query_table(days).await.unwrap();
    assert_eq!(days.rows, [["14", "900"]]);
}
