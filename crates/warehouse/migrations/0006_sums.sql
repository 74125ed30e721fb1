-- Columns are named with their table: in ClickHouse an alias would else stand for the column.
CREATE MATERIALIZED VIEW IF NOT EXISTS spend_hourly_sums TO spend_hourly AS
SELECT
    toStartOfHour(spend.time) AS `hour`,
    spend.kind AS `kind`,
    spend.workspace AS `workspace`,
    spend.customer AS `customer`,
    spend.feature AS `feature`,
    spend.project AS `project`,
    spend.user_id AS `user_id`,
    spend.agent AS `agent`,
    spend.plan AS `plan`,
    spend.environment AS `environment`,
    spend.account AS `account`,
    spend.provider AS `provider`,
    spend.model AS `model`,
    spend.priced AS `priced`,
    mapSort(spend.tags) AS `tags`,
    count() AS `entries`,
    sum(spend.calls) AS `calls`,
    sum(spend.input_tokens) AS `input_tokens`,
    sum(spend.cache_read_tokens) AS `cache_read_tokens`,
    sum(spend.cache_write_5m_tokens) AS `cache_write_5m_tokens`,
    sum(spend.cache_write_1h_tokens) AS `cache_write_1h_tokens`,
    sum(spend.audio_input_tokens) AS `audio_input_tokens`,
    sum(spend.image_input_tokens) AS `image_input_tokens`,
    sum(spend.video_input_tokens) AS `video_input_tokens`,
    sum(spend.output_tokens) AS `output_tokens`,
    sum(spend.reasoning_tokens) AS `reasoning_tokens`,
    sum(spend.audio_output_tokens) AS `audio_output_tokens`,
    sum(spend.image_output_tokens) AS `image_output_tokens`,
    sum(spend.tool_calls) AS `tool_calls`,
    sum(spend.cost) AS `cost`,
    sum(spend.cost_input) AS `cost_input`,
    sum(spend.cost_cache_read) AS `cost_cache_read`,
    sum(spend.cost_cache_write) AS `cost_cache_write`,
    sum(spend.cost_output) AS `cost_output`,
    sum(spend.cost_units) AS `cost_units`,
    sum(spend.revenue) AS `revenue`
FROM spend
GROUP BY hour, kind, workspace, customer, feature, project, user_id, agent, plan, environment, account, provider, model, priced, tags;

CREATE MATERIALIZED VIEW IF NOT EXISTS spend_daily_sums TO spend_daily AS
SELECT
    toDate(spend.time) AS `day`,
    spend.kind AS `kind`,
    spend.workspace AS `workspace`,
    spend.customer AS `customer`,
    spend.feature AS `feature`,
    spend.project AS `project`,
    spend.user_id AS `user_id`,
    spend.agent AS `agent`,
    spend.plan AS `plan`,
    spend.environment AS `environment`,
    spend.account AS `account`,
    spend.provider AS `provider`,
    spend.model AS `model`,
    spend.priced AS `priced`,
    mapSort(spend.tags) AS `tags`,
    count() AS `entries`,
    sum(spend.calls) AS `calls`,
    sum(spend.input_tokens) AS `input_tokens`,
    sum(spend.cache_read_tokens) AS `cache_read_tokens`,
    sum(spend.cache_write_5m_tokens) AS `cache_write_5m_tokens`,
    sum(spend.cache_write_1h_tokens) AS `cache_write_1h_tokens`,
    sum(spend.audio_input_tokens) AS `audio_input_tokens`,
    sum(spend.image_input_tokens) AS `image_input_tokens`,
    sum(spend.video_input_tokens) AS `video_input_tokens`,
    sum(spend.output_tokens) AS `output_tokens`,
    sum(spend.reasoning_tokens) AS `reasoning_tokens`,
    sum(spend.audio_output_tokens) AS `audio_output_tokens`,
    sum(spend.image_output_tokens) AS `image_output_tokens`,
    sum(spend.tool_calls) AS `tool_calls`,
    sum(spend.cost) AS `cost`,
    sum(spend.cost_input) AS `cost_input`,
    sum(spend.cost_cache_read) AS `cost_cache_read`,
    sum(spend.cost_cache_write) AS `cost_cache_write`,
    sum(spend.cost_output) AS `cost_output`,
    sum(spend.cost_units) AS `cost_units`,
    sum(spend.revenue) AS `revenue`
FROM spend
GROUP BY day, kind, workspace, customer, feature, project, user_id, agent, plan, environment, account, provider, model, priced, tags;

CREATE MATERIALIZED VIEW IF NOT EXISTS spend_audit_sums TO spend_audit AS
SELECT
    spend.epoch AS `epoch`,
    spend.meter_partition AS `meter_partition`,
    intDiv(spend.meter_seq, 1000) AS `seq_block`,
    count() AS `count`,
    toInt128(sum(spend.cost) * 1000000000) AS `nanos`
FROM spend
GROUP BY epoch, meter_partition, seq_block;
