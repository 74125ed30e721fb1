//! What every table and column is, as people see it who look at the database itself.
//!
//! A column of one name means the same in every table; where it does not, the table is named.

use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;

/// Tables and views.
const TABLES: &[(&str, &str)] = &[
    (
        "spend",
        "one row for each counted entry; money in US dollars, times in UTC",
    ),
    ("epochs", "which topics each epoch has"),
    (
        "spend_hourly",
        "sums of spend by hour; rows of one key may be several: always sum and group",
    ),
    (
        "spend_daily",
        "sums of spend by UTC day; rows of one key may be several: always sum and group",
    ),
    (
        "spend_audit",
        "rows and nano-dollars of a meter partition by blocks of 1,000 commits",
    ),
    ("spend_hourly_sums", "feeds spend_hourly"),
    ("spend_daily_sums", "feeds spend_daily"),
    ("spend_audit_sums", "feeds spend_audit"),
    (
        "spend_hourly_schema_1",
        "spend_hourly as schema 1 had it; goes a day after the change",
    ),
    (
        "spend_daily_schema_1",
        "spend_daily as schema 1 had it; goes a day after the change",
    ),
    (
        "spend_audit_schema_1",
        "spend_audit as schema 1 had it; goes a day after the change",
    ),
    ("finding_changes", "one row for each state of each finding"),
    (
        "verdicts",
        "one row for each published change of a scope's verdict",
    ),
    (
        "budget_windows",
        "one row for each published state of a budget's window",
    ),
    (
        "prices",
        "one row for each rate line of each price book version",
    ),
    (
        "gaps",
        "one row for each loss that somebody accepted with spendfuse gaps accept",
    ),
    ("migrations", "which changes of the schema were made"),
    ("calls", "spend without revenue and corrections"),
    ("findings", "the last state of every finding"),
    (
        "spend_by_customer_daily",
        "calls, tokens, cost and revenue a customer and day",
    ),
    (
        "margin_by_customer",
        "revenue, cost and margin of each customer",
    ),
    (
        "margin_by_month",
        "revenue, cost and margin a month and customer",
    ),
    ("top_sessions", "sessions by cost, the dearest first"),
    (
        "unpriced_models",
        "models without a price, and what was charged for them",
    ),
    ("revenue_events", "what customers paid"),
    (
        "cache_savings",
        "what prompt caches saved, a day, workspace and model",
    ),
    (
        "chargeback_by_tag",
        "calls and cost a month and value of a tag; choose one tag",
    ),
    (
        "session_percentiles",
        "what sessions of a feature cost in a month",
    ),
];

