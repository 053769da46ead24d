"""T23: rates over four processes. No window, wherever it begins, holds more starts than it may.

A handler's first act is to look at the clock. Processes are killed meanwhile: what they had claimed
and not started is no reason to exceed a rate, nor to stay far below it. Between a start and a handler's
first line nobody can help a process that has to wait for a processor, so beyond a margin that is not counted.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .crew import LIMIT, Crew, Late, until
from .kit import Budget, Ledger, Row, intact
from .pulse import ORDER, STEADY, Beats, Pulse

__all__ = ["Rate", "judge", "narrowest", "run"]

SECONDS, LEAST = 20.0, 1_000

PROCESSES = 4

KILLS = 5.0
"""Seconds between two kills."""

ENOUGH = 0.8
"""The share of the permitted starts that there are, where the machine keeps nobody waiting."""

USUAL = 0.002
"""Seconds by which a beat of a machine that has time is late."""


class Rate(NamedTuple):
    """So many starts, in a window of so many seconds."""

    starts: int
    per: float


RATES = {"slow": Rate(20, 1.0), "single": Rate(1, 0.25), "quick": Rate(20, 0.5), "long": Rate(150, 3.0)}
"""The rates of the roles' queues."""

Starts = Mapping[str, Sequence[int]]
"""When the attempts of a queue began, in nanoseconds of wall time, in order."""


def run(budget: Budget, *, kills: float = KILLS) -> Row:
    """Let four processes start what rates permit, for most of the budget's time, and judge."""
    row = Row("T23", "rates over 4 processes, kill -9 in between", unit="starts", hangs=0)
    with tempfile.TemporaryDirectory(prefix="t23-") as name:
        folder = Path(name)
        ledger, starts, end = folder / "ledger", folder / "starts", time.time_ns()
        pulse = Pulse(folder)
        with pulse, Crew("t23_roles", folder / "errors") as crew:
            try:
                killed, end = compete(crew, folder, max(2.0, budget.seconds - 2), kills)
                row.notes.append(f"{killed} processes died")
            except Late as error:
                row.hangs = 1
                row.failures.append(str(error))
            row.require(f"processes complain: {crew.complaints[-500:]}", not crew.complaints)
        row.corrupt = 0 if intact(folder / "app.db") else 1
        row.require("the database is whole", row.corrupt == 0)
        errors = [event["text"] for event in Ledger.read(ledger) if event["what"] == "error"]
        row.require(f"the library logged {len(errors)} errors: {errors[:2]}", not errors)
        judge(row, read(starts), RATES, end, pulse.beats())
    row.require(f"at least {budget.least} starts", row.trials >= budget.least)
    return row


def compete(crew: Crew, folder: Path, seconds: float, kills: float) -> tuple[int, int]:
    """Add more than can start in so many seconds, let it start, and kill; return how often, and the end."""
    files = {"database": str(folder / "app.db"), "ledger": str(folder / "ledger")}
    crew.start("adder", **files, seconds=seconds)
    until(lambda: _count(files["ledger"], "added") == 1, LIMIT, "the adding")
    end = at = float("inf")
    processes = 0
    while (now := time.monotonic()) < end:
        while len(crew.of("worker")) < PROCESSES:  # some kill themselves
            crew.start("worker", **files, starts=str(folder / "starts"))
            processes += 1
        if end == float("inf") and _count(files["ledger"], "up") >= PROCESSES:
            end, at = now + seconds, now + kills / 2
        crew.listen(min(0.05, end - now))
        if time.monotonic() >= at:
            at += kills
            crew.send(random.sample(crew.of("worker"), 1), signal.SIGKILL)
    ended = time.time_ns()
    if statuses := crew.dismiss("worker"):
        raise Late(f"processes ended with {statuses}")
    return processes - PROCESSES, ended


def _count(ledger: str, what: str) -> int:
    path = Path(ledger)
    return path.read_bytes().count(f'"what": "{what}"'.encode()) if path.exists() else 0


def read(path: Path) -> Starts:
    """Return when the attempts of each queue began, without what each was late beyond its margin."""
    found = defaultdict(list)
    for line in path.read_bytes().splitlines() if path.exists() else ():
        queue, instant, late = line.decode().split()
        found[queue].append(int(instant) - int(late))
    return {queue: sorted(instants) for queue, instants in found.items()}


# -- judging ---------------------------------------------------------------------------------------


def judge(row: Row, starts: Starts, rates: Mapping[str, Rate], end: int, beats: Beats = STEADY) -> None:
    """Fill in what is to be said of the starts of each queue; until `end` there were jobs that were due."""
    for queue, rate in rates.items():
        instants = starts.get(queue, ())
        row.trials += len(instants)
        row.require(f"{queue}: only {len(instants)} starts", len(instants) > rate.starts)
        if len(instants) <= rate.starts:
            continue
        least, crowded = narrowest(instants, rate)
        lasted = (end - instants[0]) / 1e9
        share = len(instants) / (rate.starts * (lasted // rate.per + 1))
        gap = max(later - earlier for earlier, later in pairwise([*instants, end])) / 1e9
        more = f"{rate.starts + 1} starts"
        row.notes.append(
            f"{queue}, {rate.starts} in {rate.per:g} s: {len(instants)} starts, {share:.0%} of the permitted,"
            f" {more} in {least:.4f} s at least, none for {gap:.2f} s at most"
        )
        row.require(
            f"{queue}: {crowded} times, {more} in less than {rate.per:g} s, once in {least:.4f} s",
            not crowded,
        )
        enough = ENOUGH * rate.per / (rate.per + ORDER * max(0.0, beats.mean() - USUAL))
        row.require(f"{queue}: {share:.0%} of the permitted starts, to be {enough:.0%}", share >= enough)


def narrowest(instants: Sequence[int], rate: Rate) -> tuple[float, int]:
    """Return the seconds in which one start more than may came at least, and how often within the window."""
    pairs = zip(instants, instants[rate.starts :], strict=False)
    spans = [later - earlier for earlier, later in pairs]
    return min(spans) / 1e9, sum(span < rate.per * 1e9 for span in spans)
