"""Deaths at system calls, in short; and lives and histories that must not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backlite_async._graph import follow_up_id

from .kit import Budget, Missing, Row
from .t01_kill_points import (
    CONTROL,
    PLAIN,
    SERVICE,
    Found,
    Life,
    Live,
    Scheduled,
    contradictions,
    crowded,
    disobeyed,
    forgotten,
    halves,
    kill_points,
    mistimed,
    outcomes,
    repeated,
    run,
)
from .traced import counted, in_turns


def tried(*lives: str, calls: str = "unlink", limit: float = 60.0, module: str = PLAIN, most: int = 6) -> Row:
    """Return what the row finds in a few trials of other lives than its own, at their stop if not said."""
    try:
        budget = Budget(2.0, most=most)
        others = [Life(life, module=module) for life in lives]
        return kill_points(budget, others, calls=calls, limit=limit, benches=2)
    except Missing as error:
        pytest.skip(str(error))


def test_no_death_does_any_harm() -> None:
    """Every bar holds at the first points of each call."""
    try:
        row = run(Budget(3.0, least=16, most=60))
    except Missing as error:
        pytest.skip(str(error))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert row.trials >= 16


def test_a_save_that_is_acknowledged_too_early_is_seen() -> None:
    """Killed between the acknowledgement and the commit, the job is lost."""
    assert tried("boasts", calls="fdatasync").lost


def test_executions_without_a_reason_and_halves_are_seen() -> None:
    """A part of a batch, an order without its job, an effect without its job, and twice."""
    row = tried("repeats", "halves")
    found = "".join(row.failures)
    assert row.doubles
    assert "forgotten: not both the order and its job" in found
    assert "effects ['twice', 'twice']" in found


@pytest.mark.parametrize(
    ("life", "found"),
    [
        ("cancels_nothing", "was cancelled and has succeeded"),
        ("pauses_nothing", "later was paused, then found paused: False"),
        ("twins", "2 live jobs of the unique key twin"),
        ("crowds", "ran beside 1 of held 'k'"),
    ],
)
def test_promises_of_control_that_are_not_kept_are_seen(life: str, found: str) -> None:
    """A cancellation and a pause that were never stored, two of one unique key, and two of one turn."""
    assert found in "".join(tried(life, module=CONTROL, most=2).failures)


@pytest.mark.parametrize(
    ("life", "found"),
    [
        ("loses_letters", "has failed without a dead letter"),
        ("leaves_lines", "is gone, and has left something behind"),
        ("counts_twice", "2 jobs were counted as succeeded, 1 have"),
        ("forgets_errors", "has 2 errors, not 3"),
    ],
)
def test_what_is_kept_beside_jobs_and_is_not_as_it_should_be_is_seen(life: str, found: str) -> None:
    """A dead letter that is gone, lines of no job, a job that was counted twice, an error that is lost."""
    assert found in "".join(tried(life, module=SERVICE, most=1).failures)


def test_a_spoilt_database_is_seen() -> None:
    assert tried("spoils").corrupt


def test_a_job_that_never_runs_is_seen() -> None:
    assert tried("strands", limit=1.5).hangs


def test_a_tracer_that_may_not_trace_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without the right to it."""
    tracer = tmp_path / "strace"
    tracer.write_text(
        "#!/bin/sh\necho 'strace: attach: ptrace(PTRACE_SEIZE, 7): Not permitted' >&2\nexit 1\n"
    )
    tracer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(Missing, match=r"may trace: .*Not permitted"):
        kill_points(Budget(1.0), [Life("install", None)], benches=1)


# -- the judges, on their own -----------------------------------------------------------------------------

Event = dict[str, Any]


def start(job: str, pid: int, attempt: int = 1, **fields: Any) -> Event:
    defaults = {"plan": "ok", "batch": "", "size": 0, "order": False, "name": job}
    defaults |= {"queue": "turns", "key": "", "version": 0, "at": 0.0}
    return {"what": "start", "job": job, "pid": pid, "attempt": attempt, **defaults, **fields}


def kept(job: str, status: str, attempt: int, crashes: int = 0, plan: str = "ok") -> Found:
    return Found([(job, status, attempt, crashes, {"plan": plan, "name": job})], {}, {})


def test_a_batch_is_all_there_or_not_at_all() -> None:
    whole = [start(job, 1, batch="b", size=2) for job in ("a", "b")]
    assert halves(Found([], {}, {}), whole) == []
    assert halves(Found([], {}, {}), whole[:1]) == ["batch b: 1 of 2"]


def test_one_attempt_runs_once_in_one_process() -> None:
    """But a snooze does not count as an attempt, and another process may run it again."""
    assert repeated([start("a", 1), start("a", 1, 2), start("a", 2)]) == []
    assert repeated([start("a", 1, plan="snooze"), start("a", 1, plan="snooze")]) == []
    assert repeated([start("a", 1), start("b", 1), start("a", 1)]) == ["attempt 1 of a 2 times"]


