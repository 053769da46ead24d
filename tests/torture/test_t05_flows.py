"""The judge of workflows and schedules whose writes have failed: bad histories are seen, good ones pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backlite_async._graph import follow_up_id

from .t05_flows import Beat, Event, Schedules, halved, mistimed, unready, unwoven


def start(name: str, *after: str, job: str = "") -> Event:
    return {"what": "start", "job": job or name, "name": name, "flow": "w", "after": [*after]}


def end(name: str, job: str = "") -> Event:
    return {"what": "end", "job": job or name, "name": name, "flow": "w"}


FLOW: Event = {"what": "flow", "flow": "w", "name": "w", "end": "succeeded", "names": ["a", "b"]}

HISTORY = [FLOW, start("a"), end("a"), start("b", "a"), start("b", "a"), end("b")]
"""Two steps, of which the second one has run twice."""


def test_a_step_starts_after_those_that_it_waits_for() -> None:
    assert unready(HISTORY) == []
    assert unready([start("a"), start("b", "a"), end("a")]) == ["b started before the end of a"]
    other = {**end("a"), "flow": "another"}
    assert unready([other, start("b", "a")]) == ["b started before the end of a"]


def test_jobs_of_no_workflow_wait_for_nothing() -> None:
    plain: list[Event] = [{"what": "start", "job": "k", "name": "k"}, {"what": "end", "job": "k"}]
    assert (unready(plain), unwoven(plain)) == ([], [])


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        (HISTORY, []),
        (HISTORY[1:], []),
        (HISTORY[1:3], []),  # of a workflow that nobody was promised
        (HISTORY[:-1], ["of workflow w ran ['a'], not ['a', 'b']"]),
        ([FLOW], ["of workflow w ran [], not ['a', 'b']"]),
        ([*HISTORY, end("c")], ["of workflow w ran ['a', 'b', 'c'], not ['a', 'b']"]),
        ([*HISTORY, start("b", job="b too"), end("b", job="b too")], ["b is 2 jobs"]),
    ],
)
def test_what_was_promised_runs_and_is_there_once(events: list[Event], wrong: list[str]) -> None:
    assert unwoven(events) == wrong


def test_what_is_saved_at_once_is_there_wholly_or_not_at_all() -> None:
    together = [{"a", "b"}]
    assert halved([start("a"), start("b"), start("c")], together) == []
    assert halved([start("c")], together) == []
    assert halved([start("a"), start("c")], together) == ["of 2 that were saved at once ran ['a']"]


BEAT = Beat("beat", created_at=1_000, anchor=1_000, every=40, max_runs=3, runs=3, is_due=0)

OLD = BEAT._replace(name="old", runs=0, is_removed=1)


def ids(*instants: int) -> set[str]:
    return {follow_up_id("schedule", "beat", 1_000, at) for at in instants}


GOOD = Schedules([BEAT], {"beat": ids(1_040, 1_080, 1_120), "steered": {"x"}})

TOLD: list[Event] = [
    {"what": "scheduled", "schedule": "beat"},
    {"what": "scheduled", "schedule": "steered"},
    {"what": "now", "schedule": "steered"},
    {"what": "unscheduling", "schedule": "steered"},
    {"what": "unscheduled", "schedule": "steered"},
]


def beating(**fields: Any) -> Callable[[Schedules], Schedules]:
    return lambda found: found._replace(beats=[BEAT._replace(**fields)])


def running(*jobs: str) -> Callable[[Schedules], Schedules]:
    return lambda found: found._replace(jobs={**found.jobs, "beat": set(jobs)})


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda found: found, ""),
        (lambda found: found._replace(beats=[], jobs={}), "beat was made, and is not there"),
        (
            lambda found: found._replace(beats=[BEAT, BEAT._replace(name="steered", max_runs=0, runs=1)]),
            "steered was deleted, and is there",
        ),
        (running(*ids(1_040, 1_120)), "beat has no job for 1 instants of 3"),
        (running(*ids(1_040, 1_080, 1_120, 1_160)), "beat has jobs of no instant"),
        (beating(is_removed=1), "beat is removed: 1"),
        (lambda found: found._replace(beats=[BEAT, OLD]), ""),
        (lambda found: found._replace(beats=[BEAT, OLD._replace(is_removed=0)]), "old has no job for 3"),
        (beating(runs=2), "beat has counted 2 runs of 3"),
        (beating(is_due=1), "due again: 1"),
        (
            lambda found: found._replace(jobs={**found.jobs, "steered": {"x", "y"}}),
            "has run 2 times, asked 1",
        ),
    ],
)
def test_each_instant_has_its_job(change: Callable[[Schedules], Schedules], wrong: str) -> None:
    found = mistimed(change(GOOD), TOLD)
    assert (wrong in ", ".join(found)) if wrong else found == []
