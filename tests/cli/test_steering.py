"""What acting commands do, say, and ask."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backlite_async._jobs import Jobs

from .conftest import Ids, Run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A person at a terminal, who answers what is written here."""
    answers = io.StringIO()
    monkeypatch.setattr(sys, "stdin", answers)
    monkeypatch.setattr("backlite_async.cli._filters.is_terminal", lambda: True)
    return answers


def state(run: Run, job_id: str) -> str:
    [job] = run("jobs", "show", job_id, "--json").data
    return str(job["status"])


def test_ids_are_done_one_by_one(db: Path, ids: Ids, run: Run) -> None:
    """Of each id it is said whether it was done; a failed job runs again, a pending one is cancelled."""
    ran = run("jobs", "retry", ids.failed)
    assert (ran.code, ran.out, ran.err) == (0, f"{ids.failed}: retried\n", "")
    assert state(run, ids.failed) == "pending"
    ran = run("jobs", "cancel", ids.failed, ids.pending, "--json")
    assert ran.data == [
        {"id": ids.failed, "action": "cancel", "done": True, "status": "cancelled"},
        {"id": ids.pending, "action": "cancel", "done": True, "status": "cancelled"},
    ]
    assert run("jobs", "delete", ids.failed).code == 0
    assert run("jobs", "show", ids.failed).code == 3


def test_what_was_not_done_is_said(db: Path, ids: Ids, run: Run) -> None:
    """An unknown id is 3, a job in no state for it is 1; the others are done all the same."""
    ran = run("jobs", "cancel", ids.succeeded)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"job {ids.succeeded} is succeeded: it cannot be cancelled\n"
    ran = run("jobs", "cancel", "nothing", ids.pending, ids.succeeded)
    assert ran.code == 3
    assert ran.out == f"{ids.pending}: cancelled\n"
    assert "job nothing: there is none" in ran.err


def test_run_now_and_reschedule(db: Path, ids: Ids, run: Run) -> None:
    """A pending job gets another due time."""
    assert run("jobs", "reschedule", ids.pending, "--at", "2099-01-31T12:00").code == 0
    [job] = run("jobs", "show", ids.pending, "--json").data
    assert job["due_at"] == "2099-01-31T12:00:00.000Z"
    assert run("jobs", "reschedule", "--tag", "monthly", "--wait", "3h", "--yes").code == 0
    assert run("jobs", "count", "--due-after", "+2h50m", "--due-before", "+3h10m").out == "1\n"
    assert run("jobs", "run-now", ids.pending).code == 0
    assert run("jobs", "count", "--due-before", "now", "--queue", "reports", "--tag", "monthly").out == "1\n"
    assert run("jobs", "reschedule", ids.pending).code == 2
    assert run("jobs", "reschedule", ids.pending, "--at", "+1h", "--wait", "1h").code == 2
    assert run("jobs", "reschedule", ids.pending, "--at", "1h").code == 2  # ago, surely not


def test_release_is_for_running_jobs(db: Path, ids: Ids, run: Run) -> None:
    """Others are left alone."""
    assert run("jobs", "release", ids.pending).code == 1
    assert run("jobs", "release", "--queue", "mail", "--yes", "--json").data == [
        {"action": "release", "count": 0}
    ]


def test_without_a_terminal_filters_need_yes(db: Path, run: Run) -> None:
    """Nothing is done, and the number is told."""
    ran = run("jobs", "retry", "--queue", "mail", "--state", "failed")
    assert ran.code == 2
    assert "retry: 2 failed jobs. There is no terminal to ask on: say --yes." in ran.err
    assert run("jobs", "count", "--state", "failed").out == "2\n"
    ran = run("jobs", "retry", "--queue", "mail", "--state", "failed", "--yes")
    assert (ran.code, ran.out) == (0, "retried: 2 jobs\n")
    assert run("jobs", "count", "--state", "failed").out == "0\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_a_person_is_asked(db: Path, run: Run, terminal: io.StringIO, answer: str) -> None:
    """With the number affected; the answer is no unless it is yes; data stays on stdout."""
    terminal.write(answer)
    terminal.seek(0)
    ran = run("jobs", "delete", "--queue", "mail", "--state", "failed")
    assert (ran.code, ran.out) == (1, "")
    assert (
        "delete: 2 failed jobs. Steps of workflows among them stay: backlite workflow delete. Go on? [y/N]"
        in ran.err
    )
    assert "Nothing was done." in ran.err
    assert run("jobs", "count", "--state", "failed").out == "2\n"


def test_a_person_says_yes(db: Path, run: Run, terminal: io.StringIO) -> None:
    """Then it is done."""
    terminal.write("y\n")
    terminal.seek(0)
    ran = run("jobs", "cancel", "--tag", "monthly")
    assert (ran.code, ran.out) == (0, "cancelled: 1 job\n")


def test_everything_must_be_asked_for(db: Path, ids: Ids, run: Run) -> None:
    """No id, no filter, no --all: nothing is done; nor with two of them."""
    for words in (
        ["--yes"],
        ["--all", "--queue", "mail", "--yes"],
        [ids.failed, "--all", "--yes"],
        [ids.failed, "--queue", "mail", "--yes"],
    ):
        ran = run("jobs", "cancel", *words)
        assert (ran.code, ran.out) == (2, "")
    assert run("jobs", "count", "--state", "pending").out == "4\n"
    ran = run("jobs", "cancel", "--all", "--yes", "--json")
    assert ran.data == [{"action": "cancel", "count": 4}]
    assert run("jobs", "count", "--state", "pending").out == "0\n"


