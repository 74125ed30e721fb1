ALTER TABLE spend MODIFY COLUMN `user_id` String DEFAULT user;

ALTER TABLE finding_changes ADD COLUMN IF NOT EXISTS `epoch` UInt32;

ALTER TABLE verdicts ADD COLUMN IF NOT EXISTS `epoch` UInt32;

ALTER TABLE budget_windows
    ADD COLUMN IF NOT EXISTS `epoch` UInt32,
    MODIFY COLUMN `tokens` Int64,
    MODIFY COLUMN `calls` Int64;
