"""What every store does with workflows: the sentences of `stores/_flows.py`, run on each store."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite
import msgspec
import pytest

from backlite_async import BackliteError, InvalidState
from backlite_async._graph import NewStep, follow_up_id
from backlite_async._history import Trouble
from backlite_async._job import Declared, JobStatus, Keep, Limit, Place, Unique
from backlite_async._query import Delete, Edit, Postpone, Rerun, Wanted
from backlite_async.stores import Store
from backlite_async.stores._service import WATCHED_FOR
from backlite_async.stores.sqlite.store import SQLiteStore

from .flows import LANE, Bench, extension, flow, join, new, step


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


def keep(millis: int, *, payload: bool = True) -> Keep:
    """Return a retention of so long from 1000 on."""
    return Keep(until=1000 + millis, payload=payload)


async def declare(store: Store, queue: str, keep_for: int | None, *, payload: bool = True) -> None:
    """Let cancelled jobs of a queue be kept."""
    declared = Declared(queue=queue, keeps=True, keep_for=keep_for, keep_payload=payload, turns=None)
    await store.declare([declared], now=0)


# -- release -----------------------------------------------------------------------------------------


async def test_a_chain_runs_in_order(bench: Bench) -> None:
    """Each step is claimable once the one before it has succeeded, and the workflow ends with the last."""
    await bench.add(step("a"), step("b", "a"), step("c", "b"))
    assert await bench.status() == "pending"
    assert await bench.claim() == ["a"]
    assert await bench.status() == "running"
    assert await bench.end("a") == ["b"]
    assert await bench.end("b") == ["c"]
    assert await bench.status() == "running"
    assert await bench.end("c") == []
    assert await bench.status() == "succeeded"
    run = await bench.run()
    assert (run.left, run.size, run.progress) == (0, 3, 1.0)
    assert run.edges == ((0, 1), (1, 2))


async def test_a_claim_tells_its_workflow_and_step(bench: Bench) -> None:
    """A claimed job knows what it is a step of, and so does its record."""
    await bench.add(step("a"), step("b", "a"))
    await bench.store.add([new("x")])
    await bench.claim()
    assert (bench.claims["a"].workflow, bench.claims["a"].step) == ("w", 0)
    assert (bench.claims["x"].workflow, bench.claims["x"].step) == (None, None)
    assert [job.id for job in await bench.store.claims_of("mine") if job.workflow == "w"] == ["a"]
    record = await bench.store.get("b", now=0)
    assert record is not None
    assert (record.workflow, record.status) == ("w", JobStatus.PENDING)


async def test_a_stale_outcome_releases_nothing(bench: Bench) -> None:
    """What follows from an end follows only if the claim still holds."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    stale = bench.outcome("a", fence=bench.claims["a"].fence + 1)
    assert await bench.store.finish([stale]) == {"a"}
    late = bench.outcome("a", lapsed_by=5)
    assert await bench.store.finish([late]) == {"a"}
    assert await bench.claim() == []
    assert (await bench.run()).left == 2


async def test_an_outcome_written_twice_releases_once(bench: Bench) -> None:
    """A second write of an outcome is lost, and counts nothing down."""
    await bench.add(step("a"), step("b"), step("c", "a", "b"))
    await bench.claim()
    assert await bench.store.finish([bench.outcome("a")]) == set()
    assert await bench.store.finish([bench.outcome("a")]) == {"a"}
    assert await bench.claim() == []
    assert await bench.end("b") == ["c"]
    assert await bench.end("c") == []
    assert (await bench.run()).left == 0


async def test_finish_now_releases_too(bench: Bench) -> None:
    """The blocking way of writing outcomes does the same."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    assert bench.store.finish_now([bench.outcome("a")]) == set()
    assert await bench.claim() == ["b"]


async def test_what_comes_after_several_runs_after_the_last(bench: Bench) -> None:
    """A step waits for all that it comes after, also when they end in one transaction."""
    await bench.add(step("a"), step("b"), step("c", "a", "b"), step("d", "a", "b", "c"))
    assert await bench.claim() == ["a", "b"]
    assert await bench.end("b", "a") == ["c"]
    assert await bench.end("c") == ["d"]
    assert await bench.end("d") == []
    assert await bench.status() == "succeeded"


async def test_joins_join(bench: Bench) -> None:
    """A join ends with the last that it comes after, and lets all run that come after it, joins too."""
    await bench.add(
        *(step(f"a{n}") for n in range(20)),
        join("j", *(f"a{n}" for n in range(20))),
        join("k", "j"),
        *(step(f"b{n}", "k") for n in range(20)),
    )
    await bench.claim()
    assert await bench.end(*(f"a{n}" for n in range(19))) == []
    assert (await bench.states())["j"] == "pending"
    assert await bench.end("a19") == sorted(f"b{n}" for n in range(20))
    states = await bench.states()
    assert (states["j"], states["k"]) == ("succeeded", "succeeded")
    assert (await bench.run()).left == 20
    assert await bench.end(*(f"b{n}" for n in range(20))) == []
    assert await bench.status() == "succeeded"


async def test_a_join_has_no_job(bench: Bench) -> None:
    """A join is a node of its own kind, without what jobs have."""
    await bench.add(step("a"), join("j", "a"), step("b", "j"))
    node = (await bench.steps())["j"]
    assert (node.kind, node.id, node.task, node.status) == ("join", None, None, JobStatus.PENDING)
    await bench.claim()
    assert await bench.end("a") == ["b"]


async def test_a_released_step_is_due_then(bench: Bench) -> None:
    """A step is due when those before it have ended, or when it is scheduled, whatever is later."""
    await bench.add(step("a"), step("b", "a"), step("c", "a", due_at=5000))
    await bench.claim()
    assert await bench.end("a") == ["b"]
    nodes = await bench.steps()
    times = [nodes[name].due_at for name in "bc"]
    assert [time and time.timestamp() for time in times] == [1.0, 5.0]
    bench.now = 5000
    assert await bench.claim() == ["c"]


async def test_a_release_wakes_who_listens(bench: Bench) -> None:
    """Listeners are told of steps that can run, and of ends that somebody waits for; not of each end."""
    chain = step("c", "j"), step("d", "c"), step("e", "d"), step("runs on")
    await bench.add(step("a"), step("b"), join("j", "a", "b"), *chain)
    await bench.store.watch(["e"], owner="me")
    await bench.claim()
    heard: list[int] = []
    bench.store.listen(lambda: heard.append(1))
    await bench.store.finish([bench.outcome("a")])
    assert not heard
    await bench.store.finish([bench.outcome("b")])
    assert heard
    assert await bench.claim() == ["c"]
    heard.clear()
    await bench.store.finish([bench.outcome("c", "failed")])
    assert heard


async def test_what_is_added_wakes_who_listens(bench: Bench) -> None:
    """Also fallbacks and callbacks, which come after nothing that was there."""
    await bench.add(step("a", fallback=new("")), on_complete=new(""))
    await bench.claim()
    heard: list[int] = []
    bench.store.listen(lambda: heard.append(1))
    await bench.store.finish([bench.outcome("a", "failed")])
    assert heard
    [fallback] = await bench.claim()
    heard.clear()
    await bench.store.finish([bench.outcome(fallback)])
    assert heard
    assert len(await bench.claim()) == 1


async def test_a_retried_step_releases_nothing(bench: Bench) -> None:
    """Nothing follows from an attempt after which the step runs again."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    assert await bench.store.finish([bench.again("a")]) == set()
    assert await bench.claim() == ["a"]
    assert await bench.status() == "running"
    assert await bench.end("a") == ["b"]


