-- A session is of the feature and agent that it has now: of those that an amendment has taken back
-- nothing is left to choose. Columns are named with their table: in ClickHouse an alias would else
-- stand for the column.

-- Sessions by cost, the dearest first. Of several customers the one with the most cost has the
-- session, with that customer's dearest feature and agent.
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
        sums.workspace AS workspace,
        sums.session AS session,
        sums.customer AS customer,
        any(sums.root_session) AS root_session,
        argMax(sums.feature, tuple(sums.cost, sums.calls)) AS feature,
        argMax(sums.agent, tuple(sums.cost, sums.calls)) AS agent,
        min(sums.started_at) AS started_at,
        max(sums.last_at) AS last_at,
        sum(sums.calls) AS calls,
        sum(sums.tokens_in) AS tokens_in,
        sum(sums.tokens_out) AS tokens_out,
        sum(sums.tool_calls) AS tool_calls,
        sum(sums.cost) AS cost
    FROM
    (
        SELECT
            spend.workspace AS workspace,
            spend.session AS session,
            spend.customer AS customer,
            spend.feature AS feature,
            spend.agent AS agent,
            any(spend.root_session) AS root_session,
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
        GROUP BY workspace, session, customer, feature, agent
    ) AS sums
    GROUP BY workspace, session, customer
) AS customers
GROUP BY workspace, session
HAVING sum(customers.calls) != 0 OR sum(customers.cost) != 0
ORDER BY cost DESC;

-- What sessions of each feature cost in each month: half of them at most cost_p50, nine of ten at
-- most cost_p90. A session that runs on into the next month stands in both with what it cost there. Of
-- several features the one with the most cost has it; one whose calls were all taken back stands nowhere.
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
        features.month AS month,
        features.workspace AS workspace,
        argMax(features.feature, tuple(features.cost, features.calls)) AS feature,
        sum(features.calls) AS calls,
        sum(features.cost) AS cost
    FROM
    (
        SELECT
            toStartOfMonth(spend.time) AS month,
            spend.workspace AS workspace,
            spend.session AS session,
            spend.feature AS feature,
            sum(spend.calls) AS calls,
            sum(spend.cost) AS cost
        FROM spend
        WHERE spend.kind != 'revenue' AND spend.session != ''
        GROUP BY month, workspace, session, feature
    ) AS features
    GROUP BY month, workspace, features.session
    HAVING sum(features.calls) != 0 OR sum(features.cost) != 0
) AS sessions
GROUP BY month, workspace, feature;
