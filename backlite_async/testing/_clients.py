"""Clients of which is recorded what they do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any
from weakref import WeakKeyDictionary

from .._client import Client
from .._clock import Clock
from .._context import JobContext, running_job
from .._errors import InvalidState
from .._middleware import CallNext
from ._clock import ManualClock
from ._recording import Record, recording

__all__ = ["client", "record_of", "records", "replaced"]

REPLACED = ("_make_store", "_random", "_workers", "clock", "ids")
"""What of an application's own client is another's for a while."""

records: WeakKeyDictionary[Client, Record] = WeakKeyDictionary()


def client(
    database: str | PathLike[str] = ":memory:", *, clock: Clock | None = None, **options: Any
) -> Client:
    """Make a client for a test, with a `ManualClock` and no chance in it; use it with `async with`.

    `database`: a file, such as `tmp_path / "app.db"`, where what is tested needs SQLite (`.tx()`,
    `job.transaction()`, several clients). `clock=SystemClock()` lets the time run. The other options are
    those of `Client`.
    """
    usual: dict[str, Any] = {"rng": random.Random(0), "durability": "normal", "stop_timeout": 5.0}
    made = Client(database, clock=clock or ManualClock(), **(usual | options))
    _watch(made)
    return made


@contextmanager
def replaced(
    client: Client,
    database: str | PathLike[str] = ":memory:",
    *,
    clock: Clock | None = None,
    workers: int | None = None,
) -> Iterator[Client]:
    """Let an application's own client, with its handlers, run on another database within a block.

    For `client = Client("app.db")` in a module. The client must be stopped at both ends of the block: the
    application starts it there, or the test does. `database` and `clock` are as for `testing.client()`;
    `workers`: for an application that only adds here.
    """
    _check_stopped(client)
    stand_in = Client(
        database,
        durability="normal",
        clock=clock or ManualClock(),
        rng=random.Random(0),
        workers=client._workers if workers is None else workers,
    )
    paused = client.registry.paused
    own = {name: getattr(client, name) for name in REPLACED}
    _give(client, {name: getattr(stand_in, name) for name in REPLACED})
    forget = _watch(client)
    try:
        yield client
        _check_stopped(client)
    finally:
        forget()
        _give(client, own)
        for queue in client.registry.paused - paused:
            client.registry.resume(queue)


def _give(client: Client, parts: dict[str, Any]) -> None:
    """Give a client these parts, and all of its parts its clock."""
    for name, value in parts.items():
        setattr(client, name, value)
    for part in vars(client).values():
        if "_clock" in getattr(part, "__dict__", ()):
            part._clock = client.clock


def _watch(client: Client) -> Callable[[], None]:
    """Record what passes through a client's store, and how its handlers end; return what undoes it."""
    record = records[client] = Record(client.registry)
    client._make_store = recording(client._make_store, record)
    if isinstance(client.clock, ManualClock):
        client.clock.clients.add(client)

    async def around(job: JobContext, task: Any, call_next: CallNext) -> Any:
        given = record.given.pop(job.id, None)
        if given is not None:
            job.pretend(given)
        try:
            value = await call_next(job, task)
        except BaseException as error:
            record.handled(job, None, error)
            raise
        record.handled(job, value)
        return value

    layers = client.layers
    layers.put(around)

    def forget() -> None:
        records.pop(client, None)
        layers.take_out(around)
        if isinstance(client.clock, ManualClock):
            client.clock.clients.discard(client)

    return forget


def _check_stopped(client: Client) -> None:
    if client._running is not None and not client._running.over:
        raise InvalidState(
            "this client is started; testing.replaced() begins before its start and ends after its stop"
        )


def record_of(client: Client) -> Record:
    record = records.get(client)
    if record is None:
        raise InvalidState(
            "nobody has recorded what this client does: make it by testing.client(), or start it inside"
            " 'with testing.replaced(client):'"
        )
    client.open_store()
    job = running_job.get(None)
    if job is not None and job.client is client:
        raise InvalidState("a handler that waits until its own client has run all jobs waits for itself")
    return record
