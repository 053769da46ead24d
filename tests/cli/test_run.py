"""Worker processes: real ones, with real signals."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest

from backlite_async import Client, QueueConfig, Task, _events
from backlite_async.cli import _run

from .conftest import Ran, Report, Run, start

LIMIT = 30.0
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


class Unhandled(Task):
    config: ClassVar[QueueConfig] = Report.config


def finish(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=LIMIT)
    return Ran(process.returncode, out, err)


def held(tmp_path: Path, shop: str, run: Run) -> tuple[str, subprocess.Popen[str]]:
    """Start a worker whose job waits for the file "until"; return the job's id and the process."""
    fields = ("--running", tmp_path / "running", "--until", tmp_path / "until")
    ran = run("jobs", "add", "Hold", "--app", shop, *fields)
    process = start("run", "--app", shop, "--workers", "3", cwd=tmp_path)
    assert process.stderr is not None
    while not (tmp_path / "running").exists():
        assert process.poll() is None
    return ran.out.strip(), process


def test_drain_works_off_what_is_due(shop: str, tmp_path: Path, run: Run) -> None:
    """And what comes of it; later jobs stay, and so do those of paused queues and without a handler."""
    for number in range(20):
        run("jobs", "add", "Send", "--to", f"a{number}", "--app", shop)
    run("jobs", "add", "Send", "--to", "nobody", "--app", shop)
    run("jobs", "add", "Send", "--to", "later", "--app", shop, "--wait", "1h")
    run("jobs", "add", "Hold", "--running", "r", "--until", "u", "--app", shop)
    run("queues", "pause", "held", "--db", "shop.db")
    ran = finish(start("run", "--app", shop, "--drain", "--json", cwd=tmp_path))
    assert ran.code == 0
    assert ran.data == [{"succeeded": 20, "failed": 1, "cancelled": 0, "retried": 1}]
    assert "client.started" in ran.err
    assert run("jobs", "count", "--db", "shop.db", "--state", "pending").out == "2\n"
    again = run("run", "--app", shop, "--drain")
    assert (again.code, again.out) == (0, "succeeded=0 failed=0 cancelled=0 retried=0\n")


