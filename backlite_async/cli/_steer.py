"""`backlite jobs retry`, `cancel` and their like: for ids, or all that match."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import click

from .. import Client, Count, JobStatus
from ._base import command, with_client
from ._filters import DURATION, FUTURE, all_and_yes, check_names, confirmed, job_filters
from ._jobs import jobs
from ._output import Output

__all__ = ["COMPLETED", "STEPS_STAY", "counted", "jobs"]

COMPLETED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
LIVE = (JobStatus.PENDING, JobStatus.RUNNING)


class Steering(NamedTuple):
    """What can be done to jobs: its name, what has become of them, and in which states that is possible.

    `meant`: the states of those that are meant where no state is said; None: all of these. `but`: what it
    cannot be done to all the same, as a sentence.
    """

    name: str
    done: str
    states: tuple[JobStatus, ...]
    meant: tuple[JobStatus, ...] | None = None
    but: str = ""


RETRY = Steering(
    "retry",
    "retried",
    (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PENDING),
    meant=(JobStatus.FAILED, JobStatus.CANCELLED),
)
RUN_NOW = Steering("run-now", "due now", (JobStatus.PENDING,))
CANCEL = Steering("cancel", "cancelled", LIVE)
STEPS_STAY = "Steps of workflows among them stay: backlite workflow delete."
DELETE = Steering("delete", "deleted", (JobStatus.PENDING, *COMPLETED), but=STEPS_STAY)
RESCHEDULE = Steering("reschedule", "rescheduled", (JobStatus.PENDING,))
RELEASE = Steering("release", "released", (JobStatus.RUNNING,))

ASKED = "asked to end"

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
        after = await client.status(job_id) if done or out.as_json else before
        if out.as_json:
            out.data({"id": job_id, "action": how.name, "done": done, "status": after})
        elif done:
            asked = how is CANCEL and after is JobStatus.RUNNING  # its handler may clean up, or go on
            out.text(f"{job_id}: {ASKED if asked else how.done}")
        if before is JobStatus.NOT_FOUND:
            out.say(f"job {job_id}: there is none, or it is no longer kept")
            code = 3
        elif not done:
            out.say(f"job {job_id} is {before}: it cannot be {how.done}{await _why_not(client, how, job_id)}")
            code = code or 1
    return code


async def _why_not(client: Client, how: Steering, job_id: str) -> str:
    """Return why something was not done, where that is not the job's state."""
    job = await client.jobs.get(job_id, cut=1) if how is DELETE else None
    if job is None or job.workflow is None:
        return ""
    return f" alone, as it is a step: backlite workflow delete {job.workflow}"


async def _matching(client: Client, out: Output, how: Steering, which: Which, act: Act) -> int:
    """Do something to all jobs that match, if that is sure."""
    said = which.filters.get("state", how.meant or how.states)
    states = [state for state in how.states if state in said]
    if not states:
        raise click.UsageError(f"{how.name} is for jobs that are {', '.join(how.states)}.")
    filters = _until_now(which.filters, states)
    asked: list[dict[str, Any]] = [{**filters, "state": state} for state in states]
    numbers = {one["state"]: await client.jobs.count(**one) for one in asked}
    if not any(number or number.capped for number in numbers.values()):
        await check_names(client, filters)
        done = 0
    elif not confirmed(out, f"{how.name}: {_listed(numbers)}. {how.but}".strip(), yes=which.yes):
        return 1
    else:
        done = int(await act(**filters))
        if done < sum(numbers.values()) and how.but:
            out.say(how.but)
    out.answer({"action": how.name, "count": done}, f"{how.done}: {counted(done)}")
    return 0


def _until_now(filters: dict[str, Any], states: Sequence[JobStatus]) -> dict[str, Any]:
    """Return filters that mean what there is now, not what will match once a question is answered."""
    ended = all(state in COMPLETED for state in states) or any(
        name.startswith("finished") for name in filters
    )
    what, now = "finished" if ended else "added", datetime.now(UTC)
    before = min(filters.get(f"{what}_before", now), now)
    before = max(before, filters.get(f"{what}_after", before))  # none, where that is still to come
    return filters | {"state": states, f"{what}_before": before}


def _listed(numbers: Mapping[JobStatus, Count]) -> str:
    """Return numbers of jobs by state in words: "3 failed and 5 pending jobs"."""
    there = {state: number for state, number in numbers.items() if number or number.capped}
    one = [str(number) for number in there.values()] == ["1"]
    *first, last = [f"{number} {state}" for state, number in there.items()]
    return f"{', '.join(first)}{' and ' * bool(first)}{last} {'job' if one else 'jobs'}"


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
    """Run failed and cancelled jobs again, now; pending ones by their ids, or with --state pending."""
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
