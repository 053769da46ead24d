"""Workflows of a world: chains, groups and graphs, what their steps add to them, what people do to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from backlite_async import (
    BackliteError,
    DatabaseUnavailable,
    InvalidState,
    JobContext,
    Workflow,
    chain,
    group,
)
from backlite_async._add import AddOperation

from .faults import Killed
from .history import Acknowledged, Extended
from .process import Process
from .work import Simple, Work

if TYPE_CHECKING:
    from .world import World

__all__ = ["Weavers"]

NOT_HERE = (DatabaseUnavailable, InvalidState, Killed)

ACTIONS = ("cancel", "cancel", "retry", "retry", "delete", "wait", "wait", "look")


class Weavers:
    """Makes workflows in a world, and does things to them."""

    def __init__(self, world: World) -> None:
        self._world = world

    # -- making ------------------------------------------------------------------------------------

    async def weave(self, process: Process, rng: random.Random, kinds: tuple[type[Work], ...]) -> None:
        """Add a workflow, if that works."""
        world = self._world
        make: Callable[..., Any] = rng.choice((self._chain, self._group, self._graph, self._graph))
        whole = make(rng, kinds, **self._callbacks(rng))
        options = world.options([world.task(kinds), world.task(kinds)])
        operation: AddOperation = process.client.add(whole)
        if rng.random() < 0.2:
            operation.wait(timedelta(seconds=rng.uniform(0, world.longest_wait)))
        options(operation)
        with contextlib.suppress(*NOT_HERE):
            await self._save(process, operation)
            if process.alive:
                ids = [step.id for step in whole.steps]
                world.known += ids
                for job in ids:
                    world.history.add(Acknowledged(job=job))

    async def _save(self, process: Process, operation: AddOperation) -> None:
        for attempt in range(4):
            try:
                await operation.save()
                return
            except DatabaseUnavailable:
                if attempt == 3 or not process.started:
                    raise
                await asyncio.sleep(self._world.rng.uniform(0, 1))

    def _callbacks(self, rng: random.Random) -> dict[str, Any]:
        chosen = [name for name in ("on_success", "on_failure", "on_complete") if rng.random() < 0.3]
        return {name: self._task(rng, (Simple,)) for name in chosen}

    def _if_failed(self, rng: random.Random) -> Any:
        return rng.choice((None, None, "cancel", "continue", self._task(rng, (Simple,))))

    def _task(self, rng: random.Random, kinds: tuple[type[Work], ...]) -> Work:
        """Return a task; steps of workflows sometimes add to them."""
        task = self._world.task(kinds)
        if rng.random() < 0.3:
            seconds = round(rng.uniform(0, 1), 3)
            fates = ("extend", "extend", "extend fail", "extend commit")
            steps = [(rng.choice(fates), seconds)] * rng.choice((1, 1, 4))
            task.plan[:] = [*task.plan[: rng.randint(0, 2)], *steps, (rng.choice(fates), seconds)]
        return task

    def _part(self, rng: random.Random, kinds: tuple[type[Work], ...], depth: int = 2) -> Any:
        if depth == 0 or rng.random() < 0.6:
            return self._task(rng, kinds)
        parts = [self._part(rng, kinds, depth - 1) for _ in range(rng.randint(1, 3))]
        return rng.choice((chain, group))(*parts, if_failed=self._if_failed(rng))

    def _chain(self, rng: random.Random, kinds: tuple[type[Work], ...], **callbacks: Any) -> Any:
        parts = [self._part(rng, kinds) for _ in range(rng.randint(1, 4))]
        return chain(*parts, if_failed=self._if_failed(rng), **callbacks)

    def _group(self, rng: random.Random, kinds: tuple[type[Work], ...], **callbacks: Any) -> Any:
        parts = [self._part(rng, kinds) for _ in range(rng.randint(1, 3))]
        made = group(*parts, if_failed=self._if_failed(rng), **callbacks)
        return made.then(self._part(rng, kinds)) if rng.random() < 0.6 else made

    def _graph(self, rng: random.Random, kinds: tuple[type[Work], ...], **callbacks: Any) -> Any:
        made = Workflow(if_failed=self._if_failed(rng) or "cancel", **callbacks)
        handles: list[Any] = []
        for _ in range(rng.randint(2, 9)):
            after = rng.sample(handles, min(len(handles), rng.choice((0, 1, 1, 2, 3))))
            part = self._task(rng, kinds) if rng.random() < 0.85 else self._part(rng, kinds, 1)
            handles.append(made.add(part, after=after, if_failed=self._if_failed(rng)))
        return made

    # -- in handlers -------------------------------------------------------------------------------

    async def extend(self, process: Process, job: JobContext) -> None:
        """Have one or two steps added to the workflow of a job, if it is of one."""
        world = self._world
        if job.workflow is None:
            return
        for _ in range(world.rng.choice((1, 1, 2))):
            tasks = [world.task((Simple, *world.kinds[:2])) for _ in range(world.rng.choice((1, 1, 2, 3)))]
            part: Any = world.rng.choice((chain, group))(*tasks) if len(tasks) > 1 else tasks[0]
            after = world.rng.choice((None, None, ()))
            with contextlib.suppress(*NOT_HERE):
                await job.extend(part, after=after)
        if process.alive:
            ids = [step.job.id for step in job.extends if step.job is not None]
            world.history.add(Extended(job=job.id, fence=job.fence, jobs=ids))

    # -- what people do ----------------------------------------------------------------------------

    async def steer(self, process: Process, rng: random.Random) -> None:
        """Do something to a workflow, if that works."""
        flowing = self._world.memory.flowing
        known = flowing.live if rng.random() < 0.7 else flowing.known
        if not known:
            return
        flow, action = rng.choice(known), rng.choice(ACTIONS)
        with contextlib.suppress(*NOT_HERE, LookupError, BackliteError):
            match action:
                case "cancel":
                    await process.client.cancel(flow)
                case "retry":
                    await process.client.workflows.retry(flow, attempts=rng.randint(1, 2))
                case "delete":
                    await process.client.workflows.delete(flow)
                case "wait":
                    self._world.people.wait_for(process, flow, rng)
                case _:
                    await process.client.workflows.get(flow)
                    await process.client.workflows.list()