# -- steps that end without success ------------------------------------------------------------------


async def test_what_depends_on_a_failed_step_is_skipped(bench: Bench) -> None:
    """All that comes after a failed step is cancelled, with the reason, also through joins; the rest runs."""
    await bench.add(
        step("a"),
        step("b", "a"),
        join("j", "b"),
        step("c", "j"),
        step("x"),
        step("d", "x"),
        step("e", "d", "c"),
    )
    await bench.claim()
    assert await bench.end("a", status="failed") == []
    record = await bench.store.get("b", now=bench.now)
    assert record is not None
    assert (record.status, record.payload) == (JobStatus.CANCELLED, b"{}")
    assert record.cancelled_at == record.finished_at
    assert await bench.end("x") == ["d"]
    assert await bench.end("d") == []
    assert await bench.states() == {
        "a": "failed",
        "b": "skipped",
        "j": "skipped",
        "c": "skipped",
        "x": "succeeded",
        "d": "succeeded",
        "e": "skipped",
    }
    nodes = await bench.steps()
    assert nodes["b"].error == "skipped: 'a' has failed"
    assert (nodes["b"].status, nodes["c"].status) == (JobStatus.CANCELLED, JobStatus.CANCELLED)
    assert nodes["c"].error == "skipped: one before it was skipped"
    assert await bench.status() == "failed"


async def test_steps_that_may_fail(bench: Bench) -> None:
    """What comes after a step of if_failed="continue" runs however that ends, and the whole has succeeded."""
    await bench.add(
        step("a", if_failed="continue"), step("b", "a"), step("c", "a", if_failed="continue"), step("d", "c")
    )
    await bench.claim()
    assert await bench.end("a", status="failed") == ["b", "c"]
    assert await bench.cancel("c") == ([], ["c"])
    assert await bench.end("c", status="cancelled") == ["d"]
    assert await bench.end("b", "d") == []
    assert await bench.status() == "succeeded"


async def test_a_skipped_step_that_may_fail_skips_others(bench: Bench) -> None:
    """It has not failed: what comes after it depends on what has."""
    await bench.add(step("a"), step("b", "a", if_failed="continue"), step("c", "b"))
    await bench.claim()
    assert await bench.end("a", status="failed") == []
    assert await bench.states() == {"a": "failed", "b": "skipped", "c": "skipped"}


async def test_a_fallback_runs_when_its_step_has_failed(bench: Bench) -> None:
    """A fallback is added in that transaction, due at once, with an id that follows; the rest is skipped."""
    await bench.add(step("a", fallback=new("", payload=b'{"f":1}', tags='["t"]')), step("b", "a"))
    await bench.claim()
    fallback = follow_up_id("a", bench.claims["a"].fence, "fallback")
    assert await bench.end("a", status="failed") == [fallback]
    assert bench.claims[fallback].payload == '{"f":1}'
    assert bench.claims[fallback].parent == "a"
    node = (await bench.steps())[fallback]
    assert (node.kind, node.number, node.after, node.status) == ("fallback", 2, (0,), JobStatus.RUNNING)
    assert (await bench.states())["b"] == "skipped"
    assert await bench.status() == "running"
    assert await bench.end(fallback) == []
    run = await bench.run()
    assert (run.status, run.left, run.size) == (JobStatus.FAILED, 0, 3)
    found = await bench.store.find(Wanted(tag="t"), limit=9, now=bench.now)
    assert [job.id for job in found.jobs] == [fallback]


async def test_a_fallback_is_for_failures_only(bench: Bench) -> None:
    """No fallback runs for a step that succeeds or is cancelled, nor once the workflow was cancelled."""
    fallback = new("")
    await bench.add(step("a", fallback=fallback), step("b", fallback=fallback), step("c", fallback=fallback))
    await bench.claim()
    assert await bench.end("a") == []
    assert await bench.end("b", status="cancelled") == []
    await bench.cancel("w")
    assert await bench.end("c", status="failed") == []
    assert (await bench.run()).size == 3


async def test_a_fallback_that_fails_has_none(bench: Bench) -> None:
    """The end of a fallback changes nothing of how the whole has ended."""
    await bench.add(step("a", fallback=new(""), if_failed="continue"), step("b", "a"))
    await bench.claim()
    fallback = follow_up_id("a", bench.claims["a"].fence, "fallback")
    assert await bench.end("a", status="failed") == sorted(["b", fallback])
    assert await bench.end(fallback, status="failed") == []
    assert await bench.end("b") == []
    assert await bench.status() == "succeeded"


# -- callbacks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "which"), [("succeeded", b"s"), ("failed", b"f"), ("cancelled", b"f")])
async def test_callbacks_run_when_the_whole_has_ended(bench: Bench, status: str, which: bytes) -> None:
    """One for how it has ended and one for any end are added in that transaction, with ids that follow."""
    callbacks = {
        f"on_{name}": new("", payload=name[:1].encode()) for name in ("success", "failure", "complete")
    }
    await bench.add(step("a"), step("b", "a"), **callbacks)
    await bench.claim()
    then, last = follow_up_id("w", 1, "then"), follow_up_id("w", 1, "complete")
    if status == "succeeded":
        assert await bench.end("a") == ["b"]
        assert await bench.end("b") == sorted([then, last])
    else:
        assert await bench.end("a", status=status) == sorted([then, last])
    assert bench.claims[then].payload.encode() == which
    assert bench.claims[last].payload == "c"
    assert await bench.status() == status
    run = await bench.run()
    assert (run.left, run.size) == (2, 4)
    assert [node.kind for node in run.steps] == ["step", "step", "callback", "callback"]
    assert await bench.end(then, status="failed") == []
    assert await bench.end(last) == []
    assert await bench.status() == status
    assert (await bench.run()).left == 0


async def test_the_whole_is_kept_until_its_callbacks_have_ended(bench: Bench) -> None:
    """It is closed after the end of the callbacks, and their retention counts too."""
    await bench.add(step("a"), on_complete=new(""))
    await bench.claim()
    [last] = await bench.end("a", keep=keep(10))
    run = await bench.run()
    assert (run.expires_at, run.finished_at is None) == (None, False)
    assert await bench.store.next_expiry() is None
    bench.now = 2000
    assert await bench.end(last, keep=Keep(until=2050, payload=True)) == []
    assert await bench.store.next_expiry() == 2050


# -- extension ---------------------------------------------------------------------------------------


async def test_a_step_extends_its_workflow(bench: Bench) -> None:
    """What a step adds is there with its end: after itself, after others of the extension, joined."""
    await bench.add(step("a"), step("z", "a"))
    await bench.claim()
    steps = (
        extension("b", 0),
        extension("c", 0),
        NewStep(job=None, after=(-1, -2)),
        extension("d", -3),
    )
    assert await bench.end("a", extends=steps) == ["b", "c", "z"]
    run = await bench.run()
    assert (run.size, run.left) == (6, 5)
    assert run.edges == ((0, 1), (0, 2), (0, 3), (2, 4), (3, 4), (4, 5))
    assert await bench.end("b", "c") == ["d"]
    assert await bench.end("d", "z") == []
    assert await bench.status() == "succeeded"


