"""What a queue is configured with. Wrong values are refused where they are written."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from ._clock import MAX_SECONDS, seconds
from ._errors import InvalidType, InvalidValue
from ._job import MAX_PRIORITY, MIN_PRIORITY

__all__ = ["Backoff", "Duration", "QueueConfig", "Rate", "Retention", "checked_name", "checked_priority"]

Duration = float | timedelta
"""A number of seconds, or a timedelta."""

MAX_NUMBER = 1.797e308
"""Close to the largest float."""


def checked_name(value: object) -> str:
    """Return a queue's name, or say what it may be."""
    if not isinstance(value, str):
        raise InvalidType(f"name={value!r} must be a str")
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise InvalidValue(f"name={value!r} must have 1 to 200 printable characters")
    return value


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(f"{name}={value!r} must be a whole number")
    if not 1 <= value <= 1_000_000:
        raise InvalidValue(f"{name}={value!r} must lie between 1 and 1,000,000")
    return value


def checked_priority(value: object) -> int:
    """Return a priority, or say what it may be."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(f"priority={value!r} must be a whole number")
    if not MIN_PRIORITY <= value <= MAX_PRIORITY:
        raise InvalidValue(f"priority={value!r} must lie between {MIN_PRIORITY} and {MAX_PRIORITY}")
    return value


def _limit(name: str, value: object) -> int | None:
    return None if value is None else _count(name, value)


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidType(f"{name}={value!r} must be a number")
    if not abs(value) <= MAX_NUMBER:  # nor NaN
        raise InvalidValue(f"{name}={value!r} must be finite")
    return float(value)


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long a failed job waits for its next attempt.

    The wait after the n-th attempt is `base * factor ** (n - 1)` seconds, at most `cap`, spread
    evenly by a fraction `jitter` to both sides.
    """

    base: Duration = 1.0
    factor: float = 2.0
    cap: Duration = 3600.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        base, cap = seconds("Backoff.base", self.base), seconds("Backoff.cap", self.cap)
        factor, jitter = _number("Backoff.factor", self.factor), _number("Backoff.jitter", self.jitter)
        if factor < 1:
            raise InvalidValue(f"Backoff.factor={factor!r} must be at least 1")
        if not 0 <= jitter <= 1:
            raise InvalidValue(f"Backoff.jitter={jitter!r} must lie between 0 and 1")
        if cap < base:
            raise InvalidValue(f"Backoff.cap={cap!r} must be at least base={base!r}")
        for name, value in (("base", base), ("cap", cap), ("factor", factor), ("jitter", jitter)):
            msgspec.structs.force_setattr(self, name, value)

    @classmethod
    def constant(cls, wait: Duration) -> Backoff:
        """Return a backoff that always waits the same time, in seconds or as a timedelta."""
        return cls(base=seconds("backoff", wait), factor=1.0, cap=MAX_SECONDS, jitter=0.0)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Which completed jobs are kept, how long, and whether with their payload.

    `duration` in seconds or as a timedelta, None: for ever. `only_failed` keeps failed and
    cancelled jobs only. `payload`: "never", "failed" (only of failed jobs) or "always".
    """

    duration: Duration | None = None
    only_failed: bool = False
    payload: Literal["never", "failed", "always"] = "never"

    def __post_init__(self) -> None:
        if self.duration is not None:
            duration = seconds("Retention.duration", self.duration)
            msgspec.structs.force_setattr(self, "duration", duration)
        if not isinstance(self.only_failed, bool):
            raise InvalidType(f"Retention.only_failed={self.only_failed!r} must be True or False")
        if self.payload not in ("never", "failed", "always"):
            raise InvalidValue(f'Retention.payload={self.payload!r} must be "never", "failed" or "always"')


class Rate(msgspec.Struct, frozen=True):
    """How many attempts of a queue may start: at most `count` in any window of `per`, over all processes.

    `per`: seconds or timedelta. A window is counted from the handlers' first lines, in wall time, and is
    20 ms longer than asked, as nobody knows when exactly these run; so what is permitted is not quite
    reached where `per` is short. Retries count, and so does an attempt whose process died before it began.
    """

    count: int
    per: Duration

    def __post_init__(self) -> None:
        count, per = _count("Rate.count", self.count), seconds("Rate.per", self.per)
        if per < 0.001:
            raise InvalidValue(f"Rate.per={self.per!r} must be at least a millisecond")
        msgspec.structs.force_setattr(self, "count", count)
        msgspec.structs.force_setattr(self, "per", per)


class QueueConfig:
    """The configuration of a queue. Task types that share one object share the queue.

    - `name`: what the queue is called, 1 to 200 characters.
    - `max_attempts`: how often a job is tried before it has failed.
    - `max_crashes`: how often a job's process may die before the job has failed.
    - `backoff`: a `Backoff`, or a constant wait in seconds or as a timedelta.
    - `timeout`: seconds or timedelta that one attempt may take; None: no limit.
    - `retention`: which completed jobs are kept; None: none.
    - `priority`: that of jobs which are given none, from -10 to 10; higher ones run first.
    - `concurrency`: how many jobs may run at once in this process; None: as many as there are workers.
    - `global_concurrency`: the same over all processes on the database.
    - `concurrency_per_key`: the same for jobs of one key, see `.key()`; keys take turns.
    - `rate`: how many attempts may start in a time, a `Rate`.
    - `dead_letter`: a task type, declared before, of which a job is added whenever a job of this queue has
      failed for good, in the same transaction. Its fields are told what they are named after: `job_id`,
      `queue`, `task`, `payload` (the failed task as JSON), `error`, `attempts`, `crashes`, `created_at`,
      `failed_at`, `key`, `meta`, `tags`, `parent`; it needs no others.

    Raises `InvalidValue` (a ValueError) or `InvalidType` (a TypeError) that names the field.
    """

    __slots__ = (
        "backoff",
        "concurrency",
        "concurrency_per_key",
        "dead_letter",
        "global_concurrency",
        "limited",
        "max_attempts",
        "max_crashes",
        "name",
        "priority",
        "rate",
        "retention",
        "timeout",
    )

    name: str
    max_attempts: int
    max_crashes: int
    backoff: Backoff
    timeout: float | None
    retention: Retention | None
    priority: int
    concurrency: int | None
    global_concurrency: int | None
    concurrency_per_key: int | None
    rate: Rate | None
    dead_letter: type[msgspec.Struct] | None
    limited: bool

    def __init__(
        self,
        name: str,
        *,
        max_attempts: int = 3,
        max_crashes: int = 3,
        backoff: Backoff | Duration = Backoff(),  # noqa: B008 - immutable
        timeout: Duration | None = None,
        retention: Retention | None = None,
        priority: int = 0,
        concurrency: int | None = None,
        global_concurrency: int | None = None,
        concurrency_per_key: int | None = None,
        rate: Rate | None = None,
        dead_letter: type[msgspec.Struct] | None = None,
    ) -> None:
        if retention is not None and not isinstance(retention, Retention):
            raise InvalidType(f"retention={retention!r} must be a Retention or None")
        if rate is not None and not isinstance(rate, Rate):
            raise InvalidType(f"rate={rate!r} must be a Rate(count, per=...) or None")
        if dead_letter is not None and not (
            isinstance(dead_letter, type) and issubclass(dead_letter, msgspec.Struct)
        ):
            raise InvalidType(f"dead_letter={dead_letter!r} must be a task type, a subclass of Task, or None")
        if not isinstance(backoff, (Backoff, int, float, timedelta)):
            raise InvalidType(f"backoff={backoff!r} must be a Backoff, a number of seconds or a timedelta")
        limit = None if timeout is None else seconds("timeout", timeout)
        if limit == 0:
            raise InvalidValue(f"timeout={timeout!r} leaves no time to run; None means no limit")
        set_field = super().__setattr__
        set_field("name", checked_name(name))
        set_field("max_attempts", _count("max_attempts", max_attempts))
        set_field("max_crashes", _count("max_crashes", max_crashes))
        set_field("backoff", backoff if isinstance(backoff, Backoff) else Backoff.constant(backoff))
        set_field("timeout", limit)
        set_field("retention", retention)
        set_field("priority", checked_priority(priority))
        set_field("concurrency", _limit("concurrency", concurrency))
        set_field("global_concurrency", _limit("global_concurrency", global_concurrency))
        set_field("concurrency_per_key", _limit("concurrency_per_key", concurrency_per_key))
        set_field("rate", rate)
        set_field("dead_letter", dead_letter)
        limits = (concurrency, global_concurrency, concurrency_per_key, rate)
        set_field("limited", any(limit is not None for limit in limits))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a QueueConfig does not change: make another one with {name}={value!r}")

    def __repr__(self) -> str:
        fields = (
            "max_attempts",
            "max_crashes",
            "backoff",
            "timeout",
            "retention",
            "priority",
            "concurrency",
            "global_concurrency",
            "concurrency_per_key",
            "rate",
            "dead_letter",
        )
        return f"QueueConfig({self.name!r}, {', '.join(f'{f}={getattr(self, f)!r}' for f in fields)})"