def test_drain_waits_for_what_running_jobs_add(file: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that takes its time may add another job at its end, which is due then, and runs too."""
    client, looks, later = Client(file, workers=2), [], []
    module = ModuleType("made_here")
    module.client = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_here", module)
    look = _run._due

    async def counted(client: Client) -> bool:
        looks.append(client)
        return await look(client)

    monkeypatch.setattr(_run, "_due", counted)

    @client.handler(Report)
    async def report(task: Report) -> None:
        if task.name == "first":
            begun = len(looks)
            while len(looks) < begun + 5:  # nothing is due meanwhile
                await anyio.lowlevel.checkpoint()
            await client.add(Report("second")).save()
        else:
            later.append(task.name)

    asyncio.run(add(file, Report("first")))
    ran = run("run", "--app", "made_here:client", "--drain", "--json")
    assert ran.data == [{"succeeded": 2, "failed": 0, "cancelled": 0, "retried": 0}]
    assert later == ["second"]


def test_drain_counts_all_however_slow_listeners_are(
    file: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the application's listeners is bounded, the numbers are exact all the same."""
    monkeypatch.setattr(_events, "WAITING", 1)
    client = Client(file, workers=2)
    module = ModuleType("made_here")
    module.client = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_here", module)

    @client.handler(Report)
    async def report(task: Report) -> None: ...

    asyncio.run(add(file, *(Report(str(number)) for number in range(50))))
    ran = run("run", "--app", "made_here:client", "--drain", "--json")
    assert ran.data == [{"succeeded": 50, "failed": 0, "cancelled": 0, "retried": 0}]


async def test_drain_leaves_what_has_no_handler_beside_what_has_one(file: str) -> None:
    """Of one queue: a type that was renamed, or that another process runs."""
    client, sent = Client(file, workers=2), []

    @client.handler(Report)
    async def report(task: Report) -> None:
        sent.append(task.name)

    await add(file, Report("a"))
    await add(file, Unhandled())
    await add(file, Report("b"))
    async with client:
        with anyio.fail_after(LIMIT):
            assert await _run._drain(client, _run.Tally(client), asyncio.Event())
    assert sorted(sent) == ["a", "b"]


async def add(file: str, *tasks: Report | Unhandled) -> None:
    async with Client(file, workers=0) as client:
        await client.add(*tasks).save()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_end(shop: str, tmp_path: Path, run: Run, how: signal.Signals) -> None:
    """The worker waits for its handler, then exits with 0; nothing else is claimed."""
    job_id, process = held(tmp_path, shop, run)
    process.send_signal(how)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "client.stopping" in line:
            break
    assert process.poll() is None
    other = run("jobs", "add", "Send", "--to", "ada", "--app", shop).out.strip()
    (tmp_path / "until").touch()
    ran = finish(process)
    assert (ran.code, ran.out) == (0, "")
    assert any("stopping: waiting for running jobs" in line for line in lines)
    assert "clean=True" in ran.err
    assert "job.succeeded" in ran.err
    assert run("jobs", "show", job_id, "--db", "shop.db").code == 3  # its queue keeps nothing
    assert run("jobs", "show", other, "--db", "shop.db", "--json").data[0]["status"] == "pending"


def test_a_second_signal_stops_at_once(shop: str, tmp_path: Path, run: Run) -> None:
    """The job is given back, its attempt uncounted."""
    job_id, process = held(tmp_path, shop, run)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    for line in process.stderr:
        if "client.stopping" in line:
            break
    process.send_signal(signal.SIGTERM)
    ran = finish(process)
    assert ran.code == 1
    assert "stopping at once" in ran.err
    [job] = run("jobs", "show", job_id, "--db", "shop.db", "--json").data
    assert (job["status"], job["attempt"]) == ("pending", 0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_also_where_nobody_reads_what_it_says(
    shop: str, tmp_path: Path, how: signal.Signals
) -> None:
    """As Ctrl-C ends what it is piped to, too."""
    process = start("run", "--app", shop, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stderr:
        if "client.started" in line:
            break
    process.stdout.close()
    process.stderr.close()
    process.send_signal(how)
    assert process.wait(LIMIT) == 0


def test_a_client_that_only_adds_gets_workers(
    shop: str, tmp_path: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """What a web process has with workers=0 runs here all the same."""
    module = tmp_path / f"{shop.partition(':')[0]}.py"
    module.write_text(module.read_text().replace("workers=2", "workers=0"))
    run("jobs", "add", "Send", "--to", "ada", "--app", shop)
    sys.modules.pop(shop.partition(":")[0])
    caplog.set_level("INFO")
    assert run("run", "--app", shop, "--drain").out == "succeeded=1 failed=0 cancelled=0 retried=0\n"
    assert "workers=10" in caplog.text


def test_another_database_in_its_place_ends_it(shop: str, tmp_path: Path, run: Run) -> None:
    """With an error in one line, and not as if all were well."""
    process = start("run", "--app", shop, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "client.started" in line:
            break
    for name in ("shop.db", "shop.db-wal", "shop.db-shm"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    assert run("jobs", "add", "Send", "--to", "ada", "--app", shop).code == 0
    ran = finish(process)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("Error: database ")


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("{name}:clint", 1, "has no 'clint'. Did you mean 'client'"),
        ("{name}:Send", 1, "is no Client, but the class Send. Its clients: client."),
        ("{name}:client.nothing", 1, "has no 'client.nothing'"),
        ("{name}", 2, "Its clients: client."),
        ("{name}x:client", 1, "there is no module '{name}x' here"),
        ("{name}x:client", 1, "Did you mean '{name}'?"),
        ("os.pth:client", 1, "there is no module 'os.pth'"),
        (":client", 2, "write MODULE:CLIENT"),
        ("broken:client", 1, "importing 'broken' failed"),
        ("broken:client", 1, "No module named 'nothing_like_it'"),
    ],
)
def test_an_application_that_is_not_there(shop: str, run: Run, app: str, code: int, said: str) -> None:
    """What is missing is named, with what may have been meant."""
    Path("broken.py").write_text("import nothing_like_it\n")
    name = shop.partition(":")[0]
    ran = run("run", "--app", app.format(name=name))
    assert (ran.code, ran.out) == (code, "")
    assert said.format(name=name) in ran.err
    assert ("Traceback" in ran.err) == (app == "broken:client")


def test_the_database_is_the_applications(shop: str, run: Run) -> None:
    """Another one cannot be said."""
    ran = run("run", "--app", shop, "--db", "other.db")
    assert ran.code == 2
    assert "leave out --db" in ran.err
    assert run("run").code == 2


def test_the_number_of_workers_can_be_changed_before_the_start() -> None:
    """As `--workers` does."""
    client = Client(":memory:", workers=0)
    client.workers = 7
    assert client.workers == 7
    with pytest.raises(ValueError, match="between 0 and 10,000"):
        client.workers = -1
