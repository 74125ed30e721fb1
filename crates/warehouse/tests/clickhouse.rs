//! Blocks, migrations, rollups and tokens against a real ClickHouse engine.

#![allow(clippy::unwrap_used)]

mod common;

use common::{call_event, row, warehouse};
use spendfuse_devstack::{ClickHouse, ClickHouseOptions};
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Body, Flags};
use spendfuse_domain::finding::{Detector, Finding, FindingState, Severity};
use spendfuse_domain::row::{
    Amended, AmendedBy, Counts, PriceBasis, SpendRow, WindowLine, WindowLineKind,
};
use spendfuse_domain::verdict::{BlocklistEntry, EventRef, Stage, Verdict};
use spendfuse_domain::{Amount, Figures, Nanos, Percent, UnixMillis, Window};
use spendfuse_warehouse::{
    BudgetWindowBlock, BudgetWindowRow, EventKey, FindingBlock, FindingRow, Link, PriceRow,
    RowBlock, RowFormat, SpendBlock, StageAddress, VerdictBlock, VerdictRow, Warehouse,
    WarehouseConfig, WarehouseError,
};

fn clickhouse() -> ClickHouse {
    ClickHouse::start(ClickHouseOptions::default()).unwrap()
}

/// Inserts a record of a rows topic as the loader would.
async fn insert(warehouse: &Warehouse, record: Vec<u8>, token: &str) {
    let block = RowBlock::decode(&record.into()).unwrap();
    let columns =
        spendfuse_warehouse::block::insert_columns(&block.table, block.schema_version).unwrap();
    warehouse
        .insert_native(&block.table, &columns, token, [block.native])
        .await
        .unwrap();
}

const LINK: Link = Link {
    partition: 3,
    previous: 0,
    seq: 7,
};

#[tokio::test]
async fn migrations_run_twice_and_refuse_a_newer_schema() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    assert!(matches!(
        warehouse.check_deduplication().await,
        Err(WarehouseError::MissingTable { .. } | WarehouseError::Refused { .. })
    ));
    assert_eq!(
        warehouse.migrate().await.unwrap(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    );
    assert_eq!(warehouse.migrate().await.unwrap(), [0_u32; 0]);
    warehouse.check_deduplication().await.unwrap();

    let keeps_longer = Warehouse::new(WarehouseConfig {
        spend_retention_months: 25,
        ..warehouse.config().clone()
    })
    .unwrap();
    keeps_longer.migrate().await.unwrap();
    let engine = "SELECT engine_full FROM system.tables WHERE name = 'spend'";
    let engine = warehouse.query_table(engine).await.unwrap();
    assert!(engine.rows[0][0].contains("toIntervalMonth(25)"));

    let shrink = "ALTER TABLE spend_daily MODIFY SETTING non_replicated_deduplication_window = 100";
    warehouse.execute(shrink, "a test").await.unwrap();
    let error = warehouse.check_deduplication().await.unwrap_err();
    assert!(
        error.to_string().contains("spend_daily remembers 100"),
        "{error}"
    );

    let newer = "INSERT INTO migrations (number, name) SELECT 99, 'later'";
    warehouse.execute(newer, "a test").await.unwrap();
    assert!(matches!(
        warehouse.migrate().await,
        Err(WarehouseError::SchemaTooNew { found: 99, .. })
    ));
}

