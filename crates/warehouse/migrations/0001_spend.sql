-- Every counted entry. Written only by the loader; the address (meter_partition, meter_seq,
-- meter_index) is the order in which entries were counted.
CREATE TABLE IF NOT EXISTS spend
(
    `time` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `received_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `kind` LowCardinality(String),
    `amends_id` String,
    `source` LowCardinality(String),
    `event_id` String,
    `workspace` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `user` String,
    `agent` LowCardinality(String),
    `plan` LowCardinality(String),
    `environment` LowCardinality(String),
    `account` LowCardinality(String),
    `api_key_id` LowCardinality(String),
    `region` LowCardinality(String),
    `session` String,
    `root_session` String,
    `tags` Map(LowCardinality(String), String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `request_model` LowCardinality(String),
    `operation` LowCardinality(String),
    `service_tier` LowCardinality(String),
    `input_tokens` UInt64,
    `cache_read_tokens` UInt64,
    `cache_write_5m_tokens` UInt64,
    `cache_write_1h_tokens` UInt64,
    `audio_input_tokens` UInt64,
    `image_input_tokens` UInt64,
    `video_input_tokens` UInt64,
    `output_tokens` UInt64,
    `reasoning_tokens` UInt64,
    `audio_output_tokens` UInt64,
    `image_output_tokens` UInt64,
    `units` Map(LowCardinality(String), Decimal(38, 9)),
    `unit_quality` LowCardinality(String),
    `unit_size` LowCardinality(String),
    `tool_calls` UInt32,
    `status` LowCardinality(String),
    `latency_ms` Nullable(UInt32),
    `cost` Decimal(38, 9),
    `cost_input` Decimal(38, 9),
    `cost_cache_read` Decimal(38, 9),
    `cost_cache_write` Decimal(38, 9),
    `cost_output` Decimal(38, 9),
    `cost_units` Decimal(38, 9),
    `reported_cost` Decimal(38, 9),
    `revenue` Decimal(38, 9),
    `priced` LowCardinality(String),
    `price_version` LowCardinality(String),
    `budget_version` UInt64,
    `flags` Array(LowCardinality(String)),
    `call_id` String,
    `attempt` UInt32,
    `response_id` String,
    `trace_id` String,
    `span_id` String,
    `parent_span_id` String,
    `meter_partition` UInt32,
    `meter_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `meter_index` UInt32 CODEC(Delta, ZSTD(1)),
    `src_topic` LowCardinality(String),
    `src_partition` UInt32,
    `src_offset` Int64 CODEC(Delta, ZSTD(1)),
    INDEX by_meter_seq meter_seq TYPE minmax GRANULARITY 1,
    INDEX by_src_offset src_offset TYPE minmax GRANULARITY 1,
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine}MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (workspace, customer, feature, time)
TTL toDateTime(time) + INTERVAL {spend_retention_months} MONTH
SETTINGS {deduplication};

-- Sums by the hour of the events' own time, kept longer than the rows. Rows of one key may be
-- several until ClickHouse merges them: always sum and group again.
CREATE TABLE IF NOT EXISTS spend_hourly
(
    `hour` DateTime('UTC'),
    `kind` LowCardinality(String),
    `workspace` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `user` String,
    `agent` LowCardinality(String),
    `plan` LowCardinality(String),
    `environment` LowCardinality(String),
    `account` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `priced` LowCardinality(String),
    `entries` UInt64,
    `calls` UInt64,
    `input_tokens` UInt64,
    `cache_read_tokens` UInt64,
    `cache_write_5m_tokens` UInt64,
    `cache_write_1h_tokens` UInt64,
    `audio_input_tokens` UInt64,
    `image_input_tokens` UInt64,
    `video_input_tokens` UInt64,
    `output_tokens` UInt64,
    `reasoning_tokens` UInt64,
    `audio_output_tokens` UInt64,
    `image_output_tokens` UInt64,
    `tool_calls` UInt64,
    `cost` Decimal(38, 9),
    `cost_input` Decimal(38, 9),
    `cost_cache_read` Decimal(38, 9),
    `cost_cache_write` Decimal(38, 9),
    `cost_output` Decimal(38, 9),
    `cost_units` Decimal(38, 9),
    `revenue` Decimal(38, 9)
)
ENGINE = {engine}SummingMergeTree
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (workspace, customer, feature, hour)
ORDER BY (workspace, customer, feature, hour, kind, user, agent, plan, environment, account, provider, model, priced)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS spend_hourly_view TO spend_hourly AS
SELECT
    toStartOfHour(spend.time) AS `hour`,
    spend.kind AS `kind`,
    spend.workspace AS `workspace`,
    spend.customer AS `customer`,
    spend.feature AS `feature`,
    spend.user AS `user`,
    spend.agent AS `agent`,
    spend.plan AS `plan`,
    spend.environment AS `environment`,
    spend.account AS `account`,
    spend.provider AS `provider`,
    spend.model AS `model`,
    spend.priced AS `priced`,
    count() AS `entries`,
    countIf(spend.kind = 'usage') AS `calls`,
    sum(spend.input_tokens) AS `input_tokens`,
    sum(spend.cache_read_tokens) AS `cache_read_tokens`,
    sum(spend.cache_write_5m_tokens) AS `cache_write_5m_tokens`,
    sum(spend.cache_write_1h_tokens) AS `cache_write_1h_tokens`,
    sum(spend.audio_input_tokens) AS `audio_input_tokens`,
    sum(spend.image_input_tokens) AS `image_input_tokens`,
    sum(spend.video_input_tokens) AS `video_input_tokens`,
    sum(spend.output_tokens) AS `output_tokens`,
    sum(spend.reasoning_tokens) AS `reasoning_tokens`,
    sum(spend.audio_output_tokens) AS `audio_output_tokens`,
    sum(spend.image_output_tokens) AS `image_output_tokens`,
    sum(spend.tool_calls) AS `tool_calls`,
    sum(spend.cost) AS `cost`,
    sum(spend.cost_input) AS `cost_input`,
    sum(spend.cost_cache_read) AS `cost_cache_read`,
    sum(spend.cost_cache_write) AS `cost_cache_write`,
    sum(spend.cost_output) AS `cost_output`,
    sum(spend.cost_units) AS `cost_units`,
    sum(spend.revenue) AS `revenue`
