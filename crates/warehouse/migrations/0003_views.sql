-- Columns are named with their table: in ClickHouse an alias would else stand for the column.

-- Model calls, without revenue.
CREATE VIEW IF NOT EXISTS calls AS
SELECT * FROM spend WHERE kind = 'usage';

-- The last state of every finding.
CREATE VIEW IF NOT EXISTS findings AS
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
            tuple(stage_seq, stage_index)) AS latest,
        count() AS updates
    FROM finding_changes
    GROUP BY workspace, scope, detector, rule, agent, model, opened_at
);

-- What each customer cost and paid on each day.
CREATE VIEW IF NOT EXISTS spend_by_customer_daily AS
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
CREATE VIEW IF NOT EXISTS margin_by_customer AS
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
CREATE VIEW IF NOT EXISTS top_sessions AS
SELECT
    spend.workspace AS workspace,
    spend.session AS session,
    any(spend.root_session) AS root_session,
    any(spend.customer) AS customer,
    any(spend.feature) AS feature,
    any(spend.agent) AS agent,
    min(spend.time) AS started_at,
    max(spend.time) AS last_at,
    count() AS calls,
    sum(spend.input_tokens + spend.cache_read_tokens + spend.cache_write_5m_tokens
            + spend.cache_write_1h_tokens + spend.audio_input_tokens
            + spend.image_input_tokens + spend.video_input_tokens) AS tokens_in,
    sum(spend.output_tokens + spend.reasoning_tokens + spend.audio_output_tokens
            + spend.image_output_tokens) AS tokens_out,
    sum(spend.tool_calls) AS tool_calls,
    sum(spend.cost) AS cost
FROM spend
WHERE spend.kind = 'usage' AND spend.session != ''
GROUP BY workspace, session
ORDER BY cost DESC;

-- Models without a price, charged at a ceiling.
CREATE VIEW IF NOT EXISTS unpriced_models AS
SELECT
    spend.provider AS provider,
    spend.model AS model,
    count() AS calls,
    sum(spend.input_tokens + spend.cache_read_tokens + spend.cache_write_5m_tokens
            + spend.cache_write_1h_tokens + spend.audio_input_tokens
            + spend.image_input_tokens + spend.video_input_tokens) AS tokens_in,
    sum(spend.output_tokens + spend.reasoning_tokens + spend.audio_output_tokens
            + spend.image_output_tokens) AS tokens_out,
    sum(spend.cost) AS charged,
    min(spend.time) AS first_at,
    max(spend.time) AS last_at
FROM spend
WHERE spend.kind = 'usage' AND spend.priced = 'ceiling'
GROUP BY provider, model;
