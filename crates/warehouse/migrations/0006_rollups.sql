-- Sums by the hour, with the dimensions of budgets but for sessions, whose sums would be as many as
-- rows. The names in braces are those of tables in the making. `user` is there because ClickHouse would
-- take a missing column of this name for the login.
CREATE TABLE IF NOT EXISTS {spend_hourly}
(
    `hour` DateTime('UTC'),
    `kind` LowCardinality(String),
    `workspace` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `project` LowCardinality(String),
    `user_id` String,
    `agent` LowCardinality(String),
    `plan` LowCardinality(String),
    `environment` LowCardinality(String),
    `account` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `priced` LowCardinality(String),
    `tags` Map(LowCardinality(String), String),
    `entries` UInt64,
    `calls` Int64,
    `input_tokens` Int64,
    `cache_read_tokens` Int64,
    `cache_write_5m_tokens` Int64,
    `cache_write_1h_tokens` Int64,
    `audio_input_tokens` Int64,
    `image_input_tokens` Int64,
    `video_input_tokens` Int64,
    `output_tokens` Int64,
    `reasoning_tokens` Int64,
    `audio_output_tokens` Int64,
    `image_output_tokens` Int64,
    `tool_calls` Int64,
    `cost` Decimal(38, 9),
    `cost_input` Decimal(38, 9),
    `cost_cache_read` Decimal(38, 9),
    `cost_cache_write` Decimal(38, 9),
    `cost_output` Decimal(38, 9),
    `cost_units` Decimal(38, 9),
    `revenue` Decimal(38, 9),
    `user` String ALIAS user_id
)
ENGINE = {engine}SummingMergeTree
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (workspace, customer, feature, hour)
ORDER BY (workspace, customer, feature, hour, kind, project, user_id, agent, plan, environment, account, provider, model, priced, tags)
SETTINGS {deduplication};

-- The same by UTC day.
CREATE TABLE IF NOT EXISTS {spend_daily}
(
    `day` Date,
    `kind` LowCardinality(String),
    `workspace` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `project` LowCardinality(String),
    `user_id` String,
    `agent` LowCardinality(String),
    `plan` LowCardinality(String),
    `environment` LowCardinality(String),
    `account` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `priced` LowCardinality(String),
    `tags` Map(LowCardinality(String), String),
    `entries` UInt64,
    `calls` Int64,
    `input_tokens` Int64,
    `cache_read_tokens` Int64,
    `cache_write_5m_tokens` Int64,
    `cache_write_1h_tokens` Int64,
    `audio_input_tokens` Int64,
    `image_input_tokens` Int64,
    `video_input_tokens` Int64,
    `output_tokens` Int64,
    `reasoning_tokens` Int64,
    `audio_output_tokens` Int64,
    `image_output_tokens` Int64,
    `tool_calls` Int64,
    `cost` Decimal(38, 9),
    `cost_input` Decimal(38, 9),
    `cost_cache_read` Decimal(38, 9),
    `cost_cache_write` Decimal(38, 9),
    `cost_output` Decimal(38, 9),
    `cost_units` Decimal(38, 9),
    `revenue` Decimal(38, 9),
    `user` String ALIAS user_id
)
ENGINE = {engine}SummingMergeTree
PARTITION BY toYYYYMM(day)
PRIMARY KEY (workspace, customer, feature, day)
ORDER BY (workspace, customer, feature, day, kind, project, user_id, agent, plan, environment, account, provider, model, priced, tags)
SETTINGS {deduplication};

CREATE TABLE IF NOT EXISTS {spend_audit}
(
    `epoch` UInt32,
    `meter_partition` UInt32,
    `seq_block` UInt64,
    `count` UInt64,
    `nanos` Int128
)
ENGINE = {engine}SummingMergeTree
ORDER BY (epoch, meter_partition, seq_block)
SETTINGS {deduplication};
