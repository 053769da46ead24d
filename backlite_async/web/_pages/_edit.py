"""Another payload for a job that is pending."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from ... import InvalidState, InvalidType, Job, JobStatus, PayloadError, TaskNotFound
from .._guard import Refused
from .._redact import MASK, Hidden, decoded, restored, shows_more, values
from .._visit import Route, Visit
from ._job import find

__all__ = ["ROUTES"]

LARGEST = 262_144
"""Bytes of a payload that is edited in a browser."""

SHORTEST = 3
"""Characters of a hidden value that is looked for in what is told of a payload."""


PACKAGE = __name__.partition(".")[0] + "."
"""Begins the names of modules that are not the application's."""


class Wrong(Exception):
    """What was typed cannot be taken; the message says why. `status`: of the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


async def show(visit: Visit) -> Response:
    """Show the payload of a pending job in a form."""
    if not visit.can_write:
        raise Refused(403, "You may look, but not change anything.", "Ask whoever runs it.")
    job = await find(visit, LARGEST)
    try:
        text = _text(_seen(visit, job)[0])
    except Wrong as wrong:
        return _form(visit, job, None, status=wrong.status, wrong=str(wrong))
    return _form(visit, job, text, was=_sum(text))


async def save(visit: Visit) -> Response:
    """Give the job the payload that was sent, or say what is wrong with it."""
    if not visit.access.payloads:
        raise Refused(403, "You may not see payloads.", "Ask whoever runs it.")
    form = await visit.form()  # which may take its time: others can edit the job meanwhile
    job = await find(visit, LARGEST)
    typed = form.raw("payload") or ""
    was = form.get("was")
    try:
        seen, original = _seen(visit, job)
        now = _sum(_text(seen))
        if was != now:
            was = now
            raise Wrong("Somebody has changed it since. Save again to put yours in its place.", 409)
        fields = _whole(visit, job, _parsed(typed), seen, original)
        unseen = sorted(_unseen(seen, original), key=len, reverse=True)
        task = await _built(visit, job, fields, unseen)
        visit.audit("edit", ids=[job.id], count=1)
        done = await _saved(visit, job, task, unseen)
    except Wrong as wrong:
        return _form(visit, job, typed, was=was, status=wrong.status, wrong=str(wrong))
    return visit.done(visit.link("jobs", job.id), "edited", done)


def _form(
    visit: Visit, job: Job, text: str | None, *, was: str = "", status: int = 200, wrong: str = ""
) -> Response:
    return visit.render("edit.html", status=status, job=job, text=text, was=was, wrong=wrong)


def _seen(visit: Visit, job: Job) -> tuple[Any, Any]:
    """Return a payload as it is shown, and as it is."""
    if job.status is not JobStatus.PENDING:
        raise Wrong(_too_late(job), 409)
    if job.payload is None or len(job.payload) > LARGEST:
        raise Wrong("It is too large to be edited here: client.jobs.edit() can do it.", 409)
    try:
        original = decoded(job.payload)
        seen = values(visit, job.task, original)
    except (ValueError, Hidden) as error:
        why = str(error) if isinstance(error, Hidden) else "Its payload is no JSON."
        raise Wrong(f"It cannot be edited here. {why}", 409) from None
    if not isinstance(original, dict) or not isinstance(seen, dict):
        raise Wrong("It cannot be edited here: its payload is no JSON object.", 409)
    return seen, original


def _too_late(job: Job) -> str:
    state = "running now" if job.status is JobStatus.RUNNING else f"{job.status} now"
    return f"It is {state}, and only a pending job can be edited."


def _text(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        raise Wrong("It cannot be edited here: what redact= returns is no JSON.", 409) from None


def _sum(text: str) -> str:
    """Return what a payload is known by; of what is shown of it, so that it tells nothing more."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _parsed(typed: str) -> dict[str, Any]:
    try:
        value = json.loads(typed)
    except json.JSONDecodeError as error:
        raise Wrong(f"This is no JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        raise Wrong(f"This is no JSON that can be taken: {error}.") from None
    if not isinstance(value, dict):
        raise Wrong("This must be a JSON object: its fields between { and }.")
    return value


def _whole(visit: Visit, job: Job, edited: dict[str, Any], seen: Any, original: Any) -> Any:
    """Return what was edited with what is hidden, which stays hidden."""
    fields = restored(edited, seen, original)
    if _masks(fields) > _masks(original):
        raise Wrong(
            f"{MASK} stands for what is hidden. Leave it where it is, and the text around it, or write a"
            " value instead."
        )
    try:
        again = values(visit, job.task, fields)
    except Hidden:  # then nothing of it is shown
        return fields
    if shows_more(again, edited, seen, original):
        raise Wrong(
            "This would show what is hidden: it is known by a name beside it. Leave that as it is, or write"
            " a value instead of what is hidden."
        )
    return fields


async def _built(visit: Visit, job: Job, fields: Any, unseen: Sequence[str]) -> Any:
    """Return the task, checked as at its add; what is wrong is told without what is hidden."""
    try:
        return await visit.client.tasks.build(job.task, fields, queue=job.queue)
    except PayloadError as error:
        raise Wrong(_told(error, unseen)) from None
    except (TaskNotFound, InvalidType) as error:
        raise Wrong(f"It cannot be checked: {error}.") from None


def _told(error: PayloadError, unseen: Sequence[str]) -> str:
    """Return what is wrong, without what is hidden.

    What the type's own code says may hold that in any form, or part of it, so it is told only where
    nothing is hidden.
    """
    cause, reason = error.__cause__, error.reason
    if unseen and isinstance(cause, Exception) and not _is_msgspecs(cause):
        name = type(cause.__cause__ or cause).__name__
        return f"The task type refuses these values ({name}). Why is not told: it may tell what is hidden."
    for text in unseen:
        for written in (text, repr(text)[1:-1], json.dumps(text)[1:-1]):
            reason = reason.replace(written, MASK)
    return f"{reason[:1].upper()}{reason[1:]}."


def _is_msgspecs(error: Exception) -> bool:
    """Return whether an error is msgspec's own: neither raised by `__post_init__`, nor for what it raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace is None or trace.tb_frame.f_globals.get("__name__", "").startswith(PACKAGE)
    return ours and isinstance(error, msgspec.MsgspecError) and error.__cause__ is None


def _unseen(seen: Any, original: Any) -> Iterator[str]:
    """Find the texts in a payload that are not shown."""
    if isinstance(original, dict):
        if not isinstance(seen, dict):
            yield from (name for name in original if len(name) >= SHORTEST)
        for name, value in original.items():
            yield from _unseen(seen.get(name) if isinstance(seen, dict) else None, value)
    elif isinstance(original, list):
        same = isinstance(seen, list) and len(seen) == len(original)
        for place, value in enumerate(original):
            yield from _unseen(seen[place] if same else None, value)
    elif original != seen and len(str(original)) >= SHORTEST:
        yield str(original)


def _masks(value: Any) -> int:
    """Return how often the mask stands in values."""
    if isinstance(value, dict):
        return sum(map(_masks, value.values()))
    if isinstance(value, list):
        return sum(map(_masks, value))
    return value.count(MASK) if isinstance(value, str) else 0


async def _saved(visit: Visit, job: Job, task: Any, unseen: Sequence[str]) -> int:
    try:
        return await visit.client.jobs.edit(job.id, task)
    except InvalidState:
        raise Wrong(_too_late(await find(visit, 1)) + " Nothing was changed.", 409) from None
    except PayloadError as error:
        raise Wrong(_told(error, unseen)) from None
    except InvalidType as error:
        raise Wrong(str(error)) from None


ROUTES = (
    Route("GET", "/jobs/{job_id}/edit", show, need="payloads"),
    Route("POST", "/jobs/{job_id}/edit", save, need="write"),
)