async def test_the_last_step_extends_its_workflow(bench: Bench) -> None:
    """Which goes on with what that adds, and has not ended before, though nothing of it is kept."""
    await bench.add(step("a"), on_complete=new(""))
    await bench.claim()
    assert await bench.end("a", keep=None, extends=(extension("b", 0),)) == ["b"]
    run = await bench.run()
    assert (run.status, run.left, run.size) == (JobStatus.RUNNING, 1, 2)
    assert len(await bench.end("b", keep=None)) == 1


async def test_an_extension_may_come_after_any_step(bench: Bench) -> None:
    """After a step that has succeeded it runs, after one that has not ended it waits, after a failure not."""
    await bench.add(step("a"), step("ok"), step("bad"), step("slow"))
    await bench.claim()
    await bench.end("ok")
    await bench.end("bad", status="failed")
    steps = (
        extension("free", 1),
        extension("now"),
        extension("skipped", 2, 3),
        extension("waits", 3, 0),
        extension("too", -3),
        NewStep(job=None, after=(1,)),
        extension("on", -6),
    )
    assert await bench.end("a", extends=steps) == ["free", "now", "on"]
    states = await bench.states()
    assert (states["skipped"], states["too"], states["waits"]) == ("skipped", "skipped", "pending")
    for skipped in ("skipped", "too"):
        assert await bench.store.status(skipped, now=bench.now) is JobStatus.CANCELLED
    assert await bench.end("slow") == ["waits"]
    assert await bench.end("free", "now", "on", "waits") == []
    assert (await bench.run()).left == 0


async def test_names_stay_unique_in_an_extension(bench: Bench) -> None:
    """A step that is added under a name that is taken has none."""
    await bench.add(step("a"))
    await bench.claim()
    twice = msgspec.structs.replace(extension("x", 0), name="a")
    assert await bench.end("a", extends=(twice, extension("b", 0))) == ["b", "x"]
    assert [node.name for node in (await bench.run()).steps] == ["a", None, "b"]


async def test_a_lost_outcome_extends_nothing(bench: Bench) -> None:
    """What a stale claim would add is not added."""
    await bench.add(step("a"))
    await bench.claim()
    stale = bench.outcome("a", fence=99, extends=(extension("b", 0),))
    assert await bench.store.finish([stale]) == {"a"}
    assert (await bench.run()).size == 1
    assert await bench.store.get("b", now=0) is None


async def test_two_steps_extend_at_once(bench: Bench) -> None:
    """Extensions that are written in one transaction do not mix."""
    await bench.add(step("a"), step("b"))
    await bench.claim()
    outcomes = [
        bench.outcome("a", extends=(extension("x", 0), extension("y", -1))),
        bench.outcome("b", extends=(extension("u", 1, 0), extension("v", -1))),
    ]
    assert await bench.store.finish(outcomes) == set()
    assert await bench.claim() == ["u", "x"]
    assert await bench.end("u", "x") == ["v", "y"]
    assert await bench.end("v", "y") == []
    assert await bench.status() == "succeeded"