#[tokio::test]
async fn every_column_of_a_call_arrives_as_it_was() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let event = call_event("chatcmpl-9x");
    let mut flags = Flags::UNPRICED;
    flags.insert(Flags::DISPUTED);
    let mut written = row(&event, 7, 4);
    written.flags = flags;
    written.priced = PriceBasis::Ceiling;
    let mut block = SpendBlock::new("spendfuse.usage");
    block.set_format(RowFormat::Schema2 { epoch: 2 });
    block.push(&written);
    insert(&warehouse, block.finish_record(LINK).unwrap(), "one").await;

    let table = warehouse.query_table("SELECT * FROM calls").await.unwrap();
    let found: Vec<(&str, &str)> = table
        .columns
        .iter()
        .zip(&table.rows[0])
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("time", "2026-11-22 10:15:30.123"),
        ("received_at", "2026-11-22 10:15:31.456"),
        ("kind", "usage"),
        ("amends_id", ""),
        ("source", "checkout-api"),
        ("event_id", "chatcmpl-9x"),
        ("workspace", "acme"),
        ("customer", "c-42"),
        ("feature", "agent"),
        ("user_id", "u-7"),
        ("agent", "planner"),
        ("plan", "pro"),
        ("environment", "prod"),
        ("account", "openai-main"),
        ("api_key_id", "key-3"),
        ("region", "us-east-1"),
        ("session", "s-1"),
        ("root_session", "s-0"),
        ("tags", "{'größe':'it's','team':'growth'}"),
        ("provider", "openai"),
        ("model", "gpt-4o-2024-08-06"),
        ("request_model", "gpt-4o"),
        ("operation", "chat"),
        ("service_tier", "flex"),
        ("input_tokens", "1"),
        ("cache_read_tokens", "2"),
        ("cache_write_5m_tokens", "3"),
        ("cache_write_1h_tokens", "4"),
        ("audio_input_tokens", "5"),
        ("image_input_tokens", "6"),
        ("video_input_tokens", "7"),
        ("output_tokens", "8"),
        ("reasoning_tokens", "9"),
        ("audio_output_tokens", "10"),
        ("image_output_tokens", "11"),
        ("units", "{'web_search_calls':2,'audio_seconds':2.5}"),
        ("unit_quality", "hd"),
        ("unit_size", "1024x1024"),
        ("tool_calls", "12"),
        ("status", "error"),
        ("latency_ms", "812"),
        ("cost", "15.000000006"),
        ("cost_input", "1.000000001"),
        ("cost_cache_read", "2"),
        ("cost_cache_write", "3"),
        ("cost_output", "4"),
        ("cost_units", "5.000000005"),
        ("reported_cost", "0.0123"),
        ("revenue", "0"),
        ("priced", "ceiling"),
        ("price_version", "book-1"),
        ("budget_version", "13"),
        ("flags", "['disputed','unpriced']"),
        ("call_id", "req-77"),
        ("attempt", "2"),
        ("response_id", "resp-1"),
        ("trace_id", "trace"),
        ("span_id", "span"),
        ("parent_span_id", "parent"),
        ("meter_partition", "3"),
        ("meter_seq", "7"),
        ("meter_index", "4"),
        ("src_topic", "spendfuse.usage"),
        ("src_partition", "5"),
        ("src_offset", "1234567890123"),
        ("epoch", "2"),
        ("calls", "1"),
        ("project", "cc-9"),
        ("speed", "fast"),
        ("inference_geo", "us"),
        (
            "price_detail",
            "openai/gpt-4o (bare name at its maker); input 2.5/M",
        ),
        ("priced_as", "openai/gpt-4o"),
        ("amends_epoch", "0"),
        ("amends_partition", "0"),
        ("amends_seq", "0"),
        ("amends_index", "0"),
        ("user", "u-7"),
    ];
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());

    let known = EventKey {
        workspace: "acme".to_owned(),
        source: "checkout-api".to_owned(),
        id: "chatcmpl-9x".to_owned(),
    };
    let unknown = EventKey {
        id: "it's? new".to_owned(),
        ..known.clone()
    };
    let contained = warehouse
        .contains_events(&[known.clone(), unknown])
        .await
        .unwrap();
    let only = std::collections::HashSet::from([known.clone()]);
    assert_eq!(contained, only);
    // Many are asked for in another way.
    let mut many: Vec<EventKey> = (0..20_000)
        .map(|number| EventKey {
            id: format!("it's \\ a\ttab?\n{number}"),
            ..known.clone()
        })
        .collect();
    many.push(EventKey {
        workspace: "another".to_owned(),
        ..known.clone()
    });
    many.push(known);
    let contained = warehouse.contains_events(&many).await.unwrap();
    assert_eq!(contained, only);
    let unpriced = "SELECT model, calls, charged FROM unpriced_models";
    let unpriced = warehouse.query_json(unpriced).await.unwrap();
    let expected = serde_json::json!(
        [{"model": "gpt-4o-2024-08-06", "calls": 1, "charged": "15.000000006"}]
    );
    assert_eq!(serde_json::Value::from(unpriced), expected);
}