@pytest.mark.parametrize(
    ("plan", "status", "attempt"),
    [("ok", "failed", 1), ("ok", "succeeded", 2), ("retry", "succeeded", 1), ("fail", "failed", 2)],
)
def test_an_outcome_that_is_not_as_planned_is_wrong(plan: str, status: str, attempt: int) -> None:
    assert outcomes(kept("a", status, attempt, plan=plan), []) == [
        f"a, {plan}: {status} at attempt {attempt}"
    ]


def test_a_job_has_not_crashed_more_often_than_processes_died() -> None:
    killed = {"what": "killed", "victim": 1}
    assert outcomes(kept("a", "succeeded", 1, crashes=1), [killed]) == []
    assert outcomes(kept("a", "succeeded", 1, crashes=2), [killed]) == ["a, ok: 2 crashes, 1 deaths"]


def runs(*instants: int, schedule: Scheduled) -> Found:
    task = {"plan": "ok", "name": f"run {schedule.name}", "order": False}
    ids = [follow_up_id("schedule", schedule.name, schedule.created_at, instant) for instant in instants]
    kept = [(job_id, "succeeded", 1, 0, task) for job_id in ids]
    return Found(kept, {}, {}, schedules=(schedule,))


AT = Scheduled("at", 100, [50, 110, 120], None, 0, None, 2, 0, False)
EVERY = Scheduled("every", 100, None, 10, 100, 2, 2, 0, False)


@pytest.mark.parametrize("schedule", [AT, EVERY])
def test_each_instant_has_one_run(schedule: Scheduled) -> None:
    """Of those that were still to come when it was made, whether they were given or counted."""
    assert mistimed(runs(110, 120, schedule=schedule), []) == []
    assert contradictions(runs(110, 120, schedule=schedule)) == []
    for wrong in ([110], [110, 130], [110, 120, 130], [100, 110, 120]):
        assert mistimed(runs(*wrong, schedule=schedule), []), wrong
    assert contradictions(runs(110, schedule=schedule)) == [
        f"{schedule.name} has counted 2 runs, there are 1"
    ]


def test_a_schedule_is_there_from_its_making_to_its_end() -> None:
    """What was acknowledged, whatever had been asked for."""
    there = runs(110, 120, schedule=AT)
    made, deleting, deleted = (
        {"what": what, "schedule": "at"} for what in ("scheduled", "unscheduling", "unscheduled")
    )
    assert mistimed(there, [made]) == mistimed(there, [made, deleting]) == []
    assert mistimed(Found([], {}, {}), [made, deleting]) == []
    assert mistimed(Found([], {}, {}), [made]) == ["at was made, and is not there"]
    assert mistimed(there, [made, deleting, deleted]) == ["at was deleted, and is there"]


def event(what: str, job: str = "a", **fields: Any) -> Event:
    return {"what": what, "pid": 9, "job": job, **fields}


def test_a_cancelled_job_ends_as_cancelled() -> None:
    """If it was only about to be, it may have ended well; nobody else ends so."""
    asked = [event("cancelling")]
    assert outcomes(kept("a", "cancelled", 0), asked) == outcomes(kept("a", "succeeded", 1), asked) == []
    answered = [*asked, event("cancelled")]
    assert outcomes(kept("a", "cancelled", 0), answered) == []
    assert outcomes(kept("a", "succeeded", 1), answered) == ["a was cancelled and has succeeded"]
    assert outcomes(kept("a", "cancelled", 0), []) == ["a, ok: cancelled at attempt 0"]


def test_orders_are_obeyed() -> None:
    """Nothing starts once it was cancelled, while its queue is paused, or as it was before."""
    pauses = [event("paused", queue="turns"), event("resuming", queue="turns")]
    assert disobeyed([start("a", 1), event("cancelled"), *pauses, start("b", 1)]) == []
    assert disobeyed([event("cancelled"), start("a", 1)]) == ["a was cancelled and has run"]
    assert disobeyed([pauses[0], start("a", 1)]) == ["a has run though turns was paused"]
    replaced = event("replaced", version=1)
    assert disobeyed([replaced, start("a", 1, version=1)]) == []
    assert disobeyed([replaced, start("a", 1)]) == ["a has run as it was before it was replaced"]


@pytest.mark.parametrize(
    ("states", "found", "wrong"),
    [
        (["pausing"], ["q"], 0),
        (["pausing"], [], 0),
        (["pausing", "paused"], ["q"], 0),
        (["pausing", "paused"], [], 1),
        (["paused", "resuming"], ["q"], 0),
        (["paused", "resuming"], [], 0),
        (["paused", "resuming", "resumed"], ["q"], 1),
        (["paused", "resuming", "resumed"], [], 0),
        ([], ["q"], 1),
    ],
)
def test_a_pause_is_remembered(states: list[str], found: list[str], wrong: int) -> None:
    events = [event(state, queue="q") for state in states]
    assert len(forgotten([*events, event("found", paused=found)])) == wrong


