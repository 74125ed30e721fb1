-- What corrections and re-ratings have taken back is no session and no model any more, and a session
-- is whose it is now. Columns are named with their table: in ClickHouse an alias would else stand for
-- the column.

-- Sessions by cost, the dearest first. Of several customers the one with the most cost has the session.
CREATE OR REPLACE VIEW top_sessions AS
SELECT
    customers.workspace AS workspace,
    customers.session AS session,
    any(customers.root_session) AS root_session,
    argMax(customers.customer, tuple(customers.cost, customers.calls)) AS customer,
    argMax(customers.feature, tuple(customers.cost, customers.calls)) AS feature,
    argMax(customers.agent, tuple(customers.cost, customers.calls)) AS agent,
    min(customers.started_at) AS started_at,
    max(customers.last_at) AS last_at,
    sum(customers.calls) AS calls,
    sum(customers.tokens_in) AS tokens_in,
    sum(customers.tokens_out) AS tokens_out,
    sum(customers.tool_calls) AS tool_calls,
    sum(customers.cost) AS cost
FROM
(
    SELECT
        spend.workspace AS workspace,
        spend.session AS session,
        spend.customer AS customer,
        any(spend.root_session) AS root_session,
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
    GROUP BY workspace, session, customer
) AS customers
GROUP BY workspace, session
HAVING sum(customers.calls) != 0 OR sum(customers.cost) != 0
ORDER BY cost DESC;

-- Models without a price, charged at a ceiling: those of which something still is.
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
GROUP BY provider, model
HAVING sum(spend.calls) != 0 OR sum(spend.cost) != 0;

-- What sessions of each feature cost in each month: half of them at most cost_p50, nine of ten at
-- most cost_p90. A session that runs on into the next month stands in both with what it cost there. One
-- whose calls were all taken back stands nowhere.
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
    HAVING sum(spend.calls) != 0 OR sum(spend.cost) != 0
) AS sessions
GROUP BY month, workspace, feature;
