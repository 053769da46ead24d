"""Every page, by a name for the tests."""

from __future__ import annotations

from urllib.parse import quote

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
    "not-found": "/jobs/no-such-job",
}
"""Name and path, in the world of `seed`; {workflow} is the one that runs."""

STATUS = {"not-found": 404}
"""Of pages that are none."""


def path_of(name: str, *, workflow: str) -> str:
    """Return the path of a page."""
    return PAGES[name].format(workflow=quote(workflow))
