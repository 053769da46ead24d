"""The jobs of a world: queues, kinds, and the steps that their handlers take."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from backlite_async import Backoff, Discard, QueueConfig, Retention, Retry, Snooze, Task

from .history import How

__all__ = [
    "DEADLY_STEPS",
    "HOSTILE_STEPS",
    "KINDS",
    "PLAIN_STEPS",
    "QUEUES",
    "Patient",
    "Probe",
    "Sibling",
    "Simple",
    "Single",
    "Step",
    "Threaded",
    "Work",
    "how_it_ended",
    "kind_of",
    "raise_as_planned",
]

Step = tuple[str, float]
"""What a handler does, and for how many seconds."""

SHORT = QueueConfig("short", max_attempts=3, backoff=2.0, timeout=3.0, retention=Retention())
ONCE = QueueConfig("once", max_attempts=1, max_crashes=2, retention=Retention(only_failed=True))
LONG = QueueConfig(
    "long",
    max_attempts=5,
    backoff=Backoff(base=0.5, factor=3.0, cap=20.0, jitter=0.5),
    timeout=8.0,
    retention=Retention(duration=600.0, payload="always"),
)
PLAIN = QueueConfig("plain", max_attempts=2, max_crashes=1_000, backoff=0.0)
QUEUES = (SHORT, ONCE, LONG, PLAIN)


class Work(Task):
    """A job that follows a plan: a step for each execution, and then success."""

    config: ClassVar[QueueConfig] = SHORT
    number: int
    plan: list[Step] = []


class Sibling(Work):
    """Another kind in the same queue."""

    config = SHORT


class Single(Work):
    """A job that is tried once."""

    config = ONCE


class Patient(Work):
    """A job with many attempts."""

    config = LONG


class Simple(Work):
    """A job that leaves no trace; the kind that every process runs from the start."""

    config = PLAIN


class Threaded(Work):
    """A job with a `def` handler."""

    config = PLAIN


class Probe(Task):
    """A job that waits for its fellows."""

    config: ClassVar[QueueConfig] = QueueConfig("probe", max_attempts=1, max_crashes=1_000)


KINDS: tuple[type[Work], ...] = (Work, Sibling, Single, Patient, Simple, Threaded)


def kind_of(task: type[Task]) -> tuple[str, str]:
    """Return the queue and the name of a kind."""
    return task.config.name, task.__name__


PLAIN_STEPS = ("ok", "fail", "snooze", "retry", "discard")
HOSTILE_STEPS = (
    *PLAIN_STEPS,
    "fail",
    "late",
    "stubborn",
    "raise cancelled",
    "exit",
    "group",
    "cancel own",
    "add",
    "leak",
    "own scope",
    "parting snooze",
    "commit",
    "commit",
)
DEADLY_STEPS = (*HOSTILE_STEPS, "die", "die", "die")


def raise_as_planned(name: str, seconds: float) -> None:
    match name:
        case "fail":
            raise ValueError("as planned")
        case "snooze":
            raise Snooze(seconds)
        case "retry":
            raise Retry(after=seconds)
        case "discard":
            raise Discard("as planned")
        case "raise cancelled":
            raise asyncio.CancelledError
        case "exit":
            raise SystemExit(3)
        case "group":
            raise BaseExceptionGroup("as planned", [ValueError("one"), SystemExit(2)])
        case _:
            pass


def how_it_ended(error: BaseException) -> tuple[How, float | None]:
    """Return how a handler ended by raising this, and the wait that it asked for."""
    match error:
        case Snooze():
            return "snoozed", error.duration
        case Retry():
            return "retried", error.after
        case Discard():
            return "discarded", None
        case asyncio.CancelledError():
            return "cancelled", None
        case _:
            return "raised", None