async def test_a_cancelled_workflow_is_not_extended(bench: Bench) -> None:
    """What a step adds to a workflow that was cancelled meanwhile is left out."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    await bench.cancel("w")
    assert await bench.end("a", extends=(extension("x", 0),)) == []
    assert (await bench.run()).size == 2
    assert await bench.status() == "cancelled"


# -- cancellation ------------------------------------------------------------------------------------


async def test_what_depends_on_a_cancelled_step_is_skipped(bench: Bench) -> None:
    """A waiting step can be cancelled; what comes after it does not run, and the rest goes on."""
    await bench.add(step("a"), step("b", "a"), step("c", "b"), step("d", "a"))
    await bench.claim()
    assert await bench.cancel("b") == (["b"], [])
    assert await bench.states() == {"a": "running", "b": "cancelled", "c": "skipped", "d": "pending"}
    nodes = await bench.steps()
    assert (nodes["b"].error, nodes["c"].error) == ("cancelled", "skipped: 'b' was cancelled")
    assert await bench.cancel("b", "c") == ([], [])
    assert await bench.end("a") == ["d"]
    assert await bench.end("d") == []
    run = await bench.run()
    assert (run.status, run.cancelled_at) == (JobStatus.CANCELLED, None)


async def test_a_failure_counts_for_more_than_a_cancellation(bench: Bench) -> None:
    """A workflow one of whose steps has failed has failed, whatever was cancelled."""
    await bench.add(step("a"), step("b"))
    await bench.claim()
    await bench.end("a", status="failed")
    await bench.end("b", status="cancelled")
    assert await bench.status() == "failed"


async def test_several_of_one_workflow_are_cancelled_at_once(bench: Bench) -> None:
    """Steps that come after one another can be cancelled together; each is counted once."""
    await bench.add(step("a"), step("b", "a"), step("c", "b"), step("x"))
    assert sorted((await bench.cancel("c", "a", "b"))[0]) == ["a", "b", "c"]
    assert await bench.states() == {"a": "cancelled", "b": "cancelled", "c": "cancelled", "x": "pending"}
    assert (await bench.run()).left == 1


async def test_a_running_step_that_is_to_be_cancelled(bench: Bench) -> None:
    """It is its outcome that decides what follows: also where it would run again."""
    await bench.add(step("a"), step("b", "a"), step("x"), step("y", "x"))
    await bench.claim()
    assert await bench.cancel("a", "x") == ([], ["a", "x"])
    assert (await bench.states())["b"] == "pending"
    assert await bench.store.finish([bench.again("a", error="oops")]) == set()
    assert await bench.end("x") == ["y"]
    assert await bench.states() == {"a": "cancelled", "b": "skipped", "x": "succeeded", "y": "running"}


async def test_the_whole_is_cancelled(bench: Bench) -> None:
    """All that waits is cancelled; running steps are asked to, and the whole ends with the last of them."""
    await bench.add(
        step("a"), step("b"), step("c", "a"), join("j", "b", "c"), step("d", "j"), step("e", "a", "d")
    )
    await bench.store.add([new("other")])
    await bench.claim()
    assert await bench.end("a") == ["c"]
    ended, asked = await bench.cancel("w")
    assert (sorted(ended), sorted(asked)) == (["d", "e"], ["b", "c"])
    assert sorted((await bench.store.orders("mine")).cancelled) == sorted(
        (job_id, bench.claims[job_id].fence) for job_id in "bc"
    )
    run = await bench.run()
    assert run.cancelled_at is not None
    assert (run.status, run.left) == (JobStatus.RUNNING, 2)
    assert await bench.states() == {
        "a": "succeeded",
        "b": "running",
        "c": "running",
        "j": "skipped",
        "d": "cancelled",
        "e": "cancelled",
    }
    assert await bench.end("b") == []
    assert await bench.store.finish([bench.again("c")]) == set()
    assert await bench.claim() == []
    assert (await bench.states())["c"] == "cancelled"
    assert await bench.status() == "cancelled"
    assert await bench.cancel("w") == ([], [])


async def test_a_workflow_that_waits_is_cancelled_at_once(bench: Bench) -> None:
    """Where nothing runs, it has ended with the cancellation, and its callbacks run."""
    await bench.add(step("a"), step("b", "a"), on_failure=new(""), on_success=new(""))
    ended, asked = await bench.cancel("w")
    assert (sorted(ended), asked) == (["a", "b"], [])
    assert await bench.status() == "cancelled"
    [callback] = await bench.claim()
    assert await bench.cancel("w") == ([], [callback])
    assert await bench.status() == "cancelled"


async def test_steps_that_may_fail_count_when_the_whole_is_cancelled(bench: Bench) -> None:
    """They do not count where they were cancelled alone."""
    await declare(bench.store, "q", None)
    await bench.add(step("a", if_failed="continue"))
    await bench.add(step("b", if_failed="continue"), id="v")
    await bench.cancel("w")
    await bench.cancel("b")
    assert await bench.status("w") == "cancelled"
    assert await bench.status("v") == "succeeded"


async def test_a_cancelled_step_leaves_its_turn(bench: Bench) -> None:
    """What waits for the turn of a step that is cancelled, alone or with the whole, is let in."""
    await turns(bench.store, "q", 1)
    await bench.add(step("a", key="k", turns=1))
    await bench.store.add([new("x", key="k", turns=1), new("y", key="k", turns=1)])
    await bench.cancel("w")
    assert await limited(bench) == ["x"]


async def test_a_workflow_that_is_deleted_leaves_its_turns(bench: Bench) -> None:
    """So is what waits for the turn of a step that is deleted with the whole."""
    await turns(bench.store, "q", 1)
    await bench.add(step("a", key="k", turns=1), step("b", "a", key="k", turns=1))
    await bench.store.add([new("x", key="k", turns=1), new("y", key="k", turns=1)])
    assert await bench.store.act(Delete(), ["w"], now=bench.now) == ["w"]
    assert (await bench.store.find(Wanted(key="k"), limit=9, now=bench.now)).places[0][0] == 1
    assert await limited(bench) == ["x"]


# -- steps that run again ----------------------------------------------------------------------------


async def test_a_failed_step_runs_again(bench: Bench) -> None:
    """What was skipped because of it waits for it again, and runs."""
    await bench.add(step("a"), step("b", "a", key="k"), join("j", "b"), step("c", "j"), step("x"))
    await bench.claim()
    await bench.end("a", status="failed")
    assert await bench.store.act(Rerun(), ["a"], now=bench.now) == ["a"]
    assert await bench.states() == dict.fromkeys("abjc", "pending") | {"x": "running"}
    assert (await bench.steps())["b"].error is None
    assert await bench.claim() == ["a"]
    assert await bench.end("a") == ["b"]
    assert bench.claims["b"].key == "k"
    assert await bench.end("b") == ["c"]
    assert await bench.end("c", "x") == []
    assert await bench.status() == "succeeded"


async def test_what_was_skipped_because_of_several_waits_for_all(bench: Bench) -> None:
    """A step that was skipped revives when the last of those that bar it runs again, in whatever order."""
    await declare(bench.store, "q", None)
    await bench.add(
        step("a"), step("b"), join("j", "a", "b"), step("c", "j"), step("d", "a"), step("e", "c", "d")
    )
    await bench.claim()
    await bench.end("a", status="failed")
    await bench.end("b", status="failed")
    assert await bench.status() == "failed"
    await bench.store.act(Rerun(), ["b"], now=bench.now)
    assert await bench.states() == dict.fromkeys("jcde", "skipped") | {"a": "failed", "b": "pending"}
    assert await bench.claim() == ["b"]
    assert await bench.end("b") == []
    await bench.store.act(Rerun(), ["a"], now=bench.now)
    assert await bench.states() == dict.fromkeys("ajcde", "pending") | {"b": "succeeded"}
    assert await bench.claim() == ["a"]
    assert await bench.end("a") == ["c", "d"]
    assert await bench.end("c", "d") == ["e"]
    assert await bench.end("e") == []
    assert await bench.status() == "succeeded"


async def test_a_workflow_that_has_ended_runs_again(bench: Bench) -> None:
    """A step of one that is kept runs again: the whole is open, and ends once more, with its callbacks."""
    await declare(bench.store, "q", 50)
    await bench.add(step("a"), step("b", "a"), on_failure=new(""), on_success=new(""))
    await bench.claim()
    first, second = follow_up_id("w", 1, "then"), follow_up_id("w", 2, "then")
    assert await bench.end("a", status="failed", keep=keep(100)) == [first]
    assert await bench.end(first, keep=keep(50)) == []
    run = await bench.run()
    assert (run.status, run.left, await bench.store.next_expiry()) == (JobStatus.FAILED, 0, 1100)
    assert await bench.store.which_ended(["w"], now=bench.now) == ["w"]
    assert await bench.store.act(Rerun(), ["a"], now=bench.now) == ["a"]
    run = await bench.run()
    assert (run.status, run.left, run.finished_at, run.expires_at) == (JobStatus.RUNNING, 2, None, None)
    assert await bench.store.next_expiry() is None
    assert await bench.store.which_ended(["w"], now=bench.now) == []
    bench.now = 9000
    assert await bench.claim() == ["a"]
    assert await bench.end("a", keep=keep(8100)) == ["b"]
    assert await bench.end("b", keep=None) == [second]
    assert await bench.end(second, keep=None) == []
    run = await bench.run()
    assert (run.status, run.left, run.size) == (JobStatus.SUCCEEDED, 0, 4)
    assert await bench.store.next_expiry() == 9100


async def test_a_workflow_runs_again_by_its_id(bench: Bench) -> None:
    """`Rerun` of a workflow is of all of its steps that have failed, and tells whether there were any."""
    await bench.add(step("a"), step("b"), step("c"), step("d", "a", "b"))
    await bench.claim()
    assert await bench.store.act(Rerun(), ["w"], now=bench.now) == []
    await bench.end("a", "b", status="failed")
    assert await bench.store.act(Rerun(), ["w", "nobody"], now=bench.now) == ["w"]
    assert await bench.states() == {"a": "pending", "b": "pending", "c": "running", "d": "pending"}
    assert await bench.claim() == ["a", "b"]


async def test_steps_that_run_again_keep_their_order(bench: Bench) -> None:
    """A step that runs again waits for those before it that do, too."""
    await declare(bench.store, "q", None)
    await bench.add(step("a", if_failed="continue"), step("b", "a", key="k"), step("c", "b"))
    await bench.claim()
    await bench.end("a", status="failed")
    await bench.end("b", status="failed")
    assert await bench.store.act(Rerun(), ["w"], now=bench.now) == ["w"]
    assert await bench.claim() == ["a"]
    assert await bench.end("a") == ["b"]
    assert bench.claims["b"].key == "k"
    assert await bench.end("b") == ["c"]


async def test_a_step_that_was_skipped_runs_by_hand(bench: Bench) -> None:
    """One that was skipped or cancelled runs at once, whatever has become of what it comes after."""
    await declare(bench.store, "q", None)
    await bench.add(step("a"), step("b", "a"), step("c", "b"))
    await bench.claim()
    await bench.end("a", status="failed")
    assert await bench.store.act(Rerun(), ["b"], now=bench.now) == ["b"]
    assert await bench.states() == {"a": "failed", "b": "pending", "c": "pending"}
    assert await bench.claim() == ["b"]
    assert await bench.end("b") == ["c"]
    assert await bench.end("c") == []
    assert await bench.status() == "failed"


async def test_what_still_waits_waits_for_a_step_that_runs_again(bench: Bench) -> None:
    """A step that had been let go on by a tolerated failure waits for that one again."""
    await bench.add(step("a", if_failed="continue"), step("b"), step("c", "a", "b"))
    await bench.claim()
    await bench.end("a", status="failed")
    await bench.store.act(Rerun(), ["a"], now=bench.now)
    assert await bench.claim() == ["a"]
    assert await bench.end("b") == []
    assert await bench.end("a", status="failed") == ["c"]


@pytest.mark.parametrize("status", ["succeeded", "cancelled"])
async def test_what_was_released_stays_so(bench: Bench, status: str) -> None:
    """A step that runs, or may, is neither released again nor skipped when one before it ends once more."""
    await declare(bench.store, "q", None)
    await bench.add(step("a"), step("b", "a"), step("c", "a", due_at=5000))
    await bench.claim()
    await bench.end("a", status="failed")
    await bench.store.act(Rerun(), ["b", "c"], now=bench.now)
    await bench.store.act(Postpone(due_at=5000), ["c"], now=bench.now)
    assert await bench.claim() == ["b"]
    await bench.store.act(Rerun(), ["a"], now=bench.now)
    assert await bench.claim() == ["a"]
    assert await bench.end("a", status=status) == []
    assert await bench.states() == {"a": status, "b": "running", "c": "pending"}
    assert await bench.end("b") == []
    bench.now = 5000
    assert await bench.claim() == ["c"]


async def test_a_step_that_has_succeeded_does_not_run_again(bench: Bench) -> None:
    """Nor does one whose payload is not kept."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    await bench.end("a")
    assert await bench.store.act(Rerun(), ["a"], now=bench.now) == []
    await bench.end("b", status="failed", keep=Keep(until=None, payload=False))
    assert await bench.status() == "failed"
    assert await bench.store.act(Rerun(), ["b", "w"], now=bench.now) == []
    assert await bench.status() == "failed"
    assert (await bench.run()).left == 0


