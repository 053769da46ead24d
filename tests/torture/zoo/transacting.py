"""Specimens that misuse `job.transaction()`: its effects are there exactly if their job has succeeded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import aiosqlite

from backlite_async import InvalidState, JobContext, LeaseLost, Task

from .base import Beside, Stage, specimen


async def effect(connection: aiosqlite.Connection) -> None:
    """Write something that is to be there once, or not at all."""
    await connection.execute("CREATE TABLE IF NOT EXISTS effects (n)")
    await connection.execute("INSERT INTO effects VALUES (1)")


@specimen("failed", kills=True)
async def dies_in_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        os._exit(1)


@specimen("succeeded", kills=True, effects=1)
async def dies_after_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
    os._exit(1)


@specimen("failed")
async def exits_in_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        raise SystemExit(1)


@specimen("succeeded", effects=1)
async def fails_after_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
    raise ValueError("too late")


@specimen("succeeded", effects=1)
async def begins_two_transactions(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
    async with job.transaction() as connection:
        await effect(connection)


@specimen("failed")
async def begins_one_in_the_other(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        async with job.transaction() as another:
            await effect(another)


@specimen("failed", "succeeded")
async def never_leaves_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    await effect(await job.transaction().__aenter__())


@specimen("failed")
async def overstays_in_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        await asyncio.Event().wait()


@specimen("failed")
async def will_not_leave_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


@specimen("failed")
async def blocks_in_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        time.sleep(1.0)  # noqa: ASYNC251 - what a handler must not do


@specimen("failed")
async def commits_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        await connection.commit()


@specimen("failed")
async def closes_its_connection(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        await connection.close()


@specimen("failed")
async def saves_in_its_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async with job.transaction() as connection:
        await effect(connection)
        await job.client.add(Beside()).save()


@specimen("succeeded")
async def leaves_a_task_with_a_transaction(task: Task, job: JobContext, stage: Stage) -> None:
    async def later() -> None:
        await stage.let_go.wait()
        with contextlib.suppress(LeaseLost, InvalidState):
            async with job.transaction() as connection:
                await effect(connection)

    stage.last_tasks.append(asyncio.ensure_future(later()))