#[tokio::test]
async fn an_entry_that_amends_another_adds_what_it_is_more() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let mut block = SpendBlock::new("spendfuse.usage");
    block.set_format(RowFormat::Schema2 { epoch: 9 });
    let mut first = call_event("r-1");
    if let Body::Usage(call) = &mut first.body {
        call.tokens.output = 5;
        call.units.entries.pop();
    }
    let mut cost = row(&first, 7, 0).cost;
    cost.output = Nanos::new(40);
    let counts = Counts::of(&first, cost);
    block.push(&SpendRow {
        cost,
        ..row(&first, 7, 0)
    });
    let grown = call_event("r-1");
    let amended = Amended {
        id: "r-1",
        address: row(&first, 7, 0).address,
        counts,
        by: AmendedBy::Event,
    };
    block.push(&SpendRow {
        amends: Some(&amended),
        ..row(&grown, 7, 1)
    });
    insert(&warehouse, block.finish_record(LINK).unwrap(), "a").await;
    let whole = row(&grown, 7, 1).cost;
    let sums =
        "SELECT sum(calls), sum(output_tokens), sum(cost) * 1000000000, sumMap(units) FROM spend";
    let sums = warehouse.query_table(sums).await.unwrap();
    let Body::Usage(call) = &grown.body else {
        unreachable!("it is a call")
    };
    let expected = [
        "1".to_owned(),
        call.tokens.output.to_string(),
        whole.total().get().to_string(),
        "{'audio_seconds':2.5,'web_search_calls':2}".to_owned(),
    ];
    assert_eq!(sums.rows, [expected]);
    let amends = "SELECT kind, amends_id, amends_epoch, amends_partition, amends_seq, amends_index, \
        input_tokens, cost_input FROM spend WHERE amends_id != ''";
    let amends = warehouse.query_table(amends).await.unwrap();
    assert_eq!(
        amends.rows,
        [["correction", "r-1", "9", "3", "7", "0", "0", "0"]]
    );
}

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

#[tokio::test]
async fn an_insert_that_a_crash_of_clickhouse_tore_is_healed_by_its_replay() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let mut records = Vec::new();
    for seq in 1..=6_u64 {
        let mut block = SpendBlock::new("spendfuse.usage");
        for index in 0..20_000 {
            let mut event = call_event(&format!("{seq}-{index}"));
            event.time = event
                .time
                .plus(i64::from(index % 3) * 31 * 24 * 3600 * 1000);
            block.push(&row(&event, seq, index));
        }
        records.push(block.finish_record(LINK).unwrap());
    }
    let inserts = records.iter().enumerate().map(|(number, record)| {
        let (warehouse, record) = (warehouse.clone(), record.clone());
        tokio::spawn(async move {
            let block = RowBlock::decode(&record.into()).unwrap();
            let columns = spendfuse_warehouse::block::insert_columns("spend", 1).unwrap();
            let token = format!("t{number}");
            warehouse
                .insert_native("spend", &columns, &token, [block.native])
                .await
        })
    });
    let inserts: Vec<_> = inserts.collect();
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    server.kill();
    for insert in inserts {
        let _ = insert.await.unwrap();
    }
    server.restart().unwrap();
    server.wait_ready().unwrap();
    for (number, record) in records.into_iter().enumerate() {
        insert(&warehouse, record, &format!("t{number}")).await;
    }
    assert_eq!(warehouse.totals().await.unwrap().entries, 120_000);
    let rollups = "SELECT (SELECT sum(entries) FROM spend_hourly), \
        (SELECT sum(entries) FROM spend_daily), (SELECT sum(count) FROM spend_audit)";
    let rollups = warehouse.query_table(rollups).await.unwrap();
    assert_eq!(rollups.rows, [["120000", "120000", "120000"]]);
}

