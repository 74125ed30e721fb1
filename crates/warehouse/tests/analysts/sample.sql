-- {rows} entries of the last 90 days, a twentieth of them from this very minute, so that questions
-- about today and this month have answers at any time: calls of three workspaces, 5,000 customers
-- and 13 models in sessions of ten, and a payment after every hundred; fifty customers pay a cent.
INSERT INTO spend (
    time, received_at, kind, amends_id, source, event_id, workspace, customer, feature, user_id,
    agent, plan, environment, account, api_key_id, region, session, root_session, tags, provider,
    model, request_model, operation, service_tier, input_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, audio_input_tokens, image_input_tokens,
    video_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens,
    units, unit_quality, unit_size, tool_calls, status, latency_ms, cost, cost_input,
    cost_cache_read, cost_cache_write, cost_output, cost_units, reported_cost, revenue, priced,
    price_version, budget_version, flags, call_id, attempt, response_id, trace_id, span_id,
    parent_span_id, meter_partition, meter_seq, meter_index, src_topic, src_partition, src_offset
)
SELECT
    if(number % 20 = 3, now64(3), now64(3) - toIntervalSecond(sipHash64(session_number) % 7776000) - toIntervalSecond(number % 600)) AS time,
    time AS received_at,
    if(is_payment, 'revenue', 'usage') AS kind,
    '' AS amends_id,
    ['checkout-api', 'llm:openai', 'llm:anthropic', 'gateway'][1 + number % 4] AS source,
    concat('e-', toString(number)) AS event_id,
    ['acme', 'acme', 'globex', 'initech'][1 + session_hash % 4] AS workspace,
    concat('c-', toString(session_hash % 5000)) AS customer,
    concat('feature-', toString(session_hash % 20)) AS feature,
    concat('u-', toString(session_hash % 50000)) AS user_id,
    ['', 'planner', 'coder', 'reviewer'][1 + number % 4] AS agent,
    ['free', 'pro', 'enterprise'][1 + session_hash % 3] AS plan,
    'prod' AS environment,
    '' AS account,
    concat('key-', toString(number % 7)) AS api_key_id,
    'eu-central-1' AS region,
    concat('s-', toString(session_number)) AS session,
    session AS root_session,
    if(session_hash % 7 = 0, map(), map('team', ['growth', 'search', 'support', 'platform', 'research'][1 + session_hash % 5],
        'cost_center', concat('cc-', toString(session_hash % 30)))) AS tags,
    ['openai', 'anthropic', 'google'][1 + number % 3] AS provider,
    if(number % 1000 = 7, 'in-house-7b', concat(provider, '-model-', toString(session_hash % 4))) AS model,
    model AS request_model,
    'chat' AS operation,
    '' AS service_tier,
    if(is_payment, 0, 200 + call_hash % 3000) AS input_tokens,
    if(is_payment, 0, session_hash % 4 * (call_hash % 2000)) AS cache_read_tokens,
    if(is_payment OR number % 5 != 0, 0, session_hash % 4 * 500) AS cache_write_5m_tokens,
    0, 0, 0, 0,
    if(is_payment, 0, 20 + call_hash % 900) AS output_tokens,
    0, 0, 0,
    map(), '', '',
    if(is_payment, 0, call_hash % 3) AS tool_calls,
    if(call_hash % 50 = 0, 'error', 'ok') AS status,
    200 + call_hash % 9000 AS latency_ms,
    cost_input + cost_cache_read + cost_cache_write + cost_output AS cost,
    toDecimal128(input_tokens * 2500, 9) / 1000000000 AS cost_input,
    toDecimal128(cache_read_tokens * 250, 9) / 1000000000 AS cost_cache_read,
    toDecimal128(cache_write_5m_tokens * 3125, 9) / 1000000000 AS cost_cache_write,
    toDecimal128(output_tokens * 10000, 9) / 1000000000 AS cost_output,
    0 AS cost_units,
    0 AS reported_cost,
    multiIf(NOT is_payment, 0, session_hash % 5000 < 50, 0.01, 2) AS revenue,
    multiIf(is_payment, '', model = 'in-house-7b', 'ceiling', 'book') AS priced,
    'sample' AS price_version,
    1 AS budget_version,
    [] AS flags,
    concat('call-', toString(number)) AS call_id,
    if(number % 40 = 0, 2, 1) AS attempt,
    '', '', '', '',
    number % 16 AS meter_partition,
    intDiv(number, 1600) AS meter_seq,
    intDiv(number, 16) % 100 AS meter_index,
    'spendfuse.usage' AS src_topic,
    number % 16 AS src_partition,
    intDiv(number, 16) AS src_offset
FROM
(
    SELECT
        number,
        number % 101 = 100 AS is_payment,
        intDiv(number, 1000) * 100 + number % 100 AS session_number,
        sipHash64(session_number) AS session_hash,
        sipHash64(number, 1) AS call_hash
    FROM numbers({rows})
);

-- The price of one model came late: its calls were re-rated just now, at half of the cost.
INSERT INTO spend (
    time, received_at, kind, amends_id, source, event_id, workspace, customer, feature, user_id, agent,
    plan, environment, session, root_session, tags, provider, model, operation, cost, cost_input, priced,
    price_version, price_detail, meter_partition, meter_seq, meter_index, src_topic, amends_partition,
    amends_seq, amends_index
)
SELECT
    time, now64(3), 'rerate', event_id, source, concat('rerate-', event_id), workspace, customer, feature,
    user_id, agent, plan, environment, session, root_session, tags, provider, model, operation,
    -cost_input / 2, -cost_input / 2, 'ceiling', 'sample-2', 'alice: price book sample-2 (job in-house)',
    meter_partition, meter_seq + 1000000, meter_index, 'spendfuse.corrections', meter_partition,
    meter_seq, meter_index
FROM spend
WHERE kind = 'usage' AND model = 'in-house-7b';

INSERT INTO prices
SELECT 'sample', provider, concat(provider, '-model-', toString(number)), 'default', line, 'million_tokens', 0, '', '', now64(3), rate
FROM numbers(4)
ARRAY JOIN ['openai', 'anthropic', 'google'] AS provider
ARRAY JOIN ['input', 'cache_read', 'cache_write_5m', 'output'] AS line, [2.5, 0.25, 3.125, 10] AS rate;

INSERT INTO finding_changes (workspace, scope, detector, agent, customer, state, severity, opened_at, last_at, wasted, message, stage, stage_seq)
SELECT 'acme', concat('acme/session=s-', toString(number)), ['retry_loop', 'context_bloat'][1 + number % 2], 'planner', 'c-1',
    'closed', 'warning', now64(3), now64(3), 1.5, 'the same call again', 'meter', number
FROM numbers(10);

INSERT INTO verdicts (decided_at, budget, scope, workspace, verdict, action, unit, spent, limit, percent, window, stage, stage_seq)
SELECT now64(3), 'per-customer', concat('acme/customer=c-', toString(number)), 'acme', 'block', 'block', 'usd', 5.01, 5, 100.2, 'day', 'ledger', number
FROM numbers(10);

INSERT INTO budget_windows (at, kind, budget, scope, workspace, window, spent, unit, limit, percent, stage, stage_seq)
SELECT now64(3), 'spent', 'per-customer', concat('acme/customer=c-', toString(number)), 'acme', 'day', number / 2, 'usd', 5, number * 10, 'ledger', number
FROM numbers(10);
