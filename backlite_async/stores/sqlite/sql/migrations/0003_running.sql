-- One index of the running jobs, by owner first: an owner looks for the leases of others, and skips its own.

DROP INDEX backlite_jobs_owner;

DROP INDEX backlite_jobs_running;

CREATE INDEX backlite_jobs_running ON backlite_jobs (owner, queue, task, due_at)
    WHERE status = 'running';
