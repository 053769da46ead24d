"""`backlite schedules`: list, show, run, pause, resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import click

from .. import Client, Schedule
from ._base import Group, NothingFound, command, did_you_mean, with_client
from ._output import Output, ago, duration, instant, state
from ._shown import json_text

__all__ = ["schedules"]

schedules = Group("schedules", help="List schedules; run, pause and resume them.")
COLUMNS = ("name", "state", "when", "next", "last", ">runs", "queue", "task")
DROP = ("task", "queue", ">runs", "last")


async def find(client: Client, name: str) -> Schedule:
    """Return a schedule, or say which may have been meant."""
    found = await client.schedules.get(name)
    if found is None:
        known = [schedule.name for schedule in await client.schedules.list()]
        raise NothingFound(f"there is no schedule {name!r}.{did_you_mean(name, known)}")
    return found


@command(schedules, "list", "backlite schedules list")
@with_client
async def list_schedules(client: Client, out: Output) -> None:
    """List schedules, with when they run in words and their next run."""
    found, now = await client.schedules.list(), datetime.now(UTC)
    if out.as_json:
        for schedule in found:
            out.data(schedule)
    elif found:
        out.table([_row(schedule, now) for schedule in found], COLUMNS, DROP)
    else:
        out.say("there are no schedules")


def _row(schedule: Schedule, now: datetime) -> tuple[str, ...]:
    return (
        schedule.name,
        state(str(schedule.state)),
        schedule.words,
        ago(schedule.next_runs[0], now) if schedule.next_runs else "-",
        ago(schedule.last_run, now),
        str(schedule.runs),
        schedule.queue,
        schedule.task,
    )


@command(schedules, "show", "backlite schedules show nightly-report")
@click.argument("name")
@with_client
async def show(client: Client, out: Output, *, name: str) -> None:
    """Show a schedule: its next runs, the last one, what it adds."""
    found, now = await find(client, name), datetime.now(UTC)
    if out.as_json:
        out.data(found)
        return
    out.pairs(
        [
            ("schedule", found.name),
            ("state", state(str(found.state))),
            ("when", found.words),
            ("time zone", found.tz),
            ("cron", found.cron or ""),
            ("rule", found.rule or ""),
            ("every", duration(found.every)),
            ("begins", instant(found.start)),
            ("ends", instant(found.end)),
            ("queue", found.queue),
            ("task", found.task),
            ("missed runs", found.missed),
            ("overlap", "yes" if found.overlap else "no"),
            ("runs", str(found.runs) + (f" of {found.max_runs}" if found.max_runs else "")),
            ("skipped", str(found.skipped or "")),
            ("last run", f"{instant(found.last_run)} ({found.last_job_id})" if found.last_run else ""),
            ("its job", str(found.last_job.status) if found.last_job else ""),
            ("made", "in the code" if found.declared else "at run time"),
        ]
    )
    if found.next_runs:
        out.heading("next runs")
        for run in found.next_runs:
            out.text(f"{run:%a %Y-%m-%d %H:%M:%S %Z} ({ago(run, now)})")
    out.heading("payload")
    out.text(json_text(found.payload))


@command(schedules, "run", "backlite schedules run nightly-report")
@click.argument("name")
@with_client
async def run(client: Client, out: Output, *, name: str) -> None:
    """Add the job of a schedule now, beside its runs; prints its id."""
    await find(client, name)
    job_id = await client.schedules.run_now(name)
    out.answer({"schedule": name, "id": job_id}, job_id)


@command(schedules, "pause", "backlite schedules pause nightly-report")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@with_client
async def pause(client: Client, out: Output, *, names: tuple[str, ...]) -> None:
    """Add no more runs of schedules until they are resumed."""
    await _change(client, out, names, client.schedules.pause)


@command(schedules, "resume", "backlite schedules resume nightly-report")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@with_client
async def resume(client: Client, out: Output, *, names: tuple[str, ...]) -> None:
    """Let schedules go on; what was due in their pause is not made up."""
    await _change(client, out, names, client.schedules.resume)


async def _change(
    client: Client, out: Output, names: tuple[str, ...], change: Callable[..., Awaitable[int]]
) -> None:
    for name in names:
        await find(client, name)
    for name in names:
        await change(name)
        now = await find(client, name)
        out.answer({"schedule": name, "state": now.state}, f"{name}: {now.state}")
