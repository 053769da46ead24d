"""`backlite queues`: how they are doing; pause and resume."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from .. import Client, Queue, QueueStats
from ._base import Group, NothingFound, command, did_you_mean, with_client
from ._filters import DURATION
from ._output import Output, duration, plain, state

__all__ = ["as_data", "counts", "find_queue", "paused", "queues", "spread"]

queues = Group("queues", help="List queues; pause and resume them.")

KINDS = ("pending", "scheduled", "waiting", "running", "succeeded", "failed", "cancelled")


def paused(queue: Queue) -> str:
    """Return whether a queue is paused, in a word."""
    return state("paused" if queue.paused else "active")


def counts(queue: Queue) -> Sequence[str]:
    """Return a queue's numbers of jobs by state; "10000+": there are more."""
    return [f"{getattr(queue, name)}{'+' * (name in queue.capped)}" for name in KINDS]


def spread(stats: QueueStats, what: str) -> str:
    """Return the median and the 99th percentile of "run" or "wait" times."""
    found = getattr(stats, what)
    return "-" if found is None else f"{duration(found.p50)} / {duration(found.p99)}"


def as_data(queue: Queue) -> dict[str, object]:
    """Return a queue as JSON says it, with throughputs."""
    found: dict[str, object] = plain(queue)
    for name in ("recent", "today"):
        stats: QueueStats = getattr(queue, name)
        found[name] = {**plain(stats), "ended": stats.ended, "throughput": stats.throughput}
    return found


async def find_queue(client: Client, name: str) -> Queue:
    """Return a queue, or say which may have been meant."""
    found = await client.queues.get(name)
    if found is None:
        known = [queue.name for queue in await client.queues.list(most=1)]
        raise NothingFound(f"there is no queue {name!r}.{did_you_mean(name, known)}")
    return found


@command(queues, "list", "backlite queues list", "backlite queues list --json | jq 'select(.paused) | .name'")
@with_client
async def list_queues(client: Client, out: Output) -> None:
    """List queues with their numbers of jobs by state; counts end at 10,000."""
    found = await client.queues.list()
    if out.as_json:
        for queue in found:
            out.data(as_data(queue))
    elif found:
        rows = [
            (
                queue.name,
                paused(queue),
                *counts(queue),
                duration(queue.oldest_due),
            )
            for queue in found
        ]
        columns = ("queue", "state", *(f">{name}" for name in KINDS), ">oldest due")
        out.table(rows, columns, (">cancelled", ">waiting", ">scheduled", ">succeeded"))
    else:
        out.say("there are no queues yet")


@command(queues, "show", "backlite queues show mail --last 3h")
@click.argument("name")
@click.option("--last", type=DURATION, default="1h", show_default=True, help="Statistics of this time.")
@with_client
async def show(client: Client, out: Output, *, name: str, last: object) -> None:
    """Show a queue: counts, limits, throughput, how long jobs run and wait."""
    queue = await find_queue(client, name)
    stats = await client.queues.stats(name, last=last)  # type: ignore[arg-type]
    if out.as_json:
        out.data({**as_data(queue), "last": {**plain(stats), "throughput": stats.throughput}})
        return
    numbers = zip(KINDS, counts(queue), strict=True)
    oldest = ("oldest due", duration(queue.oldest_due))
    out.pairs([("queue", queue.name), ("state", paused(queue)), *numbers, oldest])
    if queue.limits:
        out.heading("limits")
        out.pairs((name, msgspec.json.encode(value).decode()) for name, value in queue.limits.items())
    out.heading(f"the last {duration(stats.since)}")
    ends = [(name, str(getattr(stats, name))) for name in ("succeeded", "failed", "cancelled", "retried")]
    times = [(f"{what}, p50 / p99", spread(stats, what)) for what in ("run", "wait")]
    out.pairs([*ends, ("ended a second", f"{stats.throughput:.3g}"), *times])


@command(queues, "pause", "backlite queues pause mail", "backlite queues pause mail --wait")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--wait", is_flag=True, help="Return once none of its jobs runs any more.")
@click.option("--force", is_flag=True, help="Also one that nobody knows yet.")
@with_client
async def pause(client: Client, out: Output, *, names: tuple[str, ...], wait: bool, force: bool) -> None:
    """Start nothing more of queues, in all processes, until they are resumed; running jobs go on."""
    for name in names:
        if not force:
            await find_queue(client, name)
    for name in names:
        await client.pause(name, wait=wait)
        out.answer({"queue": name, "paused": True}, f"{name}: paused")


@command(queues, "resume", "backlite queues resume mail")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@with_client
async def resume(client: Client, out: Output, *, names: tuple[str, ...]) -> None:
    """Let paused queues go on."""
    for name in names:
        await find_queue(client, name)
    for name in names:
        await client.resume(name)
        out.answer({"queue": name, "paused": False}, f"{name}: resumed")
