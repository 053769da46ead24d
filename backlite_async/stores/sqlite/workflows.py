"""Workflows in SQLite: `FlowRows`, by a few statements a wave. Functions inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Any

import msgspec

from ..._graph import NewStep, NewWorkflow
from ..._job import Complete, More, NewJob, Place
from .. import _flows
from .._flows import End, Flow, Step
from . import history, rows
from .ending import end_marked
from .sql import fetch, portions, statements, text
from .turns import crowd, let_in, take_turns

__all__ = ["Flows", "add", "adding", "expire", "follow", "live"]

_Statements = Generator[tuple[str, Any], list[Any] | None, None]
"""Statements with their parameters, answered by their rows."""

_steps = msgspec.json.Decoder(list[Step], strict=False)
_new_job = msgspec.json.Decoder(NewJob)

_NOTHING = (None,) * 5

AT_ONCE = 128
"""Nodes that are added by one statement."""

FLOWS_AT_ONCE = 100
"""Expired workflows that are removed by one transaction, at most."""


class Flows:
    """What a database keeps of workflows.

    Afterwards, `releases`: whether there are jobs that are due by what was done; `heard`: whether anybody
    waits for what has ended by that.
    """

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw
        self.releases = False
        self.heard = False

    # -- workflows and nodes -----------------------------------------------------------------------

    def flow(self, workflow: str) -> Flow | None:
        """Return a workflow; None: there is none (any more)."""
        found = fetch(self._raw, "flow", {"id": workflow})
        if not found:
            return None
        *columns, on_success, on_failure, on_complete = found[0]
        names = ("id", "name", "created_at", "left", "size", "status", "finished_at", "cancelled_at")
        return Flow(
            **dict(zip((*names, "expires_at", "ends", "keep_for"), columns, strict=True)),
            on_success=_job(on_success),
            on_failure=_job(on_failure),
            on_complete=_job(on_complete),
        )

    def put(self, flow: Flow) -> None:
        """Write a workflow back, if it is still there."""
        names = ("id", "left", "size", "status", "finished_at", "cancelled_at", "expires_at", "ends")
        self._do("put_flow", {name: getattr(flow, name) for name in (*names, "keep_for")})

    def steps(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return some of its nodes."""
        wanted = sorted(numbers)
        return self._read("nodes", workflow, numbers=text(wanted)) if wanted else []

    def waiting(self, workflow: str, numbers: Iterable[int]) -> list[Step]:
        """Return those of some nodes that wait for others, without what comes after them."""
        wanted = sorted(numbers)
        return self._read("waiting_nodes", workflow, numbers=text(wanted)) if wanted else []

    def live_steps(self, workflow: str) -> list[Step]:
        """Return all of its nodes that have not ended."""
        return self._read("live_nodes", workflow)

    def _read(self, name: str, workflow: str, **parameters: Any) -> list[Step]:
        found = fetch(self._raw, name, {"workflow": workflow, **parameters})
        return _steps.decode(found[0][0])

    def put_steps(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write nodes back, those that are alike at once."""
        alike: dict[tuple[str | None, int, bool], list[int]] = {}
        for step in steps:
            alike.setdefault((step.status, step.blocked, bool(step.strip)), []).append(step.number)
        for (status, blocked, strip), numbers in alike.items():
            state_of = {"status": status, "blocked": blocked, "strip": strip}
            self._do("put_nodes", {"workflow": workflow, "numbers": text(numbers), **state_of})

    def put_next(self, workflow: str, steps: Sequence[Step]) -> None:
        """Write back what comes after nodes."""
        for step in steps:
            self._do("put_next", {"workflow": workflow, "number": step.number, "next": _list(step.next)})

    def succeed(self, workflow: str, numbers: Sequence[int]) -> tuple[int, Counter[int]]:
        """Write that nodes have succeeded; return how many, and what comes after them, how often."""
        if not numbers:
            return 0, Counter()
        parameters = {"workflow": workflow, "numbers": text(numbers)}
        found = fetch(self._raw, "next_of_open", parameters)
        if any(following is None for following, _ in found):  # some have ended before
            rest = [step.number for step in self.steps(workflow, numbers) if step.status is None]
            return self.succeed(workflow, rest)
        self._do("put_nodes", {**parameters, "status": _flows.SUCCEEDED, "blocked": 0, "strip": False})
        freed: Counter[int] = Counter()
        for following, count in found:
            freed.update(dict.fromkeys(msgspec.json.decode(following, type=list[int]), count))
        return len(numbers), freed

    def add_steps(self, workflow: str, steps: Sequence[tuple[Step, tuple[int, ...]]]) -> None:
        """Add nodes, each with the numbers of what it comes after."""
        row = partial(_node, workflow)
        for statement, values in portions("add_nodes", steps, row, most=AT_ONCE):
            self._raw.execute(statement, values)

    def outcomes(self, workflow: str) -> set[tuple[str, str | None, str]]:
        """Return the different (kind, status, if_failed) of its nodes."""
        return set(fetch(self._raw, "endings", {"workflow": workflow}))

    def named(self, workflow: str, name: str) -> bool:
        """Return whether it has a node of this name."""
        return bool(fetch(self._raw, "named", {"workflow": workflow, "name": name})[0][0])

    # -- their jobs --------------------------------------------------------------------------------

    def add_jobs(self, jobs: Sequence[NewJob]) -> None:
        """Add jobs, those whose ids are not there."""
        if jobs:
            rows.add_again(self._raw, jobs)
            self.releases = True

    def release(self, job_ids: Sequence[str], at: int) -> None:
        """Let blocked jobs run, those of full keys when it is their turn."""
        ids = text(job_ids)
        found = fetch(self._raw, "keys_of_blocked", {"ids": ids})
        limits = {(queue, key): turns for queue, key, turns in found if turns is not None}
        self._do("unblock", {"ids": ids, "at": at})
        if limits:
            crowd(self._raw, limits, at)
        self.releases = True

    def skip(self, jobs: Sequence[tuple[str, str]], at: int) -> int:
        """End blocked jobs as cancelled, each with a reason as its error."""
        self._do("skip", {"jobs": text(jobs), "at": at})
        ended = end_marked(self._raw)
        self.heard = self.heard or bool(history.watched(self._raw, [job.id for job in ended]))
        return max((job.keep_for for job in ended), default=0)

    def cancel(self, job_ids: Sequence[str], at: int) -> tuple[set[str], int]:
        """End pending jobs as cancelled; ask for the end of running ones."""
        self._do("cancel", {"ids": text(job_ids), "now": at})
        ended = end_marked(self._raw)
        let_in(self._raw, [job.place for job in ended if job.had_turn])
        return {job.id for job in ended}, max((job.keep_for for job in ended), default=0)

    def block(self, job_ids: Sequence[str]) -> set[str]:
        """Make completed and pending jobs blocked ones; return the ids of those that can run."""
        if not job_ids:
            return set()
        ids = text(job_ids)
        self._do("block_pending", {"ids": ids})
        able = {"ids": fetch(self._raw, "able_to_run", {"ids": ids})[0][0]}
        self._do("block_completed", able)
        self._do("delete_completed", able)
        blocked = fetch(self._raw, "blocked_of", {"ids": ids})[0][0]
        return set(msgspec.json.decode(blocked, type=list[str]))

    def reopen(self, workflow: str) -> None:
        """Keep its completed jobs for as long as it takes."""
        self._do("reopen_jobs", {"workflow": workflow})

    def close(self, workflow: str, expires_at: int | None) -> None:
        """Keep its completed jobs until then; without payloads those that are to be so."""
        self._do("close_jobs", {"workflow": workflow, "expires_at": expires_at})

    def remove(self, workflow: str) -> None:
        """Remove it, its nodes, and their jobs with all that is kept beside them."""
        flow = {"workflow": workflow}
        beside = msgspec.json.decode(fetch(self._raw, "beside_flow", flow)[0][0])
        for name in ("remove_completed", "remove_live", "remove_nodes", "remove_flow"):
            self._do(name, flow)
        if beside:
            history.forget(self._raw, beside)

    def runs(self, workflow: str) -> bool:
        """Return whether a job of its nodes runs."""
        return bool(fetch(self._raw, "runs", {"workflow": workflow})[0][0])

    def watched(self, workflow: str) -> bool:
        """Return whether anybody waits for it, or for one of its steps."""
        return bool(fetch(self._raw, "flow_watched", {"workflow": workflow})[0][0])

    def _do(self, name: str, parameters: dict[str, Any]) -> None:
        self._raw.execute(statements()[name], parameters)

    # -- what is done to a whole -------------------------------------------------------------------

    def unsuccessful(self, workflow: str) -> list[str]:
        """Return the ids of the jobs of steps that have failed, or were cancelled and not skipped."""
        found = fetch(self._raw, "unsuccessful_of_flow", {"workflow": workflow})[0][0]
        return msgspec.json.decode(found, type=list[str])

    def delete(self, workflow: str, now: int) -> bool:
        """Remove a workflow, unless something of it runs; let in what waits for its turns."""
        turns = fetch(self._raw, "turns_of_flow", {"workflow": workflow})
        if not _flows.delete_flow(self, workflow):
            return False
        let_in(self._raw, [Place(queue, key, now) for queue, key in turns])
        return True


def follow(raw: sqlite3.Connection, ends: Sequence[End], extending: Sequence[Complete] = ()) -> Flows:
    """Do what follows from the ends of steps, some of which extend their workflows first."""
    flows = Flows(raw)
    for outcome in extending:
        _flows.extend(flows, outcome.workflow or "", outcome.extends, outcome.finished_at)
    flows.heard = _flows.ended(flows, ends) or flows.heard
    return flows


def live(raw: sqlite3.Connection, ids: Sequence[str], now: int) -> list[str]:
    """Return which of these are workflows that have not expired."""
    found = fetch(raw, "live_workflows", {"ids": text(ids), "now": now})[0][0]
    there = set(msgspec.json.decode(found))
    return [workflow for workflow in dict.fromkeys(ids) if workflow in there]


def expire(raw: sqlite3.Connection, *, now: int, limit: int) -> int:
    """Remove completed jobs that have expired, and workflows when these are gone; return how many jobs."""
    number = rows.expire(raw, now=now, limit=limit)
    left = limit - number
    if left > 0:
        flows = Flows(raw)
        for workflow, size in fetch(raw, "expired_flows", {"now": now, "limit": FLOWS_AT_ONCE}):
            if left <= 0:
                break
            flows.remove(workflow)
            left -= size
    return number


# -- adding ----------------------------------------------------------------------------------------


def add(
    raw: sqlite3.Connection, jobs: Sequence[NewJob], workflows: Sequence[NewWorkflow], *, again: bool
) -> None:
    """Store pending jobs, and workflows with theirs."""
    if jobs:
        (rows.add_again if again else rows.add)(raw, jobs)
    steps = adding(workflows, again)
    found: list[Any] = []
    with suppress(StopIteration):
        while True:
            found = raw.execute(*steps.send(found or None)).fetchall()
    due = [job for workflow in workflows for job in workflow.jobs if job.more and not job.more.blocked]
    take_turns(raw, due, max((job.created_at for job in due), default=0))


def adding(workflows: Sequence[NewWorkflow], again: bool) -> _Statements:
    """Take the statements that store workflows, but not those that were stored before, if that may be."""
    if again:
        known = yield statements()["known_workflows"], {"ids": text([flow.id for flow in workflows])}
        there = set(msgspec.json.decode(known[0][0])) if known else set()
        workflows = [workflow for workflow in workflows if workflow.id not in there]
    for flow in workflows:
        calls = [_text(job) for job in (flow.on_success, flow.on_failure, flow.on_complete)]
        size = len(flow.steps)
        yield statements()["add_workflow"], (flow.id, flow.name, flow.created_at, size, size, *calls)
        nodes = list(enumerate(flow.steps))
        yield from portions("add_nodes", nodes, partial(_new_node, flow.id), most=AT_ONCE)
        for name, jobs in groupby(flow.jobs, _way):
            row = _first_job_row if name == "add_first_steps" else _new_job_row
            yield from portions(name, list(jobs), row, most=AT_ONCE)
        tags = history.tagged(flow.jobs)
        if tags:
            yield statements()["add_tags"], {"tagged": text(tags)}


def _new_node(workflow: str, place: tuple[int, NewStep]) -> tuple[object, ...]:
    number, step = place
    kind, job_id = ("join", None) if step.job is None else ("step", step.job.id)
    return (
        workflow,
        number,
        kind,
        job_id,
        step.name,
        len(step.after),
        step.if_failed,
        _text(step.fallback),
        _list(step.after),
        _list(step.next),
    )


def _node(workflow: str, placed: tuple[Step, tuple[int, ...]]) -> tuple[object, ...]:
    step, after = placed
    return (
        workflow,
        step.number,
        step.kind,
        step.job_id,
        step.name,
        step.blocked,
        step.if_failed,
        _text(step.fallback),
        _list(after),
        _list(step.next),
    )


def _list(numbers: tuple[int, ...]) -> str:
    """Return numbers as JSON; mostly there are few."""
    return text(numbers) if len(numbers) > 1 else f"[{numbers[0]}]" if numbers else "[]"


def _way(job: NewJob) -> str:
    """Return the statement that adds the job of a new step; in the order of their numbers, mostly one."""
    more = job.more or More()
    if more.blocked or (more.key, more.timeout, more.parent, more.meta, more.tags) != _NOTHING:
        return "add_steps"
    return "add_first_steps"


def _first_job_row(job: NewJob) -> tuple[object, ...]:
    more = job.more or More()
    return (
        job.id,
        job.queue,
        job.task,
        job.payload,
        job.max_attempts,
        job.created_at,
        job.due_at,
        job.due_at,
        job.priority,
        job.waits_from,
        more.workflow,
        more.step,
    )


def _new_job_row(job: NewJob) -> tuple[object, ...]:
    more = job.more or More()
    return (
        job.id,
        job.queue,
        job.task,
        job.payload,
        job.max_attempts,
        job.created_at,
        job.due_at,
        None if more.blocked else job.due_at,
        job.priority,
        job.waits_from,
        *rows.placed(more),
    )


def _text(job: NewJob | None) -> str | None:
    return None if job is None else text(job)


def _job(encoded: str | None) -> NewJob | None:
    return None if encoded is None else _new_job.decode(encoded)
