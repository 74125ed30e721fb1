-- Columns are named with their table: in ClickHouse an alias would else stand for the column.

-- Model calls, without revenue. Here and below `user` would be the login if it were missing.
CREATE OR REPLACE VIEW calls AS
SELECT *, spend.user_id AS user FROM spend WHERE kind = 'usage';

-- The last state of every finding.
CREATE OR REPLACE VIEW findings AS
SELECT
    workspace,
    scope,
    detector,
    rule,
    agent,
    model,
    opened_at,
    latest.1 AS customer,
    latest.2 AS feature,
    latest.3 AS state,
    latest.4 AS severity,
    latest.5 AS last_at,
    latest.6 AS measured,
    latest.7 AS threshold,
    latest.8 AS wasted,
    latest.9 AS evidence,
    latest.10 AS message,
    updates
FROM
(
    SELECT
        workspace,
        scope,
        detector,
        rule,
        agent,
        model,
        opened_at,
        argMax(
            tuple(customer, feature, state, severity, last_at, measured, threshold, wasted, evidence, message),
            tuple(epoch, stage_seq, stage_index)) AS latest,
        count() AS updates
    FROM finding_changes
    GROUP BY workspace, scope, detector, rule, agent, model, opened_at
);

-- What each customer cost and paid on each day.
CREATE OR REPLACE VIEW spend_by_customer_daily AS
SELECT
    daily.day AS day,
    daily.workspace AS workspace,
    daily.customer AS customer,
    sum(daily.calls) AS calls,
    sum(daily.input_tokens + daily.cache_read_tokens + daily.cache_write_5m_tokens
            + daily.cache_write_1h_tokens + daily.audio_input_tokens
            + daily.image_input_tokens + daily.video_input_tokens) AS tokens_in,
    sum(daily.output_tokens + daily.reasoning_tokens + daily.audio_output_tokens
            + daily.image_output_tokens) AS tokens_out,
    sum(daily.cost) AS cost,
    sum(daily.revenue) AS revenue
FROM spend_daily AS daily
GROUP BY day, workspace, customer;

-- What each customer paid and cost, over all days that are kept.
CREATE OR REPLACE VIEW margin_by_customer AS
SELECT
    totals.workspace AS workspace,
    totals.customer AS customer,
    totals.calls AS calls,
    totals.revenue AS revenue,
    totals.cost AS cost,
    totals.revenue - totals.cost AS margin,
    if(totals.revenue > 0, round(toFloat64(totals.revenue - totals.cost) / toFloat64(totals.revenue) * 100, 1), NULL)
        AS margin_percent,
    totals.first_day AS first_day,
    totals.last_day AS last_day
FROM
(
    SELECT
        daily.workspace AS workspace,
        daily.customer AS customer,
        sum(daily.calls) AS calls,
        sum(daily.revenue) AS revenue,
        sum(daily.cost) AS cost,
        min(daily.day) AS first_day,
        max(daily.day) AS last_day
    FROM spend_daily AS daily
    WHERE daily.customer != ''
    GROUP BY workspace, customer
) AS totals;

-- Sessions by cost, the dearest first.
CREATE OR REPLACE VIEW top_sessions AS
SELECT
    spend.workspace AS workspace,
    spend.session AS session,
    any(spend.root_session) AS root_session,
    any(spend.customer) AS customer,
    any(spend.feature) AS feature,
    any(spend.agent) AS agent,
    min(spend.time) AS started_at,
    max(spend.time) AS last_at,
    sum(spend.calls) AS calls,
    sum(spend.input_tokens + spend.cache_read_tokens + spend.cache_write_5m_tokens
            + spend.cache_write_1h_tokens + spend.audio_input_tokens
            + spend.image_input_tokens + spend.video_input_tokens) AS tokens_in,
    sum(spend.output_tokens + spend.reasoning_tokens + spend.audio_output_tokens
            + spend.image_output_tokens) AS tokens_out,
    sum(spend.tool_calls) AS tool_calls,
    sum(spend.cost) AS cost
FROM spend
WHERE spend.kind != 'revenue' AND spend.session != ''
GROUP BY workspace, session
ORDER BY cost DESC;

-- Models without a price, charged at a ceiling.
CREATE OR REPLACE VIEW unpriced_models AS
SELECT
    spend.provider AS provider,
    spend.model AS model,
    sum(spend.calls) AS calls,
    sum(spend.input_tokens + spend.cache_read_tokens + spend.cache_write_5m_tokens
            + spend.cache_write_1h_tokens + spend.audio_input_tokens
            + spend.image_input_tokens + spend.video_input_tokens) AS tokens_in,
    sum(spend.output_tokens + spend.reasoning_tokens + spend.audio_output_tokens
            + spend.image_output_tokens) AS tokens_out,
    sum(spend.cost) AS charged,
    min(spend.time) AS first_at,
    max(spend.time) AS last_at
FROM spend
WHERE spend.kind != 'revenue' AND spend.priced = 'ceiling'
GROUP BY provider, model;

