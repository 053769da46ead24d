"""`backlite jobs`: lists, one job, adding."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from .. import Client, Job, JobNotFound
from ._base import Group, NothingFound, command, with_client
from ._filters import check_names, job_filters
from ._output import Output
from ._shown import JOB_COLUMNS, JOB_DROP, MOST_BYTES, job_row, show_job

__all__ = ["jobs"]

jobs = Group("jobs", help="List, show, add and steer jobs.")


@command(
    jobs,
    "list",
    "backlite jobs list --state failed --queue mail --finished-after 2h",
    "backlite jobs list --json --limit 1000 | jq -r .id",
)
@job_filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--after", metavar="CURSOR", help="Go on behind a page: what it said on stderr.")
@with_client
async def list_jobs(
    client: Client, out: Output, *, filters: dict[str, Any], limit: int, after: str | None
) -> None:
    """List jobs: running ones, then pending ones as they are due, then completed ones, the last first.

    All filters that are given must match. An empty list is no error, but a queue or task type that nobody
    knows is one.
    """
    page = await client.jobs.list(limit=limit, after=after, brief=not out.as_json, **filters)
    if not page:
        await check_names(client, filters)
    if out.as_json:
        for job in page:
            out.data({name: value for name, value in _fields(job) if name not in NOT_LISTED})
    elif page:
        now = datetime.now(UTC)
        out.table([job_row(job, now) for job in page], JOB_COLUMNS, JOB_DROP)
    else:
        out.say("no job matches" if not page.limited else "no job matches so far")
    if page.next is not None:
        out.say(f"there are more: --after {page.next}")


NOT_LISTED = ("errors", "lines")
"""Fields of a job that lists leave empty."""


def _fields(job: Job) -> Iterator[tuple[str, Any]]:
    return ((name, getattr(job, name)) for name in job.__struct_fields__)


@command(jobs, "count", "backlite jobs count --state failed --finished-after 1d")
@job_filters
@with_client
async def count_jobs(client: Client, out: Output, *, filters: dict[str, Any]) -> None:
    """Count jobs, up to 100,000 ("100000+": there are more)."""
    number = await client.jobs.count(**filters)
    if not number:
        await check_names(client, filters)
    out.answer({"count": int(number), "capped": number.capped}, str(number))


@command(jobs, "show", "backlite jobs show 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11")
@click.argument("job_id", metavar="ID")
@with_client
async def show(client: Client, out: Output, *, job_id: str) -> None:
    """Show all that is known of a job: payload, result, every error, log lines."""
    job = await client.jobs.get(job_id, cut=None if out.as_json else MOST_BYTES)
    if job is None:
        if await client.workflows.get(job_id) is not None:
            raise NothingFound(f"{job_id} is a workflow: backlite workflow show {job_id}")
        raise JobNotFound(job_id)
    if out.as_json:
        out.data(job)
    else:
        show_job(out, job)