async def test_a_fallback_runs_again_each_time(bench: Bench) -> None:
    """A step that fails again has its fallback added again, under another id."""
    await bench.add(step("a", fallback=new("")))
    await bench.claim()
    [first] = await bench.end("a", status="failed")
    await bench.end(first)
    await bench.store.act(Rerun(), ["a"], now=bench.now)
    assert await bench.claim() == ["a"]
    [second] = await bench.end("a", status="failed")
    assert first != second
    assert (await bench.run()).size == 3


# -- waiting steps -----------------------------------------------------------------------------------


async def test_waiting_steps_can_be_put_off(bench: Bench) -> None:
    """One that waits is not due before, waits on when it is to run now, and takes another payload."""
    await bench.add(step("a"), step("b", "a"), step("c", "a"), step("d", "a", key="k"))
    await bench.claim()
    waiting = ["b", "c", "d"]
    assert await bench.store.act(Postpone(due_at=5000), waiting, now=bench.now) == waiting
    assert await bench.store.act(Postpone(due_at=bench.now), ["c"], now=bench.now) == ["c"]
    assert await bench.store.act(Rerun(), ["d"], now=bench.now) == ["d"]
    edit = Edit(queue="q", task="T", payload=b'{"new":1}')
    assert await bench.store.act(edit, ["c"], now=bench.now) == ["c"]
    bench.now = 2000
    assert await bench.claim() == []
    assert (await bench.run()).left == 4
    assert await bench.end("a") == ["c", "d"]
    assert bench.claims["c"].payload == '{"new":1}'
    bench.now = 5000
    assert await bench.claim() == ["b"]


async def test_waiting_steps_have_no_turn(bench: Bench) -> None:
    """A step has no turn of its key before it is released, and then waits for one where there is none."""
    await turns(bench.store, "q", 1)
    await bench.add(step("a"), step("b", "a", key="k", turns=1), step("c", "a", key="k", turns=1))
    record = await bench.store.get("b", now=0)
    assert record is not None
    assert record.key == "k"
    await bench.store.add([new("x", key="k", turns=1)])
    assert await limited(bench) == ["a", "x"]
    await bench.store.finish([bench.outcome("a")])
    found = await bench.store.find(Wanted(key="k"), limit=9, now=bench.now)
    assert [(job.id, place[0]) for job, place in zip(found.jobs, found.places, strict=True)] == [
        ("x", 0),
        ("b", 2),
        ("c", 2),
    ]
    assert await limited(bench) == []
    record = await bench.store.get("b", now=0)
    assert record is not None
    assert (record.key, record.status) == ("k", JobStatus.PENDING)
    freed = msgspec.structs.replace(bench.outcome("x"), frees=place("q", "k", bench.now))
    await bench.store.finish([freed])
    assert await limited(bench) == ["b"]
    await bench.store.finish([bench.outcome("b", frees=place("q", "k", bench.now))])
    assert await limited(bench) == ["c"]


async def test_first_steps_of_a_key_take_turns(bench: Bench) -> None:
    """Like any other jobs of one key that are added together."""
    await turns(bench.store, "q", 1)
    await bench.add(step("a", key="k", turns=1), step("b", key="k", turns=1))
    found = await bench.store.find(Wanted(key="k"), limit=9, now=bench.now)
    assert [(job.id, place[0]) for job, place in zip(found.jobs, found.places, strict=True)] == [
        ("a", 1),
        ("b", 2),
    ]
    assert await limited(bench) == ["a"]


async def test_a_step_that_is_skipped_leaves_no_turn(bench: Bench) -> None:
    """The end of a step that had none lets nobody in."""
    await turns(bench.store, "q", 1)
    await bench.add(step("a"), step("b", "a", key="k", turns=1))
    await bench.store.add([new("x", key="k", turns=1), new("y", key="k", turns=1)])
    assert await limited(bench) == ["a", "x"]
    await bench.store.finish([bench.outcome("a", "failed")])
    await bench.cancel("b")
    assert await limited(bench) == []


async def test_a_clock_that_steps_leaves_waiting_steps(bench: Bench) -> None:
    """What waits for others has no wait that could be shifted; what was released has."""
    await bench.add(step("a", due_at=100_000, waits_from=0), step("b", "a", due_at=50, waits_from=40))
    assert await bench.store.shift_waits(now=0, by=50) == 0
    assert (await bench.run()).left == 2


async def test_a_clock_that_was_set_back_holds_no_step_up(bench: Bench) -> None:
    """A released step waits for as long as it was to, or until the instant that it was put off to."""
    late: dict[str, Any] = {"due_at": 100_050, "created_at": 100_000}
    await bench.add(
        step("a"),
        step("at once", "a", due_at=100_000, waits_from=100_000),
        step("soon", "a", waits_from=100_000, **late),
        step("then", "a", **late),
    )
    await bench.claim()
    assert await bench.end("a") == ["at once"]
    assert await bench.store.shift_waits(now=1600, by=500) == 0
    bench.now = 1050
    assert await bench.claim() == ["soon"]
    bench.now = 100_049
    assert await bench.claim() == []
    bench.now = 100_050
    assert await bench.claim() == ["then"]


