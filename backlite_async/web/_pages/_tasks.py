"""Task types, and a form that adds a job of one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec
from starlette.responses import Response

from ... import AddOperation, BackliteError, InvalidValue, PayloadError, TaskInfo, TaskNotFound
from .._fields import WHOLE, Field, fields_of, kept, place_of, values_of, why_no_json
from .._forms import Fields
from .._guard import Refused
from .._redact import Hidden, values
from .._visit import NotFound, Route, Visit

__all__ = ["ROUTES"]

OPTIONS = ("wait", "at", "priority", "max_attempts", "key", "tags", "unique", "unique_key")

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}

DEFAULT_HIDDEN = "Left empty, it has its default, which is hidden."

OF_TASK, OF_OPTION = "f.", "o."
"""What the names of inputs begin with, so that a task's fields may have any."""


class Wrong(Exception):
    """What was typed cannot be meant: by the name of the input, or "" for none, what is wrong."""

    def __init__(self, place: str, message: str, existing: str | None = None) -> None:
        super().__init__(message)
        self.place, self.existing = place, existing


async def tasks(visit: Visit) -> Response:
    """List task types by queue."""
    found = await visit.client.tasks.list()
    queues = [
        (queue, [(info, fields_of(info.schema)) for info in infos])
        for queue, infos in groupby(found, key=lambda info: info.queue)
    ]
    return visit.render("tasks.html", queues=queues, can_add=visit.can_write and visit.access.payloads)


async def _found(visit: Visit) -> TaskInfo:
    """Return the task type that is meant; its jobs are added by those who may see payloads."""
    if not visit.access.payloads:
        raise Refused(403, "You may not see payloads, and so not add jobs.", "Ask whoever runs it.")
    queue, name = visit.params["queue"], visit.params["task"]
    for info in await visit.client.tasks.list():
        if (info.queue, info.name) == (queue, name):
            return info
    raise NotFound(f"There is no task type {name[:200]!r} in a queue {queue[:200]!r}.")


async def new(visit: Visit) -> Response:
    """Show the form; parameters of the address are typed into it."""
    info = await _found(visit)
    return _form(visit, info, visit.query)


async def add(visit: Visit) -> Response:
    """Add a job, or say what is wrong with what was typed."""
    info = await _found(visit)
    form = await visit.form()
    try:
        job_id = await _add(visit, info, form)
    except Wrong as wrong:
        return _form(visit, info, form, wrong)
    return visit.done(visit.link("jobs", job_id), "added", 1)


def _form(visit: Visit, info: TaskInfo, given: Fields, wrong: Wrong | None = None) -> Response:
    typed = given.mapping()
    fields = kept(_fields(visit, info), _of(OF_TASK, typed))
    return visit.render(
        "new.html",
        status=200 if wrong is None else 400,
        info=info,
        fields=fields,
        options={name: typed.get(OF_OPTION + name, "") for name in OPTIONS},
        place=None if wrong is None else wrong.place,
        message=None if wrong is None else str(wrong),
        existing=None if wrong is None else wrong.existing,
    )


def _fields(visit: Visit, info: TaskInfo) -> list[Field]:
    """Return the fields of a task type; of those whose default is hidden, without it."""
    fields = fields_of(info.schema)
    defaults = {field.name: _default(field) for field in fields if field.default}
    try:
        seen = values(visit, info.name, defaults)
    except Hidden:
        seen = None
    return [
        field._replace(value="", default=False, hint=f"{field.hint} {DEFAULT_HIDDEN}".strip())
        if field.default and field.value and _unlike(seen, defaults, field.name)
        else field
        for field in fields
    ]


def _default(field: Field) -> Any:
    if field.kind in ("json", "number") and field.value:
        return json.loads(field.value)
    return field.value == "true" if field.kind == "checkbox" else field.value


def _unlike(seen: Any, defaults: Mapping[str, Any], name: str) -> bool:
    return not isinstance(seen, dict) or seen.get(name) != defaults[name]


def _of(prefix: str, typed: dict[str, str]) -> dict[str, str]:
    """Return what was typed into inputs whose names begin so."""
    return {name[len(prefix) :]: text for name, text in typed.items() if name.startswith(prefix)}


