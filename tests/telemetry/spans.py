"""A tracer that keeps its spans, and what tests ask of spans and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backlite_async import Client, JobNotFound

from ..conftest import LIMIT


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def of(self, name: str) -> list[ReadableSpan]:
        """Return those of a name, in the order of their begin."""
        return sorted((s for s in self.all if s.name == name), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        [span] = self.of(name)
        return span

    @property
    def traces(self) -> set[int]:
        return {trace_of(span) for span in self.all}

    def request(self) -> Any:
        """Stand for the span of a web request."""
        return self.provider.get_tracer("web").start_as_current_span("request")


def said(span: ReadableSpan) -> Mapping[str, Any]:
    """Return the attributes of a span."""
    return span.attributes or {}


def parent_of(span: ReadableSpan) -> int:
    """Return the id of a span's parent; 0: it has none."""
    return 0 if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    """Return the id of a span."""
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def trace_of(span: ReadableSpan) -> int:
    """Return the id of a span's trace."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


def metered(
    reader: InMemoryMetricReader, name: str, of: str | None = None
) -> dict[tuple[tuple[str, Any], ...], float]:
    """Return the values or counts of a metric, or what `of` names, by its attributes but for common ones."""
    data = reader.get_metrics_data()
    found: dict[tuple[tuple[str, Any], ...], float] = {}
    for resource in [] if data is None else data.resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            for point in metric.data.data_points if metric.name == name else ():
                key = {k: v for k, v in (point.attributes or {}).items() if k != "messaging.system"}
                value: Any = getattr(point, of or "value", None) or point.count  # type: ignore[union-attr]
                found[tuple(sorted(key.items()))] = value
    return found


async def ended(client: Client, *ids: str) -> None:
    """Wait until jobs have ended."""
    with anyio.fail_after(LIMIT):
        for job_id in ids:
            try:
                await client.wait(job_id)
            except JobNotFound:  # before anybody waited
                await asyncio.sleep(0)
