"""Schedules over a year: clients that watch them, clocks that are set forward and back, crashes, restarts.

Which instants are due is counted here, day by day, by nothing but `zoneinfo`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, ClassVar, NamedTuple
from unittest import mock
from zoneinfo import ZoneInfo

from backlite_async import JobContext, QueueConfig, Task, _dispatcher
from backlite_async._graph import follow_up_id

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
        missed = "one" if number % 10 == 9 else "all"
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
    for number in range((end - begin) // 86_400_000 + 4):
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
    """What happened, and what was wrong."""

    instants: int = 0
    runs: int = 0
    made_up: int = 0
    deaths: int = 0
    stops: int = 0
    wrong: list[str] = field(default_factory=list)


class Watched:
    """Clients that declare the same schedules, some of which die or stop now and then."""

    def __init__(self, world: World, plans: Sequence[Plan], year: Year) -> None:
        self.world = world
        self.plans = plans
        self.year = year
        self.executions: Counter[str] = Counter()

    async def client(self, until: float, rng: random.Random) -> None:
        """Be one client after the other in the same place."""
        while (left := until - self.world.loop.time()) > 0:
            process = self._spawn()
            await process.start()
            await asyncio.sleep(min(rng.expovariate(1 / (86_400 * 9)), left))
            if rng.random() < 0.7 and self.world.loop.time() < until:
                process.kill()
                self.year.deaths += 1
            else:
                await process.stop(60.0)
                self.year.stops += 1
            await asyncio.sleep(rng.choice((0.0, 0.5, 60.0, 7_200.0, 200_000.0)) * rng.random())

    def _spawn(self) -> Process:
        process = self.world.spawn(kinds=(), workers=2)
        for plan in self.plans:
            process.client.schedule(plan.name, Run(plan.name), **plan.said)

        async def run(task: Run, job: JobContext) -> None:
            await asyncio.sleep(self.world.rng.choice((0.0, 0.1, 40.0)))
            self.executions[job.id] += process.alive

        process.client.register(Run, run)
        return process


async def _unfold(world: World, plans: Sequence[Plan], year: Year, seconds: float, clients: int) -> None:
    watched = Watched(world, plans, year)
    world.weather.faults, world.weather.latency = 0.003, 0.02
    begin = world.clock.now()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(watched.client(seconds, random.Random(world.rng.random())))
    world.weather.clear()
    last = watched._spawn()  # sees to what is left
    await last.start()
    for _ in range(100):
        await asyncio.sleep(100.0)
        if not world.memory.rows():
            break
    stored = {schedule.name: schedule for schedule in await world.memory.schedules()}
    await world.finish()
    added = Counter(event.job for event in world.history.events if isinstance(event, Stored))
    for plan in plans:
        schedule = stored.get(plan.name)
        if schedule is None:
            year.wrong.append(f"{plan.name}: is not there")
            continue
        dealt_with = schedule.last_instant or begin
        instants = due(plan, schedule.created_at, dealt_with)
        ids = {follow_up_id("schedule", plan.name, schedule.created_at, at): at for at in instants}
        year.instants += len(ids)
        if schedule.next_at != due(plan, schedule.created_at, dealt_with + 100 * 86_400_000)[len(instants)]:
            year.wrong.append(f"{plan.name}: is due next at {schedule.next_at}")
        missing = [at for job, at in ids.items() if not added[job]]
        if missing and plan.said["missed"] == "all":
            year.wrong.append(f"{plan.name}: {len(missing)} instants have no run: {_shown(missing[0], plan)}")
        year.made_up += len(missing)
        found = len(ids) - len(missing)
        if found != schedule.runs:
            year.wrong.append(f"{plan.name}: {schedule.runs} runs were counted, {found} were added")
        year.runs += schedule.runs
        year.wrong += [
            f"{plan.name}: {job} never ran" for job in ids if added[job] and not watched.executions[job]
        ]
        for job in ids:
            added[job] -= 1 if added[job] else 0
    strange = +added
    if strange:
        year.wrong.append(f"{len(strange)} jobs of no instant, or added twice: {list(strange)[:3]}")
    year.wrong += [event.what for event in world.history.events if isinstance(event, Misuse)]
    year.wrong += [
        f"logged {event.event} {event.fields}"
        for event in world.history.events
        if isinstance(event, Logged) and event.event == "schedule.troubled"
    ]


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
    with patched(world), mock.patch.object(_dispatcher, "LONGEST_SLEEP", SLEEP):
        try:
            loop.run_until_complete(_unfold(world, plans, year, days * 86_400.0, clients))
        finally:
            loop.set_exception_handler(lambda _loop, _context: None)
            loop.close()
    return year
