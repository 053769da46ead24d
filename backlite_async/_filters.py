"""Which jobs are meant: filters and places in lists, checked where they are written, and walks over both."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TypedDict, cast

import msgspec

from ._clock import aware, from_millis, to_millis
from ._errors import InvalidType, InvalidValue
from ._job import JobStatus
from ._query import MOST_LISTED, SortKey, Wanted
from ._task import task_type

__all__ = [
    "Filters",
    "Walk",
    "checked_id",
    "checked_number",
    "checked_states",
    "cursor",
    "end_of_list",
    "neighbour",
    "place",
    "walks",
    "wanted",
]


class Filters(TypedDict, total=False):
    """What a job must be to be meant, see `Jobs`; None does not matter."""

    queue: str | None
    task: str | type[msgspec.Struct] | None
    state: JobStatus | str | Collection[JobStatus | str] | None
    tag: str | None
    key: str | None
    unique: str | None
    parent: str | None
    owner: str | None
    workflow: str | None
    added_after: datetime | None
    added_before: datetime | None
    due_after: datetime | None
    due_before: datetime | None
    finished_after: datetime | None
    finished_before: datetime | None
    text: str | None


LONGEST_TEXT = 1000
"""Characters of a text to look for."""

_STATES = [state for state in JobStatus if state is not JobStatus.NOT_FOUND]


def wanted(filters: Mapping[str, object]) -> Wanted:
    """Return what filters mean, or say what is wrong with the first that cannot be meant."""
    for name in filters:
        if name not in Filters.__annotations__:
            known = ", ".join(Filters.__annotations__)
            raise InvalidType(f"{name}= is no filter of jobs; there are {known}")
    given = {name: value for name, value in filters.items() if value is not None}
    queue, task = given.get("queue"), given.get("task")
    if task is not None and not isinstance(task, str):
        kind = task_type(task)
        task, queue = kind.name, kind.config.name if queue is None else queue
    if "unique" in given and queue is None:
        raise InvalidValue("unique= is a key within a queue; give queue=, too")
    return Wanted(
        queue=_text("queue", queue),
        task=_text("task", task),
        states=checked_states(given["state"]) if "state" in given else None,
        tag=_text("tag", given.get("tag"), 100),
        key=_text("key", given.get("key")),
        unique=_text("unique", given.get("unique")),
        parent=_text("parent", given.get("parent")),
        owner=_text("owner", given.get("owner")),
        workflow=_text("workflow", given.get("workflow")),
        added=_range("added", given),
        due=_range("due", given),
        finished=_range("finished", given),
        text=_text_to_find(given.get("text")),
    )


def checked_id(call: str, job_id: object, of: str = "job") -> str:
    """Return the id of a job, or of something else, or say how to write it."""
    if not isinstance(job_id, str):
        many = f"; write {call}(*ids)" if isinstance(job_id, (list, tuple, set, frozenset)) else ""
        raise InvalidType(f"{call}() takes ids of {of}s, which are str, not {job_id!r}{many}")
    if not 0 < len(job_id) <= 200 or not job_id.isprintable():
        raise InvalidValue(f"{job_id!r} is no {of}'s id: those have 1 to 200 printable characters")
    return job_id


def checked_number(name: str, value: object, most: int = MOST_LISTED) -> int:
    """Return a number from 1 on, or say what it may be."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(f"{name}={value!r} must be a whole number")
    if not 1 <= value <= most:
        raise InvalidValue(f"{name}={value!r} must lie between 1 and {most:,}")
    return value


def _text(name: str, value: object, most: int = 200) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidType(f"{name}={value!r} must be a str")
    if not 0 < len(value) <= most or not value.isprintable():
        raise InvalidValue(
            f"{name}={value[: most + 1]!r} is none that a job can have: 1 to {most} printable characters"
        )
    return str.__str__(value)


