"""An application, its database with jobs in every state, and the command line called in this process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from backlite_async import Client, JobContext, QueueConfig, Retention, Task, chain, group
from backlite_async.cli import main

collect_ignore_glob = ["test_*.py"] if find_spec("click") is None else []

SHOP = '''
from typing import ClassVar

from backlite_async import Client, JobContext, QueueConfig, Retention, Task


class Send(Task):
    """Send a letter."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "mail", max_attempts=2, backoff=0, retention=Retention(payload="always")
    )
    to: str
    copies: int = 1
    copies_to: list[str] = []


class Hold(Task):
    """Say that it runs, and wait for a file."""

    config: ClassVar[QueueConfig] = QueueConfig("held")
    running: str
    until: str


client = Client("shop.db", workers=2, stop_timeout=20)


@client.handler(Send)
async def send(task: Send, job: JobContext) -> dict[str, int]:
    if task.to == "nobody":
        raise ValueError("no such address")
    return {"sent": task.copies}


@client.handler(Hold)
async def hold(task: Hold) -> None:
    import os

    import anyio

    open(task.running, "w").close()
    while not os.path.exists(task.until):
        await anyio.sleep(0.01)
'''


LATER = datetime(2100, 1, 1, tzinfo=UTC)


class Send(Task):
    """Send a letter.

    To one address.
    """

    config: ClassVar[QueueConfig] = QueueConfig(
        "mail", max_attempts=1, retention=Retention(payload="always"), concurrency=5
    )
    to: str
    copies: int = 1


class Report(Task):
    """Make a report."""

    config: ClassVar[QueueConfig] = QueueConfig("reports", retention=Retention(payload="always"))
    name: str = "all"


class Ids(NamedTuple):
    """What is in the database."""

    succeeded: str
    failed: str
    pending: str
    order: str
    waiting: str


async def _fill(path: Path) -> Ids:
    client = Client(path, workers=2)

    @client.handler(Send)
    async def send(task: Send, job: JobContext) -> dict[str, int]:
        if task.to == "nobody":
            raise ValueError("no such address: \x1b[31m<nobody>")
        job.log.info("sent", to=task.to)
        return {"sent": task.copies}

    client.schedule("nightly", Report("night"), every=3600)
    async with client:
        order = chain(Send("one"), group(Send("two"), Send("nobody")), Send("three"), name="order")
        added = await client.add(Send("ada", 3), Send("nobody"), order).save()
        await client.wait(added[0])
        await client.wait(added[1])
        await client.workflows.wait(added[2])
        later = await client.add(Report("later")).wait(7200).tags("monthly").key("k").save()
        waiting = await client.add(chain(Report("a"), Report("b")), Send("éßø")).at(LATER).save()
    return Ids(added[0], added[1], later[0], added[2], waiting[0])


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ids]:
    """A database that is made once."""
    path = tmp_path_factory.mktemp("filled") / "app.db"
    return path, asyncio.run(_fill(path))


@pytest.fixture
def ids(filled: tuple[Path, Ids]) -> Ids:
    """What is in the database."""
    return filled[1]


@pytest.fixture
def db(filled: tuple[Path, Ids], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the database, which the environment names."""
    copy = tmp_path / "app.db"
    shutil.copy(filled[0], copy)
    monkeypatch.setenv("BACKLITE_DB", str(copy))
    return copy


class Ran(NamedTuple):
    """What a command has come to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> list[dict[str, Any]]:
        """Its lines, each of them JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Run:
    """Call the command line in this process."""
    if "db" not in request.fixturenames:
        monkeypatch.delenv("BACKLITE_DB", raising=False)
    monkeypatch.setattr(sys, "argv", ["backlite"])

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


names = itertools.count()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An application in the working directory; gives what `--app` is to be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"shop_{next(names)}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    yield f"{name}:client"
    sys.modules.pop(name, None)


started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """What a test that fails has started is ended."""
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def start(*arguments: object, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "BACKLITE_DB"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "backlite_async", *map(str, arguments)],
        cwd=cwd,
        env=environment | more.pop("env", {}),
        text=True,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more,
    )
    started.append(process)
    return process
