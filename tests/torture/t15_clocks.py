"""T15: the wall clock steps under two running processes. Nothing runs early, gets stuck, or looks abandoned.

A wait is as long as it was meant, by the monotonic clock, also if the wall clock goes back meanwhile;
where it goes forward, as after a suspend, a job may run as soon as the wall clock says so. An instant
given with `at` follows the wall clock. The clock is an injected one, or the system's under libfaketime.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from .kit import Budget, Row, audit
from .t15_stage import Events, Stage, Worker, faketime

__all__ = ["LEAST", "SECONDS", "judge", "play_all", "run"]

SECONDS, LEAST = 20.0, 16

HOUR = 3600.0
LEASE, WAIT = 1.0, 1.5  # as in the program; WAIT is also its backoff
SOON = 2.5
"""Seconds in which a job that is due must start, on a busy machine."""

DRAINED = 60.0
"""Seconds in which everything must have ended; what has not is lost."""

NOTICED = 2.0
"""Seconds after which another process does what the first one should have done about a step."""

EARLY = 0.005
LONG_WAIT, ELAPSED = 5.0, 3.0
"""A wait, and how much of it is over when the clock steps: it must not begin anew."""

QUIET = 0.3
"""Seconds in which nothing happens, and nobody may be busy: the best of three counts."""


@dataclass
class Scene:
    """Jobs of every kind that are there when the clock steps."""

    stage: Stage
    a: Worker
    b: Worker
    held: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    instant: str = ""
    far: str = ""
    noticed: float = 0.0

    async def add(self, **options: object) -> dict[str, float | str]:
        added: dict[str, float | str] = await self.a.ask("add", **options)
        return added

    async def prepare(self, at: float) -> None:
        """Have handlers run in both processes, with jobs of every kind waiting."""
        stage = self.stage
        long = await self.add(how="quick", wait=LONG_WAIT)
        stage.expect(str(long["job"]), **waits(long, LONG_WAIT))
        await asyncio.sleep(ELAPSED - WAIT)
        retried = [str((await self.add(how="fail once"))["job"]) for _ in range(2)]
        if not await stage.until("job.retried", *retried):
            raise TimeoutError("the first attempts never failed")
        for event in stage.events():
            if event["what"] == "end" and event["job"] in retried:
                stage.expect(event["job"], run=1, **waits(event))
        for how in ["hold long"] * 3 + ["hold short"] * 5:
            self.held.append(str((await self.add(how=how))["job"]))
        if not await stage.until("start", *self.held):
            raise TimeoutError("the workers were never busy")
        for _ in range(2):
            added = await self.add(how="quick", wait=WAIT)
            stage.expect(str(added["job"]), **waits(added))
            self.others.append(str(added["job"]))
        self.others += [str((await self.add(how="quick"))["job"]) for _ in range(4)]
        for job in self.others[2:]:
            stage.expect(job, by=None)
        added = await self.add(how="quick", at=at)
        self.instant = str(added["job"])
        stage.expect(self.instant, wall=float(added["wall"]) + at, by=None)
        self.far = str((await self.add(how="quick", wait=5000.0))["job"])
        self.others += [*retried, str(long["job"])]

    def expected(self) -> Events:
        """Return what is expected of jobs so far."""
        return [event for event in self.stage.expected if event["what"] == "expect"]

    def due_now(self, *jobs: str) -> None:
        """From now on these may start, and must soon."""
        for expected in self.expected():
            if expected["job"] in jobs and expected["by"] is None:
                expected["by"] = time.monotonic() + self.noticed + SOON

    async def settle(self) -> None:
        """Free some workers, and wait until all that is expected has begun, or its time is over."""
        for worker in (self.a, self.b):
            if worker.process.returncode is None:
                await worker.ask("release", how="hold short")
        self.due_now(*self.others)
        for expected in self.expected():
            if expected["by"] is not None:
                limit = expected["by"] - time.monotonic() + 0.1
                await self.stage.until("start", expected["job"], run=expected["run"], limit=limit)

    async def quiet(self) -> None:
        """Measure what the processes do while there is nothing to do; leases of handlers end meanwhile."""
        workers = [worker for worker in (self.a, self.b) if worker.process.returncode is None]
        best = [{"cpu": 1e9, "asked": 1e9} for _ in workers]
        for _ in range(3):
            before = [await worker.ask("usage") for worker in workers]
            await asyncio.sleep(QUIET)
            for was, worker, least in zip(before, workers, best, strict=True):
                now = await worker.ask("usage")
                for name in least:
                    least[name] = min(least[name], (now[name] - was[name]) / (now["at"] - was["at"]))
        self.stage.expected += [{"what": "usage", **least} for least in best]

    async def drain(self) -> None:
        """End everything that is not far away, and look at it."""
        for worker in (self.a, self.b):
            if worker.process.returncode is None:
                await worker.ask("release", how="hold long")
        jobs = [*self.held, *self.others, self.instant]
        limit = time.monotonic() + DRAINED
        while time.monotonic() < limit:
            said = {job: await self.a.ask("status", job=job) for job in jobs}
            if set(said.values()) == {"succeeded"}:
                break
            await asyncio.sleep(0.02)
        self.stage.expected += [{"what": "final", "job": job, "status": said[job]} for job in jobs]
        said[self.far] = await self.a.ask("status", job=self.far)
        self.stage.expected.append({"what": "final", "job": self.far, "status": said[self.far]})


def waits(event: dict[str, float | str], seconds: float = WAIT) -> dict[str, float]:
    """Return when a job is to begin that waits from an event on."""
    after = float(event["at"]) + seconds
    return {"after": after, "by": after + SOON, "wall": float(event["wall"]) + seconds}


Step = Callable[[Scene], Coroutine[object, object, None]]


async def forward(scene: Scene) -> None:
    """The clock goes forward; what is due by it must start."""
    scene.stage.set_clock(HOUR)
    scene.due_now(scene.instant)


async def suspend(scene: Scene) -> None:
    """The computer sleeps: nobody runs, and the monotonic clock stands still."""
    for worker in scene.stage.workers:
        worker.process.send_signal(signal.SIGSTOP)
    await forward(scene)
    for worker in scene.stage.workers:
        worker.process.send_signal(signal.SIGCONT)


async def back(scene: Scene) -> None:
    """The clock goes back."""
    scene.stage.set_clock(-HOUR)


async def there_and_back(scene: Scene) -> None:
    """The clock goes back, is seen, and is set right."""
    scene.stage.set_clock(-HOUR)
    await scene.a.ask("add", how="quick", wait=5000.0)
    await asyncio.sleep(0.3)
    scene.stage.set_clock(0.0)


async def wobble(scene: Scene) -> None:
    """The clock is set by less than a wait, forwards and backwards."""
    for offset in (0.7, -0.7, 0.4, 0.0, -0.3):
        scene.stage.set_clock(offset)
        await asyncio.sleep(0.1)


async def orphaned(scene: Scene) -> None:
    """The clock goes back while the process that came first cannot do anything about it; then it dies."""
    scene.a, scene.b = scene.b, scene.a
    scene.b.process.send_signal(signal.SIGSTOP)
    scene.stage.set_clock(-HOUR)
    await scene.a.ask("add", how="quick", wait=5000.0)
    await asyncio.sleep(0.3)
    await crash(scene)
    begin_anew(scene, NOTICED)


async def crash(scene: Scene) -> None:
    """The clock goes back, then a process dies: its leases end an hour later."""
    scene.stage.set_clock(-HOUR)
    scene.b.process.kill()
    pid = scene.b.process.pid
    await scene.b.process.wait()
    scene.stage.expected.append({"what": "killed", "victim": pid, "at": time.monotonic(), "pid": 0})
    for event in scene.stage.events():
        if event["what"] == "start" and event["pid"] == pid and event["job"] in scene.held:
            scene.stage.expect(event["job"], run=1, by=time.monotonic() + SOON)


async def restart(scene: Scene) -> None:
    """The clock goes back while nobody runs."""
    for worker in (scene.a, scene.b):
        await worker.end()
    scene.stage.set_clock(-HOUR)
    scene.a = await scene.stage.start(4)
    scene.b = await scene.stage.start(4)
    begin_anew(scene, 0.0)


def begin_anew(scene: Scene, noticed: float) -> None:
    """Let waits begin anew: nobody who knows by how much the clock was set is left."""
    scene.noticed = noticed
    for expected in scene.expected():
        if expected["by"] is not None:
            whole = LONG_WAIT if expected["after"] is not None else 0.0
            expected["by"] = max(expected["by"], time.monotonic() + noticed + whole + SOON)


STEPS: dict[str, Step] = {
    step.__name__: step for step in (back, forward, crash, orphaned, suspend, restart, there_and_back, wobble)
}


async def play(step: str, library: str | None) -> Events:
    """Play a scene; return its ledger with what was expected."""
    async with Stage(library) as stage:
        try:
            async with asyncio.timeout(180.0):
                await _play(step, stage)
        except (TimeoutError, ChildProcessError) as error:
            stage.expected.append({"what": "hang", "error": str(error)})
        return [*stage.events(), *stage.expected]


async def _play(step: str, stage: Stage) -> None:
    scene = Scene(stage, await stage.start(4), await stage.start(4))
    ahead = step in ("forward", "suspend")
    began = time.monotonic()
    await scene.prepare(at=HOUR / 2 if ahead else 4.0)
    await asyncio.sleep(max(0.0, began + ELAPSED - time.monotonic()))
    stepped = time.monotonic()
    await STEPS[step](scene)
    await scene.settle()
    await scene.quiet()
    await asyncio.sleep(max(0.0, stepped + 2.5 * LEASE - time.monotonic()))
    if not ahead:
        stage.set_clock(60.0)
        scene.due_now(scene.instant)
        await scene.add(how="quick")  # somebody looks: a timer of the monotonic clock has no reason to
        await stage.until("start", scene.instant, limit=SOON + 0.1)
    await scene.drain()


def run(budget: Budget) -> Row:
    """Play every scene with an injected clock and with libfaketime, several at once."""
    return play_all(budget, [faketime(), None])


def play_all(budget: Budget, libraries: list[str | None]) -> Row:
    """Play the scenes with these libraries that set the clock; None: the clock is injected."""
    row = Row("T15", "wall clock +1 h, -1 h, resume", unit="scenes", lost=0, doubles=0, hangs=0)
    scenes = [(step, library) for step in STEPS for library in libraries]
    figures: dict[str, float] = defaultdict(float)
    while budget.more(row.trials):
        size = min(8, len(scenes) if budget.most is None else budget.most - row.trials)
        chosen = [scenes[(row.trials + number) % len(scenes)] for number in range(size)]
        for (step, how), events in zip(chosen, asyncio.run(_together(chosen)), strict=True):
            name = f"{step} ({'clock' if how is None else 'faketime'})"
            row.failures += [f"{name}: {failure}" for failure in judge(row, events, figures)]
            row.trials += 1
    row.recovery_ms = figures["late"] * 1000
    for what in ("early", "stuck", "busy"):
        row.require(f"{what}: {figures[what]:.0f}", figures[what] == 0)
    counts = ", ".join(f"{figures[what]:.0f} {what}" for what in ("early", "stuck", "busy"))
    row.notes.append(f"{counts} of {figures['starts']:.0f} starts that the clock moved under")
    row.notes.append(
        f"idle: {figures['cpu']:.1%} of a core, the clock asked {figures['asked']:.0f} times a second"
    )
    return row


async def _together(scenes: list[tuple[str, str | None]]) -> list[Events]:
    return await asyncio.gather(*(play(step, library) for step, library in scenes))


def judge(row: Row, events: Events, figures: dict[str, float]) -> list[str]:
    """Add what a scene's ledger says to the row; return what was wrong.

    An expectation is of the n-th start of a job: early is one before both `after` by the monotonic
    clock and `wall` by the wall clock; stuck, one that has not come at `by`.
    """
    found = [f"{event['error']}" for event in events if event["what"] == "hang"]
    row.hangs = (row.hangs or 0) + len(found)
    starts: dict[str, Events] = defaultdict(list)
    for event in events:
        if event["what"] == "start":
            starts[event["job"]].append(event)
        elif event["what"] == "usage":
            figures["cpu"] = max(figures["cpu"], event["cpu"])
            figures["asked"] = max(figures["asked"], event["asked"])
            if event["cpu"] > 0.2 or event["asked"] > 30:
                figures["busy"] += 1
                found.append(f"busy with nothing: {event['cpu']:.0%}, {event['asked']:.0f} looks a second")
    for event in events:
        if event["what"] == "expect":
            found += _compare(event, starts[event["job"]][event["run"] :], figures)
    return found + _abandoned(row, events)


def _compare(expected: dict[str, float], starts: Events, figures: dict[str, float]) -> list[str]:
    figures["starts"] += 1
    name = f"{expected['job']} ({'wait' if expected['after'] else 'instant' if expected['wall'] else 'now'})"
    if not starts or (expected["by"] is not None and starts[0]["at"] > expected["by"]):
        figures["stuck"] += 1
        return [f"stuck: {name}"]
    start = starts[0]
    if expected["by"] is not None:
        figures["late"] = max(figures["late"], start["at"] - (expected["by"] - SOON))
    before_time = expected["after"] is None or start["at"] < expected["after"] - EARLY
    if expected["wall"] is not None and before_time and start["wall"] < expected["wall"] - EARLY:
        figures["early"] += 1
        early = f"{expected['wall'] - start['wall']:.3f} s by the wall clock"
        if expected["after"] is not None:
            early += f", {expected['after'] - start['at']:.3f} s by the monotonic one"
        return [f"early: {name}: {early}"]
    return []


def _abandoned(row: Row, events: Events) -> list[str]:
    """Add jobs that were lost or looked abandoned to the row."""
    finals = {event["job"]: event["status"] for event in events if event["what"] == "final"}
    lost = [job for job, status in finals.items() if status not in ("succeeded", "pending")]
    for event in [*events]:
        if event["what"] == "log" and event["event"] in ("job.retried", "job.given_back"):
            events.append({"what": "cause", "job": event["job"]})
    verdict = audit(events, [])
    killed = any(event["what"] == "killed" for event in events)
    logged = [] if killed else [e for e in events if e.get("event") in ("job.crashed", "job.lease_lost")]
    row.lost = (row.lost or 0) + len(lost)
    row.doubles = (row.doubles or 0) + len(verdict.unexplained)
    found = [f"not done: {job} {finals[job]}" for job in lost]
    found += [f"looked abandoned: {event['event']} {event['job']}" for event in logged]
    return found + [f"run twice: {what}" for what in verdict.unexplained]