def _text_to_find(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidType(f"text={value!r} must be a str, which is looked for as it is")
    if not 0 < len(value) <= LONGEST_TEXT:
        raise InvalidValue(
            f"text={value[:50]!r} has {len(value):,} characters; give 1 to {LONGEST_TEXT:,}, or leave it out"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(f"text={value!r} has surrogates, which no text of a job has") from None
    return str.__str__(value)


def checked_states(value: object) -> frozenset[JobStatus]:
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, Iterable) or isinstance(several, (bytes, Mapping)):
        raise InvalidType(f"state={value!r} must be a JobStatus, its text, or several of them")
    found = frozenset(_state(one) for one in several)
    if not found:
        raise InvalidValue(f"state={value!r} names none, so no job is meant; leave it out to mean all states")
    return found


def _state(value: object) -> JobStatus:
    known = ", ".join(repr(str(state)) for state in _STATES)
    if not isinstance(value, str):
        raise InvalidType(f"state={value!r} must be a JobStatus or its text: {known}")
    if value not in _STATES:
        raise InvalidValue(f"state={value!r} is none of the states of a job: {known}")
    return JobStatus(value)


def _range(name: str, given: Mapping[str, object]) -> tuple[int | None, int | None] | None:
    """Return the first and the last millisecond of a range of instants."""
    after, before = given.get(f"{name}_after"), given.get(f"{name}_before")
    if after is None and before is None:
        return None
    first = None if after is None else to_millis(aware(f"{name}_after", after))
    last = None if before is None else _rounded_down(aware(f"{name}_before", before))
    if isinstance(after, datetime) and isinstance(before, datetime) and after > before:
        raise InvalidValue(
            f"{name}_after={after!r} is later than {name}_before={before!r}, so no job is meant; swap them"
        )
    return first, last


def _rounded_down(instant: datetime) -> int:
    millis = to_millis(instant)
    return millis - 1 if from_millis(millis) > instant else millis


# -- places in lists --------------------------------------------------------------------------------

VERSION = 2
"""Of the form of cursors."""

_MARK = 4
"""Bytes by which a cursor is known from what was cut off or mistyped."""

_FAR = 2**62
_SHAPES: dict[int, tuple[type, ...]] = {
    0: (int, int),
    1: (int, int),
    2: (str, str, str, int, int, int),
    3: (str, str, int, int, int),
    4: (int, int),
    5: (int,),
    6: (int,),
    7: (int,),
    8: (int,),
}
"""What follows the number of a section in a sort key, see `Wanted`."""


def cursor(place: SortKey) -> str:
    """Return a place in a list as a text that means it in either direction."""
    body = msgspec.json.encode([VERSION, *place])
    return _text_of(_mark(body) + body)


def place(name: str, text: object, wanted: Wanted) -> SortKey:
    """Return the place that a cursor means in the list of these jobs, or say why it means none."""
    if not isinstance(text, str):
        raise InvalidType(f"{name}={text!r} must be a str: .next or .previous of a page")
    values = _decoded(text)
    if values is None:
        raise InvalidValue(
            f"{name}={text[:100]!r} is no cursor; give .next or .previous of a page, unchanged"
        )
    if values[0] != VERSION:
        raise InvalidValue(
            f"{name}={text[:100]!r} is a cursor of another version of this library; begin without {name}="
        )
    if not _fits(values[1:]):
        raise InvalidValue(
            f"{name}={text[:100]!r} is no cursor; give .next or .previous of a page, unchanged"
        )
    found = cast("SortKey", tuple(values[1:]))
    there, here = _order(cast("int", found[0])), _order(end_of_list(wanted)[0])
    if there != here:
        raise InvalidValue(
            f"{name}={text[:100]!r} is a place in a list {there}, and this one is {here}; give the filters"
            f" that it came with, or begin without {name}="
        )
    return found


def end_of_list(wanted: Wanted) -> SortKey:
    """Return a place behind all jobs that are wanted."""
    if wanted.workflow is not None:
        return 8, _FAR
    if wanted.tag is not None:
        return 5, _FAR
    if wanted.parent is not None:
        return 7, _FAR
    return 4, _FAR, _FAR


def neighbour(place: SortKey, step: int) -> SortKey:
    """Return the next place (step 1) or the one before (-1): nothing lies in between."""
    last = place[-1]
    assert isinstance(last, int)
    return *place[:-1], last + step


def _order(section: object) -> str:
    """Return what decides the order of a list that has such a section."""
    return {5: "with tag=", 6: "with parent=", 7: "with parent=", 8: "with workflow="}.get(
        cast("int", section), "without tag=, parent= or workflow="
    )


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _mark(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_MARK).digest()


def _decoded(text: str) -> list[object] | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(raw[_MARK:])
    except (ValueError, msgspec.MsgspecError):
        return None
    whole = raw[:_MARK] == _mark(raw[_MARK:]) and _text_of(raw) == text
    return values if whole and isinstance(values, list) and values else None


def _fits(values: list[object]) -> bool:
    """Return whether these are a sort key; who knows how cursors are made can make others."""
    if not values or type(values[0]) is not int:
        return False
    shape = _SHAPES.get(values[0], ())
    return [type(value) for value in values[1:]] == [*shape] and all(
        abs(value) <= _FAR for value in values if isinstance(value, int)
    )


# -- walks ------------------------------------------------------------------------------------------


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """A way through jobs that others change, and the walker too. `backwards`: from the end of their list."""

    wanted: Wanted
    backwards: bool = False


_COMPLETED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
_PENDING = frozenset({JobStatus.PENDING})
_RUNNING = frozenset({JobStatus.RUNNING})
_TO_RETRY = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


def walks(action: str, meant: Wanted, start: int, due_at: int | None = None) -> list[Walk]:
    """Return the walks that an action takes through the jobs that are meant, of those it can be done to.

    All of them end, whatever is done meanwhile and however many jobs are added: only jobs that were added
    by `start` are met. What an action changes does not come back before the walker: it leaves the range
    that is walked (`due_at`: where it is put), and what runs again comes to lie further up, so those walks
    lead down.
    """
    meant = _narrowed(meant, added=(None, start))
    if action == "retry":
        return [*_pending(meant, start), *_ways(meant, _TO_RETRY, finished=(None, start))]
    if action == "run_now":
        return _pending(meant, start)
    if action == "reschedule":
        assert due_at is not None
        return [*_pending(meant, due_at), *_ways(meant, _PENDING, due=(None, due_at - 1), backwards=True)]
    if action == "release":
        return _ways(meant, _RUNNING, backwards=True)
    if action == "copy":
        return [
            *_ways(meant, _COMPLETED, finished=(None, start)),
            *_ways(meant, _PENDING, backwards=True),
            *_ways(meant, _RUNNING, backwards=True),
        ]
    return _ways(meant, _PENDING | (_RUNNING if action == "cancel" else _COMPLETED))


def _pending(meant: Wanted, due_at: int) -> list[Walk]:
    """Return the walk down those that are due later."""
    return _ways(meant, _PENDING, due=(due_at + 1, None), backwards=True)


def _ways(
    meant: Wanted,
    states: frozenset[JobStatus],
    *,
    due: tuple[int | None, int | None] | None = None,
    finished: tuple[int | None, int | None] | None = None,
    backwards: bool = False,
) -> list[Walk]:
    """Return the walk through the jobs of these states and times that are meant; none, if there are none."""
    states = states if meant.states is None else states & meant.states
    if (due and meant.finished) or (finished and meant.due):
        return []  # a pending job has not finished, a completed one is not due
    narrowed = _narrowed(meant, due=due, finished=finished)
    empty = any(
        between is not None and None not in between and between[0] > between[1]  # type: ignore[operator]
        for between in (narrowed.added, narrowed.due, narrowed.finished)
    )
    if not states or empty:
        return []
    return [Walk(wanted=msgspec.structs.replace(narrowed, states=states), backwards=backwards)]


def _narrowed(meant: Wanted, **ranges: tuple[int | None, int | None] | None) -> Wanted:
    """Return what is wanted within these ranges, too."""
    changes: dict[str, tuple[int | None, int | None]] = {}
    for name, between in ranges.items():
        known = getattr(meant, name)
        if between is not None:
            firsts, lasts = zip(between, known or (None, None), strict=True)
            changes[name] = (
                max((first for first in firsts if first is not None), default=None),
                min((last for last in lasts if last is not None), default=None),
            )
    return msgspec.structs.replace(meant, **changes) if changes else meant