def test_limits_hold() -> None:
    """Those of keys, of queues and of rates; a process that was killed runs nothing any more."""
    first, second = start("a", 1, key="k"), start("b", 2, key="k")
    killed = {"what": "killed", "victim": 1}
    assert crowded([first, event("end"), second]) == crowded([first, killed, second]) == []
    assert crowded([first, start("b", 1, key="l"), start("c", 1), start("d", 1)]) == []
    assert crowded([first, second]) == ["b ran beside 1 of turns 'k'"]
    assert crowded([start("a", 1, queue="sole"), start("b", 1, queue="sole")]) == ["b ran beside 1 of sole"]
    rated = [start(f"{at}", 1, queue="rated", at=at) for at in (1.0, 1.01, 1.05, 1.051)]
    assert crowded(rated[:3]) == []
    assert crowded([*rated[:2], start("x", 2, queue="rated", at=1.03)]) == [
        "3 of rated have started in 0.0300 s"
    ]
    assert len(crowded([*rated, start("x", 2, queue="rated", at=1.06)])) == 1
    held_up = start("0", 1, queue="rated", at=1.048, late=0.048)  # between its start and its first line
    others = [start(f"{at}", 1, queue="rated", at=at) for at in (1.02, 1.05)]
    assert crowded([held_up, *others]) == []
    assert len(crowded([{**held_up, "late": 0.0}, *others])) == 1


WAITS = Live("w", "turns", "Turn", "pending", "k", None)


@pytest.mark.parametrize(
    ("others", "wrong"),
    [
        ([], 1),
        ([Live("r", "turns", "TurnToo", "running", "k", 1)], 0),
        ([Live("r", "turns", "Turn", "running", "l", 1)], 1),
        ([Live("r", "turns", "Turn", "pending", "k", 1)], 0),
        ([Live("r", "turns", "TurnToo", "pending", "k", 1)], 1),
        ([Live(job, "turns", "Turn", "running", "k", 1) for job in "rs"], 1),
        (
            [
                Live("r", "turns", "Turn", "running", "k", 1),
                Live("c", "other", "Turn", "pending", None, 1, 1),
            ],
            1,
        ),
    ],
)
def test_nothing_waits_for_a_turn_that_nobody_has(others: list[Live], wrong: int) -> None:
    """Nor do two have it, and nothing pending is to be cancelled."""
    assert len(contradictions(Found([], {}, {}, (WAITS, *others)))) == wrong


def test_a_unique_key_has_one_live_job() -> None:
    """Which is the one that is remembered for it."""
    one, other = task("a") | {"unique": "u"}, task("b") | {"unique": "u"}
    assert contradictions(Found([], {"1": one}, {}, (), (("u", "1"),))) == []
    assert contradictions(Found([], {"1": one}, {}, (), ())) != []
    assert contradictions(Found([], {"1": one, "2": other}, {}, (), (("u", "1"),))) != []


def task(name: str, plan: str = "ok", *, order: bool = False) -> dict[str, Any]:
    return {"name": name, "plan": plan, "order": order}


def test_an_order_and_its_job_are_both_there_or_neither() -> None:
    """Whether the job has run or not."""
    job = task("a", order=True)
    orders = {"orders": ["a"]}
    assert contradictions(Found([], {"1": job, "2": task("b")}, orders)) == []
    assert contradictions(Found([("1", "succeeded", 1, 0, job)], {}, orders)) == []
    alone = ["a: not both the order and its job"]
    assert contradictions(Found([], {}, orders)) == alone
    assert contradictions(Found([], {"1": job}, {})) == alone


def test_a_job_is_not_both_completed_and_waiting() -> None:
    found = Found([("1", "succeeded", 1, 0, task("a"))], {"1": task("a")}, {})
    assert contradictions(found) == ["1 is completed and is not"]


def test_a_job_that_waits_has_had_no_effect() -> None:
    effects = {"effects": ["a"]}
    assert contradictions(Found([], {"1": task("b", "effect")}, effects)) == []
    found = Found([], {"1": task("a", "effect")}, effects)
    assert contradictions(found) == ["1 has had its effect and has not run"]


def test_an_effect_is_there_once_with_what_follows() -> None:
    records = [("1", "succeeded", 1, 0, task("a", "effect")), ("2", "succeeded", 1, 0, task("follows a"))]
    assert halves(Found(records, {}, {"effects": ["a"]}), []) == []
    for tables, kept in (
        ({"effects": ["a", "a"]}, records),
        ({"effects": ["a"]}, records[:1]),
        ({}, records),
    ):
        assert len(halves(Found(kept, {}, tables), [])) == 1


def test_the_last_number_of_a_call_is_that_of_its_busiest_thread(tmp_path: Path) -> None:
    """And a call that takes long is written to the log in two lines, but is one."""
    log = tmp_path / "log"
    log.write_text(
        "10 pwrite64(3, ..., 24, 0) = 24\n"
        "11 pwrite64(3, ..., 24, 0) = 24\n"
        "11 fdatasync(3 <unfinished ...>\n"
        "10 pwrite64(3, ..., 24, 0) = 24\n"
        "11 <... fdatasync resumed>) = 0\n"
        "10 +++ exited with 0 +++\n"
    )
    assert counted(log) == {"pwrite64": 2, "fdatasync": 1}


def test_every_kind_has_its_turn() -> None:
    assert in_turns("aaabcc", lambda letter: letter) == list("abcaca")
