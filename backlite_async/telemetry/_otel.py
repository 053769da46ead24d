"""Spans and metrics by the API of OpenTelemetry, named by its conventions for messaging. Never a payload."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, Protocol

from opentelemetry import context as contexts
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backlite_async import __version__

__all__ = ["OpenTelemetry"]

NAME = "backlite_async"
SYSTEM = "messaging.system"
OPERATION, OPERATION_TYPE = "messaging.operation.name", "messaging.operation.type"
QUEUE = "messaging.destination.name"
MESSAGE, COUNT = "messaging.message.id", "messaging.batch.message_count"
ATTEMPT, OUTCOME, ERROR = "backlite.job.attempt", "backlite.job.outcome", "error.type"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Bounds of durations, where the application says no others."""

LOOKS_APART = 0.01
"""Seconds between two looks whether the application has set something up: each takes two microseconds."""

MOST_STATE = 512
"""Characters of a trace's state that are carried."""


class Job(Protocol):
    """What is told of a job."""

    @property
    def id(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def attempt(self) -> int: ...


def _said(operation: str, queue: str) -> dict[str, str]:
    """Return what is said of everything that is done with a queue."""
    return {SYSTEM: "backlite", OPERATION: operation, OPERATION_TYPE: operation, QUEUE: queue}


def _metered(operation: str, queue: str, error: str | None = None) -> dict[str, str]:
    found = {SYSTEM: "backlite", OPERATION: operation, QUEUE: queue}
    return found if error is None else {**found, ERROR: error}


class OpenTelemetry:
    """Speaks to the tracer and the meter that the application has set up, from when it has done so."""

    def __init__(self) -> None:
        self.tracing = self.metering = False
        self._look_at = 0.0
        self._format = TraceContextTextMapPropagator()
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._meter: metrics.Meter = metrics.NoOpMeter(NAME)
        self._instruments()

    def look(self) -> bool:
        """Return whether the application traces or meters by now."""
        if not (self.tracing and self.metering) and monotonic() >= self._look_at:
            self._look_at = monotonic() + LOOKS_APART
            self._find()
        return self.tracing or self.metering

    def _find(self) -> None:
        tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
        if not self.tracing and _is_real(tracers):
            self._tracer = tracers.get_tracer(NAME, __version__)
            self.tracing = True
        if not self.metering and _is_real(meters):
            self._meter = meters.get_meter(NAME, __version__)
            self._instruments()
            self.metering = True

    def _instruments(self) -> None:
        meter = self._meter
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Jobs added")
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Attempts begun"
        )
        name, unit, what = "messaging.process.duration", "s", "How long attempts ran"
        try:
            self._duration = meter.create_histogram(
                name, unit, what, explicit_bucket_boundaries_advisory=SECONDS
            )
        except TypeError:  # an older API, which cannot be advised
            self._duration = meter.create_histogram(name, unit, what)

    # -- jobs that are added -----------------------------------------------------------------------

    def send(self, queue: str) -> SendSpan:
        """Begin a span around the storing of jobs of a queue."""
        span = None
        if self.tracing:
            said = _said("send", queue)
            span = self._tracer.start_span(f"send {queue}", kind=SpanKind.PRODUCER, attributes=said)
        return SendSpan(self, span, queue)

    def here(self) -> dict[str, str]:
        """Return what jobs carry that are added here without a span of their own."""
        return self.carrier(contexts.get_current())

    def carrier(self, context: Context) -> dict[str, str]:
        """Return a context as what jobs carry; empty where there is no trace."""
        found: dict[str, str] = {}
        self._format.inject(found, context)
        if len(found.get("tracestate", "")) > MOST_STATE:
            del found["tracestate"]
        return found

    def added(self, queue: str, count: int) -> None:
        """Count jobs that were added."""
        self._sent.add(count, _metered("send", queue))

    def unsent(self, count: int, queue: str, error: str) -> None:
        """Count jobs that could not be added."""
        self._sent.add(count, _metered("send", queue, error))

    # -- attempts ----------------------------------------------------------------------------------

    def process(self, job: Job, context: Mapping[str, Any]) -> AttemptSpan:
        """Begin a span around an attempt, and make it the current one of this worker.

        The span of its add is its parent, so that all is one trace, and linked, as conventions want it.
        """
        carrier = {key: value for key, value in context.items() if isinstance(value, str)}
        parent = self._format.extract(carrier, Context())
        span = None
        if self.tracing:
            sent = trace.get_current_span(parent).get_span_context()
            span = self._tracer.start_span(
                f"process {job.queue}",
                context=parent,
                kind=SpanKind.CONSUMER,
                attributes={**_said("process", job.queue), MESSAGE: job.id, ATTEMPT: job.attempt},
                links=[Link(sent)] if sent.is_valid else [],
            )
            contexts.attach(trace.set_span_in_context(span, parent))
        self._consumed.add(1, _metered("process", job.queue))
        return AttemptSpan(self, span, job.queue)

    def processed(self, seconds: float, queue: str, error: str | None) -> None:
        """Count how long an attempt ran."""
        self._duration.record(seconds, _metered("process", queue, error))


class SendSpan:
    """A span around the storing of jobs of one queue; none, where only metrics are wanted."""

    def __init__(self, otel: OpenTelemetry, span: Span | None, queue: str) -> None:
        self._otel = otel
        self._span = span
        self._queue = queue

    @property
    def context(self) -> dict[str, str]:
        """What its jobs carry."""
        span = self._span
        return {} if span is None else self._otel.carrier(trace.set_span_in_context(span, Context()))

    def end(self, count: int, job_id: str | None, error: str | None) -> None:
        """End it; `job_id`: of the only job; `error`: the type of what was raised."""
        if error is not None and count:
            self._otel.unsent(count, self._queue, error)
        span = self._span
        if span is None:
            return
        if job_id is not None:
            span.set_attribute(MESSAGE, job_id)
        elif count:
            span.set_attribute(COUNT, count)
        if error is not None:
            _fail(span, error)
        span.end()


class AttemptSpan:
    """A span around one attempt; none, where only metrics are wanted."""

    def __init__(self, otel: OpenTelemetry, span: Span | None, queue: str) -> None:
        self._otel = otel
        self._span = span
        self._queue = queue

    def end(self, outcome: str, error: str | None, duration: float | None) -> None:
        """End it; `error`: the type of what was raised; `duration`: in seconds."""
        span, self._span = self._span, None
        if span is not None:
            span.set_attribute(OUTCOME, outcome)
            if error is not None:
                _fail(span, error)
            span.end()
        if duration is not None:
            self._otel.processed(duration, self._queue, error)


def _fail(span: Span, error: str) -> None:
    """Say that something went wrong; its text is not told, as a value of a task may be in it."""
    span.set_attribute(ERROR, error)
    span.set_status(Status(StatusCode.ERROR, error))


def _is_real(provider: object) -> bool:
    """Return whether this is no stand-in of the API for what nobody has set up."""
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
