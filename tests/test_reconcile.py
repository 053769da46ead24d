"""What becomes of a schedule by what is said of it: in the code at a start, and at run time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backlite_async._clock import from_millis
from backlite_async._due import timing_of
from backlite_async._job import NewJob
from backlite_async._reconcile import (
    Definition,
    changed,
    edited,
    made,
    orphans,
    paused,
    reconciled,
    resumed,
    retired,
)
from backlite_async._recurring import StoredSchedule
from backlite_async._schedule import timing

NOON = 1_700_049_600_000
MINUTE, HOUR = 60_000, 3_600_000
JOB = NewJob(id="", queue="q", task="T", payload=b"{}", max_attempts=3, created_at=0, due_at=0)


def said(*, task: str = "{}", job: NewJob | None = None, **more: Any) -> Definition:
    """Say that a schedule is due every hour, or something else."""
    times = {key: more.pop(key) for key in ("every", "at", "start", "end") if key in more}
    if not times.keys() & {"every", "at"}:
        times["every"] = 3600
    usual: dict[str, Any] = {"missed": "one", "overlap": True, "jitter": 0, "max_runs": None}
    return Definition(
        name="s",
        timing=timing(now=5, **times),
        job=job or msgspec.structs.replace(JOB, payload=task.encode()),
        task=task,
        **(usual | more),
    )


def old(**more: Any) -> StoredSchedule:
    """A schedule that was declared at noon, is hourly, and had its run of 13:00."""
    first = msgspec.structs.replace(made(said(), owner="old", now=NOON), version=7)
    usual = {"runs": 1, "last_instant": NOON + HOUR, "last_job_id": "j", "next_at": NOON + 2 * HOUR}
    return msgspec.structs.replace(first, **(usual | more))


LATER = NOON + 90 * MINUTE


def test_a_new_one_is_made() -> None:
    """It is due from now on, counted from now, and says who declares it."""
    there = reconciled(None, said(), owner="me", living=["me"], now=NOON)
    assert timing_of(there).anchor == NOON
    assert (there.created_at, there.next_at, there.runs) == (NOON, NOON + HOUR, 0)
    assert (there.declared, there.declared_by) == (said().fingerprint, ("me",))


def test_an_unchanged_one_is_left_as_it_is() -> None:
    """Only who declares it is new: those who have gone are forgotten."""
    before = old(declared_by=("old", "gone"))
    there = reconciled(before, said(), owner="me", living=["me", "old"], now=LATER)
    assert there == msgspec.structs.replace(before, declared_by=("old", "me"))


def test_an_unchanged_one_that_was_edited_stays_edited() -> None:
    """What was edited at run time is more recent than what the code has said all along."""
    before = changed(old(), said(every=60, task="[]"), now=LATER)
    there = reconciled(before, said(), owner="me", living=["me"], now=LATER + HOUR)
    assert there == msgspec.structs.replace(before, declared_by=("me",))


@pytest.mark.parametrize(
    "more",
    [
        {"every": 7200},
        {"start": from_millis(NOON + 10 * HOUR)},
        {"end": from_millis(NOON + 10 * HOUR)},
        {"task": "[]"},
        {"missed": "all"},
        {"overlap": False},
        {"jitter": 5},
        {"max_runs": 9},
        {"job": msgspec.structs.replace(JOB, priority=1)},
        {"job": msgspec.structs.replace(JOB, queue="other")},
        {"job": msgspec.structs.replace(JOB, max_attempts=4)},
    ],
)
def test_a_changed_one_is_changed_and_keeps_its_runs(more: dict[str, Any]) -> None:
    """Whatever the code says otherwise than when it was last declared counts, and the history stays."""
    definition = said(**more)
    there = reconciled(old(), definition, owner="me", living=["me"], now=LATER)
    assert (there.declared, there.declared_by) == (definition.fingerprint, ("me",))
    assert (there.runs, there.last_job_id, there.created_at, there.version) == (1, "j", NOON, 7)
    assert there.job == definition.job
    assert (there.missed, there.overlap) == (definition.missed, definition.overlap)
    assert (there.jitter, there.max_runs) == (definition.jitter, definition.max_runs)
    times = timing_of(there)
    assert msgspec.structs.replace(times, anchor=definition.timing.anchor) == definition.timing
    assert there.updated_at == LATER


def test_what_is_due_already_stays_so_if_the_instants_are_the_same() -> None:
    """A deployment with another task does not lose the run that came due while it went on."""
    there = reconciled(old(), said(task="[]"), owner="me", living=["me"], now=NOON + 3 * HOUR)
    assert there.next_at == NOON + 2 * HOUR
    assert timing_of(there).anchor == NOON
    longer = reconciled(
        old(), said(end=from_millis(NOON + 9 * HOUR)), owner="me", living=[], now=NOON + 3 * HOUR
    )
    assert longer.next_at == NOON + 2 * HOUR


def test_other_instants_are_due_from_now_on() -> None:
    """What was due by the old times is not made up; intervals are counted from the change."""
    there = reconciled(old(), said(every=600), owner="me", living=["me"], now=LATER + 7)
    assert there.next_at == LATER + 7 + 10 * MINUTE


def test_an_end_that_is_over_completes_and_a_later_one_goes_on() -> None:
    """A schedule that has ended goes on if its end is put off, from now on."""
    over = reconciled(old(), said(end=from_millis(NOON + HOUR)), owner="me", living=[], now=LATER)
    assert over.next_at is None
    again = reconciled(over, said(), owner="you", living=[], now=NOON + 5 * HOUR + 1)
    assert again.next_at == NOON + 6 * HOUR


def test_more_runs_let_a_completed_one_go_on() -> None:
    """So does a larger number of runs; the same one does not."""
    completed = old(max_runs=1, next_at=None, declared=said(max_runs=1).fingerprint)
    same = reconciled(completed, said(max_runs=1, task="[]"), owner="me", living=[], now=LATER)
    assert same.next_at is None
    more = reconciled(completed, said(max_runs=2), owner="me", living=[], now=LATER)
    assert more.next_at == NOON + 2 * HOUR


def test_a_paused_one_stays_paused() -> None:
    """Whatever the code says, who has paused it has not resumed it."""
    before = paused(old(), LATER)
    assert (before.paused_at, before.next_at) == (LATER, None)
    for definition in (said(), said(every=60)):
        there = reconciled(before, definition, owner="me", living=[], now=NOON + 3 * HOUR)
        assert (there.paused_at, there.next_at) == (LATER, None)


def test_a_pause_is_not_made_up() -> None:
    """Resumed, a schedule goes on with the first instant after now."""
    there = resumed(paused(old(), LATER), NOON + 7 * HOUR + 1)
    assert (there.paused_at, there.next_at) == (None, NOON + 8 * HOUR)
    assert there.runs == 1


def test_resumed_by_a_clock_that_was_set_back_nothing_comes_again() -> None:
    """Instants that were dealt with are not due again."""
    there = resumed(paused(old(), NOON + 61 * MINUTE), NOON + 30 * MINUTE)
    assert there.next_at == NOON + 2 * HOUR


def test_a_resumed_one_that_has_ended_is_completed() -> None:
    """A pause does not bring back what is over."""
    assert resumed(paused(old(max_runs=1), LATER), LATER).next_at is None


def test_a_removed_one_comes_back_with_what_it_has_missed() -> None:
    """Its runs and its job are as they were, and what was due meanwhile is due, for `missed` to say."""
    gone = retired(old(), LATER)
    assert (gone.removed, gone.next_at, gone.declared_by) == (True, None, ())
    there = reconciled(gone, said(), owner="me", living=["me"], now=NOON + 9 * HOUR)
    assert (there.removed, there.runs, there.last_job_id) == (False, 1, "j")
    assert there.next_at == NOON + 2 * HOUR
    assert there.declared_by == ("me",)


def test_a_removed_one_that_never_ran_comes_back_from_when_it_was_made() -> None:
    """It has nothing else to count from."""
    gone = retired(made(said(), owner="old", now=NOON), NOON + 1)
    assert reconciled(gone, said(), owner="me", living=[], now=LATER).next_at == NOON + HOUR


def test_a_removed_one_that_was_resumed_makes_nothing_up_of_its_pause() -> None:
    """What was due in a pause is over, also if it was removed afterwards."""
    gone = retired(resumed(paused(old(), LATER), NOON + 5 * HOUR + 1), NOON + 5 * HOUR + 2)
    assert reconciled(gone, said(), owner="me", living=[], now=NOON + 9 * HOUR).next_at == NOON + 6 * HOUR


def test_a_removed_one_that_comes_back_otherwise_is_due_from_now_on() -> None:
    """Other instants than it had were never missed."""
    gone = retired(old(), LATER)
    there = reconciled(gone, said(every=600), owner="me", living=[], now=NOON + 9 * HOUR)
    assert (there.next_at, there.removed) == (NOON + 9 * HOUR + 10 * MINUTE, False)


@pytest.mark.parametrize("ran", [True, False])
def test_a_removed_one_that_was_changed_makes_nothing_up_of_what_was_before(ran: bool) -> None:
    """Only what was due by its new times, since it had them."""
    before = old() if ran else made(said(), owner="old", now=NOON)
    at = [from_millis(NOON + number * 10 * MINUTE) for number in range(1, 50)]
    there = reconciled(before, said(at=at), owner="new", living=[], now=LATER)
    assert there.next_at == NOON + 100 * MINUTE
    back = reconciled(retired(there, LATER + 1), said(at=at), owner="me", living=[], now=NOON + 5 * HOUR)
    assert back.next_at == there.next_at


def test_a_removed_one_that_is_paused_comes_back_paused() -> None:
    """A pause outlives it."""
    there = reconciled(retired(paused(old(), LATER), LATER), said(), owner="me", living=[], now=LATER)
    assert (there.paused_at, there.next_at, there.removed) == (LATER, None, False)


def test_declared_over_one_made_at_run_time_the_code_counts() -> None:
    """A name that the code takes is the code's, with the history that it has."""
    before = edited(old(), said(every=60), now=LATER)
    assert (before.declared, before.declared_by) == (None, ())
    there = reconciled(before, said(), owner="me", living=[], now=LATER)
    assert (there.declared, timing_of(there).every, there.runs) == (said().fingerprint, HOUR, 1)


