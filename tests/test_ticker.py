"""The task that adds the runs of schedules: when it wakes, and what it outlives. In simulated time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from backlite_async import DatabaseUnavailable, InvalidState
from backlite_async._clock import from_millis
from backlite_async._declarations import Declarations
from backlite_async._due import LATE, plan_tick
from backlite_async._health import Health
from backlite_async._job import NewJob, Owner
from backlite_async._reconcile import Definition, made, paused
from backlite_async._recurring import StoredSchedule, Tick
from backlite_async._schedule import timing
from backlite_async._ticker import LOOKS_APART, Ticker
from backlite_async.stores import MemoryStore

from .simulation.clock import EPOCH, SimClock
from .simulation.loop import SimLoop, run

HOUR = 3_600_000


class Watched(MemoryStore):
    """A memory store that counts what it is asked, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.failures: list[str] = []
        self.rings_made = 0
        self.between: Callable[[], Awaitable[None]] | None = None

    def ring(self) -> None:
        self.rings_made += 1
        super().ring()

    async def next_tick(self) -> int | None:
        self.asked["next"] += 1
        return await super().next_tick()

    async def due_schedules(self, *, now: int, limit: int) -> Sequence[StoredSchedule]:
        self.asked["due"] += 1
        found = await super().due_schedules(now=now, limit=limit)
        await asyncio.sleep(0.001)  # so that others come between
        return found

    async def schedules(self, name: str | None = None) -> Sequence[StoredSchedule]:
        self.asked["all"] += 1
        return await super().schedules(name)

    async def tick(self, tick: Tick) -> Sequence[str] | None:
        self.asked["tick"] += 1
        if self.between is not None:
            await self.between()
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "before":
            raise DatabaseUnavailable("locked")
        added = await super().tick(tick)
        if failure == "after":
            raise DatabaseUnavailable("no answer")
        return added


class World:
    """A loop with a clock, a store, and any number of tickers on it."""

    def __init__(self, seed: int = 0) -> None:
        self.loop = SimLoop(seed)
        self.clock = SimClock(self.loop)
        self.store = Watched()
        self.added: list[tuple[str, float]] = []
        self.late: list[int] = []
        self.looks = 0
        self.tickers: list[Ticker] = []

    def live(self, scenario: Callable[[], Awaitable[None]], *, tickers: int = 1) -> None:
        """Run a scenario beside tickers, and end them."""

        async def whole() -> None:
            tasks = []
            for number in range(tickers):
                await self.store.open(install=True, owner=Owner(id=f"owner {number}", beat=1, slots=9))
                ticker = self.ticker(f"owner {number}")
                self.tickers.append(ticker)
                tasks.append(asyncio.ensure_future(ticker.run()))
            await scenario()
            for ticker in self.tickers:
                ticker.close()
            await asyncio.gather(*tasks)

        run(self.loop, whole())

    def ticker(self, owner: str) -> Ticker:
        troubled: set[str] = set()
        return Ticker(
            self.store,
            self.clock,
            Health("tick schedules", troubled),
            declarations=Declarations(),
            owner=owner,
            added=self.took,
        )

    def took(self, jobs: list[NewJob]) -> None:
        self.added += [(job.id, self.loop.time()) for job in jobs]
        self.late += [self.clock.now() - job.due_at for job in jobs]
        self.looks += 1

    async def make(self, name: str = "s", **more: Any) -> StoredSchedule:
        """Make a schedule that is due every hour, or otherwise."""
        times = {key: more.pop(key) for key in ("every", "at", "start", "end") if key in more} or {
            "every": 3600
        }
        usual: dict[str, Any] = {"missed": "one", "overlap": True, "jitter": 0, "max_runs": None}
        job = NewJob(id="", queue="q", task="T", payload=b"{}", max_attempts=1, created_at=0, due_at=0)
        definition = Definition(name=name, timing=timing(now=1, **times), job=job, task="", **(usual | more))
        schedule = made(definition, owner=None, now=self.clock.now())
        assert await self.store.save_schedule(schedule, expected=None)
        return schedule

    async def there(self, name: str = "s") -> StoredSchedule:
        return (await self.store.schedules(name))[0]


