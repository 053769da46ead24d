"""`backlite workflow`: list, show as a tree, cancel, retry, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from .. import Client, JobStatus, StepRun, WorkflowRun
from ._base import Group, NothingFound, command, with_client
from ._filters import STATE
from ._output import Output, ago, instant, state
from ._shown import percent

__all__ = ["tree", "workflow"]

workflow = Group("workflow", help="List workflows and show their steps; cancel, retry, delete.")
COLUMNS = ("id", "state", "name", ">done", ">steps", "made", "finished")
DROP = ("made", ">steps", "finished", ">done")
MOST_LINES, MOST_NAMED = 500, 5
"""Steps that a person is shown, and those before one that are named in its line."""


@command(workflow, "list", "backlite workflow list --state failed")
@click.option("--state", "states", type=STATE, multiple=True, help="In this state; several may be given.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--before", metavar="ID", help="Go on behind the last one of another page.")
@with_client
async def list_workflows(
    client: Client, out: Output, *, states: tuple[str, ...], limit: int, before: str | None
) -> None:
    """List workflows, the last one that was made first."""
    found = await client.workflows.list(state=states or None, limit=limit, before=before)
    now = datetime.now(UTC)
    if out.as_json:
        for run in found:
            out.data(_data(run))
    elif found:
        out.table([_row(run, now) for run in found], COLUMNS, DROP)
    else:
        out.say("no workflow matches")
    if len(found) == limit:
        out.say(f"there may be more: --before {found[-1].id}")


def _data(run: WorkflowRun) -> dict[str, Any]:
    names = run.__struct_fields__
    return {name: getattr(run, name) for name in names if name != "steps"} | {"progress": run.progress}


def _row(run: WorkflowRun, now: datetime) -> Sequence[str]:
    return (
        run.id,
        state(str(run.status)),
        run.name or "-",
        percent(run.progress),
        str(run.size),
        ago(run.created_at, now),
        ago(run.finished_at, now),
    )


@command(workflow, "show", "backlite workflow show 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11 --mermaid")
@click.argument("workflow_id", metavar="ID")
@click.option("--mermaid", is_flag=True, help="The graph as Mermaid text.")
@with_client
async def show(client: Client, out: Output, *, workflow_id: str, mermaid: bool) -> None:
    """Show a workflow: its steps with their states, below the last one that each comes after."""
    run = await find(client, workflow_id)
    if mermaid:
        out.answer({"id": run.id, "mermaid": run.mermaid()}, run.mermaid())
    elif out.as_json:
        out.data({**_data(run), "steps": run.steps, "edges": run.edges})
    else:
        out.pairs(
            [
                ("workflow", run.id),
                ("name", run.name or ""),
                ("state", state(str(run.status))),
                ("made", instant(run.created_at)),
                ("finished", instant(run.finished_at)),
                ("done", f"{percent(run.progress)} of {run.size}"),
            ]
        )
        out.heading("steps")
        for line in tree(run.steps):
            out.text(line)


def tree(steps: Sequence[StepRun], most: int = MOST_LINES) -> Iterator[str]:
    """Yield a line for each step, below the last one that it comes after; others before it are named."""
    below: dict[int | None, list[StepRun]] = {}
    for step in steps:
        below.setdefault(max(step.after, default=None), []).append(step)
    waiting = [(step, "", "") for step in reversed(below.get(None, []))]
    for number in range(len(steps)):
        if number == most:
            yield f"... and {len(steps) - most} more; --json has all"
            return
        step, branch, indent = waiting.pop()
        yield f"{branch}{_line(step)}"
        inner = below.get(step.number, [])
        for child in reversed(inner):
            branch_of, indent_of = ("└─ ", "   ") if child is inner[-1] else ("├─ ", "│  ")
            waiting.append((child, indent + branch_of, indent + indent_of))


def _line(step: StepRun) -> str:
    before = sorted(step.after)[:-1]  # the last one is the line above
    also = [*map(str, before[:MOST_NAMED])]
    if len(before) > MOST_NAMED:
        also.append(f"{len(before) - MOST_NAMED:,} more")
    said = [f"{step.number}", step.task or step.kind, repr(step.name) if step.name else ""]
    said += ["skipped" if step.skipped else str(step.status), percent(step.progress)]
    said += [f"({step.kind})" if step.kind in ("fallback", "callback") else ""]
    said += [f"also after {', '.join(also)}" if also else "", step.id or ""]
    line = "  ".join(word for word in said if word)
    return f"{line}  {(step.error.splitlines() or [''])[0]}" if step.error else line


async def find(client: Client, workflow_id: str) -> WorkflowRun:
    """Return a workflow, or say that there is none."""
    run = await client.workflows.get(workflow_id)
    if run is None:
        there = await client.status(workflow_id) is not JobStatus.NOT_FOUND
        hint = f" It is a job: backlite jobs show {workflow_id}" if there else ""
        raise NothingFound(f"there is no workflow {workflow_id!r}, or it is no longer kept.{hint}")
    return run


# -- steering ------------------------------------------------------------------------------------------


async def _each(
    client: Client,
    out: Output,
    ids: Sequence[str],
    action: tuple[str, str],
    act: Callable[..., Awaitable[int]],
) -> int:
    code = 0
    name, past = action
    for workflow_id in dict.fromkeys(ids):
        there = await client.workflows.get(workflow_id)
        done = there is not None and bool(await act(workflow_id))
        if out.as_json:
            out.data({"id": workflow_id, "action": name, "done": done})
        elif done:
            out.text(f"{workflow_id}: {past}")
        if there is None:
            out.say(f"workflow {workflow_id}: there is none, or it is no longer kept")
            code = 3
        elif not done:
            out.say(f"workflow {workflow_id} is {there.status}: it cannot be {past}")
            code = code or 1
    return code


@command(workflow, "cancel", "backlite workflow cancel 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_client
async def cancel(client: Client, out: Output, *, ids: tuple[str, ...]) -> int:
    """Cancel all steps of workflows that have not ended."""
    return await _each(client, out, ids, ("cancel", "cancelled"), client.workflows.cancel)


@command(workflow, "retry", "backlite workflow retry 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_client
async def retry(client: Client, out: Output, *, ids: tuple[str, ...]) -> int:
    """Run the failed and cancelled steps of workflows again, and what they had held up."""
    return await _each(client, out, ids, ("retry", "retried"), client.workflows.retry)


@command(workflow, "delete", "backlite workflow delete 0198c2f0-5b1e-7c55-8d3e-2f6b1c0a9d11")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_client
async def delete(client: Client, out: Output, *, ids: tuple[str, ...]) -> int:
    """Remove workflows with all their jobs, if none of these runs."""
    return await _each(client, out, ids, ("delete", "deleted"), client.workflows.delete)
