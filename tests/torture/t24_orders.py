"""T24: orders reach every process. What is cancelled or paused outside, four processes heed at once.

Processes that were stopped meanwhile heed it when they go on; the jobs of those that are killed before
they have heeded it end as cancelled, and do not run again; those that start later find the queue paused.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from backlite_async import Client, JobStatus, Task

from .crew import LIMIT, Crew, Late, percentile
from .kit import Budget, Ledger, Row, audit, intact, lively
from .programs.t24_roles import Brief, Endless, Stream, Stubborn, Threaded
from .pulse import STEADY, Beats, Pulse
from .t04_kill_storm import unexplained

__all__ = ["Stage", "judge", "judge_times", "run", "still_running"]

Event = dict[str, Any]

SECONDS, LEAST = 15.0, 100

PROCESSES, EACH = 4, 2
"""Processes, and jobs of one queue that each of them runs at once."""

SOON = 0.1
"""Seconds within which nine of ten orders are heeded: one process alone may be held up for once."""

LATE = 2.0
"""Seconds within which every order is heeded: who is not told looks again after several times as long."""

QUIET = 0.2
"""Seconds for which it is watched that nothing happens."""


class Stock(NamedTuple):
    """Brief jobs: of which kind, how many are added at once, and the seconds that one takes."""

    kind: type[Brief | Stream]
    number: int
    seconds: float


class Stage:
    """Four processes that run jobs, a client that gives orders, and the time that each order took."""

    def __init__(self, row: Row, crew: Crew, client: Client, folder: Path) -> None:
        self.row = row
        self.crew = crew
        self.client = client
        self.database = str(folder / "app.db")
        self.times: dict[str, list[tuple[float, float]]] = {}  # when orders were given, and heeded
        self.events: list[Event] = []
        self.book = Ledger(folder / "ledger")
        self._read = 0

    def look(self) -> list[Event]:
        """Take in what the ledger has got since the last look; return all of it."""
        with open(self.book.path, "rb") as file:
            file.seek(self._read)
            lines, _, _ = file.read().rpartition(b"\n")
        if lines:
            self._read += len(lines) + 1
            self.events += [json.loads(line) for line in lines.split(b"\n")]
        return self.events

    def found(self, what: str, jobs: Iterable[str]) -> dict[str, Event]:
        """Return the first event of a sort for each of these jobs, as far as there is one."""
        wanted = set(jobs)
        found: dict[str, Event] = {}
        for event in self.look():
            if event["what"] == what and event["job"] in wanted:
                found.setdefault(event["job"], event)
        return found

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Look at a condition until it holds."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > deadline:
                raise Late(f"{what}: not within {LIMIT:g} s")
            self.crew.listen(0)
            await asyncio.sleep(0.002)

    async def all_found(self, what: str, jobs: Sequence[str]) -> dict[str, Event]:
        """Wait for an event of a sort for each of these jobs."""
        await self.until(lambda: len(self.found(what, jobs)) == len(jobs), f"{what} of {len(jobs)} jobs")
        return self.found(what, jobs)

    async def started(self, *tasks: Task) -> dict[str, int]:
        """Add jobs and wait until they run; return their processes."""
        jobs = await self.client.add(*tasks).save()
        found = await self.all_found("start", jobs)
        return {job: found[job]["pid"] for job in jobs}

    async def flow(self, stock: Stock) -> None:
        """Add brief jobs where few of them are left."""
        if live(self) >= stock.number // 2:
            return
        tasks = [stock.kind(random.uniform(0, 2 * stock.seconds)) for _ in range(stock.number)]
        for job in await self.client.add(*tasks).save():
            self.book.note("ack", job=job)

    async def flowing(
        self, stock: Stock, at: float, pids: Iterable[int], what: str = "brief jobs in every process"
    ) -> None:
        """Let brief jobs flow until each of these processes has started one after an instant.

        However long one of them is held up, there are jobs left for it.
        """
        among, deadline = set(pids), time.monotonic() + LIMIT
        while not among <= starters(self.look(), at):
            if time.monotonic() > deadline:
                raise Late(f"{what}: not within {LIMIT:g} s")
            await self.flow(stock)
            self.crew.listen(0)
            await asyncio.sleep(0.002)

    async def statuses(self, jobs: Iterable[str], wanted: JobStatus) -> None:
        """Wait until jobs have a status."""
        for job in jobs:
            deadline = time.monotonic() + LIMIT
            while (status := await self.client.status(job)) is not wanted:
                if time.monotonic() > deadline:
                    raise Late(f"a job is {status}, not {wanted}")
                await asyncio.sleep(0.002)

    def took(self, order: str, given: float, heeded: float) -> None:
        """Take note of when an order was given, and heeded; before it had returned: at once."""
        self.row.trials += 1
        self.times.setdefault(order, []).append((given, max(given, heeded)))

    async def enlist(self) -> None:
        """Start a process, and wait until it is there."""
        pid = self.crew.start("worker", database=self.database, ledger=self.book.path)
        await self.until(
            lambda: any(event["what"] == "up" and event["pid"] == pid for event in self.look()), "a process"
        )

    async def halt(self, pid: int) -> None:
        """Stop a process, but not inside a write, which would keep everybody from writing."""
        with closing(sqlite3.connect(self.database, isolation_level=None, timeout=LIMIT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self.crew.send([pid], signal.SIGSTOP)
            await self.until(lambda: halted(pid), "the halt of a process")
            connection.execute("ROLLBACK")

    async def kill(self, pid: int) -> float:
        """Kill a process; return when."""
        self.book.note("killed", victim=pid)
        self.crew.send([pid], signal.SIGKILL)
        at = time.monotonic()
        await self.until(lambda: pid not in self.crew.living, "a killed process")
        return at

    async def cancel(self, jobs: Sequence[str]) -> float:
        """Cancel jobs; return when that was done."""
        number = await self.client.cancel(*jobs)
        at = time.monotonic()
        self.book.note("ordered", jobs=list(jobs))
        self.row.require(f"{number} of {len(jobs)} cancelled", number == len(jobs))
        return at

    async def cancelled(self, order: str, jobs: Sequence[str], at: float) -> None:
        """Wait until handlers have been cancelled, and their jobs are."""
        for event in (await self.all_found("cancelled", jobs)).values():
            self.took(order, at, event["at"])
        await self.statuses(jobs, JobStatus.CANCELLED)


def halted(pid: int) -> bool:
    """Return whether a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# -- cancelling ------------------------------------------------------------------------------------


