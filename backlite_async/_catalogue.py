"""What can be asked of task types, also where their code is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ._build import built, did_you_mean
from ._config import QueueConfig, Rate, checked_name
from ._errors import InvalidType, InvalidValue, TaskNotFound
from ._job import TaskInfo
from ._schema import made_up
from ._task import TaskType

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Catalogue"]

ADDED_WITH = (
    "concurrency", "global_concurrency", "concurrency_per_key", "timeout", "max_attempts", "priority",
)  # fmt: skip
"""What is stored of a queue that it was configured with, but its rate."""


class Catalogue:
    """The task types of a client's database, as last registered by any process: `client.tasks`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: dict[tuple[str, str], tuple[TaskInfo, TaskType]] = {}

    async def list(self) -> Sequence[TaskInfo]:
        """Return the task types, by queue and name."""
        await self._client.declare_queues()
        return await self._client.open_store().tasks()

    async def get(self, name: str, queue: str | None = None) -> TaskInfo | None:
        """Return a task type; None if there is none of that name.

        `queue` is only needed where several queues have one of that name: without it, that is an
        `InvalidValue`.
        """
        _check(name, queue)
        found = [task for task in await self.list() if task.name == name and queue in (None, task.queue)]
        _refuse_several("get", name, [task.queue for task in found])
        return found[0] if found else None

    async def build(
        self, name: str, fields: Mapping[str, Any], queue: str | None = None, *, text: bool = False
    ) -> msgspec.Struct:
        """Return a task of this name with these fields, for `client.add()` and `client.jobs.edit()`.

        Where its code is known here, an instance of its type (also by an alias); elsewhere one of a type made
        of the JSON schema that another process has stored, which is encoded as that one would be. The fields
        are JSON values, by their names in JSON, and checked as a handler's process will check them.

        `text`: values that are text, as forms give them, mean what their field takes: "5" a number; "on",
        "true" and their like a bool; JSON text a list or an object; "" nothing: the field's default, or None.
        What can only be text stays what it is, also "". `queue` is only needed where several have one of that
        name. Raises `TaskNotFound`, and `PayloadError` that names the field and what it must be.
        """
        _check(name, queue)
        return built(await self._kind(name, queue), fields, text=text)

    async def _kind(self, name: str, queue: str | None) -> TaskType:
        """Return the task type of a name: the one that is known here, or one made of what is stored."""
        types = self._client.registry.types
        here = {place: kind for place, kind in types.items() if place[1] == name}
        here = here or {place: kind for place, kind in types.items() if name in kind.names}
        found = [kind for place, kind in here.items() if queue in (None, place[0])]
        if found and (queue is not None or not self._client.is_open):
            _refuse_several("build", name, [kind.config.name for kind in found])
            return found[0]
        if types and not self._client.is_open:
            known = {other for other_queue, other in types if queue in (None, other_queue)}
            hint = did_you_mean(name, known).removesuffix("?")
            raise TaskNotFound(
                name, f"{hint}; others that the database knows are found once the client is started"
            )
        infos = await self.list()
        stored = {info.queue: info for info in infos if info.name == name and queue in (None, info.queue)}
        queues = dict.fromkeys([*(kind.config.name for kind in found), *stored])
        _refuse_several("build", name, sorted(queues))
        if not queues:
            places = {(info.queue, info.name) for info in infos} | types.keys()
            names = {other for where, other in places if queue in (None, where)}
            raise TaskNotFound(name, did_you_mean(name, names))
        return found[0] if found else self._make(stored.popitem()[1])

    def _make(self, info: TaskInfo) -> TaskType:
        """Make a task type of what is stored, once."""
        known = self._made.get((info.queue, info.name))
        if known is not None and known[0] == info:
            return known[1]
        if info.schema is None:
            raise InvalidValue(
                f"task {info.name!r} of queue {info.queue!r} has no JSON schema, because a field's type has"
                " none; make the task where its type is imported"
            )
        kind = made_up(info.name, info.schema, _config(info), info.description)
        self._made[info.queue, info.name] = info, kind
        return kind


def _check(name: object, queue: str | None) -> None:
    if not isinstance(name, str):
        raise InvalidType(f"name={name!r} must be the name of a task type, a str")
    if queue is not None:
        checked_name(queue)


def _refuse_several(call: str, name: str, queues: Sequence[str]) -> None:
    if len(queues) > 1:
        listed = ", ".join(map(repr, queues))
        raise InvalidValue(
            f"task {name!r} is in several queues: {listed}; say which: {call}(name, queue=...)"
        )


def _config(info: TaskInfo) -> QueueConfig:
    """Return what is stored of the queue of a task type, as far as it matters to who adds jobs."""
    limits = dict(info.limits)
    rate = limits.pop("rate", None)
    limits = {name: limits[name] for name in ADDED_WITH if name in limits}
    return QueueConfig(info.queue, rate=None if rate is None else Rate(**rate), **limits)
