"""T11: who is idle sleeps, who is needed wakes at once.

Idle clients lie under strace: every thread's timers are counted. Meanwhile, on other files, processes
add at random times what another, idle process is to run; and workers are killed with a job in hand,
which is to run again in an idle neighbour, or after the next start, without anybody adding anything.
"""

from __future__ import annotations

import itertools
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .crew import LIMIT, PROGRAMS, Crew, Late, percentile, until
from .kit import Budget, Ledger, Row, needs
from .pulse import START, STEADY, Beats, Pulse
from .wakeups import STRACE, Wakes, calls, wakes

__all__ = ["judge_adds", "judge_crashes", "judge_idle", "run"]

Event = dict[str, Any]
Span = tuple[float, float]

IDLE_MINUTE = 60.0
"""Seconds for which clients lie idle in the long form."""

PER_MINUTE = 2
"""How often an idle client may wake in a minute: its capped sleep."""

CALM = 0.5
"""Seconds without a system call after which a client is idle."""

SOON = 0.020
"""Seconds within which 99 of 100 jobs start in another, idle process."""

ENOUGH = 300
"""Starts of which the slowest hundredth says something; of fewer the median is judged."""

WAKE = 5
"""Turns on a processor until a job starts that another process has added."""

PATIENCE = 10.0
"""Seconds that a job that has not started is waited for."""

LATE = 1.0
"""Seconds after which a start is no consequence of a wake-up any more, and a recovery too slow."""


