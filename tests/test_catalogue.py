"""The catalogue of task types: what any process has registered, also where its code is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

import pytest

from backlite_async import Client, InvalidState, InvalidType, InvalidValue, QueueConfig, Task, TaskNotFound
from backlite_async._clock import SystemClock, from_millis


class Clock(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1_900_000_000_000

    def now(self) -> int:
        return self.at


class Resize(Task):
    """Make a picture smaller.

    Its proportions stay.
    """

    config: ClassVar[QueueConfig] = QueueConfig("pictures")
    path: str
    width: int = 800


class Bare(Task):
    config: ClassVar[QueueConfig] = Resize.config


class Elsewhere(Task):
    """Of the same name."""

    config: ClassVar[QueueConfig] = QueueConfig("paintings")
    task_name: ClassVar[str] = "Resize"


async def resize(task: Resize) -> None:
    return None


async def test_what_is_known_of_a_task_type(database: str) -> None:
    """Name, queue, title, description and JSON schema of what was registered, and of what was added."""
    clock = Clock()
    client = Client(database, workers=0, clock=clock)
    client.register(Resize, resize)
    async with client:
        [info] = await client.tasks.list()
        assert (info.name, info.queue, info.title) == ("Resize", "pictures", "Make a picture smaller.")
        assert info.description == "Make a picture smaller.\n\nIts proportions stay."
        assert info.registered_at == from_millis(clock.at)
        assert info.schema is not None
        properties: Any = info.schema["$defs"]["Resize"]["properties"]
        assert properties == {"path": {"type": "string"}, "width": {"type": "integer", "default": 800}}
        await client.add(Bare()).save()
        assert [task.name for task in await client.tasks.list()] == ["Bare", "Resize"]
        bare = await client.tasks.get("Bare")
        assert bare is not None
        assert (bare.title, bare.description) == ("Bare", "")


async def test_a_task_type_by_its_name(database: str) -> None:
    """None if there is none; where several queues have one of that name, the queue must be said."""
    async with Client(database, workers=0) as client:
        client.register(Resize, resize)
        assert (await client.tasks.get("Resize")) == (await client.tasks.list())[0]
        client.registry.check(Elsewhere)
        await client.add(Elsewhere()).save()
        assert await client.tasks.get("None") is None
        assert await client.tasks.get("Resize", queue="none") is None
        found = await client.tasks.get("Resize", queue="paintings")
        assert found is not None
        assert found.description == "Of the same name."
        with pytest.raises(
            InvalidValue, match="is in several queues: 'paintings', 'pictures'; say which: get"
        ):
            await client.tasks.get("Resize")
        with pytest.raises(InvalidType, match="must be the name of a task type"):
            await client.tasks.get(Resize)  # type: ignore[arg-type]
        with pytest.raises(InvalidType):
            await client.tasks.get("Resize", 5)  # type: ignore[arg-type]


async def test_task_types_of_others_are_known(file: str) -> None:
    """A process that has none of the code knows them, with when they were registered, and after restarts."""
    clock = Clock()
    one = Client(file, workers=0, clock=clock)
    one.register(Resize, resize)
    async with one:
        await one.add(Resize("a.png")).save()
    first = clock.at
    clock.at += 5_000
    async with Client(file, workers=0, clock=clock) as two:
        [info] = await two.tasks.list()
        assert (info.title, info.registered_at) == ("Make a picture smaller.", from_millis(first))
    async with one:
        [info] = await one.tasks.list()
        assert info.registered_at - from_millis(first) in (timedelta(), timedelta(seconds=5))


async def test_a_client_that_is_not_started_knows_its_own_types(file: str) -> None:
    """A name that is none of them is said to be unknown; without any it must be started."""
    client = Client(file)
    with pytest.raises(InvalidState, match="not started"):
        await client.tasks.build("Resize", {"path": "a"})
    client.register(Resize, resize)
    assert await client.tasks.build("Resize", {"path": "a"}) == Resize("a")
    with pytest.raises(TaskNotFound, match=r"did you mean 'Resize'; .* once the client is started"):
        await client.tasks.build("Resise", {"path": "a"})
    with pytest.raises(TaskNotFound):
        await client.tasks.build("Resize", {"path": "a"}, queue="paintings")
