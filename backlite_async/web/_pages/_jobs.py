"""Lists of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from starlette.responses import Response

from ... import Count, InvalidType, InvalidValue, Job, JobPage, JobStatus
from .._asked import FIELDS, SCHEDULED, STATES, Asked, asked
from .._forms import BadRequest
from .._redact import glance
from .._times import number
from .._visit import NOTICE, Route, Visit
from ._actions import check_text, fitting

__all__ = ["ROUTES", "Row", "row"]

COUNTED = 1_000
"""Jobs that are counted of each state: a list is looked at every two seconds."""

LABELS = {
    "running": "Running",
    "pending": "Upcoming",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
MORE = ("tag", "key", "parent", "owner", "workflow", "added_after", "added_before", "due_after", "due_before",
        "finished_after", "finished_before")  # fmt: skip
"""Filters that are behind "More filters"."""


KNOWN = frozenset({*FIELDS, *NOTICE, "after", "before"})
"""What an address may say: a filter that is not known would show more jobs than are meant, to act on."""


class Tab(NamedTuple):
    """A state of jobs to look at; `counted`: how many, as text; empty where it takes long to count."""

    label: str
    href: str
    current: bool
    counted: str


class Row(NamedTuple):
    """A job in a list: in what state it is, in a word and in more, and what else is worth a look."""

    job: Job
    state: str
    more: str
    about: str


async def jobs(visit: Visit) -> Response:
    """Show the jobs that match."""
    now = visit.now
    try:
        if odd := [name for name, _ in visit.query.pairs if name not in KNOWN]:
            raise BadRequest(f"{odd[0][:40]}= is no filter of jobs; there are {', '.join(FIELDS)}")
        meant = asked(visit.query, now)
        check_text(visit, meant)
        page = await visit.client.jobs.list(
            limit=visit.settings.page_size,
            after=visit.query.raw("after") or None,
            before=visit.query.raw("before") or None,
            brief=True,
            **meant.filters,
        )
    except (BadRequest, InvalidValue, InvalidType) as error:
        return await _explain(visit, str(error))
    tabs = await _tabs(visit, meant)
    return await _render(
        visit, meant.fields, rows=[row(visit, job, now) for job in page], page=page, tabs=tabs
    )


async def _explain(visit: Visit, wrong: str) -> Response:
    """Say what is wrong with the question, with all that was asked, so that it can be put right."""
    sent: dict[str, Any] = {name: visit.query.raw(name) for name in FIELDS if visit.query.raw(name)}
    sent.pop("state", None)
    is_cursor = wrong.startswith(("after=", "before="))
    if is_cursor:
        wrong = "This is no place in the list of these jobs: " + wrong.partition("; ")[0] + "."
    return await _render(visit, sent, wrong=wrong, is_cursor=is_cursor, status=400)


async def _render(
    visit: Visit,
    sent: Mapping[str, Any],
    *,
    rows: list[Row] | None = None,
    page: JobPage | None = None,
    tabs: list[Tab] | None = None,
    wrong: str = "",
    is_cursor: bool = False,
    status: int = 200,
) -> Response:
    known = await visit.client.tasks.list()
    states = ["pending"] if sent.get("state") == [SCHEDULED] else sent.get("state", STATES)
    return visit.render(
        "jobs.html",
        status=status,
        rows=rows or [],
        page=JobPage() if page is None else page,
        tabs=tabs or [],
        sent=sent,
        more=[name for name in MORE if sent.get(name)],
        actions=fitting(states) if visit.can_write else {},
        queues=sorted({task.queue for task in known}),
        tasks=sorted({task.name for task in known}),
        matches=_matches(tabs or []),
        wrong=wrong,
        is_cursor=is_cursor,
    )


def _matches(tabs: list[Tab]) -> str:
    """Return how many jobs match, as text; empty where nobody has counted."""
    return next((tab.counted for tab in tabs if tab.current), "")


async def _tabs(visit: Visit, meant: Asked) -> list[Tab]:
    """Return the states to choose from, with how many of the jobs that are meant are in each."""
    chosen = meant.fields.get("state", [])
    whatever = {name: value for name, value in meant.filters.items() if name in meant.fields}
    counts = {}
    if not meant.is_looked_for:
        for state in STATES:
            counts[state] = await _count(visit, whatever | {"state": [JobStatus(state)]})
    tabs = [Tab("All", _href(visit, None), not chosen, _total(list(counts.values())))]
    for state in STATES:
        count = "" if state not in counts else _total([counts[state]])
        tabs.append(Tab(LABELS[state], _href(visit, state), chosen == [state], count))
    if not any(tab.current for tab in tabs):
        count = _total([await _count(visit, meant.filters)] if counts else [])
        tabs.append(Tab(" or ".join(chosen).capitalize(), visit.here(), True, count))
    return tabs


async def _count(visit: Visit, filters: Mapping[str, Any]) -> Count:
    return await visit.client.jobs.count(most=COUNTED, **filters)


def _href(visit: Visit, state: str | None) -> str:
    return visit.here(state=state, after=None, before=None)


def _total(counts: list[Count]) -> str:
    return number(sum(map(int, counts)), capped=any(count.capped for count in counts)) if counts else ""


def row(visit: Visit, job: Job, now: datetime) -> Row:
    """Return what a list shows of a job."""
    state, more = str(job.status), ""
    if job.status is JobStatus.PENDING:
        if job.attempt or job.error:
            state, more = "retrying", f"{min(job.attempt + 1, job.max_attempts)} of {job.max_attempts}"
        elif job.due_at > now:
            state = "scheduled"
        if job.waiting:
            state = "waiting"
    elif job.status is JobStatus.RUNNING:
        more = "to be cancelled" if job.cancelled_at else ""
    if not more and state != "retrying" and job.attempt > 1:
        more = f"{job.attempt} of {job.max_attempts}"
    untold = job.status is JobStatus.SUCCEEDED or job.error == job.status
    about = None if untold else job.error
    return Row(job, state, more, about or glance(visit, job.task, job.payload))


ROUTES = (Route("GET", "/jobs", jobs),)