/// Columns, by their name; `table.column` where the name alone would mislead.
const COLUMNS: &[(&str, &str)] = &[
    (
        "above_context_tokens",
        "the rate holds for calls with more input tokens than this",
    ),
    ("account", "the provider account that pays"),
    (
        "action",
        "what the budget's step does: warn, downgrade, block or a name of your own",
    ),
    ("agent", "the agent, of several in a run"),
    (
        "amends_epoch",
        "address of the entry that this one amends: its epoch",
    ),
    (
        "amends_id",
        "event_id of the entry that this one amends; empty where there is none",
    ),
    (
        "amends_index",
        "address of the entry that this one amends: place within the commit",
    ),
    (
        "amends_partition",
        "address of the entry that this one amends: meter partition",
    ),
    (
        "amends_seq",
        "address of the entry that this one amends: commit; 0 where it amends none",
    ),
    (
        "api_key_id",
        "the key that was used, by its id at the provider",
    ),
    ("applied_at", "when it was made"),
    ("at", "when it was so"),
    ("attempt", "1, or which repeat of the call this is"),
    (
        "audio_input_tokens",
        "audio tokens that the model read; in no other class",
    ),
    (
        "audio_output_tokens",
        "audio tokens that the model wrote; in no other class",
    ),
    ("budget", "the budget's id"),
    (
        "budget_version",
        "up to which offset of the budgets topic budgets were known",
    ),
    (
        "cache_read_tokens",
        "tokens read from the prompt cache; in no other class",
    ),
    (
        "cache_write_1h_tokens",
        "tokens written to the prompt cache for an hour; in no other class",
    ),
    (
        "cache_write_5m_tokens",
        "tokens written to the prompt cache for five minutes; in no other class",
    ),
    ("cache_write_tokens", "tokens written to the prompt cache"),
    (
        "call_id",
        "the sender's id of the call, the same for its repeats",
    ),
    (
        "calls",
        "model calls: 1, or -1 where an entry takes one back, 0 for others; to be summed",
    ),
    (
        "calls_p50",
        "half of the sessions have at most as many calls",
    ),
    ("calls_p99", "99 of 100 sessions have at most as many calls"),
    ("caused_by_id", "id of the event that changed the verdict"),
    (
        "caused_by_source",
        "source of the event that changed the verdict",
    ),
    (
        "caused_by_time",
        "time of the event that changed the verdict",
    ),
    ("charged", "US dollars, at a ceiling"),
    (
        "corrected",
        "how many events of the evidence were corrected or re-rated since",
    ),
    ("cost", "US dollars; the parts add up to it"),
    ("cost_cache_read", "US dollars for reading the prompt cache"),
    (
        "cost_cache_write",
        "US dollars for writing the prompt cache",
    ),
    ("cost_input", "US dollars for input"),
    ("cost_max", "US dollars of the dearest session"),
    ("cost_output", "US dollars for output"),
    (
        "cost_p50",
        "US dollars: half of the sessions cost at most this",
    ),
    (
        "cost_p90",
        "US dollars: nine of ten sessions cost at most this",
    ),
    (
        "cost_p99",
        "US dollars: 99 of 100 sessions cost at most this",
    ),
    ("cost_units", "US dollars for what is billed by count"),
    ("count", "rows of spend"),
    (
        "counted_from",
        "since when the window was counted: later than its start for a new budget",
    ),
    ("customer", "the customer for whom the call was made"),
    ("day", "UTC day of the events' own time"),
    ("decided_at", "when the verdict was reached"),
    ("detector", "which detector found it"),
    ("downgrade_to", "the model that is to be used instead"),
    ("effective_from", "since when the rate holds"),
    ("entries", "rows of spend"),
    ("environment", "production, staging and the like"),
    (
        "epoch",
        "which set of topics the address is of; 0 is the first",
    ),
    ("event_id", "the event's id"),
    ("evidence", "events that show it"),
    (
        "expires_at",
        "when the verdict ends by itself; NULL where it does not",
    ),
    ("feature", "the part of the product that made the call"),
    ("first_at", "the first time"),
    ("first_day", "the first day"),
    ("flags", "what was mended about the event"),
    ("hour", "hour of the events' own time, UTC"),
    (
        "image_input_tokens",
        "image tokens that the model read; in no other class",
    ),
    (
        "image_output_tokens",
        "image tokens that the model wrote; in no other class",
    ),
    (
        "inference_geo",
        "where the provider computed, as far as it prices by it",
    ),
    (
        "input_tokens",
        "input tokens that no other class has; negative where an entry takes them back",
    ),
    ("kind", "usage, revenue, correction or rerate"),
    (
        "budget_windows.kind",
        "spent (so far; the last line counts), close (the final sum), late (to be added to it) or opening (what of the sums was spent before the count began; the last line counts)",
    ),
    ("last_at", "the last time"),
    ("last_day", "the last day"),
    ("latency_ms", "how long the call took, milliseconds"),
    ("limit", "the budget's limit, in unit"),
    ("ledger_rows", "Kafka's id of the ledger's topic of rows"),
    (
        "line",
        "token class (input, cache_read, output, ...) or unit",
    ),
    ("margin", "US dollars: revenue less cost"),
    (
        "margin_percent",
        "margin in percent of revenue; NULL where nothing was paid",
    ),
    ("measured", "what the detector measured"),
    ("message", "in words"),
    ("meter_index", "address: place within the commit"),
    (
        "meter_partition",
        "address: partition of the meter that counted it",
    ),
    ("meter_seq", "address: the meter partition's commit"),
    ("model", "the model as budgets and prices see it"),
    ("month", "first day of the month"),
    ("name", "name of the change"),
    ("nanos", "sum of cost in nano-dollars"),
    ("number", "number of the change"),
    ("opened_at", "when the finding was opened"),
    ("operation", "chat, embeddings and the like"),
    (
        "output_tokens",
        "output tokens that no other class has; negative where an entry takes them back",
    ),
    (
        "parent_span_id",
        "OpenTelemetry span that the call's span belongs to",
    ),
    ("per", "million_tokens or unit"),
    ("percent", "for display; NULL where the limit is 0"),
    ("plan", "the plan that the customer is on"),
    (
        "price_detail",
        "why it cost what it did: entry of the price book, tier, rates, factors, what was not read",
    ),
    ("price_version", "the price book version"),
    (
        "priced",
        "book, reported (the app's figure was taken) or ceiling (something has no price)",
    ),
    (
        "priced_as",
        "the entry of the price book that was used, where it is not the model itself",
    ),
    ("project", "the cost centre that the call is charged to"),
    ("provider", "who answered"),
    ("quality", "quality of what is billed by count; empty = any"),
    ("rate", "US dollars"),
    (
        "reasoning_tokens",
        "reasoning tokens that the model wrote; in no other class",
    ),
    ("received_at", "when the broker took the event"),
    ("recorded_at", "when it was recorded"),
    ("region", "the provider's region"),
    ("reported_cost", "the app's own figure, US dollars"),
    ("request_model", "the model that was asked for"),
    ("resets_at", "when the window ends; NULL where it does not"),
    ("response_id", "the provider's id of the answer"),
    ("revenue", "what the customer paid, US dollars"),
    ("root_session", "the run that started the session's run"),
    ("rows", "Kafka's id of the meter's topic of rows"),
    ("rule", "the detector rule's name"),
    (
        "saved",
        "US dollars; negative where caching cost more, NULL where nobody knows",
    ),
    ("scope", "who it is about, in the text form of scopes"),
    ("seq_block", "meter_seq divided by 1000, rounded down"),
    ("service_tier", "default, batch, flex or priority"),
    ("session", "the run"),
    ("sessions", "how many sessions"),
    ("severity", "warning or critical"),
    (
        "share_cached",
        "share of input that came from the prompt cache, 0 to 1",
    ),
    ("size", "size of what is billed by count; empty = any"),
    ("source", "who sent the event"),
    ("span_id", "OpenTelemetry span of the call"),
    (
        "speed",
        "the speed that was asked for, as far as the provider prices by it",
    ),
    ("spent", "spent in the window, in unit"),
    ("budget_windows.spent", "US dollars"),
    ("src_offset", "offset where the event first arrived"),
    ("src_partition", "partition where the event first arrived"),
    ("src_topic", "topic where the event first arrived"),
    ("stage", "which stage wrote it: meter or ledger"),
    ("stage_index", "address: place within the commit"),
    ("stage_partition", "address: partition of the stage"),
    ("stage_seq", "address: the partition's commit"),
    ("started_at", "the first call"),
    ("state", "open or closed"),
    ("status", "how the call ended, in the sender's words"),
    ("tag", "name of a tag"),
    ("tags", "the sender's own names and values"),
    ("threshold", "what the detector allows"),
    ("time", "when it happened, by the sender's clock"),
    ("tokens", "tokens of all classes"),
    ("tokens_in", "tokens that models read"),
    ("tokens_out", "tokens that models wrote"),
    (
        "tool_calls",
        "tools that the model called; negative where an entry takes them back",
    ),
    ("trace_id", "OpenTelemetry trace of the call"),
    (
        "uncached_tokens",
        "input tokens that have nothing to do with the prompt cache",
    ),
    ("unit", "usd, tokens or calls: the unit of limit"),
    ("unit_quality", "quality of what is billed by count"),
    ("unit_size", "size of what is billed by count"),
    ("units", "what is billed by count"),
    ("updates", "how many states the finding has had"),
    ("user", "the same as user_id"),
    (
        "spend.user",
        "written by blocks of schema 1 only; read user_id",
    ),
    ("user_id", "the person who caused the call"),
    ("value", "value of the tag"),
    ("verdict", "ok, warn, downgrade or block"),
    (
        "version",
        "the ledger partition's commit, as on the blocklist",
    ),
    (
        "video_input_tokens",
        "video tokens that the model read; in no other class",
    ),
    ("wasted", "US dollars that the finding is about"),
    ("where", "the budget's condition, JSON"),
    ("window", "the window's label"),
    ("window_end", "end of the window; NULL where it has none"),
    ("window_start", "start of the window"),
    ("workspace", "the tenant"),
    ("accepted_at", "when somebody accepted the loss"),
    ("consumer_group", "the group that goes on behind it"),
    ("topic", "the topic that it is lost in"),
    ("partition", "the topic's partition"),
    ("from_offset", "what the group had committed"),
    (
        "to_offset",
        "where it goes on; less than from_offset where the log was made anew",
    ),
];

