"""Specimens that raise or return what nobody expects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from backlite_async import Discard, JobContext, Retry, Snooze, Task

from .base import VAST, Handler, Stage, specimen


class Odd(BaseException):
    """Nothing that anybody catches."""


def _raising(make: Callable[[], BaseException]) -> tuple[Handler, Handler]:
    async def coroutine(task: Task, job: JobContext, stage: Stage) -> None:
        raise make()

    def function(task: Task, job: JobContext, stage: Stage) -> None:
        raise make()

    return coroutine, function


def _in_circles() -> BaseException:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__ = second
    return first


def _nested_group() -> BaseException:
    error: Exception = ValueError("core")
    for _ in range(3_000):
        error = ExceptionGroup("shell", [error])
    return error


def _noted() -> BaseException:
    error = ValueError("with a note")
    error.add_note("x" * VAST)
    return error


def _texts(name: str, text: Callable[[Any], Any]) -> BaseException:
    error: BaseException = type(name, (Exception,), {"__str__": text, "__repr__": text})()
    return error


def _cry(kind: type[BaseException]) -> Callable[[Any], Any]:
    def text(self: Any) -> NoReturn:
        raise kind("no text")

    return text


def _endless(self: Any) -> str:
    return str(self) + "!"


def _hidden(attribute: str, cry: type[BaseException] = RuntimeError) -> BaseException:
    """Make an error one attribute of which cannot be asked for."""
    arguments = ("hidden", [ValueError()]) if attribute == "exceptions" else ("hidden",)
    base = ExceptionGroup if attribute == "exceptions" else ValueError
    error: BaseException = type("Hidden", (base,), {attribute: property(_cry(cry))})(*arguments)
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: ValueError("ordinary"),
    "system exit": lambda: SystemExit(7),
    "cancelled": lambda: asyncio.CancelledError("by myself"),
    "generator exit": GeneratorExit,
    "stop iteration": lambda: StopIteration(1),
    "stop async iteration": StopAsyncIteration,
    "odd": lambda: Odd("odd"),
    "group": lambda: BaseExceptionGroup("g", [SystemExit(1), KeyboardInterrupt(), ValueError("v")]),
    "cancelled group": lambda: BaseExceptionGroup("g", [asyncio.CancelledError(), Odd()]),
    "wide group": lambda: ExceptionGroup("wide", [ValueError(str(n)) for n in range(100_000)]),
    "deep group": _nested_group,
    "memory": lambda: MemoryError("as if"),
    "vast text": lambda: ValueError("x" * VAST),
    "vast note": _noted,
    "circular cause": _in_circles,
    "surrogates": lambda: ValueError("\ud800 \0 \udfff"),
    "text raises": lambda: _texts("Mute", _cry(ValueError)),
    "text exits": lambda: _texts("Mute", _cry(SystemExit)),
    "text interrupts": lambda: _texts("Mute", _cry(KeyboardInterrupt)),
    "text cancels": lambda: _texts("Mute", _cry(asyncio.CancelledError)),
    "text is odd": lambda: _texts("Mute", _cry(Odd)),
    "text recurses": lambda: _texts("Endless", _endless),
    "text is no text": lambda: _texts("Number", lambda self: 5),
    "hidden cause": lambda: _hidden("__cause__"),
    "hidden traceback": lambda: _hidden("__traceback__"),
    "hidden members": lambda: _hidden("exceptions"),
    "cause that exits": lambda: _hidden("__cause__", SystemExit),
    "traceback that exits": lambda: _hidden("__traceback__", SystemExit),
    "members that exit": lambda: _hidden("exceptions", SystemExit),
    "class that exits": lambda: _hidden("__class__", SystemExit),
    "long name": lambda: type("N" * 1_000_000, (Exception,), {})("long"),
}

for _name, _make in RAISED.items():
    for _suffix, _handler in zip(("", " in a thread"), _raising(_make), strict=True):
        specimen("failed", name=_name + _suffix)(_handler)

specimen("failed", name="keyboard interrupt in a thread")(_raising(KeyboardInterrupt)[1])


class _Unmade(Snooze):
    def __init__(self) -> None:
        Exception.__init__(self)


class _Unreasonable(Discard):
    def __init__(self) -> None:
        Exception.__init__(self)


def _changed(error: Any, **attributes: object) -> BaseException:
    for name, value in attributes.items():
        setattr(error, name, value)
    return error  # type: ignore[no-any-return]


STEERS: dict[str, Callable[[], BaseException]] = {
    "snooze that was not made": _Unmade,
    "discard that was not made": _Unreasonable,
    "retry after a word": lambda: _changed(Retry(1), after="soon"),
    "retry after nan": lambda: _changed(Retry(1), after=float("nan")),
    "retry before": lambda: _changed(Retry(1), after=-1e300),
    "snooze for ever": lambda: _changed(Snooze(1), duration=float("inf")),
    "snooze until a word": lambda: _changed(Snooze(1), until="tomorrow"),
    "discard with an object": lambda: _changed(Discard("x"), reason=_texts("Mute", _cry(ValueError))),
}

for _name, _make in STEERS.items():
    specimen("failed", name=_name, unwritable=_name == "retry before")(_raising(_make)[0])


@specimen("failed")
async def recurses(task: Task, job: JobContext, stage: Stage) -> None:
    await recurses(task, job, stage)  # type: ignore[misc]


@specimen("failed", name="recurses in a thread")
def _recurses(task: Task, job: JobContext, stage: Stage) -> None:
    _recurses(task, job, stage)


@specimen("failed", name="asks for all memory")
async def _hungry(task: Task, job: JobContext, stage: Stage) -> None:
    bytearray(1 << 62)


@specimen("failed")
async def returns_a_coroutine(task: Task, job: JobContext, stage: Stage) -> Coroutine[Any, Any, Any]:
    return asyncio.sleep(0)


@specimen("failed", "succeeded")
async def returns_what_has_no_class(task: Task, job: JobContext, stage: Stage) -> object:
    odd = {"__class__": property(_cry(Odd)), "__del__": _cry(ValueError)}
    return type("Classless", (), odd)()


@specimen("succeeded")
def returns_much(task: Task, job: JobContext, stage: Stage) -> bytes:
    return bytes(VAST)
