"""`client.run(task)`: a handler run directly, beside every store."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec

from ._codec import decode, encode
from ._context import JobContext, running_job
from ._errors import InvalidState, InvalidTask
from ._inside import Given
from ._job import ClaimedJob
from ._middleware import through
from ._registry import Handler
from ._task import task_type

if TYPE_CHECKING:
    import aiosqlite

    from ._client import Client

__all__ = ["run"]


async def run(client: Client, task: msgspec.Struct, given: Given | None = None) -> Any:
    """Run the handler of a task in the caller's own task, as an attempt would; return what it returns."""
    handler, payload = _prepared(client, task)
    now, timeout = client.clock.now(), handler.config.timeout
    job = ClaimedJob(
        id=client.ids.next(),
        queue=handler.config.name,
        task=handler.kind.name,
        payload=payload.decode(),
        attempt=1,
        max_attempts=handler.config.max_attempts,
        crashes=0,
        fence=0,
        created_at=now,
        scheduled_at=now,
    )
    context = JobContext(job, client, now, timeout, _no_transaction)
    if given is not None:
        context.pretend(given)
    call = through(client.layers.of(job.queue), context, _handling(handler))
    outer = running_job.set(context)
    try:
        with anyio.CancelScope() as scope:
            if timeout is not None:
                scope.deadline = anyio.current_time() + timeout
            return await call(context, decode(handler.kind, payload))
        raise TimeoutError(f"the handler ran longer than its timeout of {timeout:g} s")
    finally:
        running_job.reset(outer)


def _prepared(client: Client, task: msgspec.Struct) -> tuple[Handler, bytes]:
    """Return the handler and the payload of a task, or raise what `save()` would, or that there is none."""
    if isinstance(task, type):
        raise InvalidTask(f"{task.__qualname__} is a class; run an instance of it")
    kind = task_type(type(task))
    client.registry.meet(kind)
    handler = client.registry.find(kind.config.name, kind.name)
    if handler is None:
        raise InvalidState(
            f"{kind.cls.__qualname__} has no handler in this client; register one with"
            f" @client.handler({kind.cls.__qualname__}), and import its module before run()"
        )
    return handler, encode(kind, task, client.max_payload)


def _handling(handler: Handler) -> Any:
    """Return what calls a handler as a worker does."""

    async def handle(job: JobContext, task: Any, /) -> Any:
        arguments = handler.arguments(task, job)
        if not handler.threaded:
            return await handler.function(*arguments)
        value = await anyio.to_thread.run_sync(handler.function, *arguments)
        if inspect.isawaitable(value):
            if asyncio.iscoroutine(value):
                value.close()
            raise TypeError("the handler returned an awaitable that nobody awaits; make it async def")
        return value

    return handle


def _no_transaction(job: JobContext) -> AbstractAsyncContextManager[aiosqlite.Connection]:
    raise InvalidState(
        f"run() stores nothing, so job {job.id} has no transaction() that could complete it; add the task"
        " and let a worker run it"
    )
