ALTER TABLE spend MODIFY COLUMN `user_id` String DEFAULT user;

ALTER TABLE finding_changes ADD COLUMN IF NOT EXISTS `epoch` UInt32;

ALTER TABLE verdicts ADD COLUMN IF NOT EXISTS `epoch` UInt32;

ALTER TABLE budget_windows
    ADD COLUMN IF NOT EXISTS `epoch` UInt32,
    MODIFY COLUMN `tokens` Int64,
    MODIFY COLUMN `calls` Int64;

-- Which topics each epoch has: rows of other topics must not get its addresses.
CREATE TABLE IF NOT EXISTS epochs
(
    `epoch` UInt32,
    `rows` String,
    `ledger_rows` String,
    `recorded_at` DateTime('UTC') DEFAULT now()
)
ENGINE = {engine}MergeTree
ORDER BY epoch;
