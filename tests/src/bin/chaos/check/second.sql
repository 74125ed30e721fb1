-- What a run's events must come to, worked out a second time: from the bytes of the usage topic, in
-- ClickHouse's own words. Nothing here is the pipeline's but two facts that every row states and
-- nobody else can know: which price book and which budgets were in force when it was counted.
-- The harness fills `raw` (the usage topic), `books` (what it made the rates be), `budgets` (what it
-- put into force) and `entries` (the blocklist). {warehouse} is the pipeline's database.

CREATE TABLE raw (partition UInt32, offset Int64, logged_millis Int64, value String) ENGINE = Memory;

-- Nano-dollars per million tokens.
CREATE TABLE books (version String, input Int128, cached Int128, answer Int128) ENGINE = Memory;

-- Amounts in nano-dollars or calls; a step is a percentage and a verdict (1 warn, 2 downgrade, 3
-- block); `since` is the version of the budgets topic that brought the budget.
CREATE TABLE budgets
(
    id String, workspace String, dimensions Array(String), only_plan String, window String,
    unit String, limit Int128, steps Array(Tuple(UInt32, UInt8)), since UInt64
) ENGINE = Memory;

CREATE TABLE entries (key String, value String) ENGINE = Memory;

-- Calls that somebody has taken back, and those for which somebody has let something else stand.
CREATE TABLE voided (id String) ENGINE = Memory;
CREATE TABLE amended (id String, customer String, answer Int64) ENGINE = Memory;
CREATE VIEW corrected AS SELECT id FROM voided UNION ALL SELECT id FROM amended;

CREATE VIEW decoded AS
WITH
    JSONExtractString(value, 'data', 'usage_format') AS format,
    JSONExtractRaw(value, 'data', 'usage') AS usage,
    JSONExtractUInt(usage, 'cache_read_input_tokens') AS anthropic_cached,
    JSONExtractUInt(usage, 'cacheReadInputTokens') AS bedrock_cached
SELECT
    partition, offset, fromUnixTimestamp64Milli(logged_millis, 'UTC') AS logged_at,
    isValidJSON(value) AS is_json,
    JSONExtractString(value, 'specversion') AS specversion,
    JSONExtractString(value, 'type') AS type,
    JSONExtractString(value, 'source') AS source,
    JSONExtractString(value, 'id') AS id,
    parseDateTime64BestEffortOrZero(JSONExtractString(value, 'time'), 3, 'UTC') AS said_at,
    JSONExtractString(value, 'data', 'workspace') AS workspace,
    JSONExtractString(value, 'data', 'customer') AS customer,
    JSONExtractString(value, 'data', 'feature') AS feature,
    JSONExtractString(value, 'data', 'plan') AS plan,
    JSONExtractString(value, 'data', 'session') AS session,
    JSONExtractString(value, 'data', 'provider') AS provider,
    JSONExtractString(value, 'data', 'model') AS model,
    toDecimal128OrZero(JSONExtractString(value, 'data', 'revenue_usd'), 9) AS revenue,
    usage != '' AS has_usage,
    -- All input, what of it came from a cache, and the answer.
    multiIf(
        format = 'openai.chat', JSONExtractUInt(usage, 'prompt_tokens'),
        format = 'anthropic.messages', JSONExtractUInt(usage, 'input_tokens') + anthropic_cached,
        format = 'bedrock.converse', JSONExtractUInt(usage, 'inputTokens') + bedrock_cached,
        format = 'gemini', JSONExtractUInt(usage, 'promptTokenCount'),
        JSONExtractUInt(usage, 'input_tokens')) AS context,
    multiIf(
        format = 'openai.chat', JSONExtractUInt(usage, 'prompt_tokens_details', 'cached_tokens'),
        format = 'anthropic.messages', anthropic_cached,
        format = 'bedrock.converse', bedrock_cached,
        format = 'gemini', JSONExtractUInt(usage, 'cachedContentTokenCount'),
        JSONExtractUInt(usage, 'cache_read_tokens')) AS cached,
    multiIf(
        format = 'openai.chat', JSONExtractUInt(usage, 'completion_tokens'),
        format = 'bedrock.converse', JSONExtractUInt(usage, 'outputTokens'),
        format = 'gemini', JSONExtractUInt(usage, 'candidatesTokenCount'),
        JSONExtractUInt(usage, 'output_tokens')) AS answer
FROM raw;

