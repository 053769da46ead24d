"""What follows from the steps of workflows: one algorithm for all stores, over what each keeps of them.

A step is *blocked* by so many steps before it that have not ended as it wants: each that succeeds, or fails
or is cancelled with `if_failed` "continue", unblocks what comes after it, once; any other end *skips* that,
and so what comes after that. Every function here is called inside the transaction that changes the jobs,
and only for changes that were accepted: so nothing is released twice, and nothing is forgotten.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from .._graph import CONTINUE, FOR_EVER, NewStep, follow_up_id
from .._job import Keep, More, NewJob
from ._flow_rows import CANCELLED, FAILED, SKIPPED, SUCCEEDED, End, Flow, FlowRows, Step
from ._service import WATCHED_FOR

__all__ = [
    "CANCELLED",
    "FAILED",
    "SKIPPED",
    "SUCCEEDED",
    "End",
    "Flow",
    "FlowRows",
    "Step",
    "cancel_flow",
    "delete_flow",
    "ended",
    "extend",
    "retention",
    "revive",
]


def retention(keep: Keep | None, ended_at: int) -> int:
    """Return for how many milliseconds a job is kept by its outcome."""
    if keep is None:
        return 0
    return FOR_EVER if keep.until is None else max(keep.until - ended_at, 0)


def ended(rows: FlowRows, ends: Sequence[End]) -> bool:
    """Do what follows from the ends of steps; return whether somebody waits for what has ended by that."""
    heard = False
    by_flow: dict[str, dict[int, End]] = {}
    for end in ends:
        by_flow.setdefault(end.workflow, {})[end.step] = end
    for workflow, of_flow in by_flow.items():
        flow = rows.flow(workflow)
        if flow is None:
            continue
        at = max(end.at for end in of_flow.values())
        flow.keep_for = max(flow.keep_for, *(end.keep_for for end in of_flow.values()))
        _spread(rows, flow, of_flow, at)
        heard |= _settle(rows, flow, at)
        rows.put(flow)
    return heard


class _Reached(NamedTuple):
    """Jobs that the ends of steps have reached: those that can run, and those that will not, with reasons."""

    released: list[str]
    skipped: list[tuple[str, str]]


def _spread(
    rows: FlowRows, flow: Flow, ends: Mapping[int, End], at: int, reached: _Reached | None = None
) -> None:
    """Let the ends of steps reach what comes after them, wave by wave, and then the jobs of that."""
    wave = {number: end.status for number, end in ends.items()}
    reached = reached or _Reached([], [])
    while wave:
        barred: dict[int, Step] = {}
        succeeded = [number for number, status in wave.items() if status == SUCCEEDED]
        count, freed = rows.succeed(flow.id, succeeded)
        flow.left -= count
        steps = rows.steps(flow.id, wave.keys() - set(succeeded))
        steps = [step for step in steps if step.status is None]
        for step in steps:
            step.status = wave[step.number]
            flow.left -= 1
            end = ends.get(step.number)
            step.strip = end is not None and not end.keeps_payload
            if step.frees:
                freed.update(step.next)
            else:
                barred.update((number, step) for number in step.next if number not in barred)
            if end is not None and step.status == FAILED and step.fallback is not None:
                _fall_back(rows, flow, step, end)
        rows.put_steps(flow.id, steps)
        wave = _reach(rows, flow, freed, barred, reached)
    if reached.released:
        rows.release(reached.released, at)
    if reached.skipped:
        flow.keep_for = max(flow.keep_for, rows.skip(reached.skipped, at))


def _reach(
    rows: FlowRows, flow: Flow, freed: Counter[int], barred: Mapping[int, Step], reached: _Reached
) -> dict[int, str]:
    """Unblock or skip what comes after steps that have ended; return the nodes that end by that."""
    wave: dict[int, str] = {}
    waiting = rows.waiting(flow.id, freed.keys() | barred.keys())
    for step in waiting:
        if step.number in barred:
            wave[step.number] = SKIPPED
            if step.job_id is not None:
                reached.skipped.append((step.job_id, _reason(barred[step.number])))
            continue
        step.blocked = max(step.blocked - freed[step.number], 0)
        if step.blocked == 0:
            if step.job_id is None:
                wave[step.number] = SUCCEEDED
            else:
                reached.released.append(step.job_id)
    rows.put_steps(flow.id, waiting)
    return wave


def _reason(step: Step) -> str:
    """Return why what comes after a step is skipped."""
    which = "one before it" if step.job_id is None else repr(step.name) if step.name else f"job {step.job_id}"
    how = {FAILED: "has failed", CANCELLED: "was cancelled"}.get(str(step.status), "was skipped")
    return f"skipped: {which} {how}"


def _fall_back(rows: FlowRows, flow: Flow, step: Step, end: End) -> None:
    """Add the task that is to run as a step has failed, unless the whole was cancelled."""
    if step.fallback is not None and step.job_id is not None and flow.cancelled_at is None:
        job_id = follow_up_id(step.job_id, end.fence, "fallback")
        _add(
            rows,
            flow,
            step.fallback,
            job_id,
            kind="fallback",
            at=end.at,
            parent=step.job_id,
            after=(step.number,),
        )


def _add(
    rows: FlowRows,
    flow: Flow,
    job: NewJob,
    job_id: str,
    *,
    kind: str,
    at: int,
    parent: str | None,
    after: tuple[int, ...] = (),
) -> None:
    """Add a node that nothing comes after, whose job is due at once."""
    more = msgspec.structs.replace(
        job.more or More(), workflow=flow.id, step=flow.size, blocked=False, parent=parent
    )
    made = msgspec.structs.replace(job, id=job_id, created_at=at, due_at=at, waits_from=at, more=more)
    node = Step(
        number=flow.size,
        kind=kind,
        job_id=job_id,
        name=None,
        status=None,
        blocked=0,
        if_failed=CONTINUE,
        next=(),
    )
    flow.size += 1
    flow.left += 1
    rows.add_steps(flow.id, [(node, after)])
    rows.add_jobs([made])


def _settle(rows: FlowRows, flow: Flow, at: int) -> bool:
    """Where nothing is left of a workflow, end it, then its callbacks; return whether anybody hears of it."""
    heard = False
    if flow.left == 0 and flow.status is None:
        flow.status, flow.finished_at = _state(rows, flow), at
        flow.ends += 1
        heard = rows.watched(flow.id)
        called = flow.on_success if flow.status == SUCCEEDED else flow.on_failure
        for which, job in (("then", called), ("complete", flow.on_complete)):
            if job is not None:
                _add(
                    rows,
                    flow,
                    job,
                    follow_up_id(flow.id, flow.ends, which),
                    kind="callback",
                    at=at,
                    parent=None,
                )
    if flow.left == 0:
        heard = heard or rows.watched(flow.id)
        keep_for = max(flow.keep_for, WATCHED_FOR) if heard else flow.keep_for
        if keep_for == 0:
            rows.remove(flow.id)
        else:
            flow.expires_at = None if keep_for >= FOR_EVER else at + keep_for
            rows.close(flow.id, flow.expires_at)
    return heard


def _state(rows: FlowRows, flow: Flow) -> str:
    """Return how a workflow has ended."""
    found = {
        (status, tolerated == CONTINUE)
        for kind, status, tolerated in rows.outcomes(flow.id)
        if kind == "step"
    }
    if (FAILED, False) in found:
        return FAILED
    by_hand = flow.cancelled_at is not None and bool({(CANCELLED, True), (SKIPPED, True)} & found)
    if by_hand or (CANCELLED, False) in found or (SKIPPED, False) in found:
        return CANCELLED
    return SUCCEEDED


def extend(rows: FlowRows, workflow: str, steps: Sequence[NewStep], at: int) -> None:
    """Add nodes to a workflow, from a step that has not ended yet; to none that was cancelled."""
    flow = rows.flow(workflow)
    if flow is None or flow.cancelled_at is not None or not steps:
        return
    base = flow.size
    afters = [tuple(n if n >= 0 else base - 1 - n for n in step.after) for step in steps]
    earlier = rows.steps(workflow, {n for after in afters for n in after if n < base})
    nodes = {step.number: step for step in earlier}
    added: list[Step] = []
    ending: dict[int, str] = {}
    following: defaultdict[int, list[int]] = defaultdict(list)
    for number, (new, after) in enumerate(zip(steps, afters, strict=True), base):
        name = new.name if new.name is None or not rows.named(workflow, new.name) else None
        job_id = None if new.job is None else new.job.id
        kind = "join" if job_id is None else "step"
        blocked = sum(not nodes[before].frees for before in after)
        node = Step(number, kind, job_id, name, None, blocked, new.if_failed, (), new.fallback)
        added.append(node)
        nodes[number] = node
        for before in after:
            following[before].append(number)
        if not blocked and job_id is None:
            ending[number] = SUCCEEDED
    for number, numbers in following.items():
        nodes[number].next = (*nodes[number].next, *numbers)
    flow.size += len(added)
    flow.left += len(added)
    rows.put_next(workflow, earlier)
    rows.add_steps(workflow, list(zip(added, afters, strict=True)))
    rows.add_jobs([_placed(new.job, flow, node) for new, node in zip(steps, added, strict=True) if new.job])
    barred = {n: step for step in earlier if step.bars for n in step.next if n >= base}
    reached = _Reached([], [])
    ending |= _reach(rows, flow, Counter(), barred, reached)
    ends = {n: End(flow.id, n, status, at, None, 0, True) for n, status in ending.items()}
    _spread(rows, flow, ends, at, reached)
    rows.put(flow)


def _placed(job: NewJob, flow: Flow, node: Step) -> NewJob:
    """Return the job of a node that extends a workflow, which knows its place."""
    more = msgspec.structs.replace(
        job.more or More(), workflow=flow.id, step=node.number, blocked=node.blocked > 0
    )
    return msgspec.structs.replace(job, more=more)


def revive(rows: FlowRows, again: Sequence[tuple[str, int]]) -> None:
    """Take note that completed steps run again; what was skipped because of them waits for them again."""
    by_flow: dict[str, set[int]] = {}
    for workflow, number in again:
        by_flow.setdefault(workflow, set()).add(number)
    for workflow, numbers in by_flow.items():
        flow = rows.flow(workflow)
        if flow is None:
            continue
        nodes = {step.number: step for step in rows.steps(workflow, range(flow.size))}
        steps = [nodes[number] for number in sorted(numbers) if nodes[number].status is not None]
        if any(step.kind == "step" for step in steps):
            flow.status = flow.finished_at = flow.cancelled_at = None
        flow.expires_at = None
        rows.reopen(workflow)
        _run_again(rows, flow, nodes, steps)
        rows.put(flow)


def _run_again(rows: FlowRows, flow: Flow, nodes: Mapping[int, Step], steps: Sequence[Step]) -> None:
    """Let nodes run again, each after those before it that have not ended, whatever became of the others."""
    before: dict[int, list[Step]] = {number: [] for number in nodes}
    for step in nodes.values():
        for number in step.next:
            before[number].append(step)
    revived = list(steps)
    wave = revived
    while wave:
        for step in wave:
            step.status, step.strip = None, False
            flow.left += 1
        after = sorted({number for step in wave for number in step.next})
        wave = _revived(rows, [nodes[n] for n in after if not any(earlier.bars for earlier in before[n])])
        revived += wave
    touched = {step.number for step in revived}
    touched.update(
        n for step in revived for n in step.next if nodes[n].status is None and nodes[n].blocked > 0
    )
    for number in touched:
        nodes[number].blocked = sum(earlier.status is None for earlier in before[number])
    rows.put_steps(flow.id, [nodes[number] for number in sorted(touched)])
    rows.block([step.job_id for step in steps if step.blocked and step.job_id is not None])


def _revived(rows: FlowRows, steps: Sequence[Step]) -> list[Step]:
    """Block what was skipped of nodes that nothing bars any more; return what can run."""
    skipped = [step for step in steps if step.status == SKIPPED]
    can_run = rows.block([step.job_id for step in skipped if step.job_id is not None])
    return [step for step in skipped if step.job_id is None or step.job_id in can_run]


def cancel_flow(rows: FlowRows, workflow: str, at: int) -> tuple[list[str], list[str], bool]:
    """Cancel all of a workflow that has not ended.

    Returns the ids of jobs that have ended by that, of those that were asked to, and whether somebody waits
    for what has ended.
    """
    flow = rows.flow(workflow)
    if flow is None:
        return [], [], False
    if flow.status is None and flow.cancelled_at is None:
        flow.cancelled_at = at
    live = rows.live_steps(workflow)
    if not live:
        return [], [], False
    jobs = [step.job_id for step in live if step.job_id is not None]
    done, keep_for = rows.cancel(jobs, at)
    flow.keep_for = max(flow.keep_for, keep_for)
    over = [step for step in live if step.job_id is None or step.job_id in done]
    for step in over:
        step.status = SKIPPED if step.job_id is None else CANCELLED
        flow.left -= 1
    rows.put_steps(workflow, over)
    heard = _settle(rows, flow, at)
    rows.put(flow)
    return [job for job in jobs if job in done], [job for job in jobs if job not in done], heard


def delete_flow(rows: FlowRows, workflow: str) -> bool:
    """Remove a workflow with all of its jobs, unless one of them runs; return whether it was."""
    if rows.flow(workflow) is None or rows.runs(workflow):
        return False
    rows.remove(workflow)
    return True
