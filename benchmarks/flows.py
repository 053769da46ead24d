"""Measurements of workflows: steps after each other, and beside each other, as against single jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from backlite_async import Chain, Client, chain, group

from .programs import LIMIT, Values, place_of
from .system import Count
from .workload import Noop, tasks

__all__ = ["chain_of_steps", "one_by_one", "separate", "wide_group"]


async def one_by_one(place: dict[str, str], count: int) -> Values:
    """Add a job and wait for its end, so many times; jobs a second."""
    async with asyncio.timeout(LIMIT), _client(place) as client:
        began = time.perf_counter()
        for task in tasks(count):
            [job_id] = await client.add(task).save()
            await client.wait(job_id)
        return {"rate": count / (time.perf_counter() - began)}


async def chain_of_steps(place: dict[str, str], count: int) -> Values:
    """Add a chain of so many steps and wait for its end; steps a second."""
    async with asyncio.timeout(LIMIT), _client(place) as client:
        began = time.perf_counter()
        [workflow_id] = await client.add(chain(*tasks(count))).save()
        await client.wait(workflow_id)
        return {"rate": count / (time.perf_counter() - began)}


async def separate(place: dict[str, str], count: int) -> Values:
    """Add so many jobs in one operation, until the last one runs; jobs a second."""
    return await _until_all_run(place, count, tasks(count))


async def wide_group(place: dict[str, str], count: int) -> Values:
    """Add a group of so many steps and a last one after all, until that runs; steps a second."""
    last, *others = tasks(count + 1)
    return await _until_all_run(place, count + 1, [group(*others).then(last)])


async def _until_all_run(place: dict[str, str], count: int, parts: Sequence[Noop | Chain]) -> Values:
    counter = Count(count)
    client = Client(place_of(place).file, workers=100)

    @client.handler(Noop)
    async def handle(task: Noop) -> None:
        counter.note(task.n)

    async with asyncio.timeout(LIMIT), client:
        began = time.perf_counter()
        await client.add(*parts).save()
        await counter.reached.wait()
        return {"rate": count / (time.perf_counter() - began)}


def _client(place: dict[str, str]) -> Client:
    client = Client(place_of(place).file, workers=10)

    @client.handler(Noop)
    async def handle(task: Noop) -> None:
        pass

    return client
