"""What the client tells whoever traces: spans around adds and attempts, and what travels between them.

What speaks to OpenTelemetry is loaded once an application uses that. Until then it costs a look or two,
and nothing is written. Whatever a tracer, a sampler or an exporter raises changes nothing for a job.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from . import _log as log
from ._carry import carried, encoded
from ._errors import InvalidState, InvalidType, InvalidValue
from ._failure import describe

if TYPE_CHECKING:
    from ._events import Bus
    from ._job import ClaimedJob, NewJob
    from ._outcome import Result

__all__ = ["Attended", "Carry", "Sending", "Telemetry"]

V = TypeVar("V")

Carry = Callable[[str], str | None]
"""Returns what new jobs of a queue are to carry, as JSON; None: nothing."""

API = "opentelemetry.trace"
CODE = "backlite_async.telemetry._otel"


class SendSpan(Protocol):
    """A span around the storing of jobs of one queue; none, where only metrics are wanted."""

    @property
    def context(self) -> dict[str, str]:
        """What its jobs carry."""
        ...

    def end(self, count: int, job_id: str | None, error: str | None) -> None:
        """End it; `job_id`: of the only job; `error`: the type of what was raised."""
        ...


class AttemptSpan(Protocol):
    """A span around one attempt."""

    def end(self, outcome: str, error: str | None, duration: float | None) -> None:
        """End it; `error`: the type of what was raised; `duration`: in seconds."""
        ...


class Tracing(Protocol):
    """What knows a tracing library."""

    tracing: bool
    metering: bool

    def look(self) -> bool:
        """Return whether the application traces or meters by now."""
        ...

    def send(self, queue: str) -> SendSpan:
        """Begin a span around the storing of jobs of a queue."""
        ...

    def process(self, job: ClaimedJob, context: dict[str, Any]) -> AttemptSpan:
        """Begin a span around an attempt, and make it the current one."""
        ...

    def here(self) -> dict[str, str]:
        """Return what jobs carry that are added here without a span of their own."""
        ...

    def added(self, queue: str, count: int) -> None:
        """Count jobs that were added."""
        ...


class Sending:
    """One `save()`: a span for each queue, from the first job that is made to the last that is stored."""

    def __init__(self, otel: Tracing | None, said: dict[str, Any]) -> None:
        self._otel = otel
        self._said = said
        self._spans: dict[str, SendSpan] = {}
        self._contexts: dict[str, str | None] = {}

    def context(self, queue: str) -> str | None:
        """Return what jobs of a queue carry, as JSON; None: nothing."""
        if queue not in self._contexts:
            self._contexts[queue] = guarded("begin a span", partial(self._begin, queue))
        return self._contexts[queue]

    def _begin(self, queue: str) -> str | None:
        if self._otel is None:
            return encoded({}, self._said)
        span = self._spans[queue] = self._otel.send(queue)
        return encoded(span.context, self._said)

    def begin(self, jobs: Sequence[NewJob]) -> None:
        """Begin spans for jobs that were made by an earlier try."""
        for job in jobs:
            self.context(job.queue)

    def ended(
        self, jobs: Sequence[NewJob], *, existing: str | None = None, error: BaseException | None = None
    ) -> None:
        """End the spans: these jobs are stored, or one is there already, or something was raised."""
        counts = Counter(job.queue for job in jobs)  # quick, as there may be very many
        alone = {queue for queue, count in counts.items() if count == 1}
        ids = {job.queue: existing or job.id for job in jobs if job.queue in alone} if alone else {}
        kind = None if error is None else type(error).__qualname__
        for queue, span in self._spans.items():
            guarded("end a span", partial(span.end, counts[queue], ids.get(queue), kind))


class Attended:
    """One attempt: its span, and the names of what its job has carried for log lines."""

    __slots__ = ("_span", "names")

    def __init__(self, span: AttemptSpan | None, names: tuple[str, ...]) -> None:
        self._span = span
        self.names = names

    def ended(self, outcome: str, result: Result) -> None:
        """End the span of an attempt that has come to something."""
        span = self._span
        if span is None:
            return
        error = None
        if outcome == "cancelled":
            error = outcome
        elif result.error is not None and outcome not in ("succeeded", "snoozed", "given_back"):
            error = result.type or "Error"
        duration = None if result.duration is None else result.duration / 1_000_000
        guarded("end a span", partial(span.end, outcome, error, duration))


class Telemetry:
    """What one client is to trace: `tracing` and `context` of `Client(...)`."""

    def __init__(self, tracing: object, context: object, bus: Bus) -> None:
        self._names = _checked_names(context)
        self._wanted = _checked_tracing(tracing)
        self._bus = bus
        self._otel: Tracing | None = None
        self._observing = False
        if tracing is True:
            self._load()

    def copy(self, bus: Bus) -> Telemetry:
        """Return the same for another client."""
        tracing = None if self._wanted else False
        return Telemetry(tracing if self._otel is None else True, self._names, bus)

    def sending(self) -> Sending | None:
        """Return what jobs that are saved here are to carry; None: nothing."""
        otel = self._live()
        if otel is None and not self._names:
            return None
        said = log.bound(self._names) if self._names else {}
        return None if otel is None and not said else Sending(otel, said)

    def here(self) -> Carry | None:
        """Return the same of jobs that are not saved, but added by something else."""
        otel = self._live()
        said = log.bound(self._names) if self._names else {}
        trace: dict[str, str] | None = None
        if otel is not None and otel.tracing:
            trace = guarded("look at a span", otel.here)
        context = encoded(trace or {}, said)
        return None if context is None else lambda queue: context

    def attend(self, job: ClaimedJob) -> Attended | None:
        """Bind what a job carries, and begin the span of an attempt; called in its worker's own context."""
        if job.meta is None and self._otel is None and (not self._wanted or API not in sys.modules):
            return None  # as for most jobs: this is on the way of each
        context = carried(job.meta)
        said: Any = None if context is None else context.get("log")
        if said and isinstance(said, dict):
            log.bind(said)
        otel, span = self._live(), None
        if otel is not None:
            span = guarded("begin a span", partial(otel.process, job, context or {}))
        return Attended(span, tuple(said or ())) if span is not None or said else None

    def _live(self) -> Tracing | None:
        """Return what knows OpenTelemetry, if the application has set that up by now."""
        otel = self._otel
        if otel is None:
            if not self._wanted or API not in sys.modules:
                return None
            otel = self._load()
        if otel is None or not guarded("look for a tracer", otel.look):
            return None
        if otel.metering and not self._observing:
            self._observing = True
            self._bus.count_added(otel.added)
        return otel

    def _load(self) -> Tracing | None:
        try:
            self._otel = importlib.import_module(CODE).OpenTelemetry()
        except ImportError:  # a part of it is missing, or too old
            self._wanted = False
        return self._otel