def endless(number: int = PROCESSES * EACH) -> list[Task]:
    """Return as many endless tasks as can run at once."""
    return [Endless() for _ in range(number)]


async def cancel_running(stage: Stage) -> None:
    """Cancel one in each process by one order, then the rest one by one."""
    running = await stage.started(*endless())
    stage.row.require(f"they run in {Counter(running.values())}", len(set(running.values())) == PROCESSES)
    together = list({pid: job for job, pid in running.items()}.values())
    await stage.cancelled("cancel", together, await stage.cancel(together))
    for job in running.keys() - set(together):
        await stage.cancelled("cancel", [job], await stage.cancel([job]))


async def cancel_pending(stage: Stage) -> None:
    """Cancel jobs for which there is no room: they end at once, and never start."""
    running = list(await stage.started(*endless()))
    waiting = await stage.client.add(*endless(3)).save()
    await stage.cancel(waiting)
    statuses = [await stage.client.status(job) for job in waiting]
    stage.row.require(f"pending ones are {statuses}", set(statuses) == {JobStatus.CANCELLED})
    await stage.cancelled("cancel", running, await stage.cancel(running))
    started = stage.found("start", waiting)
    stage.row.require(f"{len(started)} cancelled ones started", not started)
    again = await stage.client.cancel(*waiting)
    stage.row.require(f"{again} that had ended were cancelled again", again == 0)


async def cancel_threads(stage: Stage) -> None:
    """Ask threads to end."""
    running = list(await stage.started(*(Threaded() for _ in range(PROCESSES * EACH))))
    at = await stage.cancel(running)
    for event in (await stage.all_found("cancelled", running)).values():
        stage.took("ask a thread", at, event["at"])
    await stage.until(lambda: not live(stage), "the ends of threads")