def test_at_run_time_one_is_made_or_changed() -> None:
    """What is made at run time is nobody's declaration; said again, it goes on as it was."""
    there = edited(None, said(), now=NOON)
    assert (there.declared, there.declared_by, there.next_at) == (None, (), NOON + HOUR)
    again = edited(there, said(), now=LATER)
    assert again == msgspec.structs.replace(there, updated_at=LATER)


def test_the_fingerprint_is_of_what_is_said() -> None:
    """When it is said makes no difference; and it is stored, so it is the same in all versions."""
    one = msgspec.structs.replace(said(), timing=msgspec.structs.replace(said().timing, anchor=99))
    assert one.fingerprint == said().fingerprint
    assert said().fingerprint == "fba7be84c9fa0ad3e0d3296c4ba3a4ea"


# -- who still declares it -------------------------------------------------------------------------

KNOWN = {"s": ("old",)}


@pytest.mark.parametrize(
    ("schedule", "known", "living", "gone"),
    [
        (old(), KNOWN, ["me"], True),
        (old(), KNOWN, ["me", "old"], False),
        (old(), {}, ["me"], False),
        (old(declared_by=("old", "other")), KNOWN, ["me"], False),
        (old(declared_by=("newer",)), KNOWN, ["me"], False),
        (old(declared_by=("newer",)), KNOWN, ["me", "newer"], False),
        (old(declared_by=("old", "other")), {"s": ("old", "other")}, ["other"], False),
        (old(declared_by=("old", "other")), {"s": ("old", "other")}, ["me"], True),
        (old(declared_by=()), {"s": ()}, ["me"], True),
        (old(declared=None), KNOWN, ["me"], False),
        (old(removed=True), KNOWN, ["me"], False),
    ],
    ids=[
        "gone",
        "lives",
        "declared by us",
        "declared by another one since",
        "restarted and gone",
        "restarted",
        "one of two lives",
        "both gone",
        "nobody left",
        "made at run time",
        "removed already",
    ],
)
def test_orphans(schedule: StoredSchedule, known: Any, living: list[str], gone: bool) -> None:
    """Only what older owners alone have declared, of whom none lives, is declared no more."""
    assert orphans([schedule], known, living=living) == ([schedule] if gone else [])
