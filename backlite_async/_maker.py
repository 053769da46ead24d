"""Making jobs of tasks, and steps of the nodes of workflows, with what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from ._carry import joined
from ._codec import encode
from ._errors import InvalidTask, InvalidValue, PayloadError
from ._graph import CANCEL, NewStep, NewWorkflow
from ._job import More, NewJob
from ._steps import Graph
from ._task import TaskType, task_type
from ._workflow import Chain, Group, Workflow

if TYPE_CHECKING:
    from ._client import Client
    from ._telemetry import Carry

__all__ = ["Addable", "JobOptions", "Maker", "Whole"]

CHUNK = 1000
"""Tasks encoded in one turn of the event loop: some three milliseconds."""

Whole: TypeAlias = Chain | Group | Workflow
Addable: TypeAlias = msgspec.Struct | Whole
"""What can be added."""


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of jobs; None: nothing. `timeout` in milliseconds; `meta` and `tags`: JSON."""

    priority: int | None = None
    max_attempts: int | None = None
    timeout: int | None = None
    key: str | None = None
    parent: str | None = None
    meta: str | None = None
    tags: str | None = None


class Maker:
    """Makes jobs of tasks for one client, all added at one instant. Instants in milliseconds."""

    # What every lone task would have to set otherwise.
    _kind: TaskType | None = None
    _max_attempts = _priority = 0
    _more: More | None = None
    _meta: str | None = None
    _since = 0

    def __init__(
        self,
        client: Client,
        options: JobOptions,
        now: int,
        *,
        due_at: int,
        waits_from: int | None,
        carry: Carry | None = None,
    ) -> None:
        self._client = client
        self._options = options
        self._now = now
        self._due_at = due_at
        self._waits_from = waits_from
        self._carry = carry
        self._fallbacks: dict[int, NewJob] = {}

    async def all(
        self, parts: Sequence[Addable], wholes: Sequence[tuple[int, Whole]]
    ) -> tuple[list[NewJob], tuple[NewWorkflow, ...]]:
        """Make jobs and workflows of the parts, some of which are wholes; many in several turns."""
        tasks = cast("Sequence[msgspec.Struct]", parts)
        jobs: list[NewJob] = []
        workflows: list[NewWorkflow] = []
        first = 0
        for place, whole in (*wholes, (len(parts), None)):
            async for some in self._batches(range(first, place)):
                jobs += self.jobs(tasks, some.start, some.stop)
            if whole is not None:
                workflows.append(await self._workflow(whole))
            first = place + 1
        return jobs, tuple(workflows)

    async def _batches(self, places: range, cost: int = 1) -> AsyncIterator[range]:
        """Cut places into batches, and give others a turn between them; small ones count together."""
        first = places.start
        while first < places.stop:
            if self._since >= CHUNK:
                self._since = 0
                await asyncio.sleep(0)
            some = range(first, min(first + (CHUNK - self._since + cost - 1) // cost, places.stop))
            self._since += len(some) * cost
            first = some.stop
            yield some

    async def _workflow(self, whole: Whole) -> NewWorkflow:
        graph = whole.graph
        if not graph.nodes:
            raise InvalidValue("this Workflow is empty; w.add(task) gives it a first step")
        graph.ids.clear()
        workflow = self._client.ids.next()
        behind = following(graph)
        steps: list[NewStep] = []
        self._since += len(graph.nodes)  # for that, too, takes its time
        async for some in self._batches(range(len(graph.nodes)), cost=2):
            steps += self.steps(graph, some, workflow=workflow, following=behind)
        return NewWorkflow(
            id=workflow,
            name=whole.name,
            created_at=self._now,
            steps=tuple(steps),
            **self.callbacks(whole),
        )

    def jobs(
        self, tasks: Sequence[msgspec.Struct], first: int, last: int, own_id: str | None = None
    ) -> list[NewJob]:
        """Make jobs of some tasks."""
        next_id = self._client.ids.next if own_id is None else lambda: own_id
        now, due_at, waits_from = self._now, self._due_at, self._waits_from
        kind, most = self._kind, self._client.max_payload
        jobs: list[NewJob] = []
        for task in tasks[first:last]:
            if kind is None or type(task) is not kind.cls:
                kind = self._meet(task)
            try:
                payload = encode(kind, task, most)
            except PayloadError as error:
                where = f"task {first + len(jobs) + 1} of {len(tasks)}" if len(tasks) > 1 else ""
                raise _told(error, where) from error.__cause__
            jobs.append(
                NewJob(
                    id=next_id(),
                    queue=kind.config.name,
                    task=kind.name,
                    payload=payload,
                    max_attempts=self._max_attempts,
                    created_at=now,
                    due_at=due_at,
                    waits_from=waits_from,
                    priority=self._priority,
                    more=self._more,
                )
            )
        return jobs

    def steps(
        self,
        graph: Graph,
        places: range,
        *,
        workflow: str | None,
        following: Sequence[tuple[int, ...]] = (),
    ) -> list[NewStep]:
        """Make steps of some nodes, and take note of the ids of their jobs.

        `workflow`: the id of a new one, whose nodes are those of the graph, with what comes after each;
        None: they are to extend one.
        """
        now, next_id, ids = self._now, self._client.ids.next, graph.ids
        new = workflow is not None
        steps: list[NewStep] = []
        for place in places:
            node = graph.nodes[place]
            after = node.after if new else tuple(~before for before in node.after)
            job = None
            if node.task is not None:
                job_id = next_id()
                times = (now, now, now) if after else (now, self._due_at, self._waits_from)
                try:
                    job = self._job(node.task, job_id, times, (workflow, place, bool(after)))
                except PayloadError as error:
                    raise _told(error, _step_name(graph, place)) from error.__cause__
            ids.append(None if job is None else job.id)
            plain = isinstance(node.if_failed, str)
            steps.append(
                NewStep(
                    job=job,
                    name=node.name,
                    after=after,
                    next=following[place] if new else (),
                    if_failed=node.if_failed if isinstance(node.if_failed, str) else CANCEL,
                    fallback=None if plain else self._fallback(graph, place),
                )
            )
        return steps

    def callbacks(self, whole: Chain | Group | Workflow) -> dict[str, NewJob]:
        """Make jobs of the tasks that run when a workflow has ended; ids and times come then."""
        found = {}
        for which, task in whole.callbacks.items():
            try:
                found[which] = self._job(task, "", (0, 0, None))
            except PayloadError as error:
                raise _told(error, f"{which}{whole.graph.title}") from error.__cause__
        return found

    def _fallback(self, graph: Graph, place: int) -> NewJob:
        """Make the job of a task that runs if a step fails, once for all steps of which that is said."""
        task = graph.nodes[place].if_failed
        known = self._fallbacks.get(id(task))
        if known is None:
            try:
                known = self._fallbacks[id(task)] = self._job(task, "", (0, 0, None))
            except PayloadError as error:
                raise _told(error, f"if_failed of {_step_name(graph, place)}") from error.__cause__
        return known

    def _job(
        self,
        task: object,
        job_id: str,
        times: tuple[int, int, int | None],
        place: tuple[str | None, int, bool] | None = None,
    ) -> NewJob:
        """Make one job, perhaps at a place in a workflow."""
        kind = self._kind
        if kind is None or type(task) is not kind.cls:
            kind = self._meet(task)
        more = self._more
        if place is not None and place[0] is not None:
            said = self._options
            more = More(
                key=said.key,
                turns=None if more is None else more.turns,
                timeout=said.timeout,
                parent=said.parent,
                meta=self._meta,
                tags=said.tags,
                workflow=place[0],
                step=place[1],
                blocked=place[2],
            )
        return NewJob(
            id=job_id,
            queue=kind.config.name,
            task=kind.name,
            payload=encode(kind, cast("msgspec.Struct", task), self._client.max_payload),
            max_attempts=self._max_attempts,
            created_at=times[0],
            due_at=times[1],
            waits_from=times[2],
            priority=self._priority,
            more=more,
        )

    def _meet(self, task: object) -> TaskType:
        """Take note of another type of tasks, and of what is said of its jobs."""
        if isinstance(task, type):
            raise InvalidTask(f"{task.__qualname__} is a class; add an instance of it")
        kind = task_type(type(task))
        self._client.registry.meet(kind)
        config, said = kind.config, self._options
        self._max_attempts = config.max_attempts if said.max_attempts is None else said.max_attempts
        self._priority = config.priority if said.priority is None else said.priority
        self._more = None  # which most jobs have not: it makes them quicker to store
        meta = said.meta if self._carry is None else joined(said.meta, self._carry(config.name))
        self._meta = meta
        if (said.key or said.timeout or said.parent or meta or said.tags) is not None:
            self._more = More(
                key=said.key,
                turns=None if said.key is None else config.concurrency_per_key,
                timeout=said.timeout,
                parent=said.parent,
                meta=meta,
                tags=said.tags,
            )
        self._kind = kind
        return kind


def following(graph: Graph) -> list[tuple[int, ...]]:
    """Return the places of what comes after each node of a new workflow."""
    found: list[list[int] | None] = [None] * len(graph.nodes)
    for place, node in enumerate(graph.nodes):
        for before in node.after:
            there = found[before]
            if there is None:
                found[before] = [place]
            else:
                there.append(place)
    return [() if one is None else tuple(one) for one in found]


def _step_name(graph: Graph, place: int) -> str:
    """Return what a step is called in messages."""
    node = graph.nodes[place]
    if node.name is not None:
        return f"step {node.name!r}{graph.title}"
    steps = [number for number, other in enumerate(graph.nodes) if other.task is not None]
    return f"step {steps.index(place) + 1} of {len(steps)}{graph.title}"


def _told(error: PayloadError, where: str) -> PayloadError:
    return PayloadError(error.task, f"{error.reason} ({where})") if where else error