def live(stage: Stage) -> int:
    """Return how many jobs have not ended."""
    with closing(sqlite3.connect(stage.database, timeout=10.0)) as connection:
        number: int = connection.execute("SELECT count(*) FROM backlite_jobs").fetchone()[0]
    return number


async def cancel_in_stopped(stage: Stage) -> None:
    """Cancel the jobs of a process that is stopped: it heeds that when it goes on."""
    running = await stage.started(*endless())
    victim = random.choice(list(running.values()))
    theirs = [job for job, pid in running.items() if pid == victim]
    await stage.halt(victim)
    try:
        await stage.cancel(theirs)
        await asyncio.sleep(QUIET)
    finally:
        stage.crew.send([victim], signal.SIGCONT)
    await stage.cancelled("cancel, stopped meanwhile", theirs, time.monotonic())
    rest = [job for job in running if job not in theirs]
    await stage.cancelled("cancel", rest, await stage.cancel(rest))


async def cancel_in_killed(stage: Stage) -> None:
    """Kill a process with an order that it has not heeded, or that its handler ignores."""
    running = await stage.started(*endless(PROCESSES * EACH - 1), Stubborn())
    victim = random.choice(list(running.values()))
    theirs = [job for job, pid in running.items() if pid == victim]
    rest = [job for job in running if job not in theirs]
    if random.random() < 0.5:
        await stage.halt(victim)
    await stage.cancel(theirs)
    at = await stage.kill(victim)
    await stage.statuses(theirs, JobStatus.CANCELLED)
    stage.took("end as cancelled, killed meanwhile", at, time.monotonic())
    await stage.cancel(rest)
    await stage.all_found("cancelled", rest)
    for pid in {running[job] for job in rest if not await ended(stage, job)}:
        await stage.kill(pid)  # who ignores its cancellation ends with its process
        await stage.enlist()
    await stage.statuses(rest, JobStatus.CANCELLED)
    await stage.enlist()


async def ended(stage: Stage, job: str) -> bool:
    """Return whether a job ends soon."""
    for _ in range(100):
        if await stage.client.status(job) is not JobStatus.RUNNING:
            return True
        await asyncio.sleep(0.002)
    return False


# -- pausing ---------------------------------------------------------------------------------------


def starters(events: Iterable[Event], at: float) -> set[int]:
    """Return the processes that have started something after an instant."""
    return {event["pid"] for event in events if event["what"] == "start" and event["at"] > at}


def starts_after(events: Iterable[Event], at: float, pids: Iterable[int]) -> list[float]:
    """Return by how many seconds jobs have started after an instant, in these processes."""
    among = set(pids)
    return [
        event["at"] - at
        for event in events
        if event["what"] == "start" and event["at"] > at and event["pid"] in among
    ]


async def quiet(stage: Stage, order: str, at: float, pids: Iterable[int], stock: Stock) -> None:
    """Watch that nothing starts, once an order has had its time, though there is always something to do."""
    since, among, end = len(stage.events), list(pids), time.monotonic() + QUIET
    while time.monotonic() < end:
        await stage.flow(stock)
        await asyncio.sleep(0.01)
    late = starts_after(stage.look()[since:], at, among)
    stage.took(order, at, at + max(late, default=0.0))


async def resumed(stage: Stage, at: float, pids: Iterable[int], stock: Stock, order: str = "resume") -> None:
    """Wait until each of these processes has started something after an instant."""
    among = list(pids)
    await stage.flowing(stock, at, among, "a start after a resume")
    for pid in among:
        stage.took(order, at, at + min(starts_after(stage.look(), at, [pid])))


async def drained(stage: Stage) -> None:
    """Wait until nothing is left."""
    await stage.until(lambda: live(stage) == 0, "the rest of the jobs")


