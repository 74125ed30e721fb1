-- Existing rows keep their place: their epoch is 0, and columns that they lack have defaults.
-- `user` can still be written, by blocks of schema 1, but is not kept under that name and cannot be
-- read: in ClickHouse a missing column `user` would be taken for the login.
ALTER TABLE spend
    RENAME COLUMN IF EXISTS `user` TO `user_id`,
    ADD COLUMN `user` String EPHEMERAL '',
    MODIFY COLUMN `input_tokens` Int64,
    MODIFY COLUMN `cache_read_tokens` Int64,
    MODIFY COLUMN `cache_write_5m_tokens` Int64,
    MODIFY COLUMN `cache_write_1h_tokens` Int64,
    MODIFY COLUMN `audio_input_tokens` Int64,
    MODIFY COLUMN `image_input_tokens` Int64,
    MODIFY COLUMN `video_input_tokens` Int64,
    MODIFY COLUMN `output_tokens` Int64,
    MODIFY COLUMN `reasoning_tokens` Int64,
    MODIFY COLUMN `audio_output_tokens` Int64,
    MODIFY COLUMN `image_output_tokens` Int64,
    MODIFY COLUMN `tool_calls` Int64,
    ADD COLUMN IF NOT EXISTS `epoch` UInt32,
    ADD COLUMN IF NOT EXISTS `calls` Int8 DEFAULT if(kind = 'usage', 1, 0),
    ADD COLUMN IF NOT EXISTS `project` LowCardinality(String),
    ADD COLUMN IF NOT EXISTS `speed` LowCardinality(String),
    ADD COLUMN IF NOT EXISTS `inference_geo` LowCardinality(String),
    ADD COLUMN IF NOT EXISTS `price_detail` LowCardinality(String),
    ADD COLUMN IF NOT EXISTS `priced_as` LowCardinality(String),
    ADD COLUMN IF NOT EXISTS `amends_epoch` UInt32,
    ADD COLUMN IF NOT EXISTS `amends_partition` UInt32,
    ADD COLUMN IF NOT EXISTS `amends_seq` UInt64,
    ADD COLUMN IF NOT EXISTS `amends_index` UInt32;
