"""`backlite run`: a worker process of an application."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from .. import Client, Event
from ._application import app_option, load
from ._base import Settings, command, without_client
from ._logs import log_to_stderr
from ._output import Output

__all__ = ["run"]

LOOK = 0.05
"""Seconds between two looks whether all that is due is done."""

ALIVE = 1.0
"""Seconds between two looks whether the client still runs."""

FORCED = 1
WORKERS = 10


@command(
    None,
    "run",
    "backlite run --app shop.jobs:client --workers 20",
    "backlite run --app shop.jobs:client --drain",
)
@app_option(required=True)
@click.option(
    "--workers", type=click.IntRange(1, 10_000), metavar="N", help="Jobs at once, instead of the client's."
)
@click.option("--drain", is_flag=True, help="Work off all that is due, then exit.")
@without_client
def run(settings: Settings, app: str, workers: int | None, drain: bool) -> int:
    """Run the jobs of an application in a process of their own.

    The client's own database, queues and handlers count; the working directory is on the path of imports. At
    SIGTERM or SIGINT it claims no more and waits for running handlers, as long as the client's stop_timeout
    says; at a second one it stops at once, and gives their jobs back.

    --drain leaves jobs that are due later, paused queues, and those without a handler in the application.
    """
    if settings.db is not None:
        raise click.UsageError("run works on the database of the application's client; leave out --db.")
    client = load(app)
    log_to_stderr()
    if workers is None and client.workers == 0:  # which the part that only adds may have
        workers = WORKERS
    if workers is not None:
        client.workers = workers
    return asyncio.run(_serve(client, settings.out, drain=drain))


async def _serve(client: Client, out: Output, *, drain: bool) -> int:
    """Run until a signal comes, the client ends, or nothing is left to do; return the exit status."""
    asked = asyncio.Event()
    tally = Tally(client) if drain else None
    hard: list[asyncio.Task[bool]] = []

    def stop() -> None:
        if not asked.is_set():
            asked.set()
            _say(out, "stopping: waiting for running jobs; a second signal stops at once")
        elif not hard:
            hard.append(asyncio.ensure_future(client.stop(0)))
            _say(out, "stopping at once")

    with _signals(stop):
        async with client:
            done = tally is not None and await _drain(client, tally, asked)
            while not (done or asked.is_set()):
                await _wait(asked, ALIVE)
                if not client.is_open:
                    break
            if not (done or asked.is_set()):
                await client.queues.list(most=1)  # says why it has ended
        for task in hard:
            await task
    if tally is not None:
        out.answer(tally.numbers, " ".join(f"{name}={number}" for name, number in tally.numbers.items()))
    return FORCED if hard or (drain and not done) else 0


def _say(out: Output, text: str) -> None:
    """Tell it, if anybody still listens: Ctrl-C ends what the output is piped to, too."""
    with suppress(OSError):
        out.say(text)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call this at SIGTERM and SIGINT, in the event loop."""
    loop, signals = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- working off -----------------------------------------------------------------------------------------


class Tally:
    """Counts what this client does: as an observer, of whom no event is dropped when listeners are slow."""

    def __init__(self, client: Client) -> None:
        self.numbers: dict[str, int] = dict.fromkeys(("succeeded", "failed", "cancelled", "retried"), 0)
        self.started = 0
        client.bus.observe(self._count, "succeeded", "failed", "cancelled", "retried")
        client.bus.observe(self._start, "started")

    def _count(self, event: Event) -> None:
        self.numbers[event.kind] += 1

    def _start(self, event: Event) -> None:
        self.started += 1


async def _drain(client: Client, tally: Tally, asked: asyncio.Event) -> bool:
    """Wait until nothing is left that is due; return False if a signal came, or the client ended.

    A job that is claimed between the two looks of one turn is seen in the next, as running or as counted.
    """
    quiet = False
    while client.is_open and not asked.is_set():
        started = tally.started
        idle = not await _due(client) and not await _runs(client) and started == tally.started
        if idle and quiet:
            return True
        quiet = idle
        await _wait(asked, LOOK)
    return False


async def _due(client: Client) -> bool:
    """Return whether there are jobs that may start here."""
    report = await client.health()
    if not report.alive:
        await client.queues.list(most=1)  # says what is wrong
    return report.lag is not None or not report.alive


async def _runs(client: Client) -> bool:
    """Return whether this process has claimed jobs."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return any(
        owner.running and owner.id.startswith(f"{host}-{os.getpid()}-")
        for owner in await client.owners.list()
    )
