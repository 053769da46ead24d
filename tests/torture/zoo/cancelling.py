"""Specimens that cancel, are cancelled, or leave their scopes in disorder."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import anyio

from backlite_async import JobContext, Task

from .base import Stage, Timed, once, specimen


@specimen("failed")
async def cancels_itself(task: Task, job: JobContext, stage: Stage) -> None:
    _myself().cancel()
    await asyncio.sleep(0)


@specimen("succeeded", "failed")
async def leaks_a_cancellation(task: Task, job: JobContext, stage: Stage) -> None:
    _myself().cancel()


@specimen("succeeded")
async def uncancels_too_much(task: Task, job: JobContext, stage: Stage) -> None:
    for _ in range(3):
        _myself().uncancel()


@specimen("succeeded", kind=Timed)
async def swallows_its_timeout(task: Task, job: JobContext, stage: Stage) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@specimen("succeeded", kind=Timed)
async def swallows_a_thousand_times(task: Task, job: JobContext, stage: Stage) -> None:
    for _ in range(1_000):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@specimen("failed", kind=Timed)
async def answers_its_timeout_with_another_error(task: Task, job: JobContext, stage: Stage) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise SystemExit(3)


@specimen("succeeded", kind=Timed, lingers=True)
async def outlasts_its_timeout(task: Task, job: JobContext, stage: Stage) -> None:
    with anyio.CancelScope(shield=True):
        await stage.let_go.wait()


@specimen("succeeded", kind=Timed)
def outlasts_its_timeout_in_a_thread(task: Task, job: JobContext, stage: Stage) -> None:
    time.sleep(0.3)


@specimen("succeeded", disturbs=True)
async def cancels_its_neighbours(task: Task, job: JobContext, stage: Stage) -> None:
    for other in asyncio.all_tasks():
        if other.get_name().startswith("backlite beside "):
            other.cancel()


@specimen("failed", "succeeded", kills=True)
async def cancels_everything(task: Task, job: JobContext, stage: Stage) -> None:
    if once("cancelled"):
        for other in asyncio.all_tasks():
            other.cancel()
        await asyncio.Event().wait()


@specimen("succeeded")
async def cancels_its_own_scope(task: Task, job: JobContext, stage: Stage) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await asyncio.Event().wait()


@specimen("failed")
async def times_out_by_itself(task: Task, job: JobContext, stage: Stage) -> None:
    with anyio.fail_after(0.01):
        await asyncio.Event().wait()


@specimen("failed")
async def times_out_in_asyncio(task: Task, job: JobContext, stage: Stage) -> None:
    async with asyncio.timeout(0.01):
        await asyncio.Event().wait()


@specimen("failed", "succeeded")
async def never_leaves_its_scope(task: Task, job: JobContext, stage: Stage) -> None:
    anyio.CancelScope().__enter__()


@specimen("failed", "succeeded")
async def leaves_a_cancelled_scope_open(task: Task, job: JobContext, stage: Stage) -> None:
    scope = anyio.CancelScope()
    scope.__enter__()
    scope.cancel()


@specimen("failed", "succeeded")
async def never_leaves_its_task_group(task: Task, job: JobContext, stage: Stage) -> None:
    group = await anyio.create_task_group().__aenter__()
    group.start_soon(anyio.sleep_forever)


@specimen("failed")
async def has_a_failing_task_group(task: Task, job: JobContext, stage: Stage) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail())
        group.create_task(asyncio.Event().wait())


def _myself() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _fail(kind: type[BaseException] = ValueError) -> None:
    raise kind("of a task of its own")
