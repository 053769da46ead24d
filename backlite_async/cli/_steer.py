"""`backlite jobs retry`, `cancel` and their like: for ids, or all that match."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import click

from .. import Client, JobStatus
from ._base import command, with_client
from ._filters import DURATION, FUTURE, all_and_yes, check_names, confirmed, job_filters
from ._jobs import jobs
from ._output import Output

__all__ = ["COMPLETED", "counted", "jobs"]

COMPLETED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
LIVE = (JobStatus.PENDING, JobStatus.RUNNING)


class Steering(NamedTuple):
    """What can be done to jobs: its name, what has become of them, and in which states that is possible."""

    name: str
    done: str
    states: tuple[JobStatus, ...]


RETRY = Steering("retry", "retried", (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PENDING))
RUN_NOW = Steering("run-now", "due now", (JobStatus.PENDING,))
CANCEL = Steering("cancel", "cancelled", LIVE)
DELETE = Steering("delete", "deleted", (JobStatus.PENDING, *COMPLETED))
RESCHEDULE = Steering("reschedule", "rescheduled", (JobStatus.PENDING,))
RELEASE = Steering("release", "released", (JobStatus.RUNNING,))

Act = Callable[..., Awaitable[int]]


def which(function: Any) -> Any:
    """Give a command ids, filters, `--all` and `--yes`; it gets them as `which`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any, ids: tuple[str, ...], all_: bool, yes: bool, filters: dict[str, Any], **kwargs: Any
    ) -> Any:
        if ids and (filters or all_):
            raise click.UsageError("give ids, or filters, not both.")
        if all_ and filters:
            raise click.UsageError("--all means every job; leave it out, or the filters.")
        if not (ids or filters or all_):
            raise click.UsageError("which jobs? Give ids, filters, or --all.")
        return function(*args, which=Which(ids, filters, yes), **kwargs)

    made = job_filters(wrapped)
    made = all_and_yes(made)
    made = click.option("--all", "all_", is_flag=True, help="Every job for which it is possible.")(made)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(made)


class Which(NamedTuple):
    """Which jobs are meant."""

    ids: Sequence[str]
    filters: dict[str, Any]
    yes: bool


async def steer(client: Client, out: Output, how: Steering, which: Which, act: Act) -> int:
    """Do something to the jobs that are meant; return the exit status."""
    if which.ids:
        return await _each(client, out, how, which.ids, act)
    return await _matching(client, out, how, which, act)


async def _each(client: Client, out: Output, how: Steering, ids: Sequence[str], act: Act) -> int:
    """Do something to jobs by their ids, and say of each whether it was done."""
    code = 0
    for job_id in dict.fromkeys(ids):
        before = await client.status(job_id)
        done = bool(await act(job_id)) if before is not JobStatus.NOT_FOUND else False
        if out.as_json:
            after = await client.status(job_id)
            out.data({"id": job_id, "action": how.name, "done": done, "status": after})
        elif done:
            out.text(f"{job_id}: {how.done}")
        if before is JobStatus.NOT_FOUND:
            out.say(f"job {job_id}: there is none, or it is no longer kept")
            code = 3
        elif not done:
            out.say(f"job {job_id} is {before}: it cannot be {how.done}")
            code = code or 1
    return code


async def _matching(client: Client, out: Output, how: Steering, which: Which, act: Act) -> int:
    """Do something to all jobs that match, if that is sure."""
    filters = which.filters
    states = [state for state in how.states if state in filters.get("state", how.states)]
    if not states:
        raise click.UsageError(f"{how.name} is for jobs that are {', '.join(how.states)}.")
    asked: dict[str, Any] = {**filters, "state": states}
    number = await client.jobs.count(**asked)
    if not number and not number.capped:
        await check_names(client, filters)
    elif not confirmed(out, f"{how.name}: {counted(number)}.", yes=which.yes):
        return 1
    else:
        number = await act(**filters) if filters else await act(all=True)  # type: ignore[assignment]
    out.answer({"action": how.name, "count": int(number)}, f"{how.done}: {counted(number)}")
    return 0


def counted(number: int) -> str:
    """Return a number of jobs in words; "100000+": there are more."""
    return "1 job" if number == 1 and str(number) == "1" else f"{number} jobs"


@command(
    jobs,
    "retry",
    "backlite jobs retry 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11",
    "backlite jobs retry --queue mail --state failed --finished-after 1h --yes",
)
@which
@click.option("--attempts", type=click.IntRange(1, 1000), default=1, help="Attempts that they have then.")
@with_client
async def retry(client: Client, out: Output, *, which: Which, attempts: int) -> int:
    """Run failed, cancelled and pending jobs again, now."""
    act = functools.partial(client.jobs.retry, attempts=attempts)
    return await steer(client, out, RETRY, which, act)


@command(jobs, "run-now", "backlite jobs run-now --queue reports --due-after now --yes")
@which
@with_client
async def run_now(client: Client, out: Output, *, which: Which) -> int:
    """Let pending jobs be due now."""
    return await steer(client, out, RUN_NOW, which, client.jobs.run_now)


@command(jobs, "cancel", "backlite jobs cancel --tag import-7", "backlite jobs cancel --all --yes")
@which
@with_client
async def cancel(client: Client, out: Output, *, which: Which) -> int:
    """Cancel pending and running jobs; a running one ends once its handler has cleaned up."""
    return await steer(client, out, CANCEL, which, client.jobs.cancel)


@command(jobs, "delete", "backlite jobs delete --state failed --finished-before 30d --yes")
@which
@with_client
async def delete(client: Client, out: Output, *, which: Which) -> int:
    """Remove pending and completed jobs, and all that is kept of them; running ones stay."""
    return await steer(client, out, DELETE, which, client.jobs.delete)


@command(
    jobs,
    "reschedule",
    "backlite jobs reschedule 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11 --at 2030-01-31T12:00Z",
    "backlite jobs reschedule --queue reports --wait 2h --yes",
)
@which
@click.option("--at", type=FUTURE, help="Due at this instant.")
@click.option("--wait", type=DURATION, help="Due in so long.")
@with_client
async def reschedule(
    client: Client, out: Output, *, which: Which, at: datetime | None, wait: timedelta | None
) -> int:
    """Let pending jobs be due at another time."""
    if (at is None) == (wait is None):
        raise click.UsageError("to when? Give one of --at INSTANT and --wait DURATION.")
    act = functools.partial(client.jobs.reschedule, at=at, wait=wait)
    return await steer(client, out, RESCHEDULE, which, act)


@command(jobs, "release", "backlite jobs release 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11")
@which
@with_client
async def release(client: Client, out: Output, *, which: Which) -> int:
    """Take running jobs away from a process that hangs; their handlers may run twice."""
    return await steer(client, out, RELEASE, which, client.jobs.release)