-- What can be read and is not too old to be judged.
CREATE VIEW accepted AS
SELECT *, if(said_at > logged_at + INTERVAL 5 MINUTE, logged_at, said_at) AS time
FROM decoded
WHERE is_json AND specversion = '1.0' AND source != '' AND id != '' AND workspace != ''
    AND said_at > logged_at - INTERVAL 24 HOUR
    AND multiIf(
        type = 'spendfuse.usage', model != '' AND has_usage,
        type = 'spendfuse.session_end', session != '',
        type = 'spendfuse.revenue');

-- An event sent again keeps its identity, and the first one stands, until more of its answer is told.
-- What contradicts it comes later in the same partition; what comes in another one was said before.
CREATE TABLE tellings ENGINE = Memory AS
SELECT * FROM accepted
WHERE type != 'spendfuse.session_end' AND feature != 'conflict' AND id NOT IN corrected
ORDER BY offset, partition
LIMIT 1 BY workspace, source, id, answer;

CREATE TABLE rows ENGINE = Memory AS
SELECT
    spend.event_id AS id, spend.source AS source, spend.workspace AS workspace,
    spend.kind AS kind, spend.customer AS customer, spend.feature AS feature, spend.plan AS plan,
    spend.session AS session, spend.provider AS provider, spend.model AS model,
    toInt64(spend.input_tokens) AS input, toInt64(spend.cache_read_tokens) AS cached,
    toInt64(spend.output_tokens) AS answer, spend.cost AS cost, spend.revenue AS revenue,
    spend.time AS time, spend.received_at AS received_at, spend.price_version AS price_version,
    spend.budget_version AS budget_version, spend.src_partition AS partition,
    spend.src_offset AS offset, spend.calls AS calls, toInt64(own.answer) AS told,
    own.id AS id_at_address, own.time AS own_time, own.logged_at AS logged_at,
    spend.cost_input + spend.cost_cache_read + spend.cost_cache_write + spend.cost_output
        + spend.cost_units AS parts
FROM {warehouse}.spend
LEFT JOIN accepted AS own ON own.partition = spend.src_partition AND own.offset = spend.src_offset
WHERE if(spend.amends_seq > 0, spend.amends_id, spend.event_id) NOT IN corrected;

-- What each event comes to with each telling, by the prices of that one's row.
CREATE TABLE sums ENGINE = Memory AS
WITH
    toInt128(tellings.context - tellings.cached) * books.input
        + toInt128(tellings.cached) * books.cached
        + toInt128(tellings.answer) * books.answer AS numerator
SELECT
    tellings.id AS id, tellings.source AS source, tellings.workspace AS workspace,
    tellings.type = 'spendfuse.revenue' AS is_revenue,
    tellings.customer AS customer, tellings.feature AS feature, tellings.plan AS plan,
    tellings.session AS session, tellings.provider AS provider, tellings.model AS model,
    toInt64(tellings.context - tellings.cached) AS input, toInt64(tellings.cached) AS cached,
    toInt64(tellings.answer) AS answer,
    -- Rounded up to the nano-dollar, once a call.
    if(is_revenue, 0, intDiv(numerator + 999999, 1000000)) AS nanos,
    tellings.revenue AS revenue,
    rows.own_time AS time, rows.logged_at AS received_at, rows.id_at_address AS id_at_address,
    rows.budget_version AS budget_version,
    rows.id != '' AS is_row
FROM tellings
LEFT JOIN rows ON rows.id = tellings.id AND rows.source = tellings.source
    AND rows.workspace = tellings.workspace AND rows.told = toInt64(tellings.answer)
LEFT JOIN books ON books.version = rows.price_version;

-- What each row must say, of the record that it names as its own: what it tells on top of the one
-- before.
CREATE TABLE wanted ENGINE = Memory AS
SELECT
    id, source, workspace, customer, feature, plan, session, provider, model, revenue, time,
    received_at, id_at_address, budget_version, is_row,
    toInt64(sums.answer) AS told,
    row_number() OVER tellings = 1 AS is_first,
    multiIf(is_revenue, 'revenue', is_first, 'usage', 'correction') AS kind,
    toInt64(is_first AND NOT is_revenue) AS calls,
    sums.input - lagInFrame(sums.input, 1, 0) OVER tellings AS input,
    sums.cached - lagInFrame(sums.cached, 1, 0) OVER tellings AS cached,
    sums.answer - lagInFrame(sums.answer, 1, 0) OVER tellings AS answer,
    sums.nanos - lagInFrame(sums.nanos, 1, 0) OVER tellings AS nanos
