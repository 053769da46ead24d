"""One job: everything that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from ... import InvalidValue, Job, JobStatus, StepRun, WorkflowRun
from .._redact import MOST, Shown, said, shown
from .._visit import NotFound, Route, Visit
from ._actions import ACTIONS, Action
from ._jobs import row

__all__ = ["ROUTES", "Moment", "find", "timeline"]

MOST_CHILDREN = 10
MOST_LINES = 200
MOST_MOMENTS = 10
MOST_AWAITED = 5


class Moment(NamedTuple):
    """Something in the life of a job.

    `state`: gives its colour; `took`: how long an attempt ran; `after`: time since the moment before it.
    """

    name: str
    at: datetime | None
    state: str = ""
    took: timedelta | None = None
    after: timedelta | None = None
    about: str = ""


class Awaited(NamedTuple):
    """What a job waits for: in words, and jobs or a page that it is about."""

    text: str
    links: Sequence[tuple[str, str, str]] = ()


async def find(visit: Visit, cut: int | None = MOST) -> Job:
    """Return the job that the path names, with the beginning of its payload, or say why there is none."""
    job_id = visit.params["job_id"]
    try:
        found = await visit.client.jobs.get(job_id, cut=cut)
    except InvalidValue:
        found = None
    if found is None:
        raise NotFound(
            f"There is no job {job_id[:200]}. If there was one, it has ended and is not kept, or no longer:"
            " QueueConfig(retention=Retention(...)) says which jobs of a queue are kept, and how long."
        )
    return found


async def job(visit: Visit) -> Response:
    """Show a job."""
    found = await find(visit)
    run = None if found.workflow is None else await visit.client.workflow(found.workflow)
    children = await visit.client.jobs.list(parent=found.id, limit=MOST_CHILDREN, brief=True)
    payloads = visit.access.payloads
    lines = found.lines[-MOST_LINES:] if payloads else ()
    return visit.render(
        "job.html",
        job=found,
        row=row(visit, found, visit.now),
        run=run,
        awaited=await _awaited(visit, found, run),
        timeline=timeline(found),
        payload=shown(visit, found.task, found.payload),
        result=shown(visit, found.task, found.result),
        meta=_meta(visit, found),
        progress_message=said(visit, found.progress_message),
        lines=[(line, said(visit, line.text)) for line in lines],
        unseen_lines=len(found.lines) - len(lines) if payloads else 0,
        children=[row(visit, child, visit.now) for child in children],
        more_children=children.next is not None,
        letter=_letter(found, children),
        actions=_actions(visit, found),
    )


def _actions(visit: Visit, found: Job) -> dict[str, Action]:
    """Return what can be done to a job as it is now."""
    if not visit.can_write:
        return {}
    lost = found.payload is None
    return {
        name: action
        for name, action in ACTIONS.items()
        if found.status in action.states
        and not (name == "retry" and lost)
        and not (name == "cancel" and found.cancelled_at is not None)
        and not (name == "delete" and found.workflow is not None)
        and not (name == "run_now" and (found.waiting or found.due_at <= visit.now))
    }


def _meta(visit: Visit, found: Job) -> Shown:
    return shown(visit, found.task, msgspec.json.encode(found.meta) if found.meta else None)


def _letter(found: Job, children: Sequence[Job]) -> Job | None:
    """Return the dead letter: what was added when the job had failed, and not by its handler before."""
    if found.status is not JobStatus.FAILED or found.finished_at is None:
        return None
    return next((child for child in children if child.created_at >= found.finished_at), None)


# -- its life ---------------------------------------------------------------------------------------


def timeline(found: Job) -> list[Moment]:
    """Return the life of a job so far, and what comes next. Pure."""
    moments = [Moment("Added", found.created_at)]
    errors = found.errors[-MOST_MOMENTS:]
    if len(errors) < len(found.errors):
        moments.append(Moment(f"{len(found.errors) - len(errors)} attempts before these", None, "failed"))
    elif found.due_at > found.created_at and not errors and not found.waiting:
        moments.append(Moment("Due", found.due_at, "scheduled"))
    ended = found.finished_at is not None
    last = errors[-1] if errors else None
    for error in errors:
        if ended and error is last and error.attempt == found.attempt and found.status is JobStatus.FAILED:
            break  # told as its end
        name = f"Attempt {error.attempt} " + ("crashed" if error.crash else "went wrong")
        moments.append(Moment(name, error.finished_at, "failed", error.duration, about=error.type))
    moments += _now(found)
    if ended:
        moments += _end(found)
    return _spaced(moments)


def _now(found: Job) -> list[Moment]:
    """Return where a job is that has not ended, or when its last attempt began."""
    if found.status is JobStatus.PENDING:
        if found.waiting:
            return [Moment("Waits for its turn", None, "waiting")]
        return [Moment("Due again", found.due_at, "scheduled")] if found.errors else []
    moments = []
    if found.started_at is not None:
        moments.append(Moment(f"Attempt {found.attempt} started", found.started_at, "running"))
    if found.cancelled_at is not None and found.started_at is not None:  # else it has ended at once
        moments.append(Moment("Asked to cancel", found.cancelled_at, "cancelled"))
    return moments


def _end(found: Job) -> list[Moment]:
    moments = [Moment(found.status.capitalize(), found.finished_at, found.status, found.duration)]
    if found.expires_at is not None:
        moments.append(Moment("Is kept until", found.expires_at))
    return moments


def _spaced(moments: list[Moment]) -> list[Moment]:
    """Return them in their order, each with the time since the one before it."""
    spaced: list[Moment] = []
    before: datetime | None = None
    for moment in moments:
        gap = None if before is None or moment.at is None else moment.at - before
        after = gap if gap is not None and gap > timedelta() else None
        spaced.append(moment._replace(after=after))
        before = moment.at or before
    return spaced


# -- what it waits for ------------------------------------------------------------------------------


async def _awaited(visit: Visit, found: Job, run: WorkflowRun | None) -> Awaited | None:
    """Return why a job that is pending does not run."""
    if found.status is not JobStatus.PENDING:
        return None
    if found.waiting and run is not None and (steps := _before(run, found.id)):
        links = [
            (step.name or step.task or "step", visit.link("jobs", step.id), str(step.status))
            for step in steps[:MOST_AWAITED]
            if step.id is not None
        ]
        rest = len(steps) - len(links)
        return Awaited(
            "It waits for steps before it" + (f", {rest} more than these:" if rest else ":"), links
        )
    if found.waiting:
        running = await visit.client.jobs.list(
            queue=found.queue, key=found.key, state=["running"], limit=MOST_AWAITED, brief=True
        )
        links = [(one.task, visit.link("jobs", one.id), str(one.status)) for one in running]
        return Awaited(f"It waits for the turn of its key, {found.key}" + (":" if links else "."), links)
    if found.due_at > visit.now:
        return None
    queue = await visit.client.queues.get(found.queue)
    if queue is not None and queue.paused:
        return Awaited("It is due, but its queue is paused.")
    return Awaited("It is due, and runs as soon as a worker is free that handles it.")


def _before(run: WorkflowRun, job_id: str) -> list[StepRun]:
    """Return the steps that a step waits for; behind joins, those that they wait for."""
    steps = {step.number: step for step in run.steps}
    numbers = [number for step in run.steps if step.id == job_id for number in step.after]
    found: list[StepRun] = []
    met: set[int] = set()
    while numbers:
        step = steps.get(number := numbers.pop())
        if step is None or number in met or step.status not in (JobStatus.PENDING, JobStatus.RUNNING):
            continue
        met.add(number)
        if step.kind == "join":
            numbers += step.after
        else:
            found.append(step)
    return sorted(found, key=lambda step: step.number)


ROUTES = (Route("GET", "/jobs/{job_id}", job),)
