"""`backlite stats`: the queues at a glance, once or again and again."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from .. import Client, Queue
from ._base import command, with_client
from ._output import Output, coloured, duration, fitted, instant, no_terminal, rich_table
from ._queues import KINDS, as_data, counts, paused, spread

__all__ = ["stats"]

COLUMNS = (
    "queue",
    "state",
    *(f">{name}" for name in KINDS),
    ">oldest due",
    ">a second",
    ">failed today",
    ">run p50 / p99",
    ">wait p50 / p99",
)


@command(None, "stats", "backlite stats", "backlite stats --watch", "backlite stats --watch 10 --json")
@click.option(
    "--watch",
    is_flag=False,
    flag_value="2s",
    metavar="[SECONDS]",
    help="Again and again, every 2 seconds or as often as said, until interrupted.",
)
@with_client
async def stats(client: Client, out: Output, *, watch: str | None) -> None:
    """Show each queue with its jobs by state, throughput, and how long jobs run and wait.

    Throughput and times are those of the last five minutes. With --watch, where there is no terminal, a line
    each time.
    """
    if watch is None:
        await _once(client, out)
    else:
        await _watch(client, out, _seconds(watch))


def _seconds(text: str) -> float:
    from ._filters import parsed_duration

    found = parsed_duration(text)
    if found is None or not 0.1 <= found.total_seconds() <= 86400:
        raise click.UsageError(f"--watch {text} is no length of time from 0.1s to a day; write 5 or 1m.")
    return found.total_seconds()


def _row(queue: Queue) -> list[str]:
    return [
        queue.name,
        paused(queue),
        *counts(queue),
        duration(queue.oldest_due),
        f"{queue.recent.throughput:.3g}",
        str(queue.today.failed),
        spread(queue.recent, "run"),
        spread(queue.recent, "wait"),
    ]


DROP = (
    *(">cancelled", ">waiting", ">scheduled", ">failed today"),
    *(">wait p50 / p99", ">run p50 / p99", ">succeeded"),
)


async def _once(client: Client, out: Output) -> None:
    found = await client.queues.list()
    if out.as_json:
        at = datetime.now(UTC)
        for queue in found:
            out.data({"at": at, **as_data(queue)})
    elif found:
        out.table([_row(queue) for queue in found], COLUMNS, DROP)
    else:
        out.say("there are no queues yet")


async def _watch(client: Client, out: Output, pause: float) -> None:
    """Show it until interrupted: drawn again where there is a terminal and rich, else line by line."""
    if out.as_json or no_terminal() or not await _live(client, pause):
        while True:
            if out.as_json:
                await _once(client, out)
            else:
                out.text(_line(await client.queues.list()))
            sys.stdout.flush()
            await asyncio.sleep(pause)


def _line(queues: Sequence[Queue]) -> str:
    """Return all queues in one line."""
    numbers = [
        f"{name}={sum(getattr(queue, name) for queue in queues)}"
        f"{'+' * any(name in queue.capped for queue in queues)}"
        for name in KINDS
    ]
    oldest = max((queue.oldest_due for queue in queues if queue.oldest_due is not None), default=None)
    speed = sum(queue.recent.throughput for queue in queues)
    return " ".join(
        [instant(datetime.now(UTC)), *numbers, f"oldest_due={duration(oldest)}", f"a_second={speed:.3g}"]
    )


async def _live(client: Client, pause: float) -> bool:
    """Draw it again and again by rich; return False if that is not installed."""
    try:
        from rich.console import Console, Group
        from rich.live import Live
    except ImportError:
        return False
    console = Console(no_color=not coloured(), highlight=False)
    with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
        while True:
            found = await client.queues.list()
            when = f"{instant(datetime.now(UTC))}   every {duration(pause)}, Ctrl-C ends it"
            width = shutil.get_terminal_size().columns
            table = rich_table(*fitted([_row(queue) for queue in found], COLUMNS, DROP, width))
            live.update(Group(when, table), refresh=True)
            await asyncio.sleep(pause)