FROM sums
WINDOW tellings AS (
    PARTITION BY workspace, source, id ORDER BY sums.answer
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

-- With the rows of what was corrected, each at its own time.
CREATE TABLE counted ENGINE = Memory AS
SELECT
    workspace, customer, feature, plan, session, time, budget_version, kind = 'revenue' AS is_revenue,
    calls, nanos, revenue, input, cached, answer
FROM wanted
UNION ALL
SELECT
    workspace, customer, feature, plan, session, time, budget_version, 0 AS is_revenue, toInt64(calls),
    toInt128(cost * 1000000000), revenue, toInt64(input_tokens), toInt64(cache_read_tokens),
    toInt64(output_tokens)
FROM {warehouse}.spend
WHERE if(amends_seq > 0, amends_id, event_id) IN corrected;

-- Every budget's scopes in every window of the calendar.
CREATE VIEW windows AS
WITH
    arrayStringConcat(arrayMap(dimension -> concat('/', dimension, '=', multiIf(
        dimension = 'customer', counted.customer,
        dimension = 'feature', counted.feature,
        dimension = 'plan', counted.plan,
        counted.session)), budgets.dimensions)) AS rest,
    if(budgets.unit = 'calls', toInt128(counted.calls), counted.nanos) AS amount
SELECT
    budgets.id AS budget,
    if(budgets.workspace = '*', '*', concat(counted.workspace, rest)) AS scope,
    multiIf(
        budgets.window = 'hour', toStartOfHour(counted.time),
        budgets.window = 'day', toStartOfDay(counted.time),
        budgets.window = 'week', toDateTime(toStartOfWeek(counted.time, 1), 'UTC'),
        budgets.window = 'month', toDateTime(toStartOfMonth(counted.time), 'UTC'),
        budgets.window = 'quarter', toDateTime(toStartOfQuarter(counted.time), 'UTC'),
        budgets.window = 'year', toDateTime(toStartOfYear(counted.time), 'UTC'),
        toDateTime(0, 'UTC')) AS start,
    sum(amount) AS spent,
    -- Before anything was taken back.
    sumIf(amount, amount > 0) AS most
FROM counted CROSS JOIN budgets
WHERE NOT counted.is_revenue AND counted.budget_version >= budgets.since
    AND (budgets.workspace = '*' OR budgets.workspace = counted.workspace)
    AND (budgets.only_plan = '' OR counted.plan = budgets.only_plan)
    AND (NOT has(budgets.dimensions, 'session')
        OR counted.session NOT IN (SELECT session FROM accepted WHERE type = 'spendfuse.session_end')
        AND NOT ({idled} AND startsWith(counted.session, 'idle-')))
GROUP BY budget, scope, start;

-- What the blocklist must say now: scopes of windows that have not ended.
CREATE VIEW standings AS
WITH
    toDateTime({now}, 'UTC') AS now,
    arrayFilter(step -> windows.spent * 100 >= budgets.limit * step.1, budgets.steps) AS reached,
    arrayMax(arrayMap(step -> step.2, reached)) AS strictest
SELECT
    concat(windows.budget, '|', windows.scope) AS key,
    windows.spent AS spent,
    budgets.limit AS limit,
    windows.start AS start,
    multiIf(
        budgets.window = 'hour', toNullable(start + INTERVAL 1 HOUR),
        budgets.window = 'day', start + INTERVAL 1 DAY,
        budgets.window = 'week', start + INTERVAL 1 WEEK,
        budgets.window = 'month', start + INTERVAL 1 MONTH,
        budgets.window = 'quarter', start + INTERVAL 3 MONTH,
        budgets.window = 'year', start + INTERVAL 1 YEAR,
        NULL) AS end,
    arrayElement(['ok', 'warn', 'downgrade', 'block'], 1 + if(empty(reached), 0, strictest)) AS verdict
FROM windows INNER JOIN budgets ON budgets.id = windows.budget
WHERE end IS NULL OR end > now;

CREATE VIEW told AS
WITH
    JSONExtractString(value, 'spent_usd') AS dollars,
    JSONExtractString(value, 'limit_usd') AS limit_dollars
SELECT
    key,
    if(dollars != '', toInt128(toDecimal128(dollars, 9) * 1000000000), JSONExtractUInt(value, 'spent_calls')) AS spent,
    if(limit_dollars != '', toInt128(toDecimal128(limit_dollars, 9) * 1000000000), JSONExtractUInt(value, 'limit_calls')) AS limit,
    JSONExtractString(value, 'verdict') AS verdict,
    JSONExtractString(value, 'window') AS window,
    parseDateTimeBestEffortOrNull(JSONExtractString(value, 'window_start'), 'UTC') AS start,
    parseDateTimeBestEffortOrNull(JSONExtractString(value, 'resets_at'), 'UTC') AS end
FROM entries
WHERE NOT startsWith(key, 'finding|') AND NOT startsWith(key, 'heartbeat|')