#[tokio::test]
async fn findings_verdicts_windows_and_prices_arrive_as_they_were() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let address = |index| StageAddress {
        epoch: 2,
        stage: Stage::Ledger,
        partition: 3,
        seq: 7,
        index,
    };
    let at = UnixMillis::parse_rfc3339("2026-11-22T10:15:30.123Z").unwrap();
    let event = EventRef {
        source: "app".to_owned(),
        id: "e-1".to_owned(),
        time: Some(at),
    };
    let mut finding = Finding {
        v: 1,
        detector: Detector::RetryLoop,
        scope: "acme/session=s-1".to_owned(),
        agent: "planner".to_owned(),
        model: "m".to_owned(),
        customer: "c".to_owned(),
        feature: "f".to_owned(),
        rule: "loops".to_owned(),
        state: FindingState::Open,
        severity: Severity::Warning,
        opened_at: at,
        last_at: at,
        measured: 4.0,
        threshold: 3.0,
        wasted_usd: Nanos::new(18_200_000),
        evidence: vec![event.clone(), event.clone()],
        message: "the same prompt ran 4 times in a row".to_owned(),
    };
    let mut findings = FindingBlock::new(RowFormat::Schema2 { epoch: 2 });
    findings.push(&FindingRow {
        finding: &finding,
        address: address(0),
    });
    finding.state = FindingState::Closed;
    finding.wasted_usd = Nanos::new(20_000_000);
    findings.push(&FindingRow {
        finding: &finding,
        address: address(1),
    });
    insert(&warehouse, findings.finish_record(LINK).unwrap(), "f").await;
    let found = "SELECT workspace, state, wasted, updates, evidence.id FROM findings";
    let found = warehouse.query_table(found).await.unwrap();
    assert_eq!(
        found.rows,
        [["acme", "closed", "0.02", "2", "['e-1','e-1']"]]
    );
    let corrected = async || {
        let asked = warehouse.query_table("SELECT corrected FROM findings");
        asked.await.unwrap().rows[0][0].clone()
    };
    let row = async |kind: &str, workspace: &str, id: &str| {
        let row = format!(
            "INSERT INTO spend (time, kind, workspace, source, event_id, amends_id) \
             VALUES (now(), '{kind}', '{workspace}', 'app', '{id}', 'e-1')"
        );
        warehouse.execute(&row, "a row").await.unwrap();
    };
    // What tells more of the call, and what corrects another one of the same id.
    row("correction", "acme", "e-1").await;
    row("correction", "globex", "c-1").await;
    assert_eq!(corrected().await, "0");
    row("rerate", "acme", "job-1").await;
    assert_eq!(corrected().await, "2");

    let entry = BlocklistEntry {
        v: 1,
        budget: "cap".to_owned(),
        scope: "acme/customer=c-42".to_owned(),
        filter: Some(serde_json::json!({"plan": "free"})),
        verdict: Verdict::Block,
        action: "block".to_owned(),
        figures: Figures::new(Amount::Tokens(11), Amount::Tokens(10)),
        percent: Percent::of(Amount::Calls(11), Amount::Calls(10)),
        window: "day:2026-11-22".to_owned(),
        window_start: at,
        resets_at: Some(at),
        expires_at: None,
        counted_from: at,
        count_since: None,
        downgrade_to: None,
        version: 9,
        decided_at: at,
        caused_by: Some(event),
        through: Default::default(),
    };
    let mut verdicts = VerdictBlock::new(RowFormat::Schema2 { epoch: 2 });
    verdicts.push(&VerdictRow {
        entry: &entry,
        address: address(0),
    });
    insert(&warehouse, verdicts.finish_record(LINK).unwrap(), "v").await;
    let found = "SELECT workspace, `where`, verdict, unit, spent, `limit`, percent, expires_at, caused_by_id, stage, stage_seq FROM verdicts";
    let found = warehouse.query_table(found).await.unwrap();
    let expected = [
        "acme",
        "{\"plan\":\"free\"}",
        "block",
        "tokens",
        "11",
        "10",
        "110",
        "NULL",
        "e-1",
        "ledger",
        "7",
    ];
    assert_eq!(found.rows, [expected]);

    let window = Window {
        label: "lifetime".to_owned(),
        start: UnixMillis(0),
        end: None,
    };
    let mut windows = BudgetWindowBlock::new(RowFormat::Schema2 { epoch: 2 });
    let line = WindowLine {
        kind: WindowLineKind::Late,
        budget: "cap".to_owned(),
        scope: "*".to_owned(),
        window,
        spend: Spend {
            cost: Nanos::new(-1),
            tokens: 2,
            calls: 3,
        },
        limit: Amount::Usd(Nanos::from_dollars(5)),
        at,
    };
    windows.push(&BudgetWindowRow {
        line: &line,
        address: address(0),
    });
    insert(&warehouse, windows.finish_record(LINK).unwrap(), "w").await;
    let found = "SELECT kind, workspace, window_end, spent, tokens, calls, unit, `limit`, version FROM budget_windows";
    let found = warehouse.query_table(found).await.unwrap();
    let expected = [
        "late",
        "*",
        "NULL",
        "-0.000000001",
        "2",
        "3",
        "usd",
        "5",
        "7",
    ];
    assert_eq!(found.rows, [expected]);

    let price = PriceRow {
        price_version: "book-1",
        provider: "openai",
        model: "gpt-4o",
        service_tier: "default",
        line: "input",
        per_million_tokens: true,
        above_context_tokens: 0,
        quality: "",
        size: "",
        effective_from: at,
        rate: Nanos::new(2_500_000_000),
    };
    for _ in 0..2 {
        warehouse
            .insert_prices(std::slice::from_ref(&price))
            .await
            .unwrap();
    }
    let found = "SELECT model, per, rate FROM prices FINAL";
    let found = warehouse.query_table(found).await.unwrap();
    assert_eq!(found.rows, [["gpt-4o", "million_tokens", "2.5"]]);
}

/// However fast it is restarted, and as often.
#[tokio::test]
async fn a_restarted_server_is_another_run() {
    let server = clickhouse();
    let mut known = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let warehouse = warehouse(&server);
        warehouse.migrate().await.unwrap();
        let run = warehouse.server_run().await.unwrap();
        assert_eq!(warehouse.server_run().await.unwrap(), run);
        assert!(known.insert(run.unwrap()));
        server.kill();
        server.restart().unwrap();
        server.wait_ready().unwrap();
    }
}