async def pause(stage: Stage, stock: Stock) -> None:
    """Pause everywhere, also for who starts meanwhile; resume."""
    queue = stock.kind.config.name
    await stage.flowing(stock, time.monotonic(), stage.crew.living)
    await stage.client.pause(queue)
    await quiet(stage, "pause", time.monotonic(), stage.crew.living, stock)
    await stage.kill(random.choice(list(stage.crew.living)))
    began = time.monotonic()
    await stage.enlist()
    await quiet(stage, "pause, started later", began, stage.crew.living, stock)
    await stage.client.resume(queue)
    await resumed(stage, time.monotonic(), stage.crew.living, stock)
    await drained(stage)


def still_running(events: Iterable[Event]) -> dict[str, int]:
    """Return which jobs run by the ledger, and where."""
    running: dict[str, int] = {}
    for event in lively(events):
        if event["what"] == "start":
            running[event["job"]] = event["pid"]
        elif event["what"] in ("end", "cancelled"):
            running.pop(event["job"], None)
        elif event["what"] == "killed":
            running = {job: pid for job, pid in running.items() if pid != event["victim"]}
    return running


async def pause_and_wait(stage: Stage, stock: Stock) -> None:
    """Pause, and wait for what runs."""
    queue = stock.kind.config.name
    await stage.flowing(stock, time.monotonic(), stage.crew.living)
    await stage.client.pause(queue, wait=True)
    at = time.monotonic()
    left = still_running(stage.look())
    stage.row.require(f"{len(left)} ran when a pause had waited", not left)
    await quiet(stage, "pause and wait", at, stage.crew.living, stock)
    await stage.client.resume(queue)
    await resumed(stage, time.monotonic(), stage.crew.living, stock)
    await drained(stage)


async def pause_and_wait_for_stopped(stage: Stage) -> None:
    """Pause and wait while a process that runs something is stopped."""
    stock = Stock(Brief, 40, 0.1)
    await stage.flowing(stock, time.monotonic(), stage.crew.living)
    victim = random.choice(list(stage.crew.living))
    await stage.halt(victim)
    waiting = asyncio.create_task(stage.client.pause("flow", wait=True))
    await asyncio.sleep(QUIET)
    held = victim in still_running(stage.look()).values()
    stage.row.require("a pause did not wait for a stopped process", not (held and waiting.done()))
    stage.crew.send([victim], signal.SIGCONT)
    await waiting
    at = time.monotonic()
    left = still_running(stage.look())
    stage.row.require(f"{len(left)} ran when a pause had waited for a stopped one", not left)
    await quiet(stage, "pause and wait", at, stage.crew.living, stock)
    await stage.client.resume("flow")
    await drained(stage)


async def pause_here(stage: Stage) -> None:
    """Let one process pause for itself: the others go on."""
    stock = Stock(Brief, 250, 0.015)
    await stage.flowing(stock, time.monotonic(), stage.crew.living)
    victim, *others = random.sample(list(stage.crew.living), PROCESSES)
    orders = 1 + sum(event["what"] in ("paused here", "resumed here") for event in stage.look())

    def told() -> list[Event]:
        return [event for event in stage.look() if event["what"] in ("paused here", "resumed here")]

    stage.crew.send([victim], signal.SIGUSR1)
    await stage.until(lambda: len(told()) == orders, "a pause of one process")
    at = told()[-1]["at"]
    await quiet(stage, "pause here", at, [victim], stock)
    await stage.flowing(stock, at + SOON, others, "starts where nobody has paused")
    stage.crew.send([victim], signal.SIGUSR2)
    await stage.until(lambda: len(told()) == orders + 1, "the end of it")
    await resumed(stage, told()[-1]["at"], [victim], stock, "resume here")
    await drained(stage)


Scene = Callable[[Stage], Coroutine[Any, Any, None]]

SCENES: list[Scene] = [
    cancel_running,
    cancel_pending,
    cancel_threads,
    cancel_in_stopped,
    cancel_in_killed,
    partial(pause, stock=Stock(Brief, 150, 0.015)),
    partial(pause, stock=Stock(Stream, 1_500, 0.005)),
    partial(pause_and_wait, stock=Stock(Brief, 80, 0.05)),
    partial(pause_and_wait, stock=Stock(Stream, 1_000, 0.01)),
    pause_and_wait_for_stopped,
    pause_here,
]


