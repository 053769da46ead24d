"""What is done to jobs: to one, to those that were chosen, to all that match."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from starlette.responses import Response

from ... import Count, Job
from .._asked import ENDED, FIELDS, Asked, asked, moment, wait_of
from .._confirm import Item, confirm
from .._forms import BadRequest, Fields
from .._times import full, number, span
from .._visit import NotFound, Route, Visit

__all__ = ["ACTIONS", "ROUTES", "Action", "fitting"]

MOST_CHOSEN = 1_000
COUNTED = 10_000
NAMED = 5
OF_ALL = frozenset({*FIELDS, "action", "all", "at", "back", "confirmed", "until", "wait"})
"""What may be said of all that match: a filter that is not known would be one that does not count."""

LATER = "What is added from now on is left alone."
ENDS_LATER = "What ends from now on is left alone."
BOTH_LATER = "What is added or ends from now on is left alone."
STARTS_LATER = "What is added from now on is left alone; what waits now, and runs by then, is not."


class Action(NamedTuple):
    """Something that is done to jobs in some states.

    `verb` and `done` as words, and as `Visit.done` knows it; `sure`: it is asked for also if it is one job.
    """

    verb: str
    states: frozenset[str]
    done: str
    warning: str = ""
    sure: bool = False
    danger: bool = False


def _states(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIONS = {
    "retry": Action("Retry", _states("failed cancelled"), "retried"),
    "run_now": Action("Run now", _states("pending"), "run_now"),
    "reschedule": Action("Reschedule", _states("pending"), "rescheduled"),
    "release": Action(
        "Release",
        _states("running"),
        "released",
        "A handler that still runs is not stopped, and its job runs again: what it does outside of this"
        " database may happen twice.",
        sure=True,
    ),
    "cancel": Action(
        "Cancel",
        _states("pending running"),
        "cancelled",
        "Those that run are asked to stop. Only what is kept with its payload can be retried afterwards.",
        danger=True,
    ),
    "delete": Action(
        "Delete",
        _states("pending succeeded failed cancelled"),
        "deleted",
        "This cannot be undone: the jobs are gone, with their results, errors and log lines.",
        sure=True,
        danger=True,
    ),
}


def fitting(states: Collection[str]) -> dict[str, Action]:
    """Return the actions that can be done to jobs in some of these states, by their names."""
    return {name: action for name, action in ACTIONS.items() if not action.states.isdisjoint(states)}


async def act(visit: Visit) -> Response:
    """Do something to jobs, or ask whether it is meant."""
    form = await visit.form()
    if form.get("action") == "copy":
        return await _copy(visit, form)
    name = form.choice("action", tuple(ACTIONS), "?")
    when = wait_of(form, visit.now) if name == "reschedule" else {}
    if form.get("all") == "1":
        return await _act_on_all(visit, form, name, when)
    return await _act_on_some(visit, form, name, when)


async def _act_on_some(visit: Visit, form: Fields, name: str, when: dict[str, Any]) -> Response:
    ids, action = form.all("id"), ACTIONS[name]
    if not ids:
        raise BadRequest("no job was chosen; choose some by the boxes at the beginning of their rows")
    if len(ids) > MOST_CHOSEN:
        raise BadRequest(f"{len(ids):,} jobs were chosen; choose up to {MOST_CHOSEN:,}, or all that match")
    if form.get("confirmed") != "1" and (len(ids) > 1 or action.sure):
        return await _ask_of_some(visit, form, name, ids, when)
    visit.audit(name, ids=ids, count=len(ids), **_logged(when))
    fit = await _ended(visit, ids) if name == "retry" else ids
    done = await getattr(visit.client.jobs, name)(*fit, **when) if fit else 0
    return visit.done(visit.checked_back(form.raw("back")), action.done, done, len(ids) if done else None)


async def _ended(visit: Visit, ids: Sequence[str]) -> list[str]:
    """Return the ids of jobs to retry: `jobs.retry` lets pending ones run now, which nobody was asked."""
    states = ACTIONS["retry"].states
    return [job_id for job_id in ids if await visit.client.status(job_id) in states]


async def _act_on_all(visit: Visit, form: Fields, name: str, when: dict[str, Any]) -> Response:
    action = ACTIONS[name]
    for field, _ in form.pairs:
        if field not in OF_ALL:
            raise BadRequest(f"{field[:40]}= is no filter of jobs; there are {', '.join(FIELDS)}")
    whole = asked(form, visit.now)
    check_text(visit, whole)
    meant = whole.narrowed(action.states)
    if not meant.states:
        possible = ", ".join(sorted(action.states))
        raise BadRequest(f"{action.verb} is for jobs that are {possible}; none of these can be")
    if form.get("confirmed") != "1":
        return await _ask_of_all(visit, form, name, meant, when)
    until = form.get("until")
    parts = meant.until(moment("until", until, visit.now)) if until else [meant]
    said = {key: str(value) for key, value in [*meant.frozen(), ("until", until)] if value}
    visit.audit(name, all=True, filters=said | {"state": sorted(map(str, meant.states))}, **_logged(when))
    done = sum([await getattr(visit.client.jobs, name)(**part.filters, **when) for part in parts])
    return visit.done(visit.checked_back(form.raw("back")), action.done, done)


async def _copy(visit: Visit, form: Fields) -> Response:
    """Add a copy of a job, and show it."""
    [job_id] = form.all("id")[:1] or [""]
    if not job_id:
        raise BadRequest("no job was chosen")
    visit.audit("copy", ids=[job_id], count=1)
    return visit.done(visit.link("jobs", await visit.client.jobs.copy(job_id)), "copied", 1)


def check_text(visit: Visit, meant: Asked) -> None:
    """Raise where payloads would be searched by somebody who may not see them."""
    if "text" in meant.filters and not visit.access.payloads:
        raise BadRequest("text= looks into payloads, which you may not see; use the other filters")


# -- asking whether it is meant ---------------------------------------------------------------------


async def _ask_of_some(
    visit: Visit, form: Fields, name: str, ids: Sequence[str], when: dict[str, Any]
) -> Response:
    action = ACTIONS[name]
    found = [job for job_id in ids[:NAMED] if (job := await visit.client.jobs.get(job_id, cut=1))]
    if len(ids) == 1 and not found:
        raise NotFound(f"There is no job {ids[0]} any more.")
    return _ask(
        visit,
        name,
        form,
        counted=number(len(ids)),
        single=len(ids) == 1,
        text=_passed_over(action) if len(ids) > 1 else [],
        items=found,
        more=len(ids) > len(found),
        fields=[("id", job_id) for job_id in ids],
        when=when,
    )


async def _ask_of_all(visit: Visit, form: Fields, name: str, meant: Asked, when: dict[str, Any]) -> Response:
    jobs, now = visit.client.jobs, visit.now
    count: Count = await jobs.count(most=COUNTED, **meant.filters)
    first = await jobs.list(limit=NAMED, brief=True, **meant.filters)
    *others, last = sorted(meant.states)
    states, words = " or ".join([", ".join(others), last] if others else [last]), meant.words()
    which = f"All {states} jobs" + (": " + ", ".join(words) if words else ", of every queue") + "."
    text = [
        which,
        _later(meant.states),
        "It is done in batches of 500, each in a transaction; this page waits for the last.",
    ]
    upto = name == "delete" and bool(await visit.client.workflows.list(limit=1))
    if upto:
        text.append("Steps of workflows are among those counted, and stay: they go with their workflow.")
    return _ask(
        visit,
        name,
        form,
        counted="up to " * upto + number(int(count), capped=count.capped),
        single=False,
        text=text,
        items=first,
        more=count > len(first) or count.capped,
        fields=[("all", "1"), ("until", now.isoformat()), *meant.frozen()],
        when=when,
        possible=count > 0 or count.capped,
    )


def _ask(
    visit: Visit,
    name: str,
    form: Fields,
    *,
    counted: str,
    single: bool,
    text: Sequence[str],
    items: Sequence[Job],
    more: bool,
    fields: Sequence[tuple[str, str]],
    when: dict[str, Any],
    possible: bool = True,
) -> Response:
    action = ACTIONS[name]
    jobs = "this job" if single else f"{counted} job" + "s" * (counted not in ("1", "up to 1"))
    return confirm(
        visit,
        title=f"{action.verb} {jobs}?" if possible else f"{action.verb}: there is nothing to do",
        label=f"{action.verb} {jobs}",
        action=visit.link("jobs", "act"),
        fields=[("action", name), *fields, *[("wait", text) for text in [_said(form)] if when]],
        back=form.raw("back") or "",
        text=[*text, *_due(when)],
        warning=action.warning if possible else "",
        items=[Item(visit.link("jobs", job.id), f"{job.task} {job.id}", job.status) for job in items],
        more=more,
        danger=action.danger,
        possible=possible,
    )


def _later(states: frozenset[str]) -> str:
    """Return what is said of jobs that begin to match before it is done: see `Asked.until`."""
    if states <= ENDED:
        return ENDS_LATER
    if states & ENDED:
        return BOTH_LATER
    return STARTS_LATER if states == {"running"} else LATER


def _passed_over(action: Action) -> list[str]:
    return [f"Those that are not {' or '.join(sorted(action.states))} by then are passed over."]


def _said(form: Fields) -> str:
    return form.get("at") or form.get("wait")


def _due(when: dict[str, Any]) -> list[str]:
    if "at" in when:
        return [f"They will be due at {full(when['at'])}."]
    return [f"They will be due {span(when['wait'])} after you say yes."] if when else []


def _logged(when: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in when.items()}


ROUTES = (Route("POST", "/jobs/act", act, need="write"),)