def run(budget: Budget) -> Row:
    """Watch idle clients, for a minute or for half of a short budget, and do the rest meanwhile."""
    needs("strace", "strace")
    row = Row("T11", "nothing to do; adds from elsewhere; a crash and no add", unit="starts", lost=0, hangs=0)
    window = IDLE_MINUTE if budget.seconds >= IDLE_MINUTE else max(2.0, budget.seconds / 2)
    with tempfile.TemporaryDirectory(prefix="t11-") as name, ExitStack() as stack:
        folder = Path(name)
        idle = {kind: stack.enter_context(Idle(folder, kind)) for kind in ("alone", "worked", "adder")}
        pulse = stack.enter_context(Pulse(folder))
        try:
            for client in idle.values():
                client.wait()
            begin = time.time()
            end = begin + window
            busy(row, folder, pulse, window, -(-budget.least // 3))
            until(lambda: time.time() > end, window + LIMIT, "the end of the window")
        except Late as error:
            row.hangs = 1
            row.failures.append(str(error))
        else:
            for kind, client in idle.items():
                judge_idle(row, kind, client.wakes(begin, end), window)
    row.require(f"at least {budget.least} starts", row.trials >= budget.least)
    return row


class Idle:
    """A client under strace that does nothing. Those that have worked, and that add, share a file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._trace = folder / f"trace-{kind}"
        database = folder / ("alone.db" if kind == "alone" else "pair.db")
        self._errors = folder / f"errors-{kind}"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *STRACE,
                    str(self._trace),
                    sys.executable,
                    str(PROGRAMS / "t11_idle.py"),
                    str(database),
                    kind,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def wait(self) -> None:
        """Wait until it says that it is idle, and is."""
        assert self._process.stdout is not None
        said = select.select([self._process.stdout], [], [], LIMIT)[0]
        if not said or self._process.stdout.readline() != b"idle\n":
            raise Late(f"a client did not become idle: {self._errors.read_text()[-500:]}")
        deadline, since, size = time.monotonic() + LIMIT, time.monotonic(), -1
        while time.monotonic() - since < CALM:  # what it does once more after its start is not idleness
            if (now := self._trace.stat().st_size) != size:
                since, size = time.monotonic(), now
            if time.monotonic() > deadline:
                raise Late("a client never does nothing")
            time.sleep(0.02)

    def wakes(self, begin: float, end: float) -> Wakes:
        """End it; return what woke it between two instants."""
        monotonic = time.time() - time.monotonic()
        self._end()
        with self._trace.open(errors="replace") as lines:
            return wakes(list(calls(lines)), begin, end, monotonic=monotonic)

    def _end(self) -> None:
        if self._process.poll() is None:
            try:
                self._process.communicate(timeout=10.0)  # the end of its input
            except subprocess.TimeoutExpired:
                self._process.kill()  # the tracer, and with it the traced
                self._process.communicate()


def busy(row: Row, folder: Path, pulse: Pulse, seconds: float, least: int) -> None:
    """Do all that needs nobody idle but its own processes, each for a share of the time.

    `least`: jobs that are added in each way, however long that takes.
    """
    with Crew("t11_roles", folder / "errors") as crew:
        try:
            alone = adds(crew, folder / "one", seconds * 0.3, 1, least, pause=[0.005, 0.03], burst=1)
            bursts = adds(crew, folder / "some", seconds * 0.25, 1, least, pause=[0.0005, 0.02], burst=4)
            crowd = adds(crew, folder / "many", seconds * 0.15, 2, least, pause=[0.0005, 0.05], burst=1)
            deaths = crashes(crew, folder, seconds * 0.2)
        finally:
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
    beats = pulse.beats()
    judge_adds(row, "to one idle process", alone, beats=beats)
    judge_adds(row, "in bursts", bursts, bar=LATE, beats=beats)
    judge_adds(row, "from two to two", crowd, bar=LATE, beats=beats)
    judge_crashes(row, deaths, beats)


def scene(place: Path) -> tuple[dict[str, str], Callable[[str], list[Event]]]:
    """Return the files that processes share at a place, and what tells what they have noted there."""
    files = {"database": f"{place}.db", "ledger": f"{place}.ledger"}
    return files, lambda what: [event for event in Ledger.read(files["ledger"]) if event["what"] == what]


def adds(
    crew: Crew, place: Path, seconds: float, each: int, least: int, *, pause: list[float], burst: int
) -> Sequence[Event]:
    """Have jobs added in some processes, half of them in transactions, and run in as many others."""
    files, events = scene(place)

    for _ in range(each):
        crew.start("worker", **files)
    until(lambda: len(events("up")) == each, LIMIT, "the start of workers")
    for _ in range(each):
        crew.start("adder", **files, pause=pause, burst=burst, within=0.5)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        crew.listen(left)
    until(lambda: len(events("ack")) >= least, LIMIT, f"{least} adds")
    crew.dismiss("adder")
    patience = time.monotonic() + PATIENCE
    until(lambda: len(events("start")) >= len(events("ack")) or time.monotonic() > patience, LIMIT, "starts")
    crew.dismiss("worker")
    return Ledger.read(files["ledger"])


def crashes(crew: Crew, folder: Path, seconds: float) -> dict[str, list[Span]]:
    """Kill, in turns: workers with a job in hand, without and with an idle neighbour; and who adds."""
    deadline = time.monotonic() + seconds
    found: dict[str, list[Span]] = {"alone": [], "beside": [], "mute": []}
    for number in itertools.count():
        for kind, waits in found.items():
            place = folder / f"{kind}-{number}"
            waits.append(silence(crew, place) if kind == "mute" else crash(crew, place, kind == "beside"))
        if time.monotonic() > deadline:
            return found
    raise AssertionError("never")


def silence(crew: Crew, place: Path) -> Span:
    """Have a process die when it is to tell of a job; return when it does, and when that job starts."""
    files, events = scene(place)

    crew.start("worker", **files)
    until(lambda: len(events("up")) == 1, LIMIT, "the start of a worker")
    crew.start("mute", **files)
    until(lambda: len(events("dying")) == 1, LIMIT, "the death of who adds")
    until(lambda: len(events("start")) == 1, LIMIT, "the start of a job of which nobody could tell")
    crew.dismiss("worker")
    return events("dying")[0]["at"], events("start")[0]["at"]


def crash(crew: Crew, place: Path, neighbour: bool) -> Span:
    """Kill a worker with a job in hand; return when, and when another one runs it.

    Without a neighbour it counts from the beginning of the next start.
    """
    files, events = scene(place)

    for _ in range(1 + neighbour):
        crew.start("worker", **files)
    until(lambda: len(events("up")) == 1 + neighbour, LIMIT, "the start of workers")
    crew.start("once", **files)
    until(lambda: len(events("start")) == 1, LIMIT, "the start of a job that is to be held")
    [victim] = [event["pid"] for event in events("start")]
    crew.ended(crew.of("once"), LIMIT, "who adds one job")
    killed = time.monotonic()
    crew.send([victim], signal.SIGKILL)
    crew.ended([victim], LIMIT, "a killed worker")
    if not neighbour:
        crew.start("worker", **files)
    until(lambda: len(events("start")) == 2, LIMIT, "the second start of a job")
    crew.dismiss("worker")
    begun = killed if neighbour else events("begun")[-1]["at"]
    return begun, events("start")[1]["at"]


# -- judging ---------------------------------------------------------------------------------------


def judge_idle(row: Row, kind: str, found: Wakes, window: float) -> None:
    """Require that an idle client slept; where the window is short, also that it is going to.

    Each wait under way at the end of a short window is taken for one that comes again and again. Only
    who has just worked may wait for something for the last time: there each counts once a minute.
    """
    row.notes.append(
        f"idle ({kind}): {found.expiries} timers, {found.bursts} wake-ups in {window:.0f} s,"
        f" armed for {[round(limit) for limit in sorted(found.armed)]} s"
    )
    allowed = int(PER_MINUTE * window / 60)
    what = f"an idle client ({kind}) woke {found.count} times in {window:.0f} s, allowed: {allowed}"
    row.require(what, found.count <= allowed)
    if window < IDLE_MINUTE:
        soon = [limit for limit in found.armed if limit <= 60]
        rate = float(len(soon)) if kind == "worked" else found.per_minute
        row.require(f"an idle client ({kind}) is to wake {rate:.1f} times a minute", rate < PER_MINUTE + 0.1)


def judge_adds(
    row: Row, where: str, events: Sequence[Event], *, bar: float = SOON, beats: Beats = STEADY
) -> None:
    """Require that every job started in the other process, and soon."""
    started: dict[str, float] = {}
    for event in events:
        if event["what"] == "start":
            started.setdefault(event["job"], event["at"])
    acks = [event for event in events if event["what"] == "ack"]
    waits: dict[str, list[Span]] = {"add": [], "tx": []}
    for event in acks:
        if event["job"] in started:
            waits[event["kind"]].append((event["called"], started[event["job"]]))
    never = len(acks) - sum(map(len, waits.values()))
    row.trials += len(acks)
    row.lost = (row.lost or 0) + never
    row.require(f"{where}: {never} of {len(acks)} jobs have not started", never == 0)
    for kind, spans in waits.items():
        found = [later - called for called, later in spans]
        charged = [beats.charged(called, later) for called, later in spans]
        late = [wait for wait in charged if wait > LATE]
        p50, p99, worst = (1000 * percentile(found, share) for share in (0.5, 0.99, 1.0))
        row.notes.append(f"{kind} {where}: p50 {p50:.1f}, p99 {p99:.1f}, max {worst:.1f} ms ({len(found):,})")
        row.require(f"{kind} {where}: {len(late)} wake-ups lost, {late[:3]} s", not late)
        name, share = ("p99", 0.99) if len(found) >= ENOUGH else ("p50", 0.5)
        value = percentile([beats.charged(*span, WAKE) for span in spans], share)
        row.require(
            f"{kind} {where}: {name} {value * 1000:.1f} ms, to be below {bar * 1000:.0f}", value < bar
        )


def judge_crashes(row: Row, found: dict[str, list[Span]], beats: Beats = STEADY) -> None:
    """Require that every interrupted job ran again within a second."""
    said = {
        "alone": "the next start",
        "beside": "the kill, beside an idle process",
        "mute": "the death of its adder before it could tell",
    }
    for kind, spans in found.items():
        waits = [later - at for at, later in spans]
        worst = 1000 * max(waits)
        row.trials += len(waits)
        row.recovery_ms = max(row.recovery_ms or 0.0, worst)
        row.notes.append(
            f"a crash and no add: starts after {said[kind]}: p50 {1000 * percentile(waits, 0.5):.1f},"
            f" max {worst:.1f} ms ({len(waits)})"
        )
        charged = max(beats.charged(at, later, START) for at, later in spans)
        row.require(f"{1000 * charged:.0f} ms from {said[kind]} to the job's next start", charged < LATE)