@pytest.fixture
def lines() -> Any:
    """The library's log lines."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, handler = logging.getLogger("backlite_async"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(level)


def events(lines: list[str], event: str) -> list[str]:
    return [line for line in lines if line.split()[0] == event]


# -- when it wakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_each_run_is_added_when_it_is_due(seed: int) -> None:
    """One a hour, at the hour and not before, without anybody calling."""
    world = World(seed)

    async def scenario() -> None:
        await world.make()
        world.tickers[0].look()
        await asyncio.sleep(24 * 3600 + 1)

    world.live(scenario)
    assert len(world.added) == 24
    assert min(world.late) >= 0
    assert max(world.late) <= 5


def test_idle_it_does_nothing() -> None:
    """Without a schedule it asks once, and with one that is due tomorrow once more: no polling."""
    world = World()

    async def scenario() -> None:
        await asyncio.sleep(3 * 24 * 3600)
        assert world.store.asked["next"] == 1
        wakeups = world.loop.wakeups
        await world.make(every=24 * 3600)
        world.tickers[0].look()
        await asyncio.sleep(23 * 3600)
        assert world.store.asked["next"] == 2
        assert world.loop.wakeups - wakeups <= 2
        await asyncio.sleep(2 * 3600)

    world.live(scenario)
    assert world.store.asked == {"all": 1, "next": 4, "due": 1, "tick": 1}
    assert len(world.added) == 1


def test_calls_that_come_thick_and_fast_are_answered_together() -> None:
    """Who is called for each job that others add looks a few times a second at most."""
    world = World()

    async def scenario() -> None:
        for _ in range(1000):
            world.tickers[0].look()
            await asyncio.sleep(0.001)

    world.live(scenario)
    assert 3 <= world.store.asked["next"] <= 2 + 1 / LOOKS_APART


def test_a_schedule_that_others_make_earlier_wakes_it() -> None:
    """A deadline that comes nearer counts as soon as somebody says so."""
    world = World()

    async def scenario() -> None:
        await world.make(every=24 * 3600)
        world.tickers[0].look()
        await asyncio.sleep(10)
        await world.make("soon", at=[from_millis(world.clock.now() + 2000)])
        world.tickers[0].look()
        await asyncio.sleep(3)

    world.live(scenario)
    assert [round(at) for _, at in world.added] == [12]


def test_a_schedule_that_is_paused_is_left_alone() -> None:
    """The deadline of one that was paused meanwhile finds nothing due."""
    world = World()

    async def scenario() -> None:
        schedule = await world.make()
        world.tickers[0].look()
        await asyncio.sleep(10)
        await world.store.save_schedule(paused(schedule, world.clock.now()), expected=1)
        await asyncio.sleep(5 * 3600)

    world.live(scenario)
    assert world.added == []
    assert world.store.asked["due"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_of_two_who_watch_one_adds(seed: int, lines: list[str]) -> None:
    """Whoever comes first; the other one finds it done."""
    world = World(seed)

    async def scenario() -> None:
        await world.make(every=600, missed="all")
        await world.make("other", every=3600, jitter=100_000)
        for ticker in world.tickers:
            ticker.look()
        await asyncio.sleep(24 * 3600 + 1)

    world.live(scenario, tickers=3)
    assert len(world.added) == len({job_id for job_id, _ in world.added}) == 24 * 7
    assert world.store.asked["tick"] > 24 * 7  # they did get in each other's way
    assert len(events(lines, "schedule.ticked")) == 24 * 7
    assert events(lines, "store.failing") == []


# -- clocks ----------------------------------------------------------------------------------------


def test_a_clock_that_is_set_forward_is_seen_at_a_look_around() -> None:
    """Timers know nothing of it, nor of a machine that was suspended."""
    world = World()

    async def scenario() -> None:
        await world.make()
        world.tickers[0].look()
        await asyncio.sleep(10)
        world.clock.jump(5 * 3600)
        await asyncio.sleep(45)
        world.tickers[0].look_around()
        await asyncio.sleep(1)

    world.live(scenario)
    assert len(world.added) == 1
    assert world.late[0] >= 0


def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    """What was added is over, whatever the clock says; it goes on when the clock comes there again."""
    world = World()

    async def scenario() -> None:
        await world.make()
        world.tickers[0].look()
        await asyncio.sleep(3 * 3600 + 1)
        world.clock.jump(-2 * 3600)
        world.tickers[0].look_around()
        await asyncio.sleep(3 * 3600 - 10)
        assert len(world.added) == 3
        await asyncio.sleep(3600)

    world.live(scenario)
    assert len(world.added) == 4
    assert min(world.late) >= 0


# -- trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [["before"] * 4, ["after"], ["after", "before", "after"]])
def test_trouble_with_the_database_heals(failures: list[str], lines: list[str]) -> None:
    """It is tried again until it succeeds, and what was done all the same is not done again."""
    world = World()

    async def scenario() -> None:
        await world.make(missed="all", max_runs=3)
        world.tickers[0].look()
        world.store.failures = list(failures)
        await asyncio.sleep(4 * 3600)
        there = await world.there()
        assert (there.runs, there.next_at) == (3, None)

    world.live(scenario)
    assert len(world.store._live.rows) == 3
    assert len(events(lines, "store.failing")) == len(events(lines, "store.recovered")) > 0


@pytest.mark.parametrize("failure", ["before", "after"])
def test_what_may_have_been_added_is_looked_for(failure: str) -> None:
    """Here and by the others, at once: where the answer is lost, nobody has been told of the jobs."""
    world = World()

    async def scenario() -> None:
        await world.make()
        world.tickers[0].look()
        world.store.failures = [failure]
        await asyncio.sleep(3600 - 1)
        looks, rings = world.looks, world.store.rings_made
        await asyncio.sleep(1.01)
        assert (world.looks, world.store.rings_made > rings) == (looks + 1, True)

    world.live(scenario)


def test_trouble_with_one_schedule_holds_up_no_other(lines: list[str]) -> None:
    """It is said once, without a look more than otherwise, and the others are added when they are due."""
    world = World()

    async def scenario() -> None:
        broken = await world.make("broken", every=60)
        await world.make("fine")
        wrong = msgspec.structs.replace(broken, timing='{"cron": 5}')
        assert await world.store.save_schedule(wrong, expected=1)
        world.tickers[0].look()
        await asyncio.sleep(2 * 3600 + 30)
        assert world.store.asked["due"] == 3
        world.tickers[0].look_around()
        await asyncio.sleep(1)
        assert len(events(lines, "schedule.troubled")) == 1
        mended = msgspec.structs.replace(await world.there("broken"), timing=broken.timing)
        assert await world.store.save_schedule(mended, expected=2)
        world.tickers[0].look()
        await asyncio.sleep(1)

    world.live(scenario)
    assert len(world.added) == 3
    [line] = events(lines, "schedule.troubled")
    assert "schedule=broken" in line
    assert "ValidationError" in line


def test_trouble_that_is_over_is_seen_at_a_look_around(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps one schedule from being understood may be gone by then."""
    world, right = World(), plan_tick

    def wrong(*_: Any) -> Tick:
        raise InvalidState("no rules here")

    async def scenario() -> None:
        await world.make()
        world.tickers[0].look()
        monkeypatch.setattr("backlite_async._ticker.plan_tick", wrong)
        await asyncio.sleep(3601)
        monkeypatch.setattr("backlite_async._ticker.plan_tick", right)
        await asyncio.sleep(10)
        assert world.added == []
        world.tickers[0].look_around()
        await asyncio.sleep(1)
        assert len(world.added) == 1

    world.live(scenario)
    assert events(lines, "schedule.troubled") == ["schedule.troubled schedule=s error='no rules here'"]


