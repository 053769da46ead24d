"""Schedules over a year: clients that watch them, clocks that are set forward and back, crashes, restarts.

Which instants are due is counted here, day by day, by nothing but `zoneinfo`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from unittest import mock
from zoneinfo import ZoneInfo

from backlite_async import JobContext, QueueConfig, Task, _dispatcher
from backlite_async._graph import follow_up_id
from backlite_async._recurring import StoredSchedule

from .history import Logged, Misuse, Stored
from .loop import SimLoop
from .process import Process
from .world import World, patched

__all__ = ["Year", "due", "scheduled", "watch"]

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe")
"""All of them have summer time; the last one's hour is half an hour long."""

TIMES = ((2, 30), (2, 0), (1, 30), (3, 0), (0, 0), (2, 15), (12, 0), (23, 59))
"""Hours and minutes, most of them such as clocks leave out, or show twice."""

DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")

DAY = 86_400_000

PATIENCE = 900_000
"""Milliseconds after which what is due has started, while somebody watches: others may be in front of it."""

SLEEP = 43_200.0
"""Seconds between two looks around: a client that does nothing is to cost nothing here."""


class Run(Task):
    """A run of a schedule."""

    config: ClassVar[QueueConfig] = QueueConfig("runs", max_crashes=1_000_000, max_attempts=1_000)
    schedule: str


class Plan(NamedTuple):
    """A schedule: what is said of it, and which days of a calendar it means, or which interval."""

    name: str
    said: dict[str, Any]
    zone: str
    at: tuple[int, int] = (0, 0)
    days: Callable[[date], bool] | None = None
    every: timedelta | None = None


