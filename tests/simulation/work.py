"""The jobs of a world: queues, kinds, and the steps that their handlers take."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from backlite_async import Backoff, Discard, QueueConfig, Rate, Retention, Retry, Snooze, Task
from backlite_async._clock import seconds

from .history import How, Ruled

__all__ = [
    "DEADLY_STEPS",
    "HOSTILE_STEPS",
    "KEYED",
    "KINDS",
    "LETTERS",
    "LIMITED",
    "PLAIN_STEPS",
    "QUEUES",
    "THREADED",
    "WILLING_STEPS",
    "Few",
    "Here",
    "Letter",
    "Lone",
    "Mixed",
    "OtherTurn",
    "Paced",
    "PacedThread",
    "Pair",
    "Patient",
    "Probe",
    "Sibling",
    "Simple",
    "Single",
    "Step",
    "Threaded",
    "Turn",
    "Work",
    "how_it_ended",
    "kind_of",
    "raise_as_planned",
    "rule_of",
]

Step = tuple[str, float]
"""What a handler does, and for how many seconds."""

DEAD = QueueConfig("dead", max_attempts=2, max_crashes=1_000, retention=Retention(duration=900.0))


class Letter(Task):
    """What is added for a job that has failed."""

    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    queue: str
    attempts: int
    crashes: int
    error: str


SHORT = QueueConfig("short", max_attempts=3, backoff=2.0, timeout=3.0, retention=Retention())
ONCE = QueueConfig(
    "once",
    max_attempts=1,
    max_crashes=2,
    retention=Retention(only_failed=True, payload="failed"),
    dead_letter=Letter,
)
LONG = QueueConfig(
    "long",
    max_attempts=5,
    backoff=Backoff(base=0.5, factor=3.0, cap=20.0, jitter=0.5),
    timeout=8.0,
    retention=Retention(duration=600.0, payload="always"),
)
PLAIN = QueueConfig("plain", max_attempts=2, max_crashes=1_000, backoff=0.0)
LONE = QueueConfig("lone", max_attempts=2, backoff=0.5, timeout=5.0, global_concurrency=1, dead_letter=Letter)
FEW = QueueConfig(
    "few", max_attempts=3, backoff=1.0, concurrency=1, global_concurrency=3, retention=Retention()
)
HERE = QueueConfig("here", max_attempts=2, backoff=0.1, concurrency=2, priority=2)
TURNS = QueueConfig("turns", max_attempts=3, backoff=1.0, timeout=4.0, concurrency_per_key=1)
PAIRS = QueueConfig(
    "pairs",
    max_attempts=2,
    backoff=0.3,
    global_concurrency=4,
    concurrency_per_key=2,
    priority=-3,
    retention=Retention(duration=300.0, only_failed=True, payload="always"),
    dead_letter=Letter,
)
PACED = QueueConfig("paced", max_attempts=2, backoff=0.2, timeout=6.0, rate=Rate(2, per=3.0))
MIXED = QueueConfig(
    "mixed",
    max_attempts=3,
    backoff=0.5,
    concurrency=2,
    global_concurrency=3,
    concurrency_per_key=1,
    rate=Rate(5, per=1.0),
)
QUEUES = (DEAD, SHORT, ONCE, LONG, PLAIN, LONE, FEW, HERE, TURNS, PAIRS, PACED, MIXED)


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


class Lone(Work):
    """A job of which one runs at a time, anywhere."""

    config = LONE


class Few(Work):
    """A job of which one runs in a process, and three in all."""

    config = FEW


class Here(Work):
    """A job of which two run in a process."""

    config = HERE


class Turn(Work):
    """A job that takes turns with those of the same key."""

    config = TURNS


class OtherTurn(Work):
    """Another kind in the same queue, with the same keys."""

    config = TURNS


class Pair(Work):
    """A job of which two of a key and four in all run at a time."""

    config = PAIRS


class Paced(Work):
    """A job of which two start in three seconds."""

    config = PACED


class PacedThread(Work):
    """Another kind in the same queue, with a `def` handler."""

    config = PACED


class Mixed(Work):
    """A job with every limit."""

    config = MIXED


class Probe(Task):
    """A job that waits for its fellows."""

    config: ClassVar[QueueConfig] = QueueConfig("probe", max_attempts=1, max_crashes=1_000)


KINDS: tuple[type[Work], ...] = (Work, Sibling, Single, Patient, Simple, Threaded)
LIMITED: tuple[type[Work], ...] = (Lone, Few, Here, Turn, OtherTurn, Pair, Paced, PacedThread, Mixed)
LETTERS = frozenset(queue.name for queue in QUEUES if queue.dead_letter is not None)
"""The queues whose failed jobs have dead letters."""
THREADED: tuple[type[Work], ...] = (Threaded, PacedThread)
KEYED = frozenset({TURNS.name, PAIRS.name, MIXED.name})


def kind_of(task: type[Task]) -> tuple[str, str]:
    """Return the queue and the name of a kind."""
    return task.config.name, task.__name__


def rule_of(queue: QueueConfig) -> Ruled:
    """Return what a queue promises."""
    kept, rate = queue.retention, queue.rate
    keep_for = None if kept is None else kept.duration
    return Ruled(
        queue=queue.name,
        here=queue.concurrency,
        in_all=queue.global_concurrency,
        per_key=queue.concurrency_per_key,
        rate=None if rate is None else (rate.count, seconds("per", rate.per)),
        timeout=queue.timeout,
        keeps=kept is not None,
        keep_for=None if keep_for is None else round(seconds("duration", keep_for) * 1000),
    )


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
    "report",
    "report",
)
DEADLY_STEPS = (*HOSTILE_STEPS, "die", "die", "die")
WILLING_STEPS = frozenset(
    {"ok", "fail", "snooze", "retry", "discard", "own scope", "leak", "group", "die", "report"}
)
"""Steps that end as soon as they are cancelled."""


def raise_as_planned(name: str, seconds: float) -> None:
    match name:
        case "fail" | "extend fail":
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