def test_retry_is_for_what_has_failed(db: Path, ids: Ids, run: Run) -> None:
    """What is scheduled for later stays so, unless its state is said."""
    for which in (["--all"], ["--added-before", "now"]):
        run("jobs", "retry", *which, "--yes")
        assert run("jobs", "count", "--due-after", "+1h", "--tag", "monthly").out == "1\n"
    assert run("jobs", "count", "--state", "failed").out == "0\n"
    assert run("jobs", "retry", "--tag", "monthly", "--state", "pending", "--yes").out == "retried: 1 job\n"
    assert run("jobs", "count", "--due-after", "+1h", "--tag", "monthly").out == "0\n"


def test_steps_of_workflows_stay(db: Path, ids: Ids, run: Run) -> None:
    """Which the question says, and the answer, and who deletes one by its id."""
    ran = run("jobs", "delete", "--queue", "mail", "--state", "failed")
    assert "delete: 2 failed jobs. Steps of workflows among them stay" in ran.err
    ran = run("jobs", "delete", "--queue", "mail", "--state", "failed", "--yes")
    assert (ran.code, ran.out) == (0, "deleted: 1 job\n")
    assert "Steps of workflows among them stay: backlite workflow delete" in ran.err
    [step] = run("jobs", "list", "--state", "failed", "--json").data
    ran = run("jobs", "delete", step["id"])
    assert ran.code == 1
    assert f"it cannot be deleted alone, as it is a step: backlite workflow delete {ids.order}" in ran.err
    assert "Steps of workflows among them stay" in run("prune").err


def test_the_question_tells_the_states(db: Path, ids: Ids, run: Run) -> None:
    """Each with its number."""
    ran = run("jobs", "retry", "--all")
    assert "retry: 2 failed and 1 cancelled jobs. There is no terminal" in ran.err
    ran = run("jobs", "delete", "--tag", "monthly")
    assert "delete: 1 pending job. Steps" in ran.err


@pytest.mark.parametrize("words", ["--queue mail", "--queue mail --state pending", "--finished-after 1d"])
def test_what_comes_after_the_question_is_not_meant(
    db: Path, run: Run, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """More jobs match while a person thinks about it: these stay."""
    meant: list[dict[str, Any]] = []

    def confirmed(*_: object, **__: object) -> bool:
        meant.append({"now": datetime.now(UTC)})
        return True

    async def delete(self: Jobs, **filters: Any) -> int:
        meant.append(filters)
        return 0

    monkeypatch.setattr("backlite_async.cli._steer.confirmed", confirmed)
    monkeypatch.setattr(Jobs, "delete", delete)
    assert run("jobs", "delete", *words.split()).code == 0
    asked, filters = meant
    what = "finished" if "finished" in words else "added"
    assert filters[f"{what}_before"] <= asked["now"]


def test_states_for_which_it_is_not(db: Path, run: Run) -> None:
    """What cannot be done to any of them is said wrongly."""
    ran = run("jobs", "release", "--state", "failed", "--yes")
    assert ran.code == 2
    assert "release is for jobs that are running." in ran.err


def test_queues_are_paused_and_resumed(db: Path, run: Run) -> None:
    """It is stored; an unknown one needs --force."""
    assert run("queues", "pause", "mail", "reports").out == "mail: paused\nreports: paused\n"
    assert [queue["paused"] for queue in run("queues", "list", "--json").data] == [True, True]
    assert run("queues", "resume", "mail", "--json").data == [{"queue": "mail", "paused": False}]
    assert [queue["paused"] for queue in run("queues", "list", "--json").data] == [False, True]
    ran = run("queues", "pause", "mail", "report")
    assert ran.code == 3
    assert ran.err == "Error: there is no queue 'report'. Did you mean 'reports'?\n"
    assert run("queues", "list", "--json").data[0]["paused"] is False
    assert run("queues", "pause", "future", "--force").code == 0
    assert [queue["name"] for queue in run("queues", "list", "--json").data] == ["future", "mail", "reports"]


def test_schedules_are_run_paused_and_resumed(db: Path, run: Run) -> None:
    """The job of a run is there; a misspelt name has a suggestion."""
    [ran] = run("schedules", "run", "nightly", "--json").data
    assert state(run, ran["id"]) == "pending"
    assert run("schedules", "pause", "nightly").out == "nightly: paused\n"
    assert run("schedules", "show", "nightly", "--json").data[0]["state"] == "paused"
    assert run("schedules", "resume", "nightly", "--json").data == [
        {"schedule": "nightly", "state": "active"}
    ]
    for action in ("run", "pause", "resume", "show"):
        wrong = run("schedules", action, "nightli")
        assert wrong.code == 3
        assert wrong.err == "Error: there is no schedule 'nightli'. Did you mean 'nightly'?\n"


def test_workflows_are_cancelled_retried_and_deleted(db: Path, ids: Ids, run: Run) -> None:
    """As wholes; of each it is said whether it was done."""
    assert run("workflow", "retry", ids.order).out == f"{ids.order}: retried\n"
    assert run("workflow", "show", ids.order, "--json").data[0]["status"] == "running"
    assert run("workflow", "cancel", ids.order, "--json").data == [
        {"id": ids.order, "action": "cancel", "done": True}
    ]
    assert run("workflow", "delete", ids.order, "nothing").code == 3
    assert run("workflow", "show", ids.order).code == 3
    assert run("workflow", "cancel", ids.waiting).code == 0
    ran = run("workflow", "cancel", ids.waiting)
    assert (ran.code, ran.err) == (1, f"workflow {ids.waiting} is cancelled: it cannot be cancelled\n")


def test_a_job_is_no_workflow_and_the_other_way_round(db: Path, ids: Ids, run: Run) -> None:
    """The command that helps is named."""
    assert f"backlite workflow show {ids.order}" in run("jobs", "show", ids.order).err
    assert f"backlite jobs show {ids.failed}" in run("workflow", "show", ids.failed).err