FROM spend
GROUP BY hour, kind, workspace, customer, feature, user, agent, plan, environment, account, provider, model, priced;

-- Sums by UTC day, without users. As above: always sum and group again.
CREATE TABLE IF NOT EXISTS spend_daily
(
    `day` Date,
    `kind` LowCardinality(String),
    `workspace` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `agent` LowCardinality(String),
    `plan` LowCardinality(String),
    `environment` LowCardinality(String),
    `account` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `priced` LowCardinality(String),
    `entries` UInt64,
    `calls` UInt64,
    `input_tokens` UInt64,
    `cache_read_tokens` UInt64,
    `cache_write_5m_tokens` UInt64,
    `cache_write_1h_tokens` UInt64,
    `audio_input_tokens` UInt64,
    `image_input_tokens` UInt64,
    `video_input_tokens` UInt64,
    `output_tokens` UInt64,
    `reasoning_tokens` UInt64,
    `audio_output_tokens` UInt64,
    `image_output_tokens` UInt64,
    `tool_calls` UInt64,
    `cost` Decimal(38, 9),
    `cost_input` Decimal(38, 9),
    `cost_cache_read` Decimal(38, 9),
    `cost_cache_write` Decimal(38, 9),
    `cost_output` Decimal(38, 9),
    `cost_units` Decimal(38, 9),
    `revenue` Decimal(38, 9)
)
ENGINE = {engine}SummingMergeTree
PARTITION BY toYYYYMM(day)
PRIMARY KEY (workspace, customer, feature, day)
ORDER BY (workspace, customer, feature, day, kind, agent, plan, environment, account, provider, model, priced)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS spend_daily_view TO spend_daily AS
SELECT
    toDate(spend.time) AS `day`,
    spend.kind AS `kind`,
    spend.workspace AS `workspace`,
    spend.customer AS `customer`,
    spend.feature AS `feature`,
    spend.agent AS `agent`,
    spend.plan AS `plan`,
    spend.environment AS `environment`,
    spend.account AS `account`,
    spend.provider AS `provider`,
    spend.model AS `model`,
    spend.priced AS `priced`,
    count() AS `entries`,
    countIf(spend.kind = 'usage') AS `calls`,
    sum(spend.input_tokens) AS `input_tokens`,
    sum(spend.cache_read_tokens) AS `cache_read_tokens`,
    sum(spend.cache_write_5m_tokens) AS `cache_write_5m_tokens`,
    sum(spend.cache_write_1h_tokens) AS `cache_write_1h_tokens`,
    sum(spend.audio_input_tokens) AS `audio_input_tokens`,
    sum(spend.image_input_tokens) AS `image_input_tokens`,
    sum(spend.video_input_tokens) AS `video_input_tokens`,
    sum(spend.output_tokens) AS `output_tokens`,
    sum(spend.reasoning_tokens) AS `reasoning_tokens`,
    sum(spend.audio_output_tokens) AS `audio_output_tokens`,
    sum(spend.image_output_tokens) AS `image_output_tokens`,
    sum(spend.tool_calls) AS `tool_calls`,
    sum(spend.cost) AS `cost`,
    sum(spend.cost_input) AS `cost_input`,
    sum(spend.cost_cache_read) AS `cost_cache_read`,
    sum(spend.cost_cache_write) AS `cost_cache_write`,
    sum(spend.cost_output) AS `cost_output`,
    sum(spend.cost_units) AS `cost_units`,
    sum(spend.revenue) AS `revenue`
FROM spend
GROUP BY day, kind, workspace, customer, feature, agent, plan, environment, account, provider, model, priced;

-- What the audit compares with: rows and nano-dollars of a meter partition by blocks of 1,000 commits.
CREATE TABLE IF NOT EXISTS spend_audit
(
    `meter_partition` UInt32,
    `seq_block` UInt64 COMMENT 'meter_seq divided by 1000, rounded down',
    `count` UInt64,
    `nanos` Int128 COMMENT 'sum of cost in nano-dollars'
)
ENGINE = {engine}SummingMergeTree
ORDER BY (meter_partition, seq_block)
SETTINGS {deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS spend_audit_view TO spend_audit AS
SELECT
    spend.meter_partition AS `meter_partition`,
    intDiv(spend.meter_seq, 1000) AS `seq_block`,
    count() AS `count`,
    toInt128(sum(spend.cost) * 1000000000) AS `nanos`
FROM spend
GROUP BY meter_partition, seq_block;
