"""What may be said of a job when it is added. Wrong values are refused where they are written."""

from __future__ import annotations

from typing import Literal

import msgspec

from ._carry import KEY
from ._clock import seconds, whole_millis
from ._errors import AlreadyExists, InvalidType, InvalidValue
from ._fingerprint import fingerprint
from ._graph import WorkflowId
from ._job import Unique
from ._task import TaskType

__all__ = [
    "MAX_META",
    "MAX_TAGS",
    "Added",
    "OnConflict",
    "OwnId",
    "UniqueKey",
    "checked_attempts",
    "checked_conflict",
    "checked_text",
    "checked_timeout",
    "checked_within",
    "encoded_meta",
    "encoded_tags",
    "in_its_way",
    "refusal",
]

OnConflict = Literal["keep", "replace", "raise"]
"""What to do where a job is in the way of a new one."""

MAX_META = 8192
"""Bytes of encoded meta data."""
MAX_TAGS = 20
MAX_DEPTH = 100
"""Levels of nested meta data, so that it can be decoded wherever it is looked at."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Added(list[str]):
    """The ids that `save()` returns, in the order of what was added: a list that knows which are new.

    `existing`: those of jobs that were there already, so that nothing was added; only `.unique()` and
    `.id()` have such. `new`: all others. `workflows`: those of workflows.
    """

    existing: tuple[str, ...] = ()
    workflows: tuple[WorkflowId, ...] = ()

    @property
    def new(self) -> tuple[str, ...]:
        """The ids of jobs and workflows that were added."""
        return tuple(job_id for job_id in self if job_id not in self.existing)


class OwnId(msgspec.Struct, frozen=True):
    """An id of the caller's own, and what to do where a job has it already."""

    value: str
    on_conflict: OnConflict


class UniqueKey(msgspec.Struct, frozen=True):
    """What a job is to be unique by. `key` None: by its task; `within`: milliseconds."""

    key: str | None
    within: int | None
    on_conflict: OnConflict


def in_its_way(own: OwnId | None, by: UniqueKey | None, kind: TaskType, task: msgspec.Struct) -> Unique:
    """Return what keeps this task from becoming a job."""
    unique = Unique(own_id=own is not None, replace_own=own is not None and own.on_conflict == "replace")
    if by is None:
        return unique
    key = by.key if by.key is not None else fingerprint(kind, task)
    return msgspec.structs.replace(unique, key=key, within=by.within, replace_key=by.on_conflict == "replace")


def refusal(found: str, own: OwnId | None, by: UniqueKey | None) -> AlreadyExists | None:
    """Return what to raise as a job was found in the way; None: its id is the answer."""
    if own is not None and found == own.value:
        return AlreadyExists(found, "id") if own.on_conflict == "raise" else None
    if by is not None and by.on_conflict == "raise":
        return AlreadyExists(found, "task" if by.key is None else f"unique key {by.key!r}")
    return None


def checked_text(option: str, value: object, most: int = 200) -> str:
    """Return a key, an id or a tag, or say what it may be."""
    if not isinstance(value, str):
        raise InvalidType(f"{option}={_shown(value)} must be a str, such as .{option}('customer-42')")
    if not 0 < len(value) <= most or not value.isprintable():
        found = f" and not {len(value):,}" if len(value) > most else ""
        raise InvalidValue(
            f"{option}={_shown(value)} must have 1 to {most} printable characters{found}; of longer or"
            " other data, use a hash or an id"
        )
    return str.__str__(value)  # of a subclass, such as StrEnum, the text alone


