//! Rows of `spend`: every column as it was, and what a row that amends another one adds.

use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Flags};
use spendfuse_domain::row::{Amended, AmendedBy, Counts, PriceBasis, SpendRow};
use spendfuse_warehouse::{EventKey, RowFormat, SpendBlock};

use crate::common::{call_event, row, warehouse};
use crate::{LINK, clickhouse, insert};

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