def test_many_in_trouble_hold_up_nobody() -> None:
    """Those that stay due are not in the way of those that come after them."""
    world = World()

    async def scenario() -> None:
        for number in range(150):
            broken = await world.make(f"broken {number}", every=60)
            wrong = msgspec.structs.replace(broken, timing="")
            assert await world.store.save_schedule(wrong, expected=1)
        await world.make("fine", every=61)
        world.tickers[0].look()
        await asyncio.sleep(62)

    world.live(scenario)
    assert len(world.added) == 1


# -- its end ---------------------------------------------------------------------------------------


def test_closed_in_the_middle_it_ends_after_what_it_does() -> None:
    """What has begun is done whole, and nothing more of what is due."""
    world = World()

    async def scenario() -> None:
        for number in range(5):
            await world.make(f"s{number}", every=60)
        begun = asyncio.Event()

        async def between() -> None:
            begun.set()
            await asyncio.sleep(5)

        world.store.between = between
        world.tickers[0].look()
        await begun.wait()

    world.live(scenario)
    assert len(world.added) == world.store.asked["tick"] == 1


def test_a_cancelled_loop_ends_with_its_client() -> None:
    """Cancelled by the end of the loop, it goes on until its client closes it."""
    world = World()

    async def whole() -> None:
        await world.make()
        ticker = world.ticker("me")
        task = asyncio.ensure_future(ticker.run())
        await asyncio.sleep(10)
        task.cancel()
        await asyncio.sleep(3600)
        assert len(world.added) == 1
        world.store.between = lambda: asyncio.sleep(100)
        await asyncio.sleep(3600 - 5)
        task.cancel()
        await asyncio.sleep(10)
        assert not task.done()
        ticker.close()
        await task

    run(world.loop, whole())
    assert world.clock.now() > EPOCH + 2 * HOUR


# -- what it says ----------------------------------------------------------------------------------


def test_what_is_passed_over_is_said(lines: list[str]) -> None:
    """Instants that are not made up for, and runs that are skipped, are in the log."""
    world = World()

    async def scenario() -> None:
        await world.make("none", missed="none")
        await world.make("one", missed="one")
        await world.make("all", missed="all")
        await world.make("alone", overlap=False, every=2 * 3600)
        world.clock.jump(3 * 3600 + LATE / 1000)
        world.tickers[0].look_around()
        await asyncio.sleep(2 * 3600)

    world.live(scenario)
    named = [line.split()[1] for line in events(lines, "schedule.missed")]
    assert named == ["schedule=none", "schedule=one"]
    assert "since=2025-06-15T16:06:40+00:00" in events(lines, "schedule.missed")[0]
    [line] = events(lines, "schedule.skipped")
    assert line.startswith("schedule.skipped schedule=alone last_job_id=")
    ticked = Counter(line.split(" ", 1)[1] for line in events(lines, "schedule.ticked"))
    assert ticked["schedule=all jobs=3"] == 1
    assert ticked["schedule=none jobs=1"] == 2
