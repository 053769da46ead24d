"""Schedules: when they run next, what came of the last run; run now, pause, resume, delete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from starlette.responses import Response

from ... import InvalidState, Schedule, ScheduleNotFound
from .._confirm import Item, confirm
from .._redact import shown
from .._times import number, span
from .._visit import Route, Visit

__all__ = ["ROUTES", "Row"]

MANY = 10
"""Schedules from which on one can look for some by name."""

MISSED = {
    "one": "the last one is made up for",
    "all": "each is made up for",
    "none": "none is made up for",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule in a table; `pattern`: what was said of when it is due, as it was said."""

    schedule: Schedule
    link: str
    job_link: str
    kind: str
    pattern: str

    @property
    def next_run(self) -> datetime | None:
        """When it runs next."""
        return next(iter(self.schedule.next_runs), None)


def row(visit: Visit, schedule: Schedule) -> Row:
    """Return what is shown of a schedule."""
    kind, pattern = _pattern(schedule)
    job_id = schedule.last_job_id
    return Row(
        schedule=schedule,
        link=visit.link("schedules", schedule.name),
        job_link="" if job_id is None else visit.link("jobs", job_id),
        kind=kind,
        pattern=pattern,
    )


def _pattern(schedule: Schedule) -> tuple[str, str]:
    if schedule.cron is not None:
        return "cron", schedule.cron
    if schedule.every is not None:
        return "every", span(schedule.every)
    if schedule.rule is not None:
        return "rule", schedule.rule
    if schedule.at is not None:
        return "at", f"{number(len(schedule.at))} instant{'s' * (len(schedule.at) != 1)}"
    return "", ""


async def schedules(visit: Visit) -> Response:
    """Show all schedules, or those in whose name a text is."""
    text = visit.query.get("text")
    known = await visit.client.schedules.list()
    found = [row(visit, schedule) for schedule in known if text.lower() in schedule.name.lower()]
    return visit.render(
        "schedules.html", rows=found, text=text, all=len(known), many=len(known) > MANY or bool(text)
    )


async def schedule(visit: Visit) -> Response:
    """Show one schedule."""
    found = await _found(visit)
    return visit.render(
        "schedule.html",
        row=row(visit, found),
        facts=_facts(found),
        payload=shown(visit, found.task, found.payload),
    )


def _facts(schedule: Schedule) -> Sequence[tuple[str, str]]:
    """Return what was said of a schedule besides when it is due, each under its name."""
    overlap = "a run begins also while the last one has not finished"
    said = [
        ("Missed runs", MISSED.get(schedule.missed, schedule.missed)),
        ("Overlap", overlap if schedule.overlap else "no run while the last one has not finished"),
    ]
    if schedule.jitter is not None:
        said.append(("Jitter", f"each starts up to {span(schedule.jitter)} later"))
    if schedule.max_runs is not None:
        said.append(("At most", f"{number(schedule.max_runs)} run{'s' * (schedule.max_runs != 1)}"))
    return said


# -- what is done -----------------------------------------------------------------------------------


async def run(visit: Visit) -> Response:
    """Add the job of a schedule, due now."""
    form, name = await visit.form(), (await _found(visit)).name
    visit.audit("run_schedule", schedule=name)
    await visit.client.schedules.run_now(name)
    return visit.done(visit.checked_back(form.raw("back")), "run", 1)


async def pause(visit: Visit) -> Response:
    """Add no more runs of a schedule."""
    form, name = await visit.form(), (await _found(visit)).name
    visit.audit("pause_schedule", schedule=name)
    paused = await visit.client.schedules.pause(name)
    return visit.done(visit.checked_back(form.raw("back")), "paused", paused)


async def resume(visit: Visit) -> Response:
    """Let a schedule go on from now."""
    form, name = await visit.form(), (await _found(visit)).name
    visit.audit("resume_schedule", schedule=name)
    resumed = await visit.client.schedules.resume(name)
    return visit.done(visit.checked_back(form.raw("back")), "resumed", resumed)


async def delete(visit: Visit) -> Response:
    """Delete a schedule that was made at run time, once it is said that this is meant."""
    form, found = await visit.form(), await _found(visit)
    if found.declared:
        raise InvalidState(
            f"Schedule {found.name!r} stands in the code of a client, which would make it anew; pause it, or"
            " take it out there."
        )
    if form.get("confirmed") != "1":
        link = visit.link("schedules", found.name)
        return confirm(
            visit,
            title=f"Delete the schedule {found.name}?",
            label="Delete it",
            action=visit.link("schedules", found.name, "delete"),
            fields=[],
            back=form.raw("back") or link,
            text=[f"{found.words}. It has run {number(found.runs)} times; the jobs of these runs stay."],
            warning="This cannot be undone.",
            items=[Item(link, found.name, str(found.state))],
            danger=True,
        )
    visit.audit("delete_schedule", schedule=found.name)
    deleted = await visit.client.schedules.delete(found.name)
    return visit.done(visit.link("schedules"), "deleted", deleted)


async def _found(visit: Visit) -> Schedule:
    name = visit.params["name"]
    found = await visit.client.schedules.get(name)
    if found is None:
        raise ScheduleNotFound(name)
    return found


ROUTES = (
    Route("GET", "/schedules", schedules),
    Route("GET", "/schedules/{name}", schedule),
    Route("POST", "/schedules/{name}/run", run, "write"),
    Route("POST", "/schedules/{name}/pause", pause, "write"),
    Route("POST", "/schedules/{name}/resume", resume, "write"),
    Route("POST", "/schedules/{name}/delete", delete, "write"),
)
