-- What the produced events cost, worked out from their JSON and table `prices` alone: nothing here
-- comes from the pipeline. {prices} is the version of the price book.
WITH
    -- Rates of a model without a price, nano-dollars per million tokens: the documented last resort
    -- for a name that shares its family with no other model.
    15000000000 AS unknown_input,
    75000000000 AS unknown_output,
    events AS
    (
        SELECT
            seq,
            length(raw) AS bytes,
            isValidJSON(raw) AS is_json,
            JSONExtractString(raw, 'specversion') AS specversion,
            JSONExtractString(raw, 'type') AS type,
            JSONExtractString(raw, 'source') AS source,
            JSONExtractString(raw, 'id') AS id,
            parseDateTime64BestEffortOrZero(JSONExtractString(raw, 'time'), 3, 'UTC') AS time,
            JSONExtractString(raw, 'data', 'workspace') AS workspace,
            JSONExtractString(raw, 'data', 'provider') AS provider,
            JSONExtractString(raw, 'data', 'model') AS model,
            JSONExtractString(raw, 'data', 'phase') AS phase,
            JSONExtractString(raw, 'data', 'usage_format') AS format,
            JSONExtractString(raw, 'data', 'reported_cost_usd') AS reported,
            JSONExtractRaw(raw, 'data', 'usage') AS usage
        FROM demo_events
    ),
    accepted AS
    (
        SELECT *
        FROM events
        WHERE is_json AND bytes <= 65536 AND specversion = '1.0'
            AND type IN ('spendfuse.usage', 'spendfuse.revenue')
            AND phase IN ('', 'final')
            AND source != '' AND id != '' AND workspace != ''
            AND (type = 'spendfuse.revenue' OR (model != '' AND usage != ''))
            AND NOT match(usage, ':\\s*-')
            AND toDecimal128OrZero(reported, 9) < 1000000
            AND time > now64(3, 'UTC') - INTERVAL 1 DAY
    ),
    -- An event sent again keeps its identity; the first one counts.
    firsts AS
    (
        SELECT * FROM accepted ORDER BY seq LIMIT 1 BY workspace, source, id
    ),
    counts AS
    (
        SELECT
            seq, provider, model, format,
            multiIf(
                format = 'openai.chat', JSONExtractUInt(usage, 'prompt_tokens'),
                format = 'gemini', JSONExtractUInt(usage, 'promptTokenCount') + JSONExtractUInt(usage, 'toolUsePromptTokenCount'),
                format = 'anthropic.messages', JSONExtractUInt(usage, 'input_tokens') + JSONExtractUInt(usage, 'cache_read_input_tokens') + JSONExtractUInt(usage, 'cache_creation_input_tokens'),
                JSONExtractUInt(usage, 'input_tokens')) AS context,
            multiIf(
                format = 'openai.chat', JSONExtractUInt(usage, 'prompt_tokens_details', 'cached_tokens'),
                format = 'gemini', JSONExtractUInt(usage, 'cachedContentTokenCount'),
                format = 'anthropic.messages', JSONExtractUInt(usage, 'cache_read_input_tokens'),
                JSONExtractUInt(usage, 'cache_read_tokens')) AS cache_read,
            JSONExtractUInt(usage, 'cache_creation', 'ephemeral_5m_input_tokens') AS cache_write_5m,
            JSONExtractUInt(usage, 'cache_creation', 'ephemeral_1h_input_tokens') AS cache_write_1h,
            -- Gemini's thoughts come beside the candidates, elsewhere the answer contains them.
            multiIf(
                format = 'openai.chat', JSONExtractUInt(usage, 'completion_tokens'),
                format = 'gemini', JSONExtractUInt(usage, 'candidatesTokenCount') + JSONExtractUInt(usage, 'thoughtsTokenCount'),
                JSONExtractUInt(usage, 'output_tokens')) AS answer,
            multiIf(
                format = 'openai.chat', JSONExtractUInt(usage, 'completion_tokens_details', 'reasoning_tokens'),
                format = 'gemini', JSONExtractUInt(usage, 'thoughtsTokenCount'),
                JSONExtractUInt(usage, 'reasoning_tokens')) AS reasoning
        FROM firsts
        WHERE type = 'spendfuse.usage'
    ),
    sheets AS
    (
        SELECT
            provider, model, above_context_tokens AS above,
            mapFromArrays(groupArray(toString(line)), groupArray(toInt128(rate * 1000000000))) AS rates
        FROM
        (
            SELECT provider, model, line, above_context_tokens, rate
            FROM prices FINAL
            WHERE price_version = '{prices}' AND per = 'million_tokens' AND service_tier = 'default'
                AND effective_from <= now64(3, 'UTC')
            ORDER BY effective_from DESC
            LIMIT 1 BY provider, model, line, above_context_tokens
        )
        GROUP BY provider, model, above
    ),
    -- The sheet with the highest threshold below the call's context.
    priced AS
    (
        SELECT
            counts.seq AS seq,
            max(sheets.model != '') AS has_price,
            argMax(sheets.rates, (sheets.above = 0 OR counts.context > sheets.above, sheets.above)) AS rates,
            any(counts.context) AS context,
            any(counts.cache_read) AS cache_read,
            any(counts.cache_write_5m) AS cache_write_5m,
            any(counts.cache_write_1h) AS cache_write_1h,
            any(counts.answer) AS answer,
            any(counts.reasoning) AS reasoning
        FROM counts
        LEFT JOIN sheets ON counts.provider = sheets.provider AND counts.model = sheets.model
        GROUP BY seq
    ),
    costs AS
    (
        SELECT
            has_price,
            context - cache_read - cache_write_5m - cache_write_1h AS input,
            answer - reasoning AS output,
            if(has_price,
                toInt128(input) * rates['input'] + toInt128(cache_read) * rates['cache_read']
                    + toInt128(cache_write_5m) * rates['cache_write_5m'] + toInt128(cache_write_1h) * rates['cache_write_1h']
                    + toInt128(output) * rates['output'] + toInt128(reasoning) * rates['reasoning'],
                toInt128(context) * unknown_input + toInt128(answer) * unknown_output) AS numerator,
            -- Rounded up to the nano-dollar, once a call.
            intDiv(numerator + 999999, 1000000) AS nanos
        FROM priced
    )
SELECT
    (SELECT count() FROM accepted) AS accepted,
    (SELECT count() FROM firsts) AS counted,
    toString(sum(nanos)) AS nanos,
    countIf(NOT has_price) AS unpriced
FROM costs