-- Views in the words of analysts and finance. No division by zero: where there is nothing to divide
-- by, the answer is NULL. A question about a month or a workspace reads no more than that.

-- What customers paid, apart from what calls cost.
CREATE OR REPLACE VIEW revenue_events AS
SELECT time, received_at, source, event_id, workspace, customer, feature, project, user_id,
    spend.user_id AS user, agent, plan, environment, account, tags, revenue
FROM spend WHERE kind = 'revenue';

-- What each customer paid and cost in each month; an empty customer is what nobody was named for.
CREATE OR REPLACE VIEW margin_by_month AS
SELECT
    totals.month AS month,
    totals.workspace AS workspace,
    totals.customer AS customer,
    totals.calls AS calls,
    totals.revenue AS revenue,
    totals.cost AS cost,
    totals.revenue - totals.cost AS margin,
    round(toFloat64(totals.revenue - totals.cost) / nullIf(toFloat64(totals.revenue), 0) * 100, 1) AS margin_percent
FROM
(
    SELECT
        toStartOfMonth(daily.day) AS month,
        daily.workspace AS workspace,
        daily.customer AS customer,
        sum(daily.calls) AS calls,
        sum(daily.revenue) AS revenue,
        sum(daily.cost) AS cost
    FROM spend_daily AS daily
    GROUP BY month, workspace, customer
) AS totals;

-- What prompt caches saved. What tokens would have cost without a cache is taken from the same
-- model's other input of that day; where there was none, nobody knows, and saved is NULL.
CREATE OR REPLACE VIEW cache_savings AS
SELECT
    totals.day AS day,
    totals.workspace AS workspace,
    totals.provider AS provider,
    totals.model AS model,
    totals.calls AS calls,
    totals.uncached AS uncached_tokens,
    totals.cache_read AS cache_read_tokens,
    totals.cache_write AS cache_write_tokens,
    totals.cache_read / nullIf(totals.uncached + totals.cache_read + totals.cache_write, 0) AS share_cached,
    totals.cost_cache_read AS cost_cache_read,
    totals.cost_cache_write AS cost_cache_write,
    totals.cost_input * (totals.cache_read + totals.cache_write) / nullIf(totals.uncached, 0)
        - totals.cost_cache_read - totals.cost_cache_write AS saved
FROM
(
    SELECT
        daily.day AS day,
        daily.workspace AS workspace,
        daily.provider AS provider,
        daily.model AS model,
        sum(daily.calls) AS calls,
        sum(daily.input_tokens + daily.audio_input_tokens + daily.image_input_tokens
            + daily.video_input_tokens) AS uncached,
        sum(daily.cache_read_tokens) AS cache_read,
        sum(daily.cache_write_5m_tokens + daily.cache_write_1h_tokens) AS cache_write,
        sum(daily.cost_input) AS cost_input,
        sum(daily.cost_cache_read) AS cost_cache_read,
        sum(daily.cost_cache_write) AS cost_cache_write
    FROM spend_daily AS daily
    WHERE daily.kind != 'revenue' AND daily.priced IN ('book', 'reported')
    GROUP BY day, workspace, provider, model
) AS totals;

-- What each value of each tag cost in each month. A call counts under every tag that it has, so
-- sums are for one tag at a time; calls without any tag stand under an empty one.
CREATE OR REPLACE VIEW chargeback_by_tag AS
SELECT
    toStartOfMonth(daily.day) AS month,
    daily.workspace AS workspace,
    tag,
    value,
    sum(daily.calls) AS calls,
    sum(daily.cost) AS cost
FROM spend_daily AS daily
LEFT ARRAY JOIN mapKeys(daily.tags) AS tag, mapValues(daily.tags) AS value
WHERE daily.kind != 'revenue'
GROUP BY month, workspace, tag, value;

-- What sessions of each feature cost in each month: half of them at most cost_p50, nine of ten at
-- most cost_p90. A session that runs on into the next month stands in both with what it cost there.
CREATE OR REPLACE VIEW session_percentiles AS
SELECT
    sessions.month AS month,
    sessions.workspace AS workspace,
    sessions.feature AS feature,
    count() AS sessions,
    quantileExact(0.5)(sessions.calls) AS calls_p50,
    quantileExact(0.99)(sessions.calls) AS calls_p99,
    quantileExact(0.5)(sessions.cost) AS cost_p50,
    quantileExact(0.9)(sessions.cost) AS cost_p90,
    quantileExact(0.99)(sessions.cost) AS cost_p99,
    max(sessions.cost) AS cost_max,
    sum(sessions.cost) AS cost
FROM
(
    SELECT
        toStartOfMonth(spend.time) AS month,
        spend.workspace AS workspace,
        any(spend.feature) AS feature,
        sum(spend.calls) AS calls,
        sum(spend.cost) AS cost
    FROM spend
    WHERE spend.kind != 'revenue' AND spend.session != ''
    GROUP BY month, workspace, spend.session
) AS sessions
GROUP BY month, workspace, feature;
