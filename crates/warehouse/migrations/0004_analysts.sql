-- Views in the words of analysts and finance. No division by zero: where there is nothing to divide
-- by, the answer is NULL. A question about a month or a workspace reads no more than that.

-- What customers paid, apart from what calls cost.
CREATE VIEW IF NOT EXISTS revenue_events AS
SELECT time, received_at, source, event_id, workspace, customer, feature, user, agent, plan,
    environment, account, tags, revenue
FROM spend WHERE kind = 'revenue';

-- What each customer paid and cost in each month; an empty customer is what nobody was named for.
CREATE VIEW IF NOT EXISTS margin_by_month AS
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
CREATE VIEW IF NOT EXISTS cache_savings AS
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
    WHERE daily.kind = 'usage' AND daily.priced IN ('book', 'reported')
    GROUP BY day, workspace, provider, model
) AS totals;

-- What each value of each tag cost in each month. A call counts under every tag that it has, so
-- sums are for one tag at a time; calls without any tag stand under an empty one.
CREATE VIEW IF NOT EXISTS chargeback_by_tag AS
SELECT
    toStartOfMonth(spend.time) AS month,
    spend.workspace AS workspace,
    tag,
    value,
    count() AS calls,
    sum(spend.cost) AS cost
FROM spend
LEFT ARRAY JOIN mapKeys(spend.tags) AS tag, mapValues(spend.tags) AS value
WHERE spend.kind = 'usage'
GROUP BY month, workspace, tag, value;

-- What sessions of each feature cost in each month: half of them at most cost_p50, nine of ten at
-- most cost_p90. A session that runs on into the next month stands in both with what it cost there.
CREATE VIEW IF NOT EXISTS session_percentiles AS
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
        count() AS calls,
        sum(spend.cost) AS cost
    FROM spend
    WHERE spend.kind = 'usage' AND spend.session != ''
    GROUP BY month, workspace, spend.session
) AS sessions
GROUP BY month, workspace, feature;
