"""What a step sees of its workflow: what those before it have returned, and what it adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ._codec import encode_result
from ._errors import InvalidType, InvalidValue, PayloadError, ResultNotFound
from ._graph import NewStep, StepResult, WorkflowId
from ._job import ClaimedJob, JobStatus
from ._maker import JobOptions, Maker
from ._steps import Graph, IfFailed, Step, known
from ._workflow import Part, names_in, put

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["NOTHING_GIVEN", "Given", "Inside", "Results", "given"]

V = TypeVar("V")

NOTHING_GIVEN: Any = object()
"""Stands for what a test has not said that there is."""


class Given(msgspec.Struct, frozen=True):
    """What a handler is told of steps that there are not: it is run by itself."""

    previous: Any
    results: Mapping[str, Any] | None


def given(previous: Any, results: Mapping[str, Any] | None) -> Given | None:
    """Return what a handler is to be told; None: what there is."""
    return None if previous is NOTHING_GIVEN and results is None else Given(previous, results)


class Results(Mapping[str, V], Generic[V]):
    """What steps have returned, in the order of the workflow; None: nothing.

    The keys are the steps' names, or ids where they have none; found is each by its id, too. Only steps that
    have succeeded are in it. What is looked up is decoded then: `PayloadError` if it is of another type,
    `ResultNotFound`, a LookupError, if what the step has returned cannot be kept.
    """

    __slots__ = ("_by_id", "_by_key", "_value")

    def __init__(
        self, by_key: Mapping[str, Any], by_id: Mapping[str, str], value: Callable[[Any], V]
    ) -> None:
        self._by_key = by_key
        self._by_id = by_id
        self._value = value

    def __getitem__(self, key: str) -> V:
        there = key if key in self._by_key else self._by_id.get(key)
        if there is None:
            names = ", ".join(map(repr, list(self._by_key)[:20])) or "none"
            raise KeyError(f"no step {key!r} before this one has succeeded; there are: {names}")
        return self._value(self._by_key[there])

    def __contains__(self, key: object) -> bool:
        return key in self._by_key or key in self._by_id

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_key)

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        return f"<results of {', '.join(self._by_key) or 'no steps'}>"


class Inside:
    """A job's place in its workflow.

    `given`: what it is told instead of what the store says, where it is run by itself.
    """

    __slots__ = ("_client", "_given", "_graph", "_job", "_there", "added")

    def __init__(self, client: Client, job: ClaimedJob, given: Given | None = None) -> None:
        self._client = client
        self._job = job
        self._given = given
        self._graph: Graph | None = None
        self._there: dict[str, int] | None = None
        self.added: list[NewStep] = []
        """What it adds to its workflow if this attempt succeeds."""

    async def previous(self, kind: Any, *, many: bool) -> Any:
        """Return what the step before has returned; see `JobContext.previous`."""
        if self._given is not None:
            kind = (list if kind is None else list[kind]) if many else kind
            return self._given_value(self._given_previous(), kind, "previous", BEFORE)
        found = await self._found("previous", deep=False)
        if not found:
            raise LookupError(
                f"job {self._job.id} is a first step of its workflow: there is none before it; its input is"
                " its task"
            )
        values = [_encoded(one) for one in found]
        if many:
            return self._decoded(_array(values), list if kind is None else list[kind], "previous", BEFORE)
        return self._decoded(values[0] if len(values) == 1 else _array(values), kind, "previous", BEFORE)

    async def results(self, kind: Any) -> Results[Any]:
        """Return what all steps before have returned; see `JobContext.results`."""
        if self._given is not None:
            decode = partial(self._given_value, kind=kind, call="results", what="a result")
            return Results(self._given.results or {}, {}, decode)
        found = [one for one in await self._found("results", deep=True) if one.status is JobStatus.SUCCEEDED]
        keys = {one.id: one.id if one.name is None else one.name for one in found}
        return Results({keys[one.id]: one for one in found}, keys, partial(self._value, kind))

    async def extend(
        self,
        part: Part,
        after: Step | str | Iterable[Step | str] | None,
        name: str | None,
        if_failed: IfFailed | None,
    ) -> Step:
        """Have steps added if this attempt succeeds; see `JobContext.extend`."""
        job, client = self._job, self._client
        if job.workflow is None and self._given is None:
            raise outside(job.id, "extend")
        graph = self._extension()
        names = names_in(part, name)
        there = await self._numbers() if names else {}
        taken = next((other for other in names if other in there), None)
        if taken is not None:
            raise InvalidValue(f"there is a step {taken!r} already; each has a name of its own, or none")
        steps = await self._after(graph, after)
        size, now = len(graph.nodes), client.clock.now()
        handle = put(graph, part, steps, name=name, if_failed=if_failed, call="extend")
        options = JobOptions(parent=job.id if job.fence else None)
        maker = Maker(client, options, now, due_at=now, waits_from=now, carry=client.telemetry.here())
        new = range(len(self.added), len(graph.nodes))
        try:
            self.added += maker.steps(graph, new, workflow=None)
        except BaseException:
            graph.cut(size)
            raise
        return handle

    def cut(self, size: int) -> None:
        """Forget what it adds from a place on."""
        if len(self.added) > size:
            del self.added[size:]
            self._extension().cut(size)

    def _extension(self) -> Graph:
        """Return the nodes that are to be added."""
        if self._graph is None:
            self._graph = Graph()
            self._graph.id = self._graph.holder = WorkflowId(self._job.workflow or self._job.id)
        return self._graph

    async def _after(self, graph: Graph, after: object) -> list[Step]:
        """Return what stands for what something is to come after."""
        if after is None:
            return [graph.there(self._job.step or 0)]
        if isinstance(after, str) or not isinstance(after, Iterable):
            after = (after,)
        found: list[Step] = []
        for item in after:
            if not isinstance(item, str) or item in graph.names:
                found += known(graph, item)
            elif item in graph.ids:
                found.append(graph.step(graph.ids.index(item)))
            else:
                found.append(graph.there(await self._number(item)))
        return found

    async def _number(self, key: str) -> int:
        """Return the number of a step that is there by its name or id."""
        numbers = await self._numbers()
        if self._given is None and key not in numbers:
            raise InvalidValue(f"after={key!r}: workflow {self._job.workflow} has no step of this name or id")
        return numbers.get(key, 0)

    async def _numbers(self) -> dict[str, int]:
        """Return the numbers of the steps that are there, by name and id."""
        workflow = self._job.workflow
        if self._there is None and workflow is not None:
            client = self._client
            run = await client.open_store().workflow(workflow, now=client.clock.now())
            steps = () if run is None else run.steps
            self._there = {step.id: step.number for step in steps if step.id is not None}
            self._there |= {step.name: step.number for step in steps if step.name is not None}
        return self._there or {}

    def _given_value(self, value: Any, kind: Any, call: str, what: str) -> Any:
        """Return what is given as it would come from the store."""
        encoded = encode_result(self._job.queue, value, self._client.max_payload)
        return self._decoded(encoded.encode(), kind, call, what)

    def _given_previous(self) -> Any:
        assert self._given is not None
        if self._given.previous is NOTHING_GIVEN:
            raise LookupError(f"job {self._job.id}: no previous= was given, so that there is no step before")
        return self._given.previous

    async def _found(self, call: str, *, deep: bool) -> Sequence[StepResult]:
        job = self._job
        if job.workflow is None or job.step is None:
            raise outside(job.id, call)
        return await self._client.open_store().step_results(job.workflow, job.step, deep=deep)

    def _value(self, kind: Any, found: StepResult) -> Any:
        what = f"the result of {found.id if found.name is None else repr(found.name)}"
        return self._decoded(_encoded(found), kind, "results", what)

    def _decoded(self, encoded: bytes, kind: Any, call: str, what: str) -> Any:
        try:
            return msgspec.json.decode(encoded, type=Any if kind is None else kind)
        except TypeError as error:
            raise InvalidType(
                f"{call}() decodes to a type such as int or a Struct, not to {kind!r}"
            ) from error
        except msgspec.ValidationError as error:
            raise PayloadError(self._job.task, f"{what} is of another type: {error}") from error


def outside(job_id: str, call: str) -> LookupError:
    """Return the error of a job that is no step."""
    return LookupError(f"job {job_id} is no step of a workflow, so that there is no job.{call}()")


def _encoded(found: StepResult) -> bytes:
    """Return what a step has returned as JSON; null: nothing, or it has not succeeded."""
    if found.status is not JobStatus.SUCCEEDED or found.result is None:
        return b"null"
    if found.result == b"":
        raise ResultNotFound(found.id, UNKEPT)
    return found.result


def _array(values: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"


BEFORE = "the result before it"

UNKEPT = "what its handler returned cannot be kept: it is no JSON, or too large"
