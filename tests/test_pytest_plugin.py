"""The pytest plugin: fixtures by name only, under whatever runs asynchronous tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PLUGIN = "backlite_async.pytest_plugin"
ASYNCIO = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")
ANYIO = ("-p", "anyio.pytest_plugin")

SUITE = """
import pytest
from typing import ClassVar
from backlite_async import Client, QueueConfig, Task, testing

class Mail(Task):
    config: ClassVar[QueueConfig] = QueueConfig("mails")
    to: str

clients = []

{mark}
async def test_memory(backlite_client: Client, backlite_clock: testing.ManualClock):
    await check(backlite_client, backlite_clock)

{mark}
async def test_file(backlite_file_client, backlite_clock, tmp_path):
    await check(backlite_file_client, backlite_clock)
    assert (tmp_path / "app.db").exists()

{mark}
async def test_both(backlite_file_client, backlite_client, backlite_clock):
    await check(backlite_client, backlite_clock)
    await testing.refute_added(backlite_file_client, Mail)

async def check(client, clock):
    assert client.clock is clock

    @client.handler(Mail)
    async def mail(task):
        sent.append(task.to)

    sent = []
    await client.add(Mail("ann")).wait(3600).save()
    await testing.run_until_idle(client)
    assert sent == ["ann"]
    clients.append(client)

def test_they_are_stopped():
    assert len(clients) == {ran}
    assert all(client._running.over for client in clients)
"""


def run(folder: Path, suite: str, *options: str) -> tuple[str, dict[str, int]]:
    """Run tests with these options and no plugin but ours; return what pytest says, and numbers."""
    (folder / "test_suite.py").write_text(suite)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        PLUGIN,
        *options,
    ]
    done = subprocess.run(
        [*command, *options, "--rootdir", str(folder), "test_suite.py"],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout + done.stderr
    last = said.strip().splitlines()[-1]
    return said, {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", last)}


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("", (*ASYNCIO, "-o", "asyncio_mode=auto")),
        ("@pytest.mark.asyncio", (*ASYNCIO, "-o", "asyncio_mode=strict")),
        ("@pytest.mark.asyncio(loop_scope='module')", (*ASYNCIO, "-o", "asyncio_mode=strict")),
        ("@pytest.mark.anyio", ANYIO),
        ("@pytest.mark.anyio", (*ANYIO, *ASYNCIO, "-o", "asyncio_mode=strict")),
    ],
    ids=["auto", "strict", "another loop", "anyio", "anyio beside strict"],
)
def test_the_fixtures_work_whatever_runs_the_tests(
    tmp_path: Path, mark: str, options: tuple[str, ...]
) -> None:
    """Clients are started in the test's own event loop, share its clock, and are stopped afterwards."""
    suite = SUITE.format(mark=mark, ran=3)
    if "anyio" in mark:
        suite += "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    said, numbers = run(tmp_path, suite, *options)
    assert numbers == {"passed": 4}, said


def test_without_such_a_plugin_they_say_what_to_do(tmp_path: Path) -> None:
    """The clock can be used in any test; a client needs an event loop, which one can give it oneself."""
    suite = """
import asyncio
from backlite_async import testing

def test_clock(backlite_clock):
    backlite_clock.advance(1)

def test_own_loop(backlite_clock):
    async def main():
        async with testing.client(clock=backlite_clock) as client:
            assert await testing.run_until_idle(client) == []
    asyncio.run(main())

def test_client(backlite_client):
    pass
"""
    said, numbers = run(tmp_path, suite)
    assert numbers == {"passed": 2, "error": 1}, said
    assert "backlite_client is for tests under pytest-asyncio or marked with pytest.mark.anyio" in said
    assert "async with backlite_async.testing.client() as client:" in said


def test_tests_that_do_not_ask_for_it_are_left_alone(tmp_path: Path) -> None:
    """Nothing is autouse, and nothing of the library is loaded, but for the package and the plugin."""
    suite = """
import sys

def test_fixtures(request):
    assert [name for name in request.fixturenames if "backlite" in name] == []

def test_modules():
    assert {name for name in sys.modules if name.startswith("backlite")} == {
        "backlite_async", "backlite_async.pytest_plugin"
    }
    assert not {"aiosqlite", "msgspec", "anyio", "structlog"} & sys.modules.keys()
"""
    said, numbers = run(tmp_path, suite)
    assert numbers == {"passed": 2}, said


def test_the_plugin_loads_nothing_but_pytest() -> None:
    """An import costs what pytest costs."""
    code = (
        f"import json, sys, pytest; before = {{*sys.modules}}; import {PLUGIN};"
        " print(json.dumps([*{*sys.modules} - before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in json.loads(done.stdout) if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"backlite_async", PLUGIN}


def test_pytest_finds_the_plugin() -> None:
    """The entry point is declared."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"] == {"pytest11": {"backlite_async": PLUGIN}}


@pytest.mark.skipif("BACKLITE_TEST_WHEEL" not in os.environ, reason="set by nox, which installs the wheel")
def test_pytest_finds_the_installed_plugin(pytestconfig: pytest.Config) -> None:
    """It is installed with the wheel, and loaded in this very run."""
    assert [found.value for found in entry_points(group="pytest11", name="backlite_async")] == [PLUGIN]
    assert pytestconfig.pluginmanager.has_plugin("backlite_async")
