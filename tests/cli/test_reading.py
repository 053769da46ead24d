"""What reading commands show, to people and to programs."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from backlite_async import JobStatus, Queue, StepRun
from backlite_async.cli import _stats
from backlite_async.cli._output import plain
from backlite_async.cli._workflows import tree

from .conftest import Ids, Run

READING = [
    "jobs list",
    "jobs list --state failed --queue mail",
    "jobs list --tag monthly",
    "jobs list --key k",
    "jobs list --text ada --task Send",
    "jobs list --added-after 1d --added-before +1h",
    "jobs list --due-after +1h --due-before +3h",
    "jobs list --finished-after 1h --finished-before now",
    "jobs list --state pending --state failed",
    "jobs count --state failed",
    "jobs show {failed}",
    "jobs show {pending}",
    "queues list",
    "queues show mail --last 3h",
    "stats",
    "schedules list",
    "schedules show nightly",
    "workflow list",
    "workflow list --state failed",
    "workflow show {order}",
    "workflow show {order} --mermaid",
    "task list",
    "task show Send",
]
"""Each of them finds something."""


@pytest.mark.parametrize("line", READING)
def test_json_is_one_object_a_line(db: Path, ids: Ids, run: Run, line: str) -> None:
    """Every reading command can say what it found as JSON, with the option before or behind it."""
    words = line.format(**ids._asdict()).split()
    ran = run(*words, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.data
    assert all(isinstance(found, dict) for found in ran.data)
    again = run("--json", *words)
    assert [found.keys() for found in again.data] == [found.keys() for found in ran.data]


@pytest.mark.parametrize("line", READING)
def test_people_get_text_without_colours_where_there_is_no_terminal(
    db: Path, ids: Ids, run: Run, line: str
) -> None:
    """No escape sequence reaches a file or a pipe, not even those in errors and payloads."""
    ran = run(*line.format(**ids._asdict()).split())
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.strip()
    assert "\x1b" not in ran.out


def test_json_has_instants_durations_and_payloads_as_values(db: Path, ids: Ids, run: Run) -> None:
    """Instants are ISO 8601 in UTC, durations seconds, payload and result what they are."""
    [job] = run("jobs", "show", ids.succeeded, "--json").data
    assert (job["id"], job["status"]) == (ids.succeeded, "succeeded")
    assert job["payload"] == {"to": "ada", "copies": 3}
    assert job["result"] == {"sent": 3}
    assert job["created_at"].endswith("Z")
    assert datetime.fromisoformat(job["created_at"]) <= datetime.fromisoformat(job["finished_at"])
    assert 0 < job["duration"] < 60
    [line] = job["lines"]
    assert line["text"] == "sent to=ada"
    [failed] = run("jobs", "show", ids.failed, "--json").data
    [error] = failed["errors"]
    assert error["type"] == "ValueError"
    assert error["message"].endswith("\x1b[31m<nobody>")


def test_a_list_has_no_history(db: Path, ids: Ids, run: Run) -> None:
    """Rather than an empty one for a job that has one."""
    [listed] = [job for job in run("jobs", "list", "--json").data if job["id"] == ids.failed]
    [shown] = run("jobs", "show", ids.failed, "--json").data
    assert shown["errors"]
    assert listed == {name: value for name, value in shown.items() if name not in ("errors", "lines")}


def test_a_job_is_shown_whole(db: Path, ids: Ids, run: Run) -> None:
    """People see payload, result, every error and the log lines."""
    out = run("jobs", "show", ids.succeeded).out
    assert '"copies": 3' in out
    assert '"sent": 3' in out
    assert "info: sent to=ada" in out
    out = run("jobs", "show", ids.failed).out
    assert "attempt 1 went wrong" in out
    assert 'raise ValueError("no such address' in out
    assert "ValueError: no such address: \ufffd[31m<nobody>" in out


@pytest.mark.parametrize("payload", [b"[" * 60_000, b"no json", b"1e999", b"\xff", b'"\\ud800"'])
def test_payloads_that_others_wrote(db: Path, ids: Ids, run: Run, payload: bytes) -> None:
    """What is no JSON, or nested too deeply, is told as text, and does not hide the jobs behind it."""
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("UPDATE backlite_jobs SET payload = ? WHERE id = ?", (payload, ids.pending))
        connection.commit()
    text = payload.decode(errors="replace")
    listed = run("jobs", "list", "--json")
    assert listed.code == 0
    assert len(listed.data) == len(run("jobs", "list").out.splitlines()) - 1
    [job] = run("jobs", "show", ids.pending, "--json").data
    assert job["payload"] == text
    assert text in run("jobs", "show", ids.pending).out


def test_what_can_just_be_decoded_can_be_said(run: Run) -> None:
    """It stands in an object then, one or two levels deeper."""
    for depth in range(900, 1100):
        raw = b"[" * depth + b"]" * depth
        assert msgspec.json.encode(plain([{"payload": raw}]))


def test_a_list_goes_on_behind_a_page(db: Path, run: Run) -> None:
    """Page by page come the same jobs as at once; where to go on is said on stderr."""
    whole = [job["id"] for job in run("jobs", "list", "--json").data]
    found: list[str] = []
    after: list[str] = []
    for _ in whole:
        page = run("jobs", "list", "--json", "--limit", "2", *after)
        found += [job["id"] for job in page.data]
        if "--after" not in page.err:
            break
        after = page.err.rpartition(": ")[2].split()
    assert len(whole) > 4
    assert found == whole


def test_filters_mean_what_they_say(db: Path, ids: Ids, run: Run) -> None:
    """Each filter narrows the list to what has it."""
    all_ = {job["id"] for job in run("jobs", "list", "--json").data}

    def found(*filters: str) -> set[str]:
        return {job["id"] for job in run("jobs", "list", "--json", *filters).data}

    assert found("--tag", "monthly") == found("--key", "k") == {ids.pending}
    assert found("--due-after", "+1h", "--due-before", "+3h") == {ids.pending}
    assert ids.failed in found("--state", "failed")
    assert found("--state", "failed") | found("--state", "succeeded", "--state", "pending") < all_
    assert found("--text", "nobody") < found("--queue", "mail") < all_
    assert found("--task", "Report") == all_ - found("--task", "Send")
    assert found("--added-after", "now") == set()
    assert found("--added-before", "2020-01-01") == set()
    assert len(found("--workflow", ids.order)) == 4


def test_counts(db: Path, run: Run) -> None:
    """A count is that of the list."""
    assert run("jobs", "count", "--queue", "mail", "--json").data == [
        {"count": len(run("jobs", "list", "--queue", "mail", "--json").data), "capped": False}
    ]
    assert run("jobs", "count", "--tag", "monthly").out == "1\n"


def test_an_empty_list_is_no_error(db: Path, run: Run) -> None:
    """There is nothing on stdout then, and a word on stderr."""
    ran = run("jobs", "list", "--state", "running")
    assert (ran.code, ran.out, ran.err) == (0, "", "no job matches\n")
    ran = run("workflow", "list", "--state", "cancelled")
    assert (ran.code, ran.out, ran.err) == (0, "", "no workflow matches\n")
    assert run("jobs", "list", "--state", "running", "--json").out == ""


def test_queues_tell_how_they_are(db: Path, run: Run) -> None:
    """Counts by state, limits, throughput, percentiles."""
    mail, reports = run("stats", "--json").data
    assert (mail["name"], reports["name"]) == ("mail", "reports")
    assert mail["failed"] == 2
    assert mail["recent"]["failed"] == 2
    assert mail["recent"]["throughput"] > 0
    assert mail["recent"]["run"]["p50"] > 0
    assert mail["limits"]["concurrency"] == 5
    out = run("stats").out
    assert out.splitlines()[0].split()[:4] == ["QUEUE", "STATE", "PENDING", "SCHEDULED"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["mail", "reports"]
    assert ["concurrency", "5"] in [line.split() for line in run("queues", "show", "mail").out.splitlines()]


def test_a_line_of_all_queues_says_where_counts_have_ended() -> None:
    """As the table does."""
    queues = [
        Queue(name="a", paused=False, running=1, oldest_due=None, pending=10_000, capped=("pending",)),
        Queue(name="b", paused=False, running=2, oldest_due=None, pending=5, failed=1),
    ]
    line = _stats._line(queues)
    assert " pending=10005+ " in line
    assert " running=3 " in line
    assert " failed=1 " in line


def test_a_schedule_tells_its_next_runs(db: Path, run: Run) -> None:
    """In words, and as instants in UTC."""
    [schedule] = run("schedules", "show", "nightly", "--json").data
    assert schedule["words"] == "Every hour"
    assert len(schedule["next_runs"]) == 5
    assert all(instant.endswith("Z") for instant in schedule["next_runs"])
    assert schedule["payload"] == {"name": "night"}
    assert schedule["every"] == 3600
    out = run("schedules", "show", "nightly").out
    assert "next runs" in out
    assert '"name": "night"' in out


def test_a_workflow_is_shown_as_a_tree(db: Path, ids: Ids, run: Run) -> None:
    """Each step below the last one that it comes after, with its state; the graph as Mermaid, too."""
    lines = run("workflow", "show", ids.order).out.splitlines()
    steps = lines[lines.index("steps") + 1 :]
    assert [line.split("  ")[:3] for line in steps] == [
        ["0", "Send", "succeeded"],
        ["├─ 1", "Send", "succeeded"],
        ["└─ 2", "Send", "failed"],
        ["", " └─ 3", "Send"],
    ]
    assert "skipped  also after 1" in steps[3]
    assert run("workflow", "show", ids.order, "--mermaid").out.startswith("flowchart")
    [data] = run("workflow", "show", ids.order, "--json").data
    assert data["edges"] == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert [step["status"] for step in data["steps"]] == ["succeeded", "succeeded", "failed", "cancelled"]


def test_a_large_workflow_stays_readable() -> None:
    """A few hundred steps are shown, and of those before one a few are named."""
    steps = [*(step(number, ()) for number in range(1000)), step(1000, tuple(range(1000)))]
    lines = [*tree(steps)]
    assert len(lines) == 501
    assert lines[-1] == "... and 501 more; --json has all"
    joined = [line for line in tree(steps, most=2000) if "also" in line]
    assert joined == ["└─ 1000  Send  pending  also after 0, 1, 2, 3, 4, 994 more"]


def step(number: int, after: tuple[int, ...]) -> StepRun:
    nothing = dict.fromkeys(("id", "name", "due_at", "started_at", "finished_at", "progress", "error"))
    return StepRun(
        number=number,
        kind="step",
        queue="mail",
        task="Send",
        status=JobStatus.PENDING,
        skipped=False,
        after=after,
        if_failed="cancel",
        attempt=0,
        max_attempts=1,
        **nothing,
    )


def test_a_task_type_shows_its_fields(db: Path, run: Run) -> None:
    """Name, type, and whether it must be given."""
    lines = [line.split() for line in run("task", "show", "Send").out.splitlines()]
    assert ["to", "string", "required"] in lines
    assert ["copies", "integer", "1"] in lines
    assert "To one address." in run("task", "show", "Send").out


def test_reading_changes_nothing(db: Path, ids: Ids, run: Run) -> None:
    """Of an application's database nothing is written, nor is one made by a misspelt path."""
    before = db.read_bytes()
    for line in READING:
        run(*line.format(**ids._asdict()).split())
    assert db.read_bytes() == before
    beside = sorted(os.listdir(db.parent))
    for line in READING:
        ran = run(*line.format(**ids._asdict()).split(), "--db", db.parent / "ap.db")
        assert ran.code == 1
        assert ran.err.count("\n") == 1
        assert "there is no database" in ran.err
        assert "Did you mean 'app.db'?" in ran.err
    assert sorted(os.listdir(db.parent)) == beside


def test_the_option_counts_more_than_the_variable(db: Path, run: Run) -> None:
    """`--db` says which database, wherever it stands; the last one counts."""
    other = db.parent / "other.db"
    assert run("migrate", "--db", other).code == 0
    assert run("--db", other, "queues", "list").err == "there are no queues yet\n"
    assert run("queues", "--db", other, "list").err == "there are no queues yet\n"
    assert run("queues", "list", "--db", other).err == "there are no queues yet\n"
    assert run("--db", "nowhere.db", "queues", "list", "--db", other).code == 0
    assert "mail" in run("queues", "list").out


def test_the_log_goes_to_stderr(db: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it is asked for, so that stdout has data alone."""
    import logging

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    ran = run("jobs", "list", "--json", "--verbose")
    assert "client.started" in ran.err
    assert all(json.loads(line) for line in ran.out.splitlines())