def checked_attempts(value: object) -> int:
    """Return a number of attempts, or say what it may be."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(f"max_attempts={_shown(value)} must be a whole number; 1: try once")
    if not 1 <= value <= 1_000_000:
        raise InvalidValue(f"max_attempts={_shown(value)} must lie between 1 and 1,000,000; 1: try once")
    return value


def checked_timeout(value: object) -> int:
    """Return the milliseconds that an attempt may take, or say what they may be."""
    if value is None:
        raise InvalidType(
            "timeout=None is not taken: without .timeout() the queue's applies, see QueueConfig(timeout=...);"
            " a job alone can only have another one, in seconds or as a timedelta"
        )
    limit = seconds("timeout", value)
    if limit == 0:
        raise InvalidValue(
            f"timeout={_shown(value)} leaves no time to run; without .timeout() the queue's applies"
        )
    return max(whole_millis(limit), 1)


def checked_within(value: object) -> int | None:
    """Return milliseconds, or say what they may be."""
    return None if value is None else whole_millis(seconds("within", value))


def checked_conflict(value: object) -> OnConflict:
    """Return what to do where a job is in the way, or say what it may be."""
    if value == "keep":
        return "keep"
    if value == "replace":
        return "replace"
    if value == "raise":
        return "raise"
    error = InvalidValue if isinstance(value, str) else InvalidType
    raise error(
        f'on_conflict={_shown(value)} must be "keep" (the job that is there), "replace" (what a pending'
        ' one is to do) or "raise" (AlreadyExists)'
    )


def encoded_tags(tags: tuple[object, ...]) -> str | None:
    """Return tags as JSON, each once; None: there are none. Or say what they may be."""
    if len(tags) == 1 and isinstance(tags[0], (list, tuple, set, frozenset)):
        raise InvalidType(f"tags={_shown(tags[0])} must be str, one argument each: .tags(*names)")
    found = [*dict.fromkeys(checked_text("tags", tag, 100) for tag in tags)]
    if len(found) > MAX_TAGS:
        raise InvalidValue(
            f"tags={_shown(found)} are {len(found)}, a job has at most {MAX_TAGS}; put more into .meta(...)"
        )
    return _encode(found).decode() if found else None


def encoded_meta(meta: object) -> str | None:
    """Return meta data as JSON; None: there are none. Or say what they may be."""
    if not isinstance(meta, dict):
        raise InvalidType(f"meta={_shown(meta)} must be a dict, such as .meta({{'source': 'import'}})")
    if KEY in meta:
        raise InvalidValue(f"meta has the key {KEY!r}, which is the library's own; choose another one")
    try:
        encoded = _encode(meta)
    except RecursionError:
        raise InvalidValue(_too_deep()) from None
    except Exception as error:  # TypeError, UnicodeEncodeError, OverflowError: what JSON cannot carry
        raise InvalidValue(
            f"meta cannot be encoded as JSON: {error}; write text, numbers, lists and dicts"
        ) from error
    if len(encoded) > MAX_META:
        raise InvalidValue(
            f"meta has {len(encoded):,} bytes as JSON, the limit is {MAX_META:,}; put data into the task,"
            " or store it elsewhere and add a reference"
        )
    _refuse_changes(meta, "$", 0)
    return encoded.decode() if meta else None


def _refuse_changes(value: object, path: str, depth: int) -> None:
    """Raise for what would not come back from JSON as it is; tuples come back as lists."""
    if depth > MAX_DEPTH:
        raise InvalidValue(_too_deep())
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                kind = InvalidType if depth == 0 else InvalidValue
                raise kind(f"meta has the key {_shown(key)} - at `{path}`; keys must be str")
            _refuse_changes(inner, f"{path}[{_shown(key, 40)}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _refuse_changes(inner, f"{path}[{index}]", depth + 1)
    elif value is not None and not isinstance(value, (str, bool, int)):
        if not isinstance(value, float):
            raise InvalidValue(
                f"meta has a {type(value).__qualname__} - at `{path}`; write text, numbers, lists and dicts"
                " (msgspec.to_builtins(...) makes them)"
            )
        if value - value != 0:  # infinite, or NaN
            raise InvalidValue(f"meta has {value!r}, which JSON has not - at `{path}`; write None or text")


def _too_deep() -> str:
    return f"meta is nested in more than {MAX_DEPTH} levels; put such data into the task"


def _shown(value: object, most: int = 100) -> str:
    """Return how a value looks, the first part of a long one."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"<{type(value).__name__}, nested too deeply to be shown>"
    return text if len(text) <= most else f"{text[:most]}..."
