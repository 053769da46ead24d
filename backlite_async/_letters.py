"""Dead letters: the task that is added for a job that has failed for good. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import NODEFAULT

from ._carry import only, parted
from ._clock import from_millis
from ._codec import decode
from ._errors import PayloadError
from ._graph import follow_up_id
from ._job import ClaimedJob, More, NewJob
from ._task import TaskType

__all__ = ["dead_letter"]

_encode = msgspec.json.Encoder().encode

_TOLD: dict[str, Callable[[ClaimedJob, str, int], Any]] = {
    "job_id": lambda job, error, now: job.id,
    "queue": lambda job, error, now: job.queue,
    "task": lambda job, error, now: job.task,
    "payload": lambda job, error, now: _value(job.payload),
    "error": lambda job, error, now: error,
    "attempts": lambda job, error, now: job.attempt,
    "crashes": lambda job, error, now: job.crashes,
    "created_at": lambda job, error, now: from_millis(job.created_at),
    "failed_at": lambda job, error, now: from_millis(now),
    "key": lambda job, error, now: job.key,
    "meta": lambda job, error, now: parted(job.meta)[0],
    "tags": lambda job, error, now: msgspec.json.decode(job.tags or "[]"),
    "parent": lambda job, error, now: job.parent,
}
"""What a dead letter is told of the job that has failed: `LETTER_FIELDS`."""


def dead_letter(kind: TaskType, job: ClaimedJob, error: str, now: int) -> tuple[NewJob | None, str]:
    """Return the job to add for one that has failed, or None and why there is none.

    Its id follows from the job's claim, so that an outcome that is written twice adds it once.
    """
    try:
        payload = _payload(kind, job, error, now)
        decode(kind, payload)
    except PayloadError as refused:
        return None, str(refused)
    except Exception as refused:  # RecursionError, a default that is made by the application
        return None, f"{type(refused).__name__}: {refused}"
    letter = NewJob(
        id=follow_up_id(job.id, job.fence),
        queue=kind.config.name,
        task=kind.name,
        payload=payload,
        max_attempts=kind.config.max_attempts,
        created_at=now,
        due_at=now,
        waits_from=now,
        priority=kind.config.priority,
        more=More(parent=job.id, meta=only(job.meta)),
    )
    return letter, ""


def _payload(kind: TaskType, job: ClaimedJob, error: str, now: int) -> bytes:
    """Return a dead letter as JSON, in the form that its type has."""
    form, told = kind.cls.__struct_config__, {}
    values: list[object] = [] if form.tag is None else [form.tag]
    for field in msgspec.structs.fields(kind.cls):
        if field.name in _TOLD:
            told[field.encode_name] = value = _TOLD[field.name](job, error, now)
            values.append(value)
        elif form.array_like:  # what follows must have its place
            values.append(field.default if field.default_factory is NODEFAULT else field.default_factory())
    if form.array_like:
        return _encode(values)
    return _encode(told if form.tag is None else {form.tag_field: form.tag} | told)


def _value(payload: str) -> object:
    """Return what a payload holds, digit for digit; what is no JSON, as text."""
    try:
        msgspec.json.decode(payload)
        return msgspec.Raw(payload)
    except Exception:  # MsgspecError, UnicodeError, RecursionError
        return payload.encode("utf-8", "replace").decode()
