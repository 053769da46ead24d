"""Workflows: lists, and each drawn as what it is, a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import east_asian_width

from starlette.responses import Response

from ... import InvalidValue, JobStatus, StepRun, WorkflowRun
from .._forms import Fields
from .._layout import Box, Drawing, Spot, layout
from .._visit import NotFound, Route, Visit

__all__ = ["ROUTES", "shortened", "word"]

STATES = ("pending", "running", "succeeded", "failed", "cancelled")

MOST_DRAWN, MOST_LINES = 300, 1_000
"""Beyond these a drawing tells nothing more than a table does."""

ROWS = 300
"""Steps in the table, of one page."""

MOST_BEFORE = 3
"""What a step comes after is named up to so many."""

SINKS = 12
"""A callback is drawn behind all ends of the graph, if there are no more of them."""

QUESTIONS = {
    "cancel": (
        "Cancel this workflow?",
        "Steps that have not begun end at once; those that run are told to stop.",
    ),
    "delete": (
        "Delete this workflow?",
        "It is removed with all its jobs, their results, errors and log lines. This cannot be undone.",
    ),
}

ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


class Node(NamedTuple):
    """A node as it is drawn."""

    step: StepRun
    box: Box
    state: str
    title: str
    detail: str


class Edge(NamedTuple):
    """A line as it is drawn: its path, and what kind it is."""

    path: str
    kind: str


def word(step: StepRun, waits: bool = False) -> str:
    """Return the state of a step in a word, and so its colour; `waits`: something before it has not ended."""
    if step.skipped:
        return "skipped"
    if step.status != JobStatus.PENDING:
        return str(step.status)
    if waits or step.kind == "join":
        return "waiting"
    return "retrying" if step.attempt else "pending"


def shortened(text: str, most: int = 20) -> str:
    """Return the beginning of a text, at most so wide; wide characters count twice."""
    width = 0
    for place, character in enumerate(text):
        width += 2 if east_asian_width(character) in "WF" else 1
        if width > most:
            return text[: max(place - 1, 0)] + "…"
    return text


def states(steps: Sequence[StepRun]) -> dict[int, str]:
    """Return the states of steps in words, by number."""
    ended = {step.number: step.status in ENDED for step in steps}
    return {
        step.number: word(step, not all(ended.get(before, True) for before in step.after)) for step in steps
    }


def drawable(run: WorkflowRun) -> bool:
    """Say whether a drawing of it can be read."""
    return 0 < len(run.steps) <= MOST_DRAWN and sum(len(step.after) for step in run.steps) <= MOST_LINES


def spots(steps: Sequence[StepRun]) -> tuple[Spot, ...]:
    """Return what is to be placed. Callbacks come behind the ends, as they come when all have ended."""
    followed = {before for step in steps for before in step.after}
    ends = tuple(step.number for step in steps if step.kind != "callback" and step.number not in followed)
    behind = ends if len(ends) <= SINKS else ends[:1]
    return tuple(
        Spot(
            step.number,
            behind if step.kind == "callback" and not step.after else step.after,
            step.kind == "join",
        )
        for step in steps
    )


def drawn(run: WorkflowRun, words: dict[int, str]) -> tuple[Drawing, list[Node], list[Edge]]:
    """Return a drawing of a workflow: its size, its nodes and its lines."""
    drawing = layout(spots(run.steps))
    steps = {step.number: step for step in run.steps}
    nodes = [
        Node(step, drawing.boxes[step.number], words[step.number], *_labels(step, words[step.number]))
        for step in run.steps
    ]
    return drawing, nodes, [Edge(line.path, steps[line.number].kind) for line in drawing.lines]


def _labels(step: StepRun, state: str) -> tuple[str, str]:
    title = step.name or step.task or ""
    details: list[str] = [] if step.kind == "step" else [step.kind]
    if step.name and step.task and step.task != step.name:
        details.append(step.task)
    return shortened(title, 19), shortened(" · ".join(details), 20 - len(state))


# -- pages ---------------------------------------------------------------------------------------------


async def workflows(visit: Visit) -> Response:
    """List workflows, the newest first."""
    state = visit.query.choice("state", ("", *STATES), "")
    size = visit.settings.page_size
    before = visit.query.get("before") or None
    found = await visit.client.workflows.list(state=state or None, limit=size + 1, before=before)
    following = found[size - 1].id if len(found) > size else None
    return visit.render(
        "workflows.html", runs=found[:size], state=state, states=STATES, before=before, following=following
    )


async def _found(visit: Visit) -> WorkflowRun:
    """Return the workflow that is meant."""
    workflow_id = visit.params["workflow_id"]
    try:
        run = await visit.client.workflows.get(workflow_id)
    except InvalidValue:
        run = None
    if run is None:
        raise NotFound(
            f"There is no workflow {workflow_id[:200]!r}. If it has ended, its retention may have, too."
        )
    return run


async def workflow(visit: Visit) -> Response:
    """Show a workflow: its graph, and its steps."""
    run = await _found(visit)
    words = states(run.steps)
    first = visit.query.whole("from", 0, 0, 1_000_000)
    rows = run.steps[first : first + ROWS]
    before = {number for step in rows for number in step.after[:MOST_BEFORE]}
    names = {step.number: step.name or step.task or "join" for step in run.steps if step.number in before}
    return visit.render(
        "workflow.html",
        run=run,
        words=words,
        names=names,
        counts=Counter(words[step.number] for step in run.steps if step.kind != "join"),
        drawing=drawn(run, words) if drawable(run) else None,
        first=first,
        rows=rows,
        most=ROWS,
        most_before=MOST_BEFORE,
        mermaid=run.mermaid() if drawable(run) else None,
        can_retry=any(step.status in ("failed", "cancelled") and not step.skipped for step in run.steps),
        can_cancel=any(step.status not in ENDED and step.id is not None for step in run.steps),
        can_delete=not any(step.status == JobStatus.RUNNING for step in run.steps),
    )


# -- actions -------------------------------------------------------------------------------------------


async def retry(visit: Visit) -> Response:
    """Run what has failed or was cancelled again."""
    run = await _found(visit)
    form = await visit.form()
    visit.audit("retry_workflow", ids=[run.id], count=1)
    done = await visit.client.workflows.retry(run.id)
    return visit.done(_back(visit, run, form), "retried", done)


async def cancel(visit: Visit) -> Response:
    """Cancel what has not ended, after having asked."""
    run = await _found(visit)
    form = await visit.form()
    if form.get("confirmed") != "1":
        return _confirm(visit, run, form, "cancel")
    visit.audit("cancel_workflow", ids=[run.id], count=1)
    done = await visit.client.workflows.cancel(run.id)
    return visit.done(_back(visit, run, form), "cancelled", done)


async def delete(visit: Visit) -> Response:
    """Remove it with all its jobs, after having asked."""
    run = await _found(visit)
    form = await visit.form()
    if form.get("confirmed") != "1":
        return _confirm(visit, run, form, "delete")
    visit.audit("delete_workflow", ids=[run.id], count=1)
    done = await visit.client.workflows.delete(run.id)
    back = visit.link("workflows") if done else visit.link("workflows", run.id)
    return visit.done(back, "deleted", done)


def _back(visit: Visit, run: WorkflowRun, form: Fields) -> str:
    """Return where the form was; the page of the workflow, where it does not say."""
    back = form.raw("back")
    return visit.link("workflows", run.id) if back is None else visit.checked_back(back)


def _confirm(visit: Visit, run: WorkflowRun, form: Fields, verb: str) -> Response:
    question, text = QUESTIONS[verb]
    return visit.render(
        "confirm.html",
        question=question,
        text=[text],
        items=[{"href": visit.link("workflows", run.id), "name": run.name or run.id, "state": run.status}],
        more=False,
        warning=None,
        action=visit.link("workflows", run.id, verb),
        fields=[],
        back=_back(visit, run, form),
        possible=True,
        danger=True,
        label=question.rstrip("?"),
    )


ROUTES = (
    Route("GET", "/workflows", workflows),
    Route("GET", "/workflows/{workflow_id}", workflow),
    Route("POST", "/workflows/{workflow_id}/retry", retry, "write"),
    Route("POST", "/workflows/{workflow_id}/cancel", cancel, "write"),
    Route("POST", "/workflows/{workflow_id}/delete", delete, "write"),
)