impl Warehouse {
    /// Writes the comments that are missing or say something else.
    pub(crate) async fn comment(&self) -> Result<(), WarehouseError> {
        let database = quoted(&self.config().database);
        let tables = self
            .query_table(&format!(
                "SELECT name, comment FROM system.tables WHERE database = {database}"
            ))
            .await?;
        let columns = self
            .query_table(&format!(
                "SELECT table, name, comment FROM system.columns WHERE database = {database}"
            ))
            .await?;
        for row in &tables.rows {
            let (name, found) = (&row[0], &row[1]);
            let Some((_, wanted)) = TABLES.iter().find(|(table, _)| table == name) else {
                continue;
            };
            let of_table = columns.rows.iter().filter(|row| row[0] == *name);
            let mut changes: Vec<String> = of_table
                .filter_map(|row| changed_comment(name, &row[1], &row[2]))
                .collect();
            if found != wanted {
                changes.push(format!("MODIFY COMMENT {}", quoted(wanted)));
            }
            if !changes.is_empty() {
                let alter = format!("ALTER TABLE {name} {}", changes.join(", "));
                self.execute(&alter, "writing comments").await?;
            }
        }
        Ok(())
    }
}

fn changed_comment(table: &str, column: &str, found: &str) -> Option<String> {
    let own = format!("{table}.{column}");
    let named = |name: &str| COLUMNS.iter().find(|(column, _)| *column == name);
    let (_, wanted) = named(&own).or_else(|| named(column))?;
    (found != *wanted).then(|| format!("COMMENT COLUMN `{column}` {}", quoted(wanted)))
}
