"""Queues: how they are doing, one in full, pause and resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from starlette.responses import Response

from ... import Queue
from .._charts import PERIODS, Period, chart, per_minute
from .._times import number, span
from .._visit import NotFound, Route, Visit

__all__ = ["ROUTES", "Row", "Tile", "counted_to", "figures", "notes", "rows", "tiles"]

STATES = {
    state: f"state={state}"
    for state in ("pending", "scheduled", "running", "succeeded", "failed", "cancelled")
} | {"scheduled": "state=pending&due_after=0s"}
"""What is asked of the list of jobs to see those in a state."""

COUNTS, MOST_IN_ALL = (10_000, 5_000, 2_000, 1_000, 500, 200, 100), 50_000
"""To how many jobs of a state are counted: of a queue, of one of very many, and of all together."""

MANY = 10
"""Queues from which on one can look for some by name."""

SHORT = 6
"""Rows of a list on the page of something else."""


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are in a state, and where to see them."""

    state: str
    count: int
    capped: bool
    link: str
    note: str = ""
    at: datetime | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A queue in a table."""

    queue: Queue
    link: str
    tiles: Sequence[Tile]
    rate: str
    limits: Sequence[str]


# -- what is shown of queues ------------------------------------------------------------------------


async def counted_to(visit: Visit) -> int:
    """Return to how many jobs of each state and queue are counted: of many queues fewer, to be quick."""
    known = len({task.queue for task in await visit.client.tasks.list()})
    return next((most for most in COUNTS if most * known <= MOST_IN_ALL), COUNTS[-1])


def tiles(visit: Visit, queues: Sequence[Queue], notes: Mapping[str, str], of: str | None) -> Sequence[Tile]:
    """Return how many jobs of these queues are in each state; `of`: the one queue that is meant."""
    jobs = visit.link("jobs", queue=of) + ("?" if of is None else "&")
    return [
        Tile(
            state=state,
            count=sum(getattr(queue, state) for queue in queues),
            capped=any(state in queue.capped for queue in queues),
            link=jobs + asked,
            note=notes.get(state, ""),
            at=oldest_due(visit, queues) if state == "pending" else None,
        )
        for state, asked in STATES.items()
    ]


def notes(queues: Sequence[Queue]) -> dict[str, str]:
    """Return what else is said of jobs in a state."""
    ended = {
        name: f"{number(sum(getattr(queue.today, name) for queue in queues))} in 24 h"
        for name in ("succeeded", "failed", "cancelled")
    }
    held = sum(queue.waiting for queue in queues)
    most = [queue.limits["global_concurrency"] for queue in queues if "global_concurrency" in queue.limits]
    return ended | {
        "pending": f"{number(held)} held up" if held else "none is due",
        "scheduled": "for later",
        "running": f"of {most[0]} at most" if most and len(queues) == 1 else "",
    }


def oldest_due(visit: Visit, queues: Iterable[Queue]) -> datetime | None:
    """Return since when the oldest job is due that waits; in whole seconds, so that it stays the same."""
    ages = [queue.oldest_due for queue in queues if queue.oldest_due is not None]
    if not ages:
        return None
    return (visit.now - max(ages)).replace(microsecond=0)


def rows(visit: Visit, queues: Iterable[Queue]) -> Sequence[Row]:
    """Return what tables show of queues."""
    return [
        Row(
            queue=queue,
            link=visit.link("queues", queue.name),
            tiles=tiles(visit, [queue], {}, queue.name),
            rate=per_minute(queue.recent),
            limits=limits(queue.limits),
        )
        for queue in queues
    ]


def limits(declared: Mapping[str, Any]) -> Sequence[str]:
    """Return a queue's limits in words, as whoever declared it last has said."""
    words = {
        "concurrency": "{} at once in a process",
        "global_concurrency": "{} at once in all processes",
        "concurrency_per_key": "{} at once of a key",
    }
    said = [text.format(declared[name]) for name, text in words.items() if name in declared]
    rate = declared.get("rate")
    if isinstance(rate, dict):
        said.append(f"{rate.get('count')} starts in {_span(rate.get('per'))}")
    return said


def rules(declared: Mapping[str, Any]) -> Sequence[str]:
    """Return what else was declared of a queue, in words."""
    said = []
    if "max_attempts" in declared:
        said.append(f"{declared['max_attempts']} attempt{'s' * (declared['max_attempts'] != 1)}")
    if "timeout" in declared:
        said.append(f"{_span(declared['timeout'])} each")
    if "dead_letter" in declared:
        said.append(f"{declared['dead_letter']} for each that fails for good")
    return said


def _span(seconds: object) -> str:
    whole = int(seconds) if isinstance(seconds, float) and seconds.is_integer() else seconds
    return span(whole) if isinstance(whole, (int, float)) else str(whole)


def period_of(visit: Visit) -> Period:
    """Return the time for which the page is asked to show figures."""
    return PERIODS[visit.query.choice("last", tuple(PERIODS), "hour")]


async def figures(visit: Visit, queue: str | None) -> dict[str, Any]:
    """Return what templates need of a time: of one queue, or all together."""
    period = period_of(visit)
    series = await visit.client.queues.series(queue, last=period.last, step=period.step)
    stats = await visit.client.queues.stats(queue, last=period.last)
    of = "all queues" if queue is None else f"queue {queue}"
    return {"period": period, "periods": PERIODS.values(), "chart": chart(series, period, of), "stats": stats}


# -- pages ------------------------------------------------------------------------------------------


async def queues(visit: Visit) -> Response:
    """Show all queues, or those in whose name a text is."""
    text = visit.query.get("text")
    most = await counted_to(visit)
    known = await visit.client.queues.list(most=most, times=False)
    found = [queue for queue in known if text.lower() in queue.name.lower()]
    return visit.render(
        "queues.html",
        rows=rows(visit, found),
        text=text,
        many=len(known) > MANY or bool(text),
        all=len(known),
        most=most,
    )


async def queue(visit: Visit) -> Response:
    """Show one queue."""
    found = await _found(visit)
    client, name = visit.client, found.name
    return visit.render(
        "queue.html",
        row=rows(visit, [found])[0],
        tiles=tiles(visit, [found], notes([found]), name),
        tasks=[task for task in await client.tasks.list() if task.queue == name],
        failed=await client.jobs.list(queue=name, state="failed", limit=SHORT, brief=True),
        running=await client.jobs.list(queue=name, state="running", limit=SHORT, brief=True),
        rules=rules(found.limits),
        **await figures(visit, name),
    )


async def pause(visit: Visit) -> Response:
    """Start nothing more of a queue."""
    form, found = await visit.form(), await _found(visit)
    visit.audit("pause", queue=found.name)
    await visit.client.pause(found.name)
    return visit.done(visit.checked_back(form.raw("back")), "paused", int(not found.paused))


async def resume(visit: Visit) -> Response:
    """Let a queue go on."""
    form, found = await visit.form(), await _found(visit)
    visit.audit("resume", queue=found.name)
    await visit.client.resume(found.name)
    return visit.done(visit.checked_back(form.raw("back")), "resumed", int(found.paused))


async def _found(visit: Visit) -> Queue:
    name = visit.params["queue"]
    found = await visit.client.queues.get(name)
    if found is None:
        raise NotFound(f"There is no queue {name!r}: no jobs, and no code that declares it.")
    return found


ROUTES = (
    Route("GET", "/queues", queues),
    Route("GET", "/queues/{queue}", queue),
    Route("POST", "/queues/{queue}/pause", pause, "write"),
    Route("POST", "/queues/{queue}/resume", resume, "write"),
)
