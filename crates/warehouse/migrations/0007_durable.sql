-- An insert that is acknowledged is on disk: without this a loss of power takes what the operating
-- system has not written, up to half a minute.
ALTER TABLE spend MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE spend_hourly MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE spend_daily MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE spend_audit MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE finding_changes MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE verdicts MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE budget_windows MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE gaps MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE epochs MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE migrations MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE prices MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