async def play(row: Row, budget: Budget, crew: Crew, folder: Path) -> list[Event]:
    """Play all scenes, again and again; return what was noted."""
    (folder / "ledger").touch()
    async with Client(folder / "app.db", workers=0) as client:
        stage = Stage(row, crew, client, folder)
        with Pulse(folder) as pulse:
            for _ in range(PROCESSES):
                await stage.enlist()
            scenes = 0
            while scenes < len(SCENES) or budget.more(row.trials):
                await play_one(stage, SCENES[scenes % len(SCENES)])
                scenes += 1
        statuses = await asyncio.to_thread(crew.dismiss, "worker")
        row.require(f"statuses of processes at the end: {statuses}", not statuses)
        judge_times(row, stage.times, pulse.beats())
        return stage.look()


async def play_one(stage: Stage, scene: Scene) -> None:
    """Play a scene to its end."""
    try:
        async with asyncio.timeout(3 * LIMIT):
            await scene(stage)
    except TimeoutError:
        raise Late(f"no end of {getattr(scene, 'func', scene).__name__}") from None


def judge_times(row: Row, times: Mapping[str, Sequence[tuple[float, float]]], beats: Beats = STEADY) -> None:
    """Require that each order was heeded, and as a rule soon: by when it was given, and heeded."""
    for order, spans in times.items():
        p50, worst = (1000 * percentile([later - at for at, later in spans], share) for share in (0.5, 1.0))
        row.notes.append(f"{order}: {len(spans)}, p50 {p50:.1f}, max {worst:.1f} ms")
        charged = [beats.charged(at, later) for at, later in spans]
        for share, name, bar in ((0.9, "as a rule", SOON), (1.0, "once", LATE)):
            found = percentile(charged, share)
            row.require(f"{order} took {1000 * found:.0f} ms {name}, to be {1000 * bar:.0f}", found < bar)


def run(budget: Budget) -> Row:
    """Give orders until the budget is spent, and judge."""
    row = Row("T24", "cancelled, paused and resumed from another process", unit="orders", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t24-") as name:
        folder = Path(name)
        with Crew("t24_roles", folder / "errors") as crew:
            try:
                judge(row, asyncio.run(play(row, budget, crew, folder)), completed(folder / "app.db"))
            except Late as error:
                row.hangs = 1
                row.failures.append(str(error))
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
        row.corrupt = 0 if intact(folder / "app.db") else 1
        row.require("the database is whole", row.corrupt == 0)
    row.require(f"at least {budget.least} orders", row.trials >= budget.least)
    return row


def completed(database: Path) -> list[tuple[str, str, str]]:
    """Return the ids, tasks and statuses of completed jobs."""
    with closing(sqlite3.connect(database, timeout=10.0)) as connection:
        return connection.execute("SELECT id, task, status FROM backlite_completed").fetchall()


def judge(row: Row, events: Sequence[Event], completed: Collection[tuple[str, str, str]]) -> None:
    """Fill in what the ledger, and the completed jobs, say."""
    verdict, doubles = audit(events, [job for job, _, _ in completed]), unexplained(events)
    errors = [event["text"] for event in events if event["what"] == "error"]
    again, ordered = [], set()
    for event in events:
        if event["what"] == "ordered":
            ordered.update(event["jobs"])
        elif event["what"] == "start" and event["job"] in ordered:
            again.append(event["job"])
    wrong = [
        (job, task, status)
        for job, task, status in completed
        if (task in ("Brief", "Stream") and status != "succeeded")
        or (task in ("Endless", "Stubborn") and status != "cancelled")
    ]
    row.lost, row.doubles = len(verdict.lost), len(doubles)
    row.require(f"lost: {verdict.lost[:3]}", not verdict.lost)
    row.require(f"unexplained executions: {doubles[:3]}", not doubles)
    row.require(f"started after they were cancelled: {again[:3]}", not again)
    row.require(f"ended as they should not: {wrong[:3]}", not wrong)
    row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
