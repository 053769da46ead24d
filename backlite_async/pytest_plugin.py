"""Fixtures for pytest, by name only: `backlite_clock`, `backlite_client`, `backlite_file_client`.

They need nothing but their names in tests that run under pytest-asyncio, in either mode, or under anyio's own
plugin (`@pytest.mark.anyio`). Nothing of the library is loaded before one of them is used.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from backlite_async import Client
    from backlite_async.testing import ManualClock

__all__ = ["backlite_client", "backlite_clock", "backlite_file_client"]

LOOPS = ("function", "class", "module", "package", "session")
"""What an event loop of pytest-asyncio may be for."""


@pytest.fixture
def backlite_clock() -> ManualClock:
    """Give a clock that stands still until it is told to go on: that of the clients below."""
    from backlite_async.testing import ManualClock

    return ManualClock()


@pytest.fixture
def backlite_client(request: pytest.FixtureRequest) -> Client:
    """Give a started client on a store in memory, which is stopped at the end of the test."""
    return _started(request, "memory")


@pytest.fixture
def backlite_file_client(request: pytest.FixtureRequest) -> Client:
    """Give a started client on `tmp_path / "app.db"`, which is stopped at the end of the test."""
    return _started(request, "file")


def _started(request: pytest.FixtureRequest, kind: str) -> Client:
    """Return a client that was started by the plugin that runs the test."""
    runner = "anyio" if "anyio_backend" in request.fixturenames else _loop_of(request)
    if runner is None:
        pytest.fail(
            f"{request.fixturename} is for tests under pytest-asyncio or marked with pytest.mark.anyio;"
            " elsewhere write 'async with backlite_async.testing.client() as client:'"
        )
    client: Client = request.getfixturevalue(f"_backlite_{kind}_{runner}")
    return client


def _loop_of(request: pytest.FixtureRequest) -> str | None:
    """Return what the event loop of a test under pytest-asyncio is for; None: there is no such plugin."""
    if not request.config.pluginmanager.has_plugin(ASYNCIO):
        return None
    marker = request.node.get_closest_marker("asyncio")
    scope = None if marker is None else marker.kwargs.get("loop_scope", marker.kwargs.get("scope"))
    try:
        return str(scope or request.config.getini("asyncio_default_test_loop_scope") or "function")
    except (KeyError, ValueError):  # of older versions
        return "function"


def _opening(kind: str) -> Callable[..., AsyncIterator[Client]]:
    """Return a new function that can be made a fixture, by one plugin or another."""

    async def started(backlite_clock: ManualClock, tmp_path: Path) -> AsyncIterator[Client]:
        from backlite_async import testing

        database = tmp_path / "app.db" if kind == "file" else ":memory:"
        async with testing.client(database, clock=backlite_clock) as client:
            yield client

    return started


_backlite_memory_anyio = pytest.fixture(_opening("memory"), name="_backlite_memory_anyio")
_backlite_file_anyio = pytest.fixture(_opening("file"), name="_backlite_file_anyio")

ASYNCIO = "backlite_async with pytest-asyncio"


def pytest_configure(config: pytest.Config) -> None:
    """Make the same fixtures for pytest-asyncio, if that is used: in strict mode it takes no others."""
    if sys.modules.get("pytest_asyncio.plugin") not in config.pluginmanager.get_plugins():
        return
    import pytest_asyncio

    scoped = "loop_scope" in inspect.signature(pytest_asyncio.fixture).parameters
    plugin = ModuleType(ASYNCIO)
    for kind in ("memory", "file"):
        for loop in LOOPS:
            name = f"_backlite_{kind}_{loop}"
            options: Any = {"name": name} | ({"loop_scope": loop} if scoped else {})
            setattr(plugin, name, pytest_asyncio.fixture(_opening(kind), **options))
    config.pluginmanager.register(plugin, ASYNCIO)
