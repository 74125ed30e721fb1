-- Input that was lost, or rows that could not be loaded, and that somebody has accepted: kept for ever.
CREATE TABLE IF NOT EXISTS gaps
(
    `accepted_at` DateTime64(3, 'UTC'),
    `consumer_group` LowCardinality(String) COMMENT 'the group that goes on behind it',
    `topic` LowCardinality(String),
    `partition` UInt32,
    `from_offset` Int64 COMMENT 'what the group had committed',
    `to_offset` Int64 COMMENT 'where it goes on; less than from_offset where the log was made anew'
)
ENGINE = {engine}ReplacingMergeTree
ORDER BY (topic, partition, from_offset, to_offset, consumer_group);
