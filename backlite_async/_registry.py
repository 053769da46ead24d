"""Which handler runs which task type."""

from __future__ import annotations

import functools
import inspect
import typing
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from types import UnionType
from typing import Any, Union

import msgspec

from ._config import QueueConfig
from ._context import JobContext
from ._errors import AlreadyRegistered, InvalidTask, InvalidType
from ._job import Hands
from ._plan import Kind
from ._task import SchemaTask, TaskType, task_type

__all__ = ["Handler", "Registry", "called", "unwrapped"]


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """A registered function: how to call it, and for what."""

    kind: TaskType
    config: QueueConfig
    function: Callable[..., Any]
    threaded: bool
    wants_job: bool

    def arguments(self, task: Any, job: JobContext) -> tuple[Any, ...]:
        """Return what the function is called with."""
        return (task, job) if self.wants_job else (task,)


class Registry:
    """The handlers of one client, and the queues it has met."""

    def __init__(self) -> None:
        self._handlers: MutableMapping[tuple[str, str], Handler] = {}
        self.queues: MutableMapping[str, QueueConfig] = {}
        """The queues that were met, by name."""
        self.types: MutableMapping[tuple[str, str], TaskType] = {}
        """The task types that were met, by queue and name."""
        self._paused: set[str] = set()
        self.kinds: list[Kind] = []
        """What can be run here, but for queues that are paused here."""
        self.limited: list[QueueConfig] = []
        """The queues of these kinds that are limited."""
        self.sorts: set[bool] = set()
        """Whether there are handlers in threads (True), and in the event loop (False)."""
        self.in_threads: set[str] = set()
        """The queues all of whose handlers run in threads."""

    def seen(self) -> Registry:
        """Return one that knows what this one knows, and will know, and keeps to itself what it meets."""
        other = Registry()
        other._handlers = ChainMap({}, self._handlers)
        other.queues = ChainMap({}, self.queues)
        other.types = ChainMap({}, self.types)
        return other

    def check(self, cls: object) -> None:
        """Raise unless this is a task type."""
        if inspect.isroutine(cls):
            raise InvalidTask(
                f"{called(cls)} is no task type; write @client.handler(TaskType), with the type"
            )
        task_type(cls)

    def register(self, cls: type, function: Callable[..., Any]) -> None:
        """Have `function` run tasks of type `cls`. Raises before anything has changed."""
        kind = task_type(cls)
        handler = _handler(kind, function)
        for name in kind.names:
            if (kind.config.name, name) in self._handlers:
                raise AlreadyRegistered(
                    f"task {name!r} of queue {kind.config.name!r} has a handler already:"
                    f" {called(self._handlers[kind.config.name, name].function)}"
                )
        self.meet(kind)
        for name in kind.names:
            self._handlers[kind.config.name, name] = handler
        self._sort()

    def pause(self, queue: str) -> None:
        """Have nothing of a queue claimed here."""
        self._paused.add(queue)
        self._sort()

    def resume(self, queue: str) -> None:
        """Undo `pause`."""
        self._paused.discard(queue)
        self._sort()

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are paused here."""
        return frozenset(self._paused)

    def _sort(self) -> None:
        found = {kind: handler for kind, handler in self._handlers.items() if kind[0] not in self._paused}
        self.kinds = [Kind(*kind, handler.threaded) for kind, handler in found.items()]
        self.sorts = {handler.threaded for handler in found.values()}
        self.in_threads = {kind.queue for kind in self.kinds if kind.threaded}
        self.in_threads -= {kind.queue for kind in self.kinds if not kind.threaded}
        configs = {handler.config.name: handler.config for handler in found.values()}
        self.limited = [config for config in configs.values() if config.limited]

    def meet(self, kind: TaskType) -> None:
        """Take note of a task type's queue; two configurations of one name are an error.

        Not of one that was made of what is known of another: it must not stand in that one's way.
        """
        if issubclass(kind.cls, SchemaTask):
            return
        if kind.letter is not None:
            self.meet(kind.letter)
        known = self.queues.setdefault(kind.config.name, kind.config)
        if known is not kind.config:
            raise AlreadyRegistered(
                f"queue {kind.config.name!r} of {kind.cls.__qualname__} has another QueueConfig already;"
                " let the task types share one object, or give the queue another name"
            )
        other = self.types.setdefault((kind.config.name, kind.name), kind).cls
        if other is not kind.cls:
            raise AlreadyRegistered(
                f"task {kind.name!r} of queue {kind.config.name!r} is {other.__module__}.{other.__qualname__}"
                f" already; give {kind.cls.__module__}.{kind.cls.__qualname__} a task_name of its own"
            )

    @property
    def handled(self) -> list[tuple[str, str]]:
        """Queue and task name of the kinds of jobs that can be run here."""
        return [(kind.queue, kind.task) for kind in self.kinds]

    def hands(self, threads: int) -> Hands:
        """Return what others are told of the handlers here, with so many threads for them."""
        threaded = sorted({kind.queue for kind in self.kinds if kind.threaded})
        return Hands(tuple(self.handled), tuple(threaded), threads)

    def find(self, queue: str, task: str) -> Handler | None:
        """Return the handler of a stored job, by its queue and task name."""
        return self._handlers.get((queue, task))


def _handler(kind: TaskType, function: Callable[..., Any]) -> Handler:
    name = called(function)
    if not callable(function) or isinstance(function, type):
        raise InvalidType(f"handler {name} must be a function, async def or def")
    inner = unwrapped(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise InvalidType(f"handler {name} is a generator; a handler returns or raises, it does not yield")
    parameters = _positional(function, name)
    _check_annotation(kind, inner, parameters, name)
    return Handler(
        kind=kind,
        config=kind.config,
        function=function,
        threaded=not inspect.iscoroutinefunction(inner),
        wants_job=_wants_job(parameters, name),
    )


def _positional(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some built-in functions
        return []
    kinds = inspect.Parameter
    required = [
        p.name for p in signature.parameters.values() if p.kind is kinds.KEYWORD_ONLY and p.default is p.empty
    ]
    if required:
        raise InvalidType(f"handler {name} needs the keyword argument {required[0]!r}, which nobody gives it")
    found = [
        p
        for p in signature.parameters.values()
        if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD, kinds.VAR_POSITIONAL)
    ]
    if not found:
        raise InvalidType(
            f"handler {name} takes no argument; it is called as handler(task) or handler(task, job)"
        )
    return found


def _wants_job(parameters: list[inspect.Parameter], name: str) -> bool:
    required = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    if len(required) > 2:
        raise InvalidType(
            f"handler {name} needs {len(required)} arguments;"
            " it is called as handler(task) or handler(task, job)"
        )
    return len(required) == 2 or (len(parameters) > 1 and parameters[1].name == "job")


def _check_annotation(kind: TaskType, inner: Any, parameters: list[inspect.Parameter], name: str) -> None:
    """Refuse a function whose first argument is annotated as another type."""
    if not parameters:
        return
    try:
        hints = typing.get_type_hints(inner)
    except Exception:  # names that cannot be resolved here are the type checker's business
        return
    annotation = hints.get(parameters[0].name)
    union = typing.get_origin(annotation) in (Union, UnionType)
    accepted = typing.get_args(annotation) if union else (annotation,)
    _check_job_annotation(hints, parameters, name)
    structs = [item for item in accepted if isinstance(item, type) and issubclass(item, msgspec.Struct)]
    if len(structs) == len(accepted) and not any(issubclass(kind.cls, item) for item in structs):
        raise InvalidType(
            f"handler {name} takes {annotation!r}, not {kind.cls.__qualname__};"
            " register it for the type it takes"
        )


def _check_job_annotation(hints: dict[str, Any], parameters: list[inspect.Parameter], name: str) -> None:
    if hints.get(parameters[0].name) is JobContext:
        raise InvalidType(f"handler {name} takes the job first; it is called as handler(task, job)")
    second = hints.get(parameters[1].name) if _wants_job(parameters, name) else None
    if isinstance(second, type) and second is not Any and not issubclass(JobContext, second):
        raise InvalidType(
            f"handler {name} takes {second!r} as its second argument, which is the job, a JobContext"
        )


def unwrapped(function: Callable[..., Any]) -> Any:
    """Return the function that decides whether this is a coroutine function."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function):
        return function
    return type(function).__call__


def called(function: object) -> str:
    """Return what a function is called in messages."""
    return str(getattr(function, "__qualname__", None) or repr(function))
