"""The library, by its public calls alone; durability full, as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar

from backlite_async import Client, QueueConfig, Retention

from .filling import Row, clone, numbered
from .system import Place
from .workload import DELAYED_AHEAD, QUEUES, Noop

__all__ = ["Delayed", "Keeping", "Kept", "Library", "Queues"]

HOUR = 3_600_000


class Kept(Noop):
    """The same job in a queue that keeps what has completed."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "benchmark-kept", timeout=30.0, retention=Retention(duration=timedelta(hours=1))
    )


class Library:
    """One client, which adds and runs."""

    kinds: ClassVar[list[type[Noop]]] = [Noop]

    def __init__(self, place: Place, note: Callable[[int], object]) -> None:
        self.place = place
        self.note = note
        self.client = Client(place.file, workers=0)

    async def start(self, workers: int) -> None:
        self.client = Client(self.place.file, workers=workers)
        note = self.note

        async def handle(task: Noop) -> None:
            note(task.n)

        for kind in self.kinds:
            self.client.register(kind, handle)
        await self.client.start()

    async def add(self, task: Noop) -> None:
        await self.client.add(task).save()

    async def add_many(self, tasks: list[Noop]) -> None:
        await self.client.add(*tasks).save()

    async def stop(self) -> None:
        await self.client.stop()

    def fill(self, count: int) -> None:
        clone(self.place.file, "backlite_jobs", count, numbered)


class Keeping(Library):
    """With its completed jobs retained. Filled with jobs that have completed, where one has."""

    kinds: ClassVar[list[type[Noop]]] = [Kept]

    async def add(self, task: Noop) -> None:
        await self.client.add(Kept(task.n, task.s)).save()

    async def add_many(self, tasks: list[Noop]) -> None:
        await self.client.add(*[Kept(task.n, task.s) for task in tasks]).save()

    def fill(self, count: int) -> None:
        self.fill_completed(count, time.time_ns() // 1_000_000 + HOUR)

    def fill_completed(self, count: int, expires_at: int) -> None:
        """Let so many more jobs have completed, which expire then."""

        def vary(row: Row, number: int) -> Row:
            return numbered(row, number + expires_at) | {"expires_at": expires_at}

        clone(self.place.file, "backlite_completed", count, vary)


class Delayed(Library):
    """With jobs in front that have a higher priority and are due in an hour."""

    def fill(self, count: int) -> None:
        later = time.time_ns() // 1_000_000 + HOUR
        ahead = {"priority": 5, "scheduled_at": later, "due_at": later}
        step = round(1 / DELAYED_AHEAD)

        def vary(row: Row, number: int) -> Row:
            return numbered(row, number) | (ahead if number % step == 0 else {})

        clone(self.place.file, "backlite_jobs", count, vary)


class Queues(Library):
    """With many queues, all of which wait."""

    kinds: ClassVar[list[type[Noop]]] = [Noop]  # and those below

    def fill(self, count: int) -> None:
        names = [kind.config.name for kind in self.kinds]

        def vary(row: Row, number: int) -> Row:
            return numbered(row, number) | {"queue": names[number % len(names)]}

        clone(self.place.file, "backlite_jobs", count, vary)


def _in_queue(number: int) -> type[Noop]:
    class InQueue(Noop):
        config: ClassVar[QueueConfig] = QueueConfig(f"benchmark-{number}", timeout=30.0)
        task_name: ClassVar[str] = "Noop"

    return InQueue


Queues.kinds += [_in_queue(number) for number in range(1, QUEUES)]
