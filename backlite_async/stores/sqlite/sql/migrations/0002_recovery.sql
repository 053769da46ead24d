-- Waits that go on as long as they were meant when the wall clock is set back; results.

ALTER TABLE backlite_jobs ADD COLUMN waits_from INTEGER;

ALTER TABLE backlite_completed ADD COLUMN result BLOB;
