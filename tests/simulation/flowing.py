"""What becomes of the steps of workflows in a store: what has changed since somebody last looked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from backlite_async import JobStatus
from backlite_async._job import NewJob
from backlite_async.stores._flow_rows import Flow, Step
from backlite_async.stores._rows import Row

from .history import (
    Event,
    FlowActed,
    FlowEnded,
    FlowLeft,
    Misuse,
    Node,
    Revoked,
    Steered,
    Stored,
    Turned,
    Woven,
)
from .work import QUEUES

if TYPE_CHECKING:
    from .memory import SharedMemory

__all__ = ["Flowing"]

CRASHES = {queue.name: queue.max_crashes for queue in QUEUES}


class _Seen(NamedTuple):
    """A job as it was when somebody looked."""

    ended: bool
    running: bool
    blocked: bool


class _Gone(NamedTuple):
    """A workflow as it was when it was removed."""

    steps: dict[int, Step]
    after: dict[int, tuple[int, ...]]
    rows: dict[str, Row]
    watched: bool


class Flowing:
    """Tells what has become of workflows since the last look, which none of their steps was asked for."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._flows = memory._flows
        self._ever: dict[str, None] = {}
        self._jobs: dict[str, _Seen] = {}
        self._sizes: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._over: set[str] = set()
        self._gone: dict[str, _Gone] = {}
        self._puts: dict[str, Flow] = {}
        remove, put = self._flows.remove, self._flows.put

        def removed(workflow: str) -> None:
            rows = {row.id: row for row in self._flows.jobs(workflow)}
            steps, after = self._flows._steps[workflow], self._flows._after[workflow]
            self._gone[workflow] = _Gone(steps, after, rows, self._flows.watched(workflow))
            remove(workflow)

        def was_put(flow: Flow) -> None:
            self._puts[flow.id] = flow
            put(flow)

        vars(self._flows).update(remove=removed, put=was_put)

    @property
    def known(self) -> list[str]:
        """The workflows that there are or were."""
        return list(self._ever)

    @property
    def live(self) -> list[str]:
        """The workflows of which something has not ended."""
        return [flow.id for flow in self._flows._flows.values() if flow.left]

    # -- looking -----------------------------------------------------------------------------------

    def look(self, *, told: Collection[str] = (), deleted: bool = False, at: int = 0) -> Iterator[Event]:
        """Yield what has changed; not what was already put down of the jobs `told`."""
        flows = [*self._flows._flows, *self._gone]
        for flow in flows:
            yield from self._look(flow, told, deleted, at)
        for flow, gone in self._gone.items():
            self._jobs = {job: seen for job, seen in self._jobs.items() if job not in gone.rows}
            for kept in (self._sizes, self._ends):
                kept.pop(flow, None)
            self._cancelled.discard(flow)
            self._over.discard(flow)
        self._gone.clear()
        self._puts.clear()

    def _look(self, workflow: str, told: Collection[str], deleted: bool, at: int) -> Iterator[Event]:
        gone = self._gone.get(workflow)
        flow = self._puts.get(workflow) or self._flows._flows.get(workflow)
        steps = self._flows._steps[workflow] if gone is None else gone.steps
        after = self._flows._after[workflow] if gone is None else gone.after
        yield from self._woven(workflow, flow, steps, after)
        if flow is not None:
            yield from self._acted(workflow, flow)
        rows = {
            step.job_id: self._flows._job(step.job_id) if gone is None else gone.rows.get(step.job_id)
            for step in steps.values()
            if step.job_id is not None
        }
        places = {job: 0 if row is None else row.seq for job, row in rows.items()}
        for step in sorted(
            steps.values(), key=lambda step: places.get(step.job_id or "", 0)
        ):  # as they came in
            if step.job_id is not None:
                row = rows[step.job_id]
                yield from self._job(step, row, told=told, deleted=deleted and gone is not None, at=at)
        if gone is not None and deleted:
            yield FlowActed(flow=workflow, how="delete")
        nodes = _nodes(steps, after)
        if flow is not None and flow.ends != self._ends.get(workflow, 0):
            self._ends[workflow] = flow.ends
            yield FlowEnded(flow=workflow, status=str(flow.status), times=flow.ends, nodes=nodes)
        if gone is not None and not deleted:
            expired = flow is not None and flow.expires_at is not None
            if gone.watched and flow is not None and not expired:
                yield Misuse(what=f"{workflow} was removed at its end, and somebody waits for it")
            yield FlowLeft(flow=workflow, status=None if flow is None else flow.status, nodes=nodes)
        elif gone is None:
            yield from self._recount(workflow, steps, after)

    def _acted(self, workflow: str, flow: Flow) -> Iterator[FlowActed]:
        if flow.cancelled_at is not None and workflow not in self._cancelled:
            self._cancelled.add(workflow)
            yield FlowActed(flow=workflow, how="cancel")
        elif flow.status is None and (
            workflow in self._over or (flow.cancelled_at is None and workflow in self._cancelled)
        ):
            self._cancelled.discard(workflow)
            yield FlowActed(flow=workflow, how="rerun")
        self._over = (self._over - {workflow}) | ({workflow} if flow.status is not None else set())

    def _woven(
        self, workflow: str, flow: Flow | None, steps: dict[int, Step], after: dict[int, tuple[int, ...]]
    ) -> Iterator[Event]:
        known = self._sizes.get(workflow, 0)
        if len(steps) == known:
            return
        nodes = [node for node in _nodes(steps, after) if node.number >= known]
        callbacks = None
        if known == 0 and flow is not None:
            first, second, third = map(_number, (flow.on_success, flow.on_failure, flow.on_complete))
            callbacks = first, second, third
        self._sizes[workflow] = len(steps)
        self._ever[workflow] = None
        yield Woven(flow=workflow, nodes=nodes, callbacks=callbacks)

    def _job(
        self, step: Step, row: Row | None, *, told: Collection[str], deleted: bool, at: int
    ) -> Iterator[Event]:
        assert step.job_id is not None
        before = self._jobs.get(step.job_id)
        if row is None:
            self._jobs.pop(step.job_id, None)
            return
        if before is None:
            if row.id not in told:
                yield self._stored(row)
            before = _Seen(ended=False, running=False, blocked=row.blocked)
        self._jobs[row.id] = _Seen(row.ended, row.status is JobStatus.RUNNING, row.blocked)
        if row.id in told:
            return
        pending = row.status is JobStatus.PENDING
        if deleted:
            if pending:
                yield Steered(job=row.id, how="delete", was="pending", now=at)
        elif row.ended and not before.ended and not before.running:
            assert row.cancelled_at is not None
            yield Revoked(job=row.id, ended=True, now=row.cancelled_at, keep=True, skipped=True)
        elif pending and before.ended:
            yield _run_again(row, at)
        elif pending and row.blocked and not before.blocked:
            yield Turned(job=row.id, due_at=None, flow=True)
        elif pending and before.blocked and not row.blocked and row.due_at is not None:
            yield Turned(job=row.id, due_at=row.due_at, waits_from=row.waits_from, flow=True)

    def _stored(self, row: Row) -> Stored:
        return Stored(
            job=row.id,
            kind=row.kind,
            due_at=row.scheduled_at,
            waits_from=row.waits_from,
            max_attempts=row.max_attempts,
            max_crashes=CRASHES.get(row.queue, 3),
            priority=row.priority,
            key=row.key,
            timeout=None if row.timeout is None else row.timeout / 1000,
            created_at=row.created_at,
            number=_payload_number(row.payload),
            flow=row.workflow,
            blocked=row.blocked,
        )

    # -- recounting --------------------------------------------------------------------------------

    def _recount(
        self, workflow: str, steps: dict[int, Step], after: dict[int, tuple[int, ...]]
    ) -> Iterator[Event]:
        """Yield where what the store has counted of a workflow is not what there is."""
        flow = self._flows._flows[workflow]
        left = sum(step.status is None for step in steps.values())
        if (flow.left, flow.size) != (left, len(steps)):
            yield Misuse(what=f"{workflow} counts {flow.left} of {flow.size} as left, and it is {left}")
        if left > 0 and workflow in self._flows and flow.expires_at is not None:
            yield Misuse(what=f"{workflow} expires, and {left} are left")
        for step in steps.values():
            wrong = self._wrong(step, [steps[number] for number in after[step.number]])
            if wrong:
                yield Misuse(what=f"{workflow}, node {step.number}: {wrong}")

    def _wrong(self, step: Step, before: list[Step]) -> str:
        live = step.job_id is None or step.job_id in self._memory._live.rows
        if step.job_id is not None and live is not (step.status is None):
            return f"is {step.status}, and its job lives: {live}"
        if step.status is not None:
            return ""
        waits = sum(earlier.status is None for earlier in before)
        row = self._memory._live.rows.get(step.job_id or "")
        if row is not None and row.blocked is not (step.blocked > 0):
            return f"is blocked by {step.blocked}, and its job is blocked: {row.blocked}"
        if step.blocked != waits and step.blocked:
            return f"is blocked by {step.blocked}, and waits for {waits}"
        if step.job_id is None and not step.blocked:
            return "a join that waits for nothing has not ended"
        return ""

    def left(self) -> list[FlowLeft]:
        """Return what is there of workflows."""
        return [
            FlowLeft(
                flow=flow.id,
                status=flow.status,
                nodes=_nodes(self._flows._steps[flow.id], self._flows._after[flow.id]),
            )
            for flow in self._flows._flows.values()
        ]


def _nodes(steps: dict[int, Step], after: dict[int, tuple[int, ...]]) -> list[Node]:
    return [
        Node(
            number=step.number,
            kind=step.kind,
            job=step.job_id,
            after=after[step.number],
            if_failed=step.if_failed,
            fallback=step.fallback is not None,
            status=step.status,
        )
        for step in steps.values()
    ]


def _run_again(row: Row, at: int) -> Steered:
    return Steered(
        job=row.id,
        how="rerun",
        was="completed",
        now=at,
        due_at=row.due_at,
        waits_from=row.waits_from,
        max_attempts=row.max_attempts,
        number=_payload_number(row.payload),
        follows=True,
    )


def _number(job: NewJob | None) -> int | None:
    return None if job is None else _payload_number(job.payload)


def _payload_number(payload: bytes | None) -> int | None:
    number = msgspec.json.decode(payload or b"{}").get("number")
    return number if isinstance(number, int) else None
