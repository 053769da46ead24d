"""What every store does with workflows: the sentences of `stores/_flows.py`, run on each store."""

from __future__ import annotations

import msgspec
import pytest

from backlite_async._graph import NewStep, follow_up_id
from backlite_async._job import Declared, JobStatus, Keep
from backlite_async._query import Wanted
from backlite_async.stores import Store

from .flows import Bench, extension, join, new, step


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
    """Listeners are told of steps that can run."""
    await bench.add(step("a"), step("b", "a"))
    await bench.claim()
    heard = []
    bench.store.listen(lambda: heard.append(1))
    await bench.store.finish([bench.outcome("a")])
    assert heard


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


async def test_a_skipped_step_that_may_fail_lets_others_run(bench: Bench) -> None:
    """What comes after a skipped step that may fail runs."""
    await bench.add(step("a"), step("b", "a", if_failed="continue"), step("c", "b"))
    await bench.claim()
    assert await bench.end("a", status="failed") == ["c"]
    assert await bench.states() == {"a": "failed", "b": "skipped", "c": "running"}


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


async def test_an_extension_may_come_after_any_step(bench: Bench) -> None:
    """After a step that has succeeded it runs, after one that has not ended it waits, after a failed one not."""
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
