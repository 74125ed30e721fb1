-- Every state of every finding; view findings shows the last state of each.
CREATE TABLE IF NOT EXISTS finding_changes
(
    `workspace` LowCardinality(String),
    `scope` String,
    `detector` LowCardinality(String),
    `rule` LowCardinality(String),
    `agent` LowCardinality(String),
    `model` LowCardinality(String),
    `customer` String,
    `feature` LowCardinality(String),
    `state` LowCardinality(String),
    `severity` LowCardinality(String),
    `opened_at` DateTime64(3, 'UTC'),
    `last_at` DateTime64(3, 'UTC'),
    `measured` Float64,
    `threshold` Float64,
    `wasted` Decimal(38, 9),
    `evidence` Array(Tuple(source String, id String)),
    `message` String,
    `stage` LowCardinality(String),
    `stage_partition` UInt32,
    `stage_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `stage_index` UInt32,
    INDEX by_stage_seq stage_seq TYPE minmax GRANULARITY 1
)
ENGINE = {engine}MergeTree
PARTITION BY toYYYYMM(opened_at)
ORDER BY (workspace, detector, opened_at, scope)
SETTINGS {deduplication};

-- Every published change of a scope's verdict. Amounts are in the unit of the budget's limit.
CREATE TABLE IF NOT EXISTS verdicts
(
    `decided_at` DateTime64(3, 'UTC'),
    `budget` LowCardinality(String),
    `scope` String,
    `workspace` LowCardinality(String),
    `where` String,
    `verdict` LowCardinality(String),
    `action` LowCardinality(String),
    `unit` LowCardinality(String) COMMENT 'usd, tokens or calls',
    `spent` Decimal(38, 9),
    `limit` Decimal(38, 9),
    `percent` Nullable(Float64) COMMENT 'for display; null where the limit is 0',
    `window` LowCardinality(String),
    `window_start` DateTime64(3, 'UTC'),
    `resets_at` Nullable(DateTime64(3, 'UTC')),
    `expires_at` Nullable(DateTime64(3, 'UTC')),
    `counted_from` DateTime64(3, 'UTC'),
    `downgrade_to` LowCardinality(String),
    `caused_by_source` LowCardinality(String),
    `caused_by_id` String,
    `caused_by_time` Nullable(DateTime64(3, 'UTC')),
    `version` UInt64,
    `stage` LowCardinality(String),
    `stage_partition` UInt32,
    `stage_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `stage_index` UInt32,
    INDEX by_stage_seq stage_seq TYPE minmax GRANULARITY 1
)
ENGINE = {engine}MergeTree
PARTITION BY toYYYYMM(decided_at)
ORDER BY (workspace, budget, scope, decided_at)
SETTINGS {deduplication};

-- Spend of every budget's windows over time: kind spent (so far; the last line counts), close
-- (the final sum) and late (to be added to it).
CREATE TABLE IF NOT EXISTS budget_windows
(
    `at` DateTime64(3, 'UTC'),
    `kind` LowCardinality(String),
    `budget` LowCardinality(String),
    `scope` String,
    `workspace` LowCardinality(String),
    `window` LowCardinality(String),
    `window_start` DateTime64(3, 'UTC'),
    `window_end` Nullable(DateTime64(3, 'UTC')),
    `spent` Decimal(38, 9),
    `tokens` UInt64,
    `calls` UInt64,
    `unit` LowCardinality(String) COMMENT 'usd, tokens or calls: the unit of limit',
    `limit` Decimal(38, 9),
    `percent` Nullable(Float64) COMMENT 'for display; null where the limit is 0',
    `version` UInt64,
    `stage` LowCardinality(String),
    `stage_partition` UInt32,
    `stage_seq` UInt64 CODEC(Delta, ZSTD(1)),
    `stage_index` UInt32,
    INDEX by_stage_seq stage_seq TYPE minmax GRANULARITY 1
)
ENGINE = {engine}MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (workspace, budget, scope, window_start, at)
SETTINGS {deduplication};

-- Every rate line of every price book version that was ever active; written again without harm.
CREATE TABLE IF NOT EXISTS prices
(
    `price_version` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `service_tier` LowCardinality(String),
    `line` LowCardinality(String) COMMENT 'token class (input, cache_read, output, ...) or unit',
    `per` LowCardinality(String) COMMENT 'million_tokens or unit',
    `above_context_tokens` UInt64 COMMENT 'the rate holds for calls with more input tokens than this',
    `quality` LowCardinality(String),
    `size` LowCardinality(String),
    `effective_from` DateTime64(3, 'UTC'),
    `rate` Decimal(38, 9) COMMENT 'US dollars'
)
ENGINE = {engine}ReplacingMergeTree
ORDER BY (price_version, provider, model, service_tier, line, above_context_tokens, quality, size, effective_from);