async def test_a_unique_job_does_not_replace_a_step(bench: Bench) -> None:
    """A step that has the id of a job that is to replace it stays as it is."""
    await bench.add(step("a"), step("b", "a"))
    unique = Unique(own_id=True, replace_own=True)
    for job_id in "ab":
        other = new(job_id, payload=b'{"other":1}')
        assert await bench.store.add_unique(other, unique, now=bench.now) == job_id
    await bench.claim()
    assert bench.claims["a"].payload == "{}"
    assert await bench.end("a") == ["b"]
    assert bench.claims["b"].payload == "{}"


# -- retention ---------------------------------------------------------------------------------------


async def test_the_longest_retention_decides_for_the_whole(bench: Bench) -> None:
    """Nothing of it expires while it lives; then all of it at once, by the longest of its steps."""
    await declare(bench.store, "q", 70)
    await bench.add(step("a"), step("b", "a"), step("c", "b"))
    await bench.claim()
    assert await bench.end("a", keep=keep(500)) == ["b"]
    assert await bench.store.next_expiry() is None
    bench.now = 2000
    assert await bench.store.expire(now=bench.now, limit=9) == 0
    assert await bench.end("b", status="failed", keep=None) == []
    assert await bench.store.next_expiry() == 2500
    jobs = [await bench.store.get(job_id, now=bench.now) for job_id in "abc"]
    assert [job and job.expires_at and job.expires_at.timestamp() for job in jobs] == [2.5] * 3
    assert await bench.store.expire(now=2499, limit=9) == 0
    assert await bench.status() == "failed"
    bench.now = 2500
    assert await bench.store.workflow("w", now=bench.now) is None
    assert await bench.store.status("w", now=bench.now) is JobStatus.NOT_FOUND
    assert await bench.store.workflows(states=None, limit=9, before=None, now=bench.now) == []
    assert await bench.store.act(Rerun(), ["w", "b"], now=bench.now) == []
    assert await bench.store.act(Delete(), ["w", "b"], now=bench.now) == []
    assert await bench.store.expire(now=bench.now, limit=9) == 3
    assert await bench.store.next_expiry() is None
    assert await bench.store.expire(now=bench.now, limit=9) == 0


async def test_skipped_steps_count_by_their_queue(bench: Bench) -> None:
    """Cancelled steps are kept as their queues were declared: that may be the whole's retention."""
    await declare(bench.store, "q", 70)
    await declare(bench.store, "r", None)
    await bench.add(step("a"), step("b", "a"), id="v")
    await bench.add(step("c"), step("d", "c", queue="r"), id="w")
    await bench.claim()
    await bench.end("a", status="failed", keep=keep(10))
    assert await bench.store.next_expiry() == 1070
    await bench.end("c", status="failed", keep=keep(10))
    assert (await bench.run("w")).expires_at is None
    await bench.add(step("e", queue="s"), step("f", "e", queue="q"), id="x")
    await bench.cancel("e")
    assert (await bench.run("x")).expires_at is not None


async def test_a_workflow_that_has_ended_stays_as_it_is(bench: Bench) -> None:
    """To cancel it then does nothing, nor is it kept for longer."""
    await bench.add(step("a"))
    await bench.claim()
    await bench.end("a", keep=keep(500))
    bench.now = 1200
    assert await bench.cancel("w", "a") == ([], [])
    run = await bench.run()
    assert (run.status, run.cancelled_at) == (JobStatus.SUCCEEDED, None)
    assert await bench.store.next_expiry() == 1500


@pytest.mark.parametrize("size", [4, 5])
async def test_a_large_workflow_expires_in_pieces(bench: Bench, size: int) -> None:
    """No more jobs than asked for are removed at a time, and in the end all."""
    names = [f"a{n}" for n in range(size)]
    await bench.add(*map(step, names))
    await bench.claim()
    await bench.end(*names, keep=keep(10))
    removed = []
    while (await bench.store.next_expiry() or 5000) <= 2000:
        removed.append(await bench.store.expire(now=2000, limit=2))
    assert sum(removed) == size
    assert max(removed) <= 2
    assert await bench.store.next_expiry() is None
    await bench.add(step("a0"))


async def test_what_is_not_kept_is_removed_at_its_end(bench: Bench) -> None:
    """Where no step is kept, all of it goes with its last step, and leaves nothing behind."""
    await bench.add(step("a", tags='["t"]'), step("b", "a"), step("c", "b"))
    await bench.claim()
    wrong = Trouble(
        attempt=1,
        type="Error",
        message="oops",
        traceback=None,
        started_at=1000,
        finished_at=1000,
        duration=1,
    )
    assert await bench.end("a", keep=None, trouble=wrong) == ["b"]
    assert await bench.status() == "running"
    record = await bench.store.get("a", now=bench.now)
    assert record is not None
    assert len(record.errors) == 1
    assert [job.id for job in (await bench.store.find(Wanted(tag="t"), limit=9, now=0)).jobs] == ["a"]
    await bench.end("b", status="failed", keep=None)
    assert await bench.store.workflow("w", now=0) is None
    for there in ("w", "a", "b", "c"):
        assert await bench.store.status(there, now=0) is JobStatus.NOT_FOUND
    assert (await bench.store.find(Wanted(tag="t"), limit=9, now=0)).jobs == []
    await bench.add(step("a", tags='["t"]'), step("b", "a"), step("c", "b"))
    assert await bench.status() == "pending"
    record = await bench.store.get("a", now=bench.now)
    assert record is not None
    assert record.errors == ()


async def test_payloads_are_kept_while_they_may_be_needed(bench: Bench) -> None:
    """Of steps that have not succeeded until the close, of others as their retention says; results always."""
    await declare(bench.store, "q", 70, payload=False)
    await declare(bench.store, "r", 70)
    await bench.add(
        step("a"),
        step("b"),
        step("c"),
        step("d", "c"),
        step("e", "c", queue="r"),
        step("f"),
        step("g", "f"),
    )
    await bench.claim()
    await bench.end("a", keep=keep(10, payload=False), result='"a"')
    await bench.end("b", keep=keep(10), result='"b"')
    await bench.end("c", status="failed", keep=keep(10, payload=False))
    assert await payloads(bench, "abcdef") == [None, b"{}", b"{}", b"{}", b"{}", b"{}"]
    await bench.end("f")
    await bench.end("g", keep=None, result='"g"')
    assert await payloads(bench, "abcdefg") == [None, b"{}", None, None, b"{}", b"{}", None]
    jobs = [await bench.store.get(job_id, now=bench.now) for job_id in "abg"]
    assert [job and job.result for job in jobs] == [b'"a"', b'"b"', b'"g"']


async def test_a_failed_step_that_can_run_again_keeps_what_is_to_follow(bench: Bench) -> None:
    """Whatever the queues of that say: after the close, it revives what was skipped because of it."""
    await declare(bench.store, "q", 70, payload=False)
    await bench.add(step("a"), step("b", "a"), step("c", "b", queue="unknown"))
    await bench.claim()
    await bench.end("a", status="failed", keep=keep(10))
    assert await bench.status() == "failed"
    assert await payloads(bench, "abc") == [b"{}", b"{}", b"{}"]
    assert await bench.store.act(Rerun(), ["a"], now=bench.now) == ["a"]
    assert await bench.states() == {"a": "pending", "b": "pending", "c": "pending"}


