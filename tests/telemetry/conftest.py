"""A tracer and a meter for one test, and nothing for the tests after it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from .spans import Spans

collect_ignore = []
if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
    collect_ignore += ["test_traces.py", "test_outcomes.py", "test_trace_processes.py"]
if find_spec("prometheus_client") is None:
    collect_ignore += ["test_prometheus.py"]
if collect_ignore or find_spec("fastapi") is None or find_spec("httpx") is None:
    collect_ignore += ["test_recipes.py"]


@pytest.fixture
def database(file: str) -> str:
    """One kind of database is enough for most of what is told here."""
    return file


@pytest.fixture(params=["memory", "sqlite"])
def either(request: pytest.FixtureRequest, file: str) -> str:
    """A database of each kind, for what passes through it."""
    return ":memory:" if request.param == "memory" else file


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """An application that traces."""
    from opentelemetry import trace

    from .spans import Spans

    found = Spans()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
    yield found
    found.provider.shutdown()


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """An application that meters."""
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    found = InMemoryMetricReader()
    provider = MeterProvider([found], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    yield found
    provider.shutdown()
