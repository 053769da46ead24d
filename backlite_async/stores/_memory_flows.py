"""What the memory store keeps of workflows: `FlowRows`, to the letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from .._graph import FOR_EVER, NewStep, NewWorkflow, StepResult, StepRun, WorkflowRun
from .._job import Complete, Declared, JobStatus, NewJob, Outcome
from . import _runs
from ._beside import Beside
from ._flows import CANCELLED, FAILED, SKIPPED, SUCCEEDED, End, Flow, Step, retention
from ._rows import Live, Row

__all__ = ["MemoryFlows"]


class MemoryFlows:
    """Workflows and their nodes, over the jobs of a store.

    `stirs` is set where jobs are due by what was done, or somebody waits for what has ended by that.
    """

    def __init__(
        self,
        live: Live,
        completed: dict[str, Row],
        beside: Beside,
        declared: Mapping[str, Declared],
        *,
        cancel: Callable[[Row, str, int], None],
    ) -> None:
        self._live = live
        self._completed = completed
        self._beside = beside
        self._declared = declared
        self._cancel = cancel
        self.stirs = False
        self._flows: dict[str, Flow] = {}
        self._steps: dict[str, dict[int, Step]] = {}
        self._after: dict[str, dict[int, tuple[int, ...]]] = {}

    # -- what the store asks -----------------------------------------------------------------------

    def add(self, new: NewWorkflow) -> None:
        """Add a workflow with its jobs."""
        self._flows[new.id] = Flow(
            id=new.id,
            name=new.name,
            created_at=new.created_at,
            left=len(new.steps),
            size=len(new.steps),
            on_success=new.on_success,
            on_failure=new.on_failure,
            on_complete=new.on_complete,
        )
        self._steps[new.id], self._after[new.id] = {}, {}
        self.add_steps(new.id, [(_node(number, step), step.after) for number, step in enumerate(new.steps)])
        self.add_jobs(new.jobs)

    def __contains__(self, workflow: str) -> bool:
        """Return whether there is a workflow, though it may have expired."""
        return workflow in self._flows

    def of(self, workflow: str, now: int) -> Flow | None:
        """Return a workflow, unless it has expired."""
        flow = self._flows.get(workflow)
        return None if flow is None or _expired(flow, now) else flow

    def all(self, now: int) -> list[Flow]:
        """Return all that have not expired, by id, greatest first."""
        flows = [self._flows[workflow] for workflow in sorted(self._flows, reverse=True)]
        return [flow for flow in flows if not _expired(flow, now)]

    def run(self, flow: Flow, *, whole: bool = True) -> WorkflowRun:
        """Return how a workflow is doing, with or without its steps."""
        has_ended = flow.ends > 0 or flow.left < flow.size
        begun = has_ended or any(
            row.status is JobStatus.RUNNING or row.attempt > 0 for row in self.jobs(flow.id)
        )
        return _runs.workflow_run(flow, begun=begun, steps=self._step_runs(flow.id) if whole else ())

    def _step_runs(self, workflow: str) -> list[StepRun]:
        return [
            _runs.step_run(
                step,
                self._after[workflow][step.number],
                None if row is None else msgspec.structs.asdict(row),
            )
            for step in self._steps[workflow].values()
            for row in [self._job(step.job_id)]
        ]

    def results(self, workflow: str, number: int | None, *, deep: bool) -> list[StepResult]:
        """Return what steps have left."""
        steps, after = self._steps.get(workflow, {}), self._after.get(workflow, {})
        numbers = _runs.before(number, deep, {n: (steps[n].kind, after[n]) for n in steps})
        return [
            _runs.step_result(step, None if row is None else (row.result,))
            for step in (steps[n] for n in numbers)
            if step.status is not None
            for row in [self._job(step.job_id)]
        ]

    def unsuccessful(self, workflow: str) -> list[str]:
        """Return the ids of the jobs of steps that have failed, or were cancelled and not skipped."""
        steps = [step for step in self._steps[workflow].values() if step.kind == "step"]
        return [step.job_id for step in steps if step.job_id and step.status in (FAILED, CANCELLED)]

    def jobs(self, workflow: str) -> list[Row]:
        """Return the jobs of its nodes."""
        found = [self._job(step.job_id) for step in self._steps[workflow].values()]
        return [row for row in found if row is not None]

    def next_expiry(self) -> int | None:
        """Return the instant at which the next workflow expires."""
        instants = (flow.expires_at for flow in self._flows.values())
        return min((instant for instant in instants if instant is not None), default=None)

    def expire(self, now: int) -> None:
        """Remove workflows that have expired, none of whose jobs is there any more."""
        for flow in [flow for flow in self._flows.values() if _expired(flow, now)]:
            if not self.jobs(flow.id):
                self.remove(flow.id)

    def end(self, row: Row, outcome: Outcome | None = None) -> End:
        """Return the end of a step whose job has ended, by an outcome or a cancellation."""
        assert row.workflow is not None
        assert row.step is not None
        at = row.finished_at or 0
        keep_for, keeps_payload = self._keep_for([row]), self._keeps_payload(row)
        if isinstance(outcome, Complete):
            keep_for = retention(outcome.keep, at)
            keeps_payload = outcome.keep is not None and outcome.keep.payload
        return End(row.workflow, row.step, row.status.value, at, row.fence, keep_for, keeps_payload)

    # -- FlowRows ----------------------------------------------------------------------------------

    def flow(self, workflow: str) -> Flow | None:
        """Return a workflow."""
        flow = self._flows.get(workflow)
        return None if flow is None else msgspec.structs.replace(flow)

    def put(self, flow: Flow) -> None:
        """Write a workflow back, if it is still there."""
        if flow.id in self._flows:
            self._flows[flow.id] = flow

    def steps(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return some of its nodes."""
        of_flow = self._steps[workflow]
        return [msgspec.structs.replace(of_flow[number]) for number in sorted(numbers) if number in of_flow]

    def waiting(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return those of some nodes that wait for others."""
        return [step for step in self.steps(workflow, numbers) if step.status is None and step.blocked]

    def live_steps(self, workflow: str) -> list[Step]:
        """Return all of its nodes that have not ended."""
        of_flow = self._steps[workflow].values()
        return [msgspec.structs.replace(step) for step in of_flow if step.status is None]

    def put_steps(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write nodes back."""
        self._steps[workflow] |= {step.number: step for step in steps}

    def put_next(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write back what comes after nodes."""
        self.put_steps(workflow, steps)

    def succeed(self, workflow: str, numbers: Sequence[int]) -> tuple[int, Counter[int]]:
        """Write that nodes have succeeded; return how many, and what comes after them, how often."""
        steps = [step for step in self.steps(workflow, numbers) if step.status is None]
        for step in steps:
            step.status, step.strip = SUCCEEDED, False
        self.put_steps(workflow, steps)
        return len(steps), Counter(number for step in steps for number in step.next)

    def add_steps(self, workflow: str, steps: Sequence[tuple[Step, tuple[int, ...]]]) -> None:
        """Add nodes, each with the numbers of what it comes after."""
        for step, after in steps:
            self._steps[workflow][step.number] = step
            self._after[workflow][step.number] = after

    def outcomes(self, workflow: str) -> set[tuple[str, str | None, str]]:
        """Return the different (kind, status, if_failed) of its nodes."""
        return {(step.kind, step.status, step.if_failed) for step in self._steps[workflow].values()}

    def named(self, workflow: str, name: str) -> bool:
        """Return whether it has a node of this name."""
        return any(step.name == name for step in self._steps[workflow].values())

    def add_jobs(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs, those whose ids are not there."""
        self.stirs = True
        new = [job for job in jobs if self._job(job.id) is None]
        for job in new:
            self._live.add(job)
            self._beside.take_tags(job.id, None if job.more is None else job.more.tags)
        self._live.take_turns(new, now=max((job.created_at for job in new), default=0))

    def release(self, job_ids: Sequence[str], at: int) -> None:
        """Let blocked jobs run, those whose keys have no turns left when it is theirs."""
        self.stirs = True
        rows = [self._live.rows[job_id] for job_id in job_ids]
        for row in rows:
            self._live.release(row, at)
        for queue, key in dict.fromkeys((row.queue, row.key) for row in rows):
            declared = self._declared.get(queue)
            if key is not None and declared is not None and declared.turns is not None:
                self._live.queue_up(queue, key, declared.turns, now=at)

    def skip(self, jobs: Sequence[tuple[str, str]], at: int) -> int:
        """End blocked jobs as cancelled."""
        rows = [self._live.rows[job_id] for job_id, _ in jobs]
        for row, (_, reason) in zip(rows, jobs, strict=True):
            self._cancel(row, reason, at)
            self.stirs = self.stirs or self._beside.watched(row.id)
        return self._keep_for(rows)

    def cancel(self, job_ids: Sequence[str], at: int) -> tuple[set[str], int]:
        """End pending jobs as cancelled; ask for the end of running ones."""
        rows = [self._live.rows[job_id] for job_id in job_ids]
        pending = [row for row in rows if row.status is JobStatus.PENDING]
        had_turn = [row for row in pending if row.due_at is not None]
        for row in rows:
            if row.status is JobStatus.PENDING:
                self._cancel(row, "cancelled", at)
            else:
                row.cancelled_at = at if row.cancelled_at is None else row.cancelled_at
        for row in had_turn:
            if row.key is not None:
                self._live.let_in(row.queue, row.key, at=at)
        return {row.id for row in pending}, self._keep_for(pending)

    def block(self, job_ids: Sequence[str]) -> set[str]:
        """Make completed and pending jobs blocked ones."""
        blocked = set()
        for job_id in job_ids:
            row = self._job(job_id)
            if row is None or row.payload is None:
                continue
            if row.ended:
                del self._completed[job_id]
                row.status, row.blocked, row.due_at = JobStatus.PENDING, True, None
                row.result = row.started_at = row.finished_at = row.duration = row.expires_at = None
                row.fence = row.owner = row.cancelled_at = row.error = None
                row.crashes, row.max_attempts = 0, max(row.max_attempts, row.attempt + 1)
                self._live.enter(row)
            else:
                self._live.block(row)
            blocked.add(job_id)
        return blocked

    def reopen(self, workflow: str) -> None:
        """Keep its completed jobs for as long as it takes."""
        for row in self.jobs(workflow):
            row.expires_at = None

    def close(self, workflow: str, expires_at: int | None) -> None:
        """Keep its completed jobs until then."""
        steps = self._steps[workflow].values()
        again = any(step.status == FAILED and not step.strip for step in steps)
        for step in steps:
            row = self._job(step.job_id)
            if row is not None:
                row.expires_at = expires_at
                by_hand = row.status is JobStatus.CANCELLED and not self._keeps_payload(row)
                follows = again and step.status == SKIPPED  # something that can run again
                row.payload = None if step.strip or (by_hand and not follows) else row.payload

    def remove(self, workflow: str) -> None:
        """Remove it, its nodes, and their jobs with all that is kept beside them."""
        for row in self.jobs(workflow):
            if row.ended:
                del self._completed[row.id]
            else:
                self._live.remove(row)
            self._beside.forget(row.id)
        for kept in (self._flows, self._steps, self._after):
            kept.pop(workflow, None)

    def runs(self, workflow: str) -> bool:
        """Return whether a job of its nodes runs."""
        return any(row.status is JobStatus.RUNNING for row in self.jobs(workflow))

    def watched(self, workflow: str) -> bool:
        """Return whether anybody waits for it, or for one of its steps."""
        jobs = [step.job_id for step in self._steps[workflow].values()]
        return any(self._beside.watched(waited) for waited in (workflow, *jobs) if waited is not None)

    # -- their jobs --------------------------------------------------------------------------------

    def _job(self, job_id: str | None) -> Row | None:
        return None if job_id is None else self._live.rows.get(job_id) or self._completed.get(job_id)

    def _keep_for(self, rows: Sequence[Row]) -> int:
        """Return the longest retention of the queues of cancelled jobs, as declared."""
        found = [self._declared[row.queue] for row in rows if row.queue in self._declared]
        times = [FOR_EVER if one.keep_for is None else one.keep_for for one in found if one.keeps]
        return max(times, default=0)

    def _keeps_payload(self, row: Row) -> bool:
        """Return whether the payload of a cancelled job is kept."""
        declared = self._declared.get(row.queue)
        return declared is not None and declared.keeps and declared.keep_payload


def _expired(flow: Flow, now: int) -> bool:
    return flow.expires_at is not None and flow.expires_at <= now


def _node(number: int, new: NewStep) -> Step:
    kind, job_id = ("join", None) if new.job is None else ("step", new.job.id)
    return Step(number, kind, job_id, new.name, None, len(new.after), new.if_failed, new.next, new.fallback)
