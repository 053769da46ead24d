"""Every page, by a name for the tests."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PAGES", "path_of"]

STATES = ("pending", "running", "succeeded", "failed", "cancelled")

PAGES: dict[str, str] = {
    "overview": "/",
    "jobs": "/jobs",
    **{f"jobs-{state}": f"/jobs?state={state}" for state in STATES},
    "job-scheduled": "/jobs/email-scheduled",
    "job-waiting": "/jobs/import-waiting",
    "job-retried": "/jobs/webhook-retried",
    "job-running": "/jobs/import-running",
    "job-succeeded": "/jobs/email-sent",
    "job-failed": "/jobs/webhook-failed",
    "job-cancelled": "/jobs/image-cancelled",
    "job-step": "/jobs/{step}",
    "edit": "/jobs/email-scheduled/edit",
    "queues": "/queues",
    "queue": "/queues/emails",
    "queue-paused": "/queues/webhooks",
    "schedules": "/schedules",
    "schedule": "/schedules/sync-prices",
    "workflows": "/workflows",
    "workflow": "/workflows/{workflow}",
    "tasks": "/tasks",
    "add": "/tasks/images/ResizeImage/new",
    "nothing-found": "/jobs?queue=none",
    "not-found": "/jobs/no-such-job",
    "bad-request": "/jobs?after=nonsense",
}
"""Name and path, in the world of `seed`; {} are of what `present` returns."""

STATUS = {"not-found": 404, "bad-request": 400}
"""Of pages that are none."""


def path_of(name: str, places: Mapping[str, str]) -> str:
    """Return the path of a page."""
    return PAGES[name].format(**places)