async def test_what_was_stripped_stays_skipped(bench: Bench) -> None:
    """A step that runs again after the close revives only what can run."""
    await declare(bench.store, "q", 70, payload=False)
    await bench.add(step("x"), step("y", "x"))
    await bench.claim()
    await bench.end("x", status="failed", keep=keep(10, payload=False))
    assert await payloads(bench, "xy") == [None, None]


async def test_what_cannot_run_stays_skipped(bench: Bench) -> None:
    """Of a step that was cancelled and is kept, those after it whose payloads are not."""
    await declare(bench.store, "r", 70)
    await declare(bench.store, "q", 70, payload=False)
    await bench.add(step("a", queue="r"), step("b", "a"))
    assert await bench.store.cancel(["a"], now=bench.now)
    assert await bench.store.act(Rerun(), ["a"], now=bench.now) == ["a"]
    assert await bench.states() == {"a": "pending", "b": "skipped"}
    assert await bench.claim() == ["a"]
    await bench.end("a")
    assert await bench.status() == "cancelled"


async def payloads(bench: Bench, job_ids: str) -> list[bytes | None]:
    jobs = [await bench.store.get(job_id, now=bench.now) for job_id in job_ids]
    return [None if job is None else job.payload for job in jobs]


# -- waits -------------------------------------------------------------------------------------------


async def test_a_workflow_is_waited_for(bench: Bench) -> None:
    """It is kept for a while if somebody waits for it, who is told; its end is that of its steps."""
    await bench.add(step("a"), step("b", "a"), on_complete=new(""))
    await bench.store.watch(["w"], owner="me")
    await bench.claim()
    assert await bench.store.which_ended(["w", "a", "nobody"], now=bench.now) == ["nobody"]
    await bench.end("a", keep=None)
    assert await bench.store.which_ended(["w", "a"], now=bench.now) == ["a"]
    heard = []
    bench.store.listen(lambda: heard.append(1))
    [last] = await bench.end("b", keep=None)
    assert heard
    assert await bench.store.which_ended(["w"], now=bench.now) == ["w"]
    bench.now = 2000
    await bench.end(last, keep=None)
    assert await bench.status() == "succeeded"
    assert await bench.store.next_expiry() == 2000 + WATCHED_FOR


async def test_a_step_is_waited_for(bench: Bench) -> None:
    """The whole is kept for a while if somebody waits for a step of it."""
    await bench.add(step("a"), step("b", "a"))
    await bench.store.watch(["b"], owner="me")
    await bench.claim()
    await bench.end("a", status="failed", keep=None)
    assert await bench.store.which_ended(["b"], now=bench.now) == ["b"]
    assert await bench.store.next_expiry() == 1000 + WATCHED_FOR
    await bench.store.unwatch(["b"], owner="me")


async def test_a_cancelled_workflow_is_heard_of(bench: Bench) -> None:
    """Who waits for a workflow is told of a cancellation that ends it."""
    await bench.add(step("a"))
    await bench.store.watch(["w"], owner="me")
    heard = []
    bench.store.listen(lambda: heard.append(1))
    await bench.cancel("w")
    assert heard
    assert await bench.store.which_ended(["w"], now=bench.now) == ["w"]
    assert await bench.status() == "cancelled"


# -- adding, deleting, listing -----------------------------------------------------------------------


async def test_adding_a_workflow_twice(bench: Bench) -> None:
    """An id that is there refuses all that is added with it, but with `again`, which leaves it as it is."""
    await bench.add(step("a"), step("b", "a"))
    others = [flow(step("c"), id="v"), flow(step("d"), step("e", "d"))]
    with pytest.raises(InvalidState):
        await bench.store.add([new("x")], workflows=others)
    with pytest.raises(InvalidState):
        await bench.store.add([new("x")], workflows=[flow(step("c"), step("a"), id="v")])
    for twice in ([flow(step("c"), id="v"), flow(step("d"), id="v")], [flow(step("c"), step("c"), id="v")]):
        with pytest.raises(InvalidState):
            await bench.store.add([new("x")], workflows=twice)
    for there in ("v", "c", "d", "x"):
        assert await bench.store.status(there, now=0) is JobStatus.NOT_FOUND
    await bench.claim()
    await bench.end("a")
    same = flow(step("a"), step("b", "a"))
    await bench.store.add([new("x")], workflows=[same, flow(step("c"), id="v")], again=True)
    assert await bench.states() == {"a": "succeeded", "b": "running"}
    assert await bench.claim() == ["c", "x"]
    await bench.end("b")
    await bench.store.add([], workflows=[same], again=True)
    assert await bench.status() == "succeeded"
    assert (await bench.run()).left == 0


async def test_a_workflow_is_deleted_whole(bench: Bench) -> None:
    """Nothing of it alone, and not while a step of it runs; then all of it, whatever waits or has ended."""
    await bench.add(step("a", tags='["t"]'), step("b", "a"), step("c", "b"))
    await bench.store.add([new("other")])
    assert await bench.store.act(Delete(), ["a", "b"], now=bench.now) == []
    await bench.claim()
    assert await bench.store.act(Delete(), ["w", "a"], now=bench.now) == []
    await bench.end("a")
    assert await bench.store.act(Delete(), ["w"], now=bench.now) == []
    await bench.store.finish([bench.again("b", due_at=9999)])
    assert await bench.store.act(Delete(), ["w", "nobody", "a"], now=bench.now) == ["w"]
    assert await bench.store.workflow("w", now=0) is None
    for there in ("w", "a", "b", "c"):
        assert await bench.store.status(there, now=0) is JobStatus.NOT_FOUND
    assert (await bench.store.find(Wanted(tag="t"), limit=9, now=0)).jobs == []
    assert await bench.store.status("other", now=0) is JobStatus.RUNNING
    await bench.add(step("a"), step("b", "a"))
    assert await bench.claim() == ["a"]


async def test_workflows_are_listed(bench: Bench) -> None:
    """By id, greatest first, without their steps, by state, in pages."""
    for name in "uvwx":
        await bench.add(step(name * 2), id=name)
    await bench.claim()
    await bench.end("uu")
    await bench.end("ww", status="failed")
    await bench.add(step("zz", due_at=9999), id="z")

    async def listed(*states: JobStatus, limit: int = 9, before: str | None = None) -> str:
        runs = await bench.store.workflows(
            states=frozenset(states) or None, limit=limit, before=before, now=bench.now
        )
        assert all(run.steps == () and run.size == 1 for run in runs)
        return "".join(run.id for run in runs)

    assert await listed() == "zxwvu"
    assert await listed(limit=2) == "zx"
    assert await listed(limit=2, before="x") == "wv"
    assert await listed(JobStatus.RUNNING) == "xv"
    assert await listed(JobStatus.PENDING) == "z"
    assert await listed(JobStatus.FAILED, JobStatus.SUCCEEDED) == "wu"
    assert await listed(JobStatus.FAILED, before="w") == ""


