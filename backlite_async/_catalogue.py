"""What can be asked of task types, also where their code is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._config import checked_name
from ._errors import InvalidType, InvalidValue
from ._job import TaskInfo

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Catalogue"]


class Catalogue:
    """The task types of a client's database, as last registered by any process: `client.tasks`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> Sequence[TaskInfo]:
        """Return the task types, by queue and name."""
        await self._client.declare_queues()
        return await self._client.open_store().tasks()

    async def get(self, name: str, queue: str | None = None) -> TaskInfo | None:
        """Return a task type; None if there is none of that name.

        `queue` is only needed where several queues have one of that name: without it, that is an
        `InvalidValue`.
        """
        if not isinstance(name, str):
            raise InvalidType(f"name={name!r} must be the name of a task type, a str")
        if queue is not None:
            checked_name(queue)
        found = [task for task in await self.list() if task.name == name and queue in (None, task.queue)]
        if len(found) > 1:
            queues = ", ".join(repr(task.queue) for task in found)
            raise InvalidValue(
                f"task {name!r} is in several queues: {queues}; say which: get(name, queue=...)"
            )
        return found[0] if found else None
