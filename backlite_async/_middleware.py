"""Middleware: what the application puts around each attempt."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from ._config import checked_name
from ._context import JobContext
from ._errors import InvalidState, InvalidType
from ._registry import called, unwrapped

__all__ = ["Around", "CallNext", "Layers", "M", "through"]


class CallNext(Protocol):
    """What a middleware calls to go on: the next middleware, or at last the handler."""

    def __call__(self, job: JobContext, task: Any, /) -> Coroutine[Any, Any, Any]: ...


Around = Callable[[JobContext, Any, CallNext], Coroutine[Any, Any, Any]]


M = TypeVar("M", bound=Around)


class Layers:
    """The middleware of one client, in the order of registration: the first is the outermost."""

    def __init__(self) -> None:
        self.all: list[tuple[str | None, Around]] = []
        self._of: dict[str, tuple[Around, ...]] = {}

    def copy(self) -> Layers:
        """Return the same for another client."""
        layers = Layers()
        layers.all = [*self.all]
        return layers

    def decorator(self, queue: str | None) -> Callable[[M], M]:
        """Return what puts a function around the attempts of a queue, or of all, that begin from then on."""
        if queue is not None:
            checked_name(queue)

        def decorate(function: M) -> M:
            _check(function)
            self.all.append((queue, function))
            self._of.clear()
            return function

        return decorate

    def put(self, function: Around) -> None:
        """Put a function around all of these."""
        self.all.insert(0, (None, function))
        self._of.clear()

    def take_out(self, function: Around) -> None:
        """Undo `put`."""
        self.all.remove((None, function))
        self._of.clear()

    def of(self, queue: str) -> tuple[Around, ...]:
        """Return what is around the attempts of a queue."""
        if not self.all:
            return ()
        found = self._of.get(queue)
        if found is None:
            found = self._of[queue] = tuple(f for name, f in self.all if name is None or name == queue)
        return found


def through(layers: tuple[Around, ...], context: JobContext, handle: CallNext) -> CallNext:
    """Return a call of a handler that goes through these layers."""
    call = _one_at_a_time(context, handle)
    for layer in reversed(layers):
        call = _step(context, layer, call)
    return call


def _step(context: JobContext, layer: Around, inner: CallNext) -> CallNext:
    def call_next(job: JobContext, task: Any, /) -> Coroutine[Any, Any, Any]:
        if job is not context:
            raise InvalidType(
                f"call_next(job, task) takes the job that the middleware was given, not {job!r}"
            )
        return layer(job, task, inner)

    return call_next


def _one_at_a_time(context: JobContext, handle: CallNext) -> CallNext:
    """Return a call that refuses to run a handler beside itself: a job runs once at a time."""
    running = False

    async def call_next(job: JobContext, task: Any, /) -> Any:
        nonlocal running
        if job is not context:
            raise InvalidType(
                f"call_next(job, task) takes the job that the middleware was given, not {job!r}"
            )
        if running:
            raise InvalidState(f"the handler of job {job.id} runs; call_next() again once it has returned")
        running = True
        try:
            return await handle(job, task)
        finally:
            running = False

    return call_next


def _check(function: object) -> None:
    """Refuse what cannot be called as a middleware is."""
    name = called(function)
    how = "a middleware is async def around(job, task, call_next)"
    if isinstance(function, str):
        raise InvalidType(f"{function!r} is no function; write @client.middleware(queue={function!r})")
    inner = unwrapped(function) if callable(function) and not isinstance(function, type) else None
    if not inspect.iscoroutinefunction(inner) or not callable(function):
        raise InvalidType(f"middleware {name} is not async def; {how}")
    try:
        signature = inspect.signature(function)
        signature.bind(None, None, None)
    except TypeError:
        raise InvalidType(f"middleware {name} cannot be called with three arguments; {how}") from None
    names = list(signature.parameters)
    try:
        hints = typing.get_type_hints(inner)
    except Exception:  # names that cannot be resolved here are the type checker's business
        hints = {}
    if names[1:2] == ["job"] or (len(names) > 1 and hints.get(names[1]) is JobContext):
        raise InvalidType(f"middleware {name} takes the job second, but it comes first; {how}")