async def test_what_is_skipped_is_counted(bench: Bench) -> None:
    """Statistics count each skipped or cancelled step, once, in its minute and queue."""
    await bench.add(step("a"), step("b", "a"), join("j", "b"), step("c", "j", queue="r"), step("d"))
    await bench.claim()
    bench.now = 61_000
    await bench.end("a", status="failed")
    await bench.cancel("d")
    await bench.cancel("w")
    await bench.end("d", status="cancelled")
    rows = await bench.store.stats(since=0, until=600_000, step=60_000)
    assert [tuple(row) for row in rows] == [
        ("q", 60_000, "cancelled", 0, 1),
        ("r", 60_000, "cancelled", 0, 1),
    ]


# -- results -----------------------------------------------------------------------------------------


async def results(bench: Bench, number: int | None, **changes: bool) -> list[tuple[str, bytes | None]]:
    found = await bench.store.step_results("w", number, **changes)
    return [(one.name or one.id, one.result) for one in found]


async def test_a_step_sees_what_those_before_it_have_left(bench: Bench) -> None:
    """In the order in which it comes after them, joins replaced by what they join; deep: of all before it."""
    await bench.add(
        step("a"),
        step("b", "a"),
        step("c", "a"),
        join("j", "c", "b"),
        step("d", "j", "a"),
        step("e", "d"),
        on_complete=new(""),
    )
    await bench.claim()
    await bench.end("a", result="1")
    assert await results(bench, 0) == []
    assert await results(bench, 1) == [("a", b"1")]
    await bench.end("c", result='"c"')
    assert await results(bench, 4) == [("c", b'"c"'), ("a", b"1")]
    await bench.end("b", keep=None)
    assert await results(bench, 4) == [("c", b'"c"'), ("b", None), ("a", b"1")]
    await bench.end("d", result="[]")
    assert await results(bench, 5) == [("d", b"[]")]
    assert await results(bench, 5, deep=True) == [("a", b"1"), ("b", None), ("c", b'"c"'), ("d", b"[]")]
    [last] = await bench.end("e", result="5")
    everything = [("a", b"1"), ("b", None), ("c", b'"c"'), ("d", b"[]"), ("e", b"5")]
    assert await results(bench, 6) == everything
    assert await results(bench, 6, deep=True) == everything
    await bench.end(last, result="6")
    assert await results(bench, None) == [*everything, (last, b"6")]
    found = await bench.store.step_results("w", 1)
    assert [(one.number, one.id, one.name, one.status) for one in found] == [
        (0, "a", "a", JobStatus.SUCCEEDED)
    ]


async def test_what_has_not_succeeded_is_among_results(bench: Bench) -> None:
    """A step sees that one before it has failed, or was cancelled; a fallback sees its step."""
    await bench.add(
        step("a", if_failed="continue", fallback=new("")),
        step("b"),
        step("c", if_failed="continue"),
        step("d", "a", "c"),
    )
    await bench.claim()
    await bench.end("b", status="failed")
    await bench.end("c", status="cancelled")
    released = await bench.end("a", status="failed")
    assert "d" in released
    found = await bench.store.step_results("w", 3)
    assert [(one.name, one.status, one.result) for one in found] == [
        ("a", JobStatus.FAILED, None),
        ("c", JobStatus.CANCELLED, None),
    ]
    assert [(one.name, one.status) for one in await bench.store.step_results("w", 4)] == [
        ("a", JobStatus.FAILED)
    ]


async def test_there_are_no_results_of_nothing(bench: Bench) -> None:
    """Of a workflow or a step that is not there nothing is left."""
    await bench.add(step("a"))
    assert await results(bench, 7) == []
    assert await results(bench, None) == []
    assert await bench.store.step_results("nobody", 0) == []
    assert await bench.store.step_results("nobody", None, deep=True) == []


# -- keys --------------------------------------------------------------------------------------------


async def turns(store: Store, queue: str, number: int) -> None:
    """Let so many jobs of a key of a queue run at once."""
    declared = Declared(queue=queue, keeps=True, keep_for=None, keep_payload=True, turns=number)
    await store.declare([declared], now=0)


def place(queue: str, key: str, at: int) -> Place:
    return Place(queue, key, at)


async def limited(bench: Bench) -> list[str]:
    """Claim all that is due, at most one of a key of the queue q; return the ids."""
    limit = Limit(queue="q", room=9, per_key=1)
    found = await bench.store.claim([LANE], owner="mine", now=bench.now, until=10**15, limits=[limit])
    bench.claims |= {job.id: job for job in found.jobs}
    return sorted(job.id for job in found.jobs)


# -- transactions ------------------------------------------------------------------------------------

Opener = Callable[..., Awaitable[SQLiteStore]]

REFUSE = """
    CREATE TRIGGER refuse BEFORE UPDATE OF due_at ON backlite_jobs
    WHEN new.id = 'b' AND new.due_at IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'not now'); END
"""


async def test_an_end_and_what_it_releases_are_written_together(open_store: Opener, path: str) -> None:
    """Where a release cannot be written, nothing of the outcome is; tried again, all of it is, once."""
    bench = Bench(await open_store())
    await bench.add(step("a"), step("b", "a"), join("j", "a"), step("c", "j"))
    await bench.claim()
    done = bench.outcome("a", extends=(extension("x", 0),))
    with sqlite3.connect(path) as raw:
        raw.execute(REFUSE)
        raw.commit()
        with pytest.raises(BackliteError):
            await bench.store.finish([done])
        assert await bench.states() == {"a": "running", "b": "pending", "j": "pending", "c": "pending"}
        run = await bench.run()
        assert (run.left, run.size) == (4, 4)
        assert await bench.claim() == []
        raw.execute("DROP TRIGGER refuse")
    raw.close()
    assert await bench.store.finish([done]) == set()
    assert await bench.claim() == ["b", "c", "x"]


@pytest.mark.parametrize("how", ["committed", "rolled back", "lost"])
async def test_a_handlers_transaction_releases(open_store: Opener, how: str) -> None:
    """What follows from an end that is written in a handler's transaction is part of that."""
    store = await open_store()
    bench = Bench(store)
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    block = await store.begin(5.0)
    done = bench.outcome("a", extends=(extension("x", 0),))
    if how == "committed":
        await block.commit(done)
    elif how == "rolled back":
        await block.rollback()
    else:
        await block.commit(msgspec.structs.replace(done, fence=99))
    assert await bench.claim() == (["b", "x"] if how == "committed" else [])
    run = await bench.run()
    assert (run.left, run.size) == ((2, 3) if how == "committed" else (2, 2))


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
async def test_a_workflow_is_added_in_a_transaction(open_store: Opener, path: str, ends: str) -> None:
    """All of it is there with the commit of the caller's own transaction, or nothing is."""
    bench = Bench(await open_store())
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        made = flow(step("a", tags='["t"]'), join("j", "a"), step("b", "j"))
        await bench.store.add_within(connection, [new("x")], workflows=[made])
        with pytest.raises(InvalidState):
            await bench.store.add_within(connection, [new("y")], workflows=[made])
        await connection.execute(ends)
    assert await bench.claim() == (["a", "x"] if ends == "COMMIT" else [])
    assert (await bench.store.status("w", now=0) is JobStatus.RUNNING) == (ends == "COMMIT")
    assert await bench.store.status("y", now=0) is JobStatus.NOT_FOUND
    if ends == "COMMIT":
        assert await bench.end("a") == ["b"]