def guarded(doing: str, call: Callable[[], V]) -> V | None:
    """Return what a call returns; None, and a line in the log, where it raises."""
    try:
        return call()
    except Exception as error:
        log.emit(log.TELEMETRY_FAILED, doing=doing, error=describe(error))
        return None


def _checked_tracing(tracing: object) -> bool:
    if tracing is not None and not isinstance(tracing, bool):
        raise InvalidType(f"tracing={tracing!r} must be True, False, or None: where OpenTelemetry is used")
    if tracing is True:
        try:
            importlib.import_module(API)
        except ImportError as error:
            raise InvalidState(
                'tracing=True needs opentelemetry-api: pip install "backlite_async[otel]"'
            ) from error
    return tracing is not False


def _checked_names(context: object) -> tuple[str, ...]:
    if isinstance(context, str) or not isinstance(context, Iterable):
        raise InvalidType(f"context={context!r} must be names of context variables, such as ('request_id',)")
    names = tuple(dict.fromkeys(context))
    for name in names:
        if not isinstance(name, str):
            raise InvalidType(f"context={context!r} must be names, which are str, not {name!r}")
        if not re.fullmatch(r"\w[\w.-]{0,99}", name):
            raise InvalidValue(f"context: {name!r} is no name of 1 to 100 letters, digits and underscores")
    return names
