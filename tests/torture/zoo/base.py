"""What a specimen is: a handler that does what no handler should, and how its job may end."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from backlite_async import JobContext, QueueConfig, Retention, Task

__all__ = ["VAST", "ZOO", "Beside", "Handler", "Hostile", "Specimen", "Stage", "Timed", "once", "specimen"]

VAST = 100_000_000
"""Bytes or characters of what is far too large."""


class Hostile(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "hostile", max_attempts=2, max_crashes=2, backoff=0, retention=Retention()
    )


class Timed(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "timed", max_attempts=2, max_crashes=2, backoff=0, timeout=0.1, retention=Retention()
    )


class Beside(Task):
    config: ClassVar[QueueConfig] = QueueConfig("beside", backoff=0, retention=Retention())
    waits: bool = False


class Stage:
    """What a specimen can use of the process around it."""

    def __init__(self, state: Callable[[str, bool], None]) -> None:
        self.state = state  # takes a property that has to hold, and whether it does
        self.let_go = asyncio.Event()  # set when everybody else is done
        self.last_tasks: list[asyncio.Future[Any]] = []  # waited for after that
        self.last_calls: list[Callable[[], object]] = []  # made after that
        self._kept: list[object] = []

    def keep(self, leaked: object) -> None:
        """Keep something open or running for as long as the process."""
        self._kept.append(leaked)


Handler = Callable[[Any, JobContext, Stage], object]


@dataclass(frozen=True)
class Specimen:
    """A handler and the ways in which its job may end.

    `kills`: the process ends, and is started again. `lingers`: the handler ends only when it is let go.
    `disturbs`: jobs beside it may need a second attempt. `effects`: rows of its transactions that stay.
    `unwritable`: what it asks for cannot be stored, and its job fails for that. `hangs`: its process may
    hang instead of ending, until the supervisor kills it.
    """

    name: str
    handler: Handler
    fate: tuple[str, ...]
    kind: type[Task] = Hostile
    kills: bool = False
    lingers: bool = False
    disturbs: bool = False
    effects: int = 0
    unwritable: bool = False
    hangs: bool = False

    @property
    def threaded(self) -> bool:
        """Whether it is a `def` handler."""
        return not inspect.iscoroutinefunction(self.handler)


ZOO: dict[str, Specimen] = {}


def specimen(*fate: str, name: str = "", **traits: Any) -> Callable[[Handler], Handler]:
    """Put the decorated handler into the zoo."""

    def collect(handler: Handler) -> Handler:
        called = name or getattr(handler, "__name__", "").replace("_", " ")
        ZOO[called] = Specimen(called, handler, fate, **traits)
        return handler

    return collect


def once(name: str) -> bool:
    """Return True the first time in any process of this exhibit."""
    try:
        os.close(os.open(f"{name}.once", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