def scheduled(count: int, rng: random.Random) -> list[Plan]:
    """Return so many schedules of all kinds, in all zones."""
    found = []
    for number in range(count):
        zone, (hour, minute) = ZONES[number % 3], TIMES[number // 3 % len(TIMES)]
        missed = "one" if number % 4 == 3 else "all"
        kind = ("daily", "weekly", "monthly", "rule", "rule of days", "interval")[number // 7 % 6]
        day, weekday = rng.randint(1, 31), rng.randrange(7)
        said, days = _kinds(kind, hour, minute, day, weekday)
        every = (
            timedelta(hours=rng.randint(20, 90), milliseconds=rng.randrange(1000)) if days is None else None
        )
        if every is not None:
            said = {"every": every}
        name = f"{number}: {kind} {hour:02}:{minute:02} in {zone}"
        found.append(Plan(name, {**said, "tz": zone, "missed": missed}, zone, (hour, minute), days, every))
    return found


def _kinds(
    kind: str, hour: int, minute: int, day: int, weekday: int
) -> tuple[dict[str, Any], Callable[[date], bool] | None]:
    by = f"BYHOUR={hour};BYMINUTE={minute};BYSECOND=0"
    if kind == "daily":
        return {"cron": f"{minute} {hour} * * *"}, lambda _: True
    if kind == "weekly":
        return {"cron": f"{minute} {hour} * * {(weekday + 1) % 7}"}, lambda on: on.weekday() == weekday
    if kind == "monthly":
        return {"cron": f"{minute} {hour} {day} * *"}, lambda on: on.day == day
    if kind == "rule":
        said = {"rule": f"FREQ=WEEKLY;BYDAY={DAYS[weekday]},SU;{by}"}
        return said, lambda on: on.weekday() in (weekday, 6)
    if kind == "rule of days":
        return {
            "rule": f"FREQ=MONTHLY;BYMONTHDAY={day},{(day + 9) % 28 + 1};{by}"
        }, lambda on: on.day in (day, (day + 9) % 28 + 1)
    return {}, None


# -- what is due -----------------------------------------------------------------------------------


def due(plan: Plan, begin: int, end: int) -> list[int]:
    """Return the instants of a schedule that was made at `begin`, up to `end`, in milliseconds."""
    if plan.every is not None:
        step = plan.every // timedelta(milliseconds=1)
        return list(range(begin + step, end + 1, step))
    assert plan.days is not None
    zone = ZoneInfo(plan.zone)
    first = datetime.fromtimestamp(begin / 1000, zone).date() - timedelta(days=1)
    found = set()
    for number in range((end - begin) // DAY + 4):
        on = first + timedelta(days=number)
        if plan.days(on):
            found.add(instant(datetime.combine(on, time(*plan.at)), zone))
    return sorted(at for at in found if begin < at <= end)


def instant(wall: datetime, zone: ZoneInfo) -> int:
    """Return when a wall clock shows a time first, or, if it leaves that out, when it does."""
    there = wall.replace(tzinfo=zone).astimezone(UTC)
    if there.astimezone(zone).replace(tzinfo=None) != wall:
        there -= timedelta(hours=3)
        while there.astimezone(zone).replace(tzinfo=None) < wall:
            there += timedelta(minutes=1)
    return int(there.timestamp()) * 1000


# -- the world -------------------------------------------------------------------------------------


@dataclass
class Year:
    """What happened, and what was wrong. `late`: the longest that a run was late while somebody watched."""

    instants: int = 0
    runs: int = 0
    passed_over: int = 0
    deaths: int = 0
    stops: int = 0
    blackouts: int = 0
    outages: int = 0
    jumps: int = 0
    late: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Watched:
    """Clients that declare the same schedules, some of which die or stop now and then, or all at once."""

    def __init__(self, world: World, plans: Sequence[Plan], year: Year, seconds: float) -> None:
        self.world = world
        self.plans = plans
        self.year = year
        self.until = seconds
        self.dark = asyncio.Event()
        self.light = asyncio.Event()
        self.light.set()
        self.started: dict[str, int] = {}
        self.up: list[tuple[int, int]] = []
        """When the number of clients that watch has changed, and by how much."""
        self.troubled: list[tuple[int, int]] = []
        """From when to when nobody need be in time."""

    async def client(self, rng: random.Random) -> None:
        """Be one client after the other in the same place."""
        while (left := self.until - self.world.loop.time()) > 0:
            process = self.spawn()
            await process.start()
            self.up.append((self.world.clock.now(), 1))
            await self._dark_within(min(rng.expovariate(1 / (86_400 * 9)), left))
            self.up.append((self.world.clock.now(), -1))
            if self.dark.is_set() or (rng.random() < 0.7 and self.world.loop.time() < self.until):
                process.kill()
                self.year.deaths += 1
            else:
                await process.stop(60.0)
                self.year.stops += 1
            await asyncio.sleep(rng.choice((0.0, 0.5, 60.0, 7_200.0, 200_000.0)) * rng.random())
            await self.light.wait()

    async def _dark_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.dark.wait(), seconds)

    async def blackouts(self, rng: random.Random) -> None:
        """Let all of them die now and then, and nobody come back for days."""
        while True:
            await asyncio.sleep(rng.uniform(8, 30) * 86_400)
            if self.world.loop.time() > self.until - 10 * 86_400:
                return
            self.year.blackouts += 1
            self.light.clear()
            self.dark.set()
            await asyncio.sleep(rng.uniform(0.5, 5) * 86_400)
            self.dark.clear()
            self.light.set()

    async def trouble(self, rng: random.Random) -> None:
        """Set the clock, forward and back, and let the store fail altogether for a while."""
        while True:
            await asyncio.sleep(rng.expovariate(1 / (8 * 86_400)))
            if self.world.loop.time() > self.until:
                return
            begin = self.world.clock.now()
            if rng.random() < 0.5:
                self.year.outages += 1
                await self.world.outage(rng.choice((3.0, 300.0, 9_000.0)))
            else:
                self.year.jumps += 1
                self.world.clock.jump(rng.choice((-1, 1)) * rng.choice((5.0, 900.0, 9_000.0)))
            ends = begin, self.world.clock.now()
            self.troubled.append((min(ends) - PATIENCE, max(ends) + round(1000 * SLEEP)))

    def spawn(self) -> Process:
        """Make a process that declares all schedules."""
        process = self.world.spawn(kinds=(), workers=2)
        for plan in self.plans:
            process.client.schedule(plan.name, Run(plan.name), **plan.said)

        async def run(_: Run, job: JobContext) -> None:
            if process.alive:
                self.started.setdefault(job.id, self.world.clock.now())
            await asyncio.sleep(self.world.rng.choice((0.0, 0.1, 40.0)))

        process.client.register(Run, run)
        return process

    def watches(self) -> list[tuple[int, int]]:
        """Return from when to when somebody watched."""
        found: list[tuple[int, int]] = []
        count = since = 0
        for at, change in sorted(self.up):
            since = at if count == 0 else since
            count += change
            if count == 0:
                found.append((since, at))
        return found


async def _unfold(world: World, watched: Watched, clients: int) -> list[StoredSchedule]:
    """Live through it, see to what is left, and return what is stored."""
    world.weather.faults, world.weather.latency = 0.003, 0.02
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(watched.client(random.Random(world.rng.random())))
        group.create_task(watched.blackouts(random.Random(world.rng.random())))
        group.create_task(watched.trouble(random.Random(world.rng.random())))
    world.weather.clear()
    await watched.spawn().start()
    for _ in range(100):
        await asyncio.sleep(100.0)
        if not world.memory.rows():
            break
    found = list(await world.memory.schedules())
    await world.finish()
    return found


# -- what is wrong ---------------------------------------------------------------------------------


def judge(year: Year, world: World, watched: Watched, found: Sequence[StoredSchedule]) -> None:
    """Compare what was stored with what was due."""
    events = world.history.events
    stored = {schedule.name: schedule for schedule in found}
    added: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if isinstance(event, Stored):
            added[event.job].append(event.created_at)
    for plan in watched.plans:
        if plan.name in stored:
            _judge_one(year, plan, stored[plan.name], added, watched)
        else:
            year.wrong.append(f"{plan.name}: is not there")
    year.wrong += [f"{job} was added {len(times)} times" for job, times in added.items() if len(times) > 1]
    year.wrong += [f"{job} never ran" for job in added if job not in watched.started]
    year.runs = len(added)
    if sum(schedule.runs for schedule in found) != len(added):
        year.wrong.append(f"{len(added)} jobs were added, {sum(one.runs for one in found)} runs were counted")
    year.wrong += [event.what for event in events if isinstance(event, Misuse)]
    troubles = [event for event in events if isinstance(event, Logged) and event.event == "schedule.troubled"]
    year.wrong += [f"logged {event.event} {event.fields}" for event in troubles]


def _judge_one(
    year: Year, plan: Plan, schedule: StoredSchedule, added: Mapping[str, list[int]], watched: Watched
) -> None:
    """See that each instant of a schedule has its job, or the last one of those that were missed."""
    dealt_with = schedule.last_instant or schedule.created_at
    instants = due(plan, schedule.created_at, dealt_with)
    following = due(plan, dealt_with, dealt_with + 100 * DAY)
    if plan.every is not None:
        step = plan.every // timedelta(milliseconds=1)
        following = [dealt_with + step]
    if schedule.next_at != following[0]:
        year.wrong.append(f"{plan.name}: due next at {schedule.next_at}, not {following[0]}")
    year.instants += len(instants)
    ids = [follow_up_id("schedule", plan.name, schedule.created_at, at) for at in instants]
    runs = [(at, job, added[job][0]) for at, job in zip(instants, ids, strict=True) if job in added]
    if len(runs) != schedule.runs:
        year.wrong.append(f"{plan.name}: {schedule.runs} runs were counted, {len(runs)} have an instant")
    if plan.said["missed"] == "all" and len(runs) < len(instants):
        first = next(at for at, job in zip(instants, ids, strict=True) if job not in added)
        year.wrong.append(
            f"{plan.name}: {len(instants) - len(runs)} instants have no run: {_shown(first, plan)}"
        )
    if plan.said["missed"] == "one":
        year.passed_over += len(instants) - len(runs)
        stale = [at for at, _, made in runs if bisect_right(instants, made) != bisect_right(instants, at)]
        year.wrong += [f"{plan.name}: not the last one was made up for: {_shown(at, plan)}" for at in stale]
    _judge_times(year, plan, runs, watched)


def _judge_times(year: Year, plan: Plan, runs: Sequence[tuple[int, str, int]], watched: Watched) -> None:
    """See that what is due while somebody watches is added and started at once."""
    watches = watched.watches()
    for at, job, made in runs:
        started = watched.started.get(job, made)
        if made < at or started < at:
            year.wrong.append(f"{plan.name}: ran before it was due: {_shown(at, plan)}")
        if any(begin < at < end for begin, end in watched.troubled):
            continue
        if any(begin + 5_000 <= at and at + PATIENCE <= end for begin, end in watches):
            late = max(made, started) - at
            year.late = max(year.late, late / 1000)
            if late > PATIENCE:
                year.wrong.append(
                    f"{plan.name}: due {_shown(at, plan)}, added {(made - at) / 1000:.1f} s later,"
                    f" started {(started - at) / 1000:.1f} s later"
                )


def _shown(at: int, plan: Plan) -> str:
    return datetime.fromtimestamp(at / 1000, ZoneInfo(plan.zone)).isoformat()


def watch(seed: int, *, begin: datetime, days: int, schedules: int, clients: int = 4) -> Year:
    """Let so many clients watch schedules for so many days from an instant on; return what came of it."""
    loop = SimLoop(seed, shuffle=False, patience=10**9)
    rng = random.Random(f"year {seed}")
    world = World(loop, rng, latency=0.0, lease=30.0)
    world.clock.jump(begin.timestamp() - world.clock.now() / 1000)
    loop.set_exception_handler(world.unhandled)
    year, plans = Year(), scheduled(schedules, rng)

    async def main() -> None:
        watched = Watched(world, plans, year, days * 86_400.0)
        judge(year, world, watched, await _unfold(world, watched, clients))

    with patched(world), mock.patch.object(_dispatcher, "LONGEST_SLEEP", SLEEP):
        try:
            loop.run_until_complete(main())
        finally:
            loop.set_exception_handler(lambda _loop, _context: None)
            loop.close()
    return year