async def _add(visit: Visit, info: TaskInfo, form: Fields) -> str:
    """Return the id of a new job; raises `Wrong`, and then nothing is stored."""
    task, said = await _task(visit, info, form), _said(form)
    operation = visit.client.add(task)
    _say(operation, said, form)
    visit.audit("add", queue=info.queue, task=info.name, count=1)
    try:
        added = await operation.save()
    except (InvalidValue, PayloadError) as error:
        raise Wrong("", str(error)) from error
    if added.existing:
        raise Wrong("unique", "There is such a job already, so none was added.", added[0])
    return str(added[0])


async def _task(visit: Visit, info: TaskInfo, form: Fields) -> msgspec.Struct:
    fields = _fields(visit, info)
    whole = [field.name for field in fields] == [WHOLE]
    try:
        values = values_of(fields, _of(OF_TASK, form.mapping()))
    except ValueError as error:
        raise Wrong(OF_TASK, f"This is no JSON: {error}") from error
    try:
        return await visit.client.tasks.build(info.name, values, queue=info.queue, text=not whole)
    except TaskNotFound as error:
        raise NotFound(str(error)) from error
    except (PayloadError, InvalidValue) as error:
        place = place_of(str(error), fields)
        raise Wrong("" if place is None else OF_TASK + place, _plain(error, place, fields, form)) from error


def _plain(error: BackliteError, place: str | None, fields: Sequence[Field], form: Fields) -> str:
    """Return what is wrong, without where it is, if it is said there."""
    text = str(getattr(error, "reason", None) or error)
    if place is None:
        return text
    [field] = [field for field in fields if field.name == place]
    why = why_no_json(field, form.get(OF_TASK + place))
    return f"This is no JSON: {why}" if why else re.sub(r" - at `\$[^`]*`", "", text)


# -- options -------------------------------------------------------------------------------------------


def _said(form: Fields) -> dict[str, Any]:
    """Return the options that were typed, by the names of the methods that take them."""
    if form.get("o.wait") and form.get("o.at"):
        raise Wrong("at", "Say how long to wait, or until when, not both.")
    said = {}
    for name, meaning in MEANINGS.items():
        if text := form.get(OF_OPTION + name):
            try:
                said[name] = meaning(text)
            except (ValueError, OverflowError) as error:
                raise Wrong(name, _sentence(error)) from error
    return said


def _say(operation: AddOperation, said: Mapping[str, Any], form: Fields) -> None:
    """Give the options to the operation, which checks them."""
    for name, value in said.items():
        try:
            if name == "tags":
                operation.tags(*value)
            else:
                getattr(operation, name)(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise Wrong(name, _sentence(error)) from error
    key = form.get("o.unique_key")
    if form.get("o.unique") or key:
        try:
            operation.unique(key or None)
        except (ValueError, TypeError) as error:
            raise Wrong("unique_key", _sentence(error)) from error


def _sentence(error: Exception) -> str:
    return str(error)[:500]


def _span(text: str) -> timedelta:
    """Return a duration that was typed as "90", "15 min" or "2h"."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]*)", text.lower(), re.ASCII)
    if match is None or match[2] not in UNITS:
        raise ValueError(f"{text[:40]!r} is no duration; write seconds, or such as 15 min, 2 h or 1 d")
    return timedelta(seconds=float(match[1]) * UNITS[match[2]])


def _instant(text: str) -> datetime:
    """Return an instant that was typed, in UTC where it names no zone."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no instant; write such as 2026-03-01T14:05") from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _whole(text: str) -> int:
    if re.fullmatch(r"-?\d{1,9}", text, re.ASCII) is None:
        raise ValueError(f"{text[:40]!r} is no whole number")
    return int(text)


def _listed(text: str) -> Sequence[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


MEANINGS: dict[str, Callable[[str], Any]] = {
    "wait": _span,
    "at": _instant,
    "priority": _whole,
    "max_attempts": _whole,
    "key": str,
    "tags": _listed,
}
"""What is typed into the options, and meant."""


ROUTES = (
    Route("GET", "/tasks", tasks),
    Route("GET", "/tasks/{queue}/{task}/new", new, "write"),
    Route("POST", "/tasks/{queue}/{task}/new", add, "write"),
)
