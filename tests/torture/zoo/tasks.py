"""Specimens that block, leave things running, or turn the event loop's own parts against it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sqlite3
import threading
import time
import warnings
from collections.abc import AsyncIterator, Coroutine
from typing import Any, NoReturn

import anyio
import anyio.to_thread

from backlite_async import InvalidState, JobContext, Task

from .base import Beside, Stage, once, specimen
from .raising import Odd

LEAKED: contextvars.ContextVar[str] = contextvars.ContextVar("leaked", default="clean")


# -- blocking ------------------------------------------------------------------------------------------


@specimen("succeeded")
async def blocks(task: Task, job: JobContext, stage: Stage) -> None:
    time.sleep(1.2)  # noqa: ASYNC251 - what a handler must not do


@specimen("succeeded")
async def computes(task: Task, job: JobContext, stage: Stage) -> None:
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        pass


@specimen("succeeded")
async def holds_the_interpreter(task: Task, job: JobContext, stage: Stage) -> None:
    sum(range(30_000_000))


@specimen("succeeded")
async def locks_the_database(task: Task, job: JobContext, stage: Stage) -> None:
    connection = sqlite3.connect("app.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(1.5, connection.close)
    timer.daemon = True
    timer.start()


@specimen("succeeded")
async def leaves_a_cursor_open(task: Task, job: JobContext, stage: Stage) -> None:
    connection = sqlite3.connect("app.db", isolation_level=None)
    stage.keep(connection.execute("SELECT * FROM backlite_jobs, backlite_fence"))


@specimen("gone")
async def deletes_its_own_row(task: Task, job: JobContext, stage: Stage) -> None:
    connection = sqlite3.connect("app.db", isolation_level=None, timeout=5.0)
    connection.execute("DELETE FROM backlite_jobs WHERE id = ?", (job.id,))
    connection.close()


# -- what is left running --------------------------------------------------------------------------------


@specimen("succeeded")
async def leaves_tasks(task: Task, job: JobContext, stage: Stage) -> None:
    for _ in range(100):
        stage.keep(asyncio.ensure_future(asyncio.Event().wait()))


@specimen("succeeded")
async def leaves_a_failing_task(task: Task, job: JobContext, stage: Stage) -> None:
    for kind in (ValueError, Odd, GeneratorExit):
        _leave(_fail(kind))
    gc.collect()


@specimen("succeeded", "failed", kills=True)
async def leaves_a_task_that_exits(task: Task, job: JobContext, stage: Stage) -> None:
    if once("exits"):
        _leave(_fail(SystemExit))


@specimen("succeeded")
async def leaves_a_task_that_adds_later(task: Task, job: JobContext, stage: Stage) -> None:
    async def later() -> None:
        await stage.let_go.wait()
        await job.client.add(Beside()).save()

    stage.last_tasks.append(asyncio.ensure_future(later()))


@specimen("succeeded")
async def leaves_an_async_generator(task: Task, job: JobContext, stage: Stage) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            raise ValueError("at the generator's end")

    async for _ in numbers():
        break


@specimen("succeeded")
async def leaves_a_thread(task: Task, job: JobContext, stage: Stage) -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@specimen("succeeded")
async def changes_context_variables(task: Task, job: JobContext, stage: Stage) -> None:
    LEAKED.set("leaked")
    for variable in contextvars.copy_context():
        if variable is not LEAKED:
            variable.set(None)


@specimen("succeeded")
async def takes_all_default_threads(task: Task, job: JobContext, stage: Stage) -> None:
    wall = threading.Event()
    stage.last_calls.append(wall.set)
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    stage.keep(asyncio.ensure_future(anyio.to_thread.run_sync(wall.wait)))
    for _ in range(40):
        asyncio.get_running_loop().run_in_executor(None, wall.wait)


# -- the loop and the client -----------------------------------------------------------------------------


@specimen("succeeded", "failed", kills=True)
async def stops_the_loop(task: Task, job: JobContext, stage: Stage) -> None:
    if once("stopped"):
        asyncio.get_running_loop().stop()


@specimen("failed")
async def closes_the_loop(task: Task, job: JobContext, stage: Stage) -> None:
    asyncio.get_running_loop().close()


@specimen("failed")
async def stops_its_client(task: Task, job: JobContext, stage: Stage) -> None:
    await job.client.stop(0)


@specimen("failed")
async def starts_its_client(task: Task, job: JobContext, stage: Stage) -> None:
    await job.client.start()


@specimen("succeeded")
async def stops_its_client_from_a_thread(task: Task, job: JobContext, stage: Stage) -> None:
    def stop() -> str:
        try:
            asyncio.run(job.client.stop(0))
        except InvalidState as error:
            return str(error)
        return ""

    stage.state("stop() in another loop is refused", bool(await anyio.to_thread.run_sync(stop)))


@specimen("succeeded")
async def breaks_task_creation_for_a_while(task: Task, job: JobContext, stage: Stage) -> None:
    """As a factory of the time before contexts does: it does not know `context=`."""
    loop = asyncio.get_running_loop()

    def make(loop: Any, coroutine: Any) -> Any:
        return asyncio.Task(coroutine, loop=loop)

    loop.set_task_factory(make)
    loop.call_later(0.3, loop.set_task_factory, None)
    with contextlib.suppress(TypeError):  # uvloop gives every factory a context
        await job.client.add(Beside()).save()


@specimen("succeeded")
async def has_an_exception_handler_that_raises(task: Task, job: JobContext, stage: Stage) -> None:
    def handle(loop: Any, context: Any) -> NoReturn:
        raise ValueError("of the handler of exceptions")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handle)
    _leave(_fail(ValueError))
    loop.call_soon(lambda: 1 / 0)


@specimen("succeeded")
async def turns_on_debugging_and_errors(task: Task, job: JobContext, stage: Stage) -> None:
    asyncio.get_running_loop().set_debug(True)
    warnings.simplefilter("error")


@specimen("failed")
async def registers_itself_again(task: Task, job: JobContext, stage: Stage) -> None:
    job.client.register(type(task), print)


def _leave(coroutine: Coroutine[Any, Any, object]) -> None:
    """Start a task that nobody keeps."""
    asyncio.get_running_loop().call_soon(asyncio.ensure_future, coroutine)


async def _fail(kind: type[BaseException]) -> None:
    raise kind("of a task of its own")
