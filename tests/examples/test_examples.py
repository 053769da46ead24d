"""The examples do what they say, as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from backlite_async import Discard, chain, group, testing

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 65


def load(name: str) -> ModuleType:
    """Import an example anew."""
    spec = spec_from_file_location(f"examples.{Path(name).stem}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, folder: Path) -> list[str]:
    """Run an example away from the checkout, every warning an error; return the lines it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=folder,
        env={"PATH": "", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert list(folder.iterdir()) == [], "an example cleans up behind itself"
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_short(path: Path) -> None:
    """An example is read in one go: it has fewer than 65 lines, and says first what it shows."""
    text = path.read_text()
    assert len(text.splitlines()) < LIMIT
    assert text.startswith('"""')


def test_all_are_run() -> None:
    """No example is left without a test of what it does."""
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {
        "controlled.py", "fan_out_report.py", "fastapi_app.py", "nested_jobs.py", "nightly.py", "observed.py",
        "order_pipeline.py", "quickstart.py", "scheduled_and_retried.py", "with_page.py",
    }  # fmt: skip


def test_quickstart(tmp_path: Path) -> None:
    """Added jobs run in their order, a delayed one last, and the program ends by itself."""
    lines = run("quickstart.py", tmp_path)
    assert "stored 2 jobs" in lines
    assert [line for line in lines if line.startswith("to ")] == [
        "to ann@example.com: Hi (attempt 1 of 5)",
        "to bob@example.com: Hi (attempt 1 of 5)",
        "to ann@example.com: Last news (attempt 1 of 5)",
    ]
    assert lines[-1] == "stopped: every handler that was running has finished"


def test_nightly(tmp_path: Path) -> None:
    """A declared schedule is said in words, goes by the clock on the wall, is run at once and paused."""
    assert run("nightly.py", tmp_path) == [
        "clean-up: At 02:30 every day (Europe/Berlin), active, 5 runs in sight",
        "when the clocks are set:",
        "  2027-03-28 03:00:00+02:00",
        "  2027-03-29 02:30:00+02:00",
        "removed old.txt, older.txt",
        "now it is paused; left: new.txt",
    ]


def test_nested_jobs(tmp_path: Path) -> None:
    """A handler's jobs run too, in threads if they are plain functions, and know their job."""
    first, *thumbnails = run("nested_jobs.py", tmp_path)
    assert first == "images: the album became 3 more jobs"
    assert sorted(line.split(" -> ")[0] for line in thumbnails) == ["beach.jpg", "hills.jpg", "river.jpg"]
    assert all(line.endswith("(attempt 1)") for line in thumbnails)


def test_scheduled_and_retried(tmp_path: Path) -> None:
    """Everything is settled at its time, and is told afterwards."""
    lines = run("scheduled_and_retried.py", tmp_path)
    assert lines.count("early: attempt 1 of 4") >= 2, "snoozed, which does not count"
    shaky, early, closed, relative, absolute = lines[-5:]
    assert shaky.startswith("succeeded in attempt 3, payload None")
    assert early == relative == absolute == "succeeded in attempt 1, payload None, error None"
    assert closed == (
        """failed in attempt 1, payload b'{"account":"closed"}', error 'the account is closed'"""
    )


def test_controlled(tmp_path: Path) -> None:
    """Equal jobs are one, a key's jobs take turns, priority comes first, and a running job is cancelled."""
    assert run("controlled.py", tmp_path) == [
        "bob clicked twice: one job",
        "sync: paused True, running 0",
        "eve, page 1, for support",
        "ann, page 1, for import",
        "bob, page 1, for click",
        "ann, page 2, for import",
        "asked to end: 1",
        "cancelled: cleaning up",
        "zoe-404 is cancelled",
    ]


def test_observed(tmp_path: Path) -> None:
    """A result is waited for; a failure is told, kept with its log lines, redirected, and tried again."""
    lines = run("observed.py", tmp_path)
    assert set(lines) == {
        "words: 6",
        "failed: ValueError: nothing to count",
        "failed: ValueError in attempt 1, 'counting characters=0'",
        "alarm: ValueError: nothing to count",
        "tried again: 1",
    }


def test_order_pipeline(tmp_path: Path) -> None:
    """Each step sees the result of the one before; what a failure leaves is given back."""
    assert run("order_pipeline.py", tmp_path) == [
        "order 1: charged for what is on shelf 1",
        "order 1: shipped",
        "order 1 has succeeded",
        "order 404: charged for what is on shelf 404",
        "order 404: gives back its goods, shelf 404",
        "order 404: gives back its payment, 1999",
        "order 404 has failed",
    ]


def test_fan_out_report(tmp_path: Path) -> None:
    """The last step has the results of all in their order, None for the one that failed."""
    lines = run("fan_out_report.py", tmp_path)
    assert lines[0] == "flowchart TD"
    assert lines[-7:] == [
        "succeeded: 100% of 5 steps",
        "Sum, succeeded in attempt 1, None",
        "Sum, succeeded in attempt 2, ConnectionError: nobody answers",
        "Sum, failed in attempt 2, ValueError: nothing was sold",
        "Sum, succeeded in attempt 1, None",
        "Report, succeeded in attempt 1, None",
        "{'north': 200, 'east': 45, 'south': 0, 'west': 320}",
    ]


# -- as their authors would test them ---------------------------------------------------------------


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """The module of an example, whose client runs on the memory store."""
    module = load(request.param)
    with module.folder, testing.replaced(module.client):
        yield module


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("example", [name], indirect=True, ids=[""])


@of("quickstart.py")
async def test_the_handler_of_quickstart(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A handler alone, all the way."""
    async with example.client as client:
        await testing.run_handler(client, example.SendEmail("ann@example.com", "Last news"))
        assert capsys.readouterr().out == "to ann@example.com: Last news (attempt 1 of 5)\n"
        assert example.last_one_sent.is_set()


@of("nested_jobs.py")
async def test_the_jobs_of_nested_jobs(example: ModuleType) -> None:
    """One job makes more, in threads."""
    async with example.client as client:
        await client.add(example.ImportAlbum(["a.jpg", "b.jpg"])).save()
        ran = await testing.run_until_idle(client)
        assert [attempt.name for attempt in ran] == ["ImportAlbum", "MakeThumbnail", "MakeThumbnail"]
        await testing.assert_added(client, example.MakeThumbnail, count=2)
        await testing.assert_added(client, example.MakeThumbnail, picture="b.jpg", count=1)


@of("scheduled_and_retried.py")
async def test_the_attempts_of_scheduled_and_retried(example: ModuleType) -> None:
    """Failures and Retry count as attempts, Discard ends; nobody waits for any of it."""
    async with example.client as client:
        await client.add(example.Pay("shaky"), example.Pay("closed")).save()
        await client.add(example.Pay("later")).wait(timedelta(days=1)).save()
        ran = await testing.run_until_idle(client, raise_errors=False)
        assert [(attempt.task.account, attempt.attempt, attempt.status) for attempt in ran] == [
            ("shaky", 1, "retried"),
            ("closed", 1, "failed"),
            ("shaky", 2, "retried"),
            ("shaky", 3, "succeeded"),
            ("later", 1, "succeeded"),
        ]
        assert isinstance(ran[0].exception, ConnectionError)
        with pytest.raises(Discard, match="the account is closed"):
            await testing.run_handler(client, example.Pay("closed"))


@of("controlled.py")
async def test_the_turns_of_controlled(example: ModuleType) -> None:
    """A customer's jobs take turns, and one of a higher priority comes first."""
    async with example.client as client:
        await client.pause("sync")
        for page in (1, 2):
            await client.add(example.Sync("ann", page)).key("ann").save()
        await client.add(example.Sync("eve")).key("eve").priority(5).save()
        assert await testing.run_until_idle(client) == []
        await client.resume("sync")
        ran = await testing.run_until_idle(client)
        assert [(attempt.task.customer, attempt.task.page) for attempt in ran] == [
            ("eve", 1), ("ann", 1), ("ann", 2),
        ]  # fmt: skip


@of("observed.py")
async def test_the_dead_letters_of_observed(example: ModuleType) -> None:
    """What a handler returns is its job's result; a failure makes an alarm."""
    async with example.client as client:
        assert (await testing.run_handler(client, example.Count("to be or not"))).result == 4
        await testing.refute_added(client, example.Alarm)
        with pytest.raises(ValueError, match="nothing to count"):
            await testing.run_handler(client, example.Count(""))
        assert [attempt.name for attempt in await testing.run_until_idle(client)] == ["Alarm"]
        [alarm] = await testing.assert_added(client, example.Alarm, count=1)
        assert alarm.error == "ValueError: nothing to count"


@of("order_pipeline.py")
async def test_the_steps_of_order_pipeline(example: ModuleType) -> None:
    """Steps alone, told what those before them have returned; and all of them."""
    async with example.client as client:
        assert (await testing.run_handler(client, example.Charge(1), previous="shelf 1")).result == 1999
        with pytest.raises(Discard, match="no such address"):
            await testing.run_handler(client, example.Ship(404))
        order = chain(example.Reserve(404), example.Ship(404), if_failed=example.MakeUp(404))
        await client.add(order).save()
        ran = await testing.run_until_idle(client, raise_errors=False)
        assert [attempt.name for attempt in ran] == ["Reserve", "Ship", "MakeUp"]


@of("fan_out_report.py")
async def test_the_report_of_fan_out_report(example: ModuleType) -> None:
    """The last step alone, and after its group."""
    async with example.client as client:
        task = example.Report(["a", "b"])
        assert (await testing.run_handler(client, task, previous=[1, None])).result == {"a": 1, "b": 0}
        sums = group(example.Sum("north"))
        await client.add(sums.then(example.Report(["north"]))).save()
        ran = await testing.run_until_idle(client)
        assert [attempt.result for attempt in ran] == [200, {"north": 200}]
