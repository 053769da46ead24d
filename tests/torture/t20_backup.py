"""T20: the database is copied while processes add and work. The copy is whole, or it is not there.

What was acknowledged before the copy began is in it; it opens, and what was left to do runs to its
end. A copy that is cancelled or killed leaves nothing that looks like one, and nothing is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from .kit import Budget, Ledger, Row, audit, intact
from .pulse import START, STEADY, Beats, Pulse
from .t15_stage import Worker

__all__ = ["LEAST", "SECONDS", "Ground", "look_into", "run"]

SECONDS, LEAST = 12.0, 10

PROGRAMS = Path(__file__).parent / "programs"
BALLAST = 40
"""Megabytes of the application's own in the database, so that a copy takes a while."""

PAUSE = 0.05
"""Seconds that the event loop may pause while a copy is made; on a slow disk, half of what the copy takes."""

STEPS = 5
"""Turns on a processor within one step of an event loop, each of which a busy machine may delay."""

DRAINED = 25_000.0
"""Milliseconds in which a copy must be opened and drained; a lease in it would last longer."""

CUT = 2.0
"""Seconds in which a copy ends that was cancelled."""

TRIES = 5
"""Copies that are cancelled early until one is cut short: the first may have taken far too long."""

Answer = dict[str, Any]


@dataclass
class Ground:
    """A database, processes that use it, and the copies that are made of it."""

    folder: Path
    row: Row
    chance: random.Random
    workers: list[Worker] = field(default_factory=list)
    figures: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    copies: int = 0
    beats: Callable[[], Beats] = lambda: STEADY  # of the machine, so far

    @property
    def database(self) -> Path:
        return self.folder / "app.db"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def prepare(self) -> None:
        """Give the application a table of its own in the database."""
        connection = sqlite3.connect(self.database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE ballast (number INTEGER PRIMARY KEY, content BLOB)")
        rows = ((number, bytes([number % 251]) * 1_000_000) for number in range(BALLAST))
        connection.executemany("INSERT INTO ballast VALUES (?, ?)", rows)
        connection.commit()
        connection.close()

    async def start(self, adders: int, workers: int) -> Worker:
        """Start a process."""
        files = [PROGRAMS / "t20_crew.py", self.database, self.ledger, adders, workers]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *map(str, files), stdin=PIPE, stdout=PIPE
        )
        worker = Worker(process)
        self.workers.append(worker)
        assert await worker.answer() == "ready"
        return worker

    def path(self) -> Path:
        """Return where the next copy is to go: a folder of its own."""
        self.copies += 1
        folder = self.folder / f"copy {self.copies}"
        folder.mkdir()
        return folder / "copy.db"

    def fail(self, what: str) -> None:
        self.row.failures.append(what)

    async def end(self) -> None:
        """End all processes."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()


async def whole(ground: Ground, worker: Worker) -> None:
    """Make a copy; it must have everything, and what was left to do must run."""
    path = ground.path()
    answer: Answer = await worker.ask("backup", path=str(path))
    ground.row.trials += 1
    if answer["how"] != "done":
        ground.fail(f"a copy: {answer['how']} {answer['error']}")
        ground.row.hangs = (ground.row.hangs or 0) + (answer["how"] == "hung")
        return
    measure(ground, answer)
    if left := set(os.listdir(path.parent)) - {path.name}:
        ground.fail(f"left beside a copy: {sorted(left)}")
    await asyncio.to_thread(look_into, ground, path, answer["began"])
    await drain(ground, path)


def measure(ground: Ground, answer: Answer) -> None:
    """Take note of how a copy was felt: by the event loop and by those who add."""
    figures = ground.figures
    for name, key in (("pause", "pause"), ("add", "add"), ("took", "seconds")):
        figures[name] = max(figures[name], answer[key])
    if answer["how"] == "done":
        figures["quick"] = min(figures["quick"] or inf, answer["seconds"])
    figures["measured"] += 1
    held_up = ground.beats().delay(answer["began"], answer["began"] + answer["seconds"])
    figures["blocked"] += answer["pause"] > max(PAUSE, answer["seconds"] / 2, STEPS * held_up)


def look_into(ground: Ground, path: Path, began: float) -> None:
    """Check a copy: whole, with all that was acknowledged before it began, and the application's tables."""
    if not intact(path):
        ground.row.corrupt = (ground.row.corrupt or 0) + 1
        ground.fail("a copy is damaged")
        return
    acknowledged = {e["job"] for e in Ledger.read(ground.ledger) if e["what"] == "ack" and e["at"] < began}
    connection = sqlite3.connect(path)
    try:
        query = "SELECT id FROM backlite_jobs UNION ALL SELECT id FROM backlite_completed"
        found = [row[0] for row in connection.execute(query)]
        rows = connection.execute("SELECT count(*), sum(length(content)) FROM ballast").fetchall()
    except sqlite3.DatabaseError as error:
        ground.row.corrupt = (ground.row.corrupt or 0) + 1
        ground.fail(f"a copy cannot be read: {error}")
        return
    finally:
        connection.close()
    missing = acknowledged - set(found)
    ground.row.lost = (ground.row.lost or 0) + len(missing)
    if missing:
        ground.fail(f"{len(missing)} of {len(acknowledged)} jobs are missing from a copy")
    if len(found) != len(set(found)):
        ground.fail(f"{len(found) - len(set(found))} jobs are twice in a copy")
    if rows != [(BALLAST, BALLAST * 1_000_000)]:
        ground.fail(f"the application's table is not whole in a copy: {rows}")


async def drain(ground: Ground, path: Path) -> None:
    """Run what is left to do in a copy."""
    program = [sys.executable, str(PROGRAMS / "t20_drain.py"), str(path)]
    process = await asyncio.create_subprocess_exec(*program, stdout=PIPE)
    said, _ = await process.communicate()
    if process.returncode != 0:
        ground.fail(f"a copy did not open: {process.returncode}")
        return
    answer = json.loads(said)
    ground.row.recovery_ms = max(ground.row.recovery_ms or 0.0, answer["seconds"] * 1000)
    ground.figures["left"] += answer["before"]
    if answer["left"] or answer["twice"] or answer["ran"] != answer["before"]:
        ground.fail(f"a copy did not drain: {answer}")


async def cancelled(ground: Ground, worker: Worker) -> None:
    """Cancel a copy somewhere on its way: it is not there, or whole; and can be made afterwards."""
    ground.figures["cancelled"] += 1
    if ground.figures["cancelled"] % 3 != 1:
        await cancelled_at(ground, worker, ground.chance.random() * 1.1)
        return
    cut, tries = ground.figures["cut"], 0
    while ground.figures["cut"] == cut and tries < TRIES:
        await cancelled_at(ground, worker, 0.1)
        tries += 1


async def cancelled_at(ground: Ground, worker: Worker, part: float) -> None:
    """Cancel a copy after a part of what the quickest one took."""
    path, cancel = ground.path(), part * ground.figures["quick"]
    answer: Answer = await worker.ask("backup", path=str(path), cancel=cancel)
    ground.row.trials += 1
    measure(ground, answer)
    if answer["how"] not in ("cancelled", "done"):
        ground.fail(f"a cancelled copy: {answer['how']} {answer['error']}")
    began, ended = answer["began"], answer["began"] + answer["seconds"]
    if ground.beats().charged(began + cancel, ended, START) > CUT:
        ground.row.hangs = (ground.row.hangs or 0) + 1
        ground.fail(f"a copy cancelled after {cancel:.2f} s ended after {answer['seconds']:.2f} s")
    ground.figures["cut"] += not path.exists()
    await asyncio.to_thread(absent_or_whole, ground, path, answer["began"], set())


def absent_or_whole(ground: Ground, path: Path, began: float, allowed: set[str]) -> None:
    """Check that there is no copy, or a whole one, and nothing beside it that could be taken for one."""
    for name in os.listdir(path.parent):
        if name == path.name:
            look_into(ground, path, began)
        elif not any(mark in name for mark in allowed):
            ground.fail(f"left beside a copy: {name}")


async def killed(ground: Ground, _: Worker) -> None:
    """Kill a process that makes a copy; then make one at the same place."""
    worker = await ground.start(0, 0)
    path = ground.path()
    assert worker.process.stdin is not None
    worker.process.stdin.write(json.dumps({"do": "backup", "path": str(path)}).encode() + b"\n")
    began = time.monotonic()
    await asyncio.sleep(ground.chance.random() * ground.figures["quick"] * 1.1)
    worker.process.kill()
    await worker.process.wait()
    ground.row.trials += 1
    there = path.exists()
    ground.figures["killed"] += not there
    await asyncio.to_thread(absent_or_whole, ground, path, began, {".unfinished"})
    again: Answer = await ground.workers[0].ask("backup", path=str(path))
    if again["how"] != ("refused" if there else "done"):
        ground.fail(f"a copy after one that was killed: {again['how']} {again['error']}")


async def refused(ground: Ground, worker: Worker) -> None:
    """Nothing that is there is replaced; of two copies to one place, one is made."""
    path = ground.path()
    path.write_text("precious")
    dangling, folder = path.with_name("dangling"), path.with_name("folder")
    dangling.symlink_to("nowhere")
    folder.mkdir()
    before = sorted(os.listdir(path.parent))
    for target in (path, dangling, folder, ground.database, path.with_name("none") / "copy.db"):
        answer: Answer = await worker.ask("backup", path=str(target))
        ground.row.trials += 1
        if answer["how"] != "refused":
            ground.fail(f"a copy over {target.name}: {answer['how']} {answer['error']}")
    if path.read_bytes() != b"precious" or sorted(os.listdir(path.parent)) != before:
        ground.fail(f"a refused copy has changed something: {sorted(os.listdir(path.parent))}")
    path = ground.path()
    answers: list[Answer] = await worker.ask("twins", path=str(path))
    ground.row.trials += 2
    if sorted(answer["how"] for answer in answers) != ["done", "refused"]:
        ground.fail(f"two copies to one place: {[(answer['how'], answer['error']) for answer in answers]}")
    await asyncio.to_thread(absent_or_whole, ground, path, min(answer["began"] for answer in answers), set())


Trial = Callable[[Ground, Worker], Coroutine[object, object, None]]


async def play(row: Row, budget: Budget) -> dict[str, float]:
    """Copy, again and again, and end with everything drained."""
    with tempfile.TemporaryDirectory() as folder, Pulse(Path(folder)) as pulse:
        ground = Ground(Path(folder), row, random.Random(20), beats=pulse.beats)
        ground.prepare()
        try:
            first, second = await ground.start(3, 3), await ground.start(3, 3)
            ground.figures["still"] = await first.ask("watch", seconds=0.3)
            await whole(ground, first)
            await refused(ground, second)
            rounds: list[list[Trial]] = [[cancelled] * 3, [killed] * 2, [whole]]
            turn = 0
            while turn < len(rounds) or budget.more(row.trials):
                for trial in rounds[turn % len(rounds)]:
                    await trial(ground, (first, second)[turn % 2])
                turn += 1
            for worker in (first, second):
                if left := await worker.ask("drain"):
                    ground.row.lost = (row.lost or 0) + len(left)
                    ground.fail(f"not drained afterwards: {len(left)}")
            doubles = audit(Ledger.read(ground.ledger), []).unexplained
            row.doubles = len(doubles)
            row.failures += [f"run twice: {what}" for what in doubles[:3]]
        except (TimeoutError, ChildProcessError) as error:
            row.hangs = (row.hangs or 0) + 1
            ground.fail(f"a process did not answer, or ended: {error!r}")
        finally:
            await ground.end()
        if not intact(ground.database):
            row.corrupt = (row.corrupt or 0) + 1
        return ground.figures


def run(budget: Budget) -> Row:
    """Copy a database under load: whole, cancelled, killed, and where something is already."""
    row = Row("T20", "backup under load", unit="copies", lost=0, doubles=0, corrupt=0, hangs=0)
    row.recovery_ms = 0.0
    figures = asyncio.run(play(row, budget))
    blocked = f"{figures['blocked']:.0f} of {figures['measured']:.0f} copies"
    row.require(f"the event loop paused during {blocked}", figures["blocked"] < figures["measured"] / 3)
    row.require("no cancellation cut a copy short", figures["cut"] > 0)
    row.require("no copy had anything left to do", figures["left"] > 0)
    row.require(f"a copy drained in {row.recovery_ms:.0f} ms", row.recovery_ms < DRAINED)
    for what in ("lost", "doubles", "corrupt", "hangs"):
        row.require(f"{what}: {getattr(row, what)}", getattr(row, what) == 0)
    pause, still, add = (figures[name] * 1000 for name in ("pause", "still", "add"))
    row.notes.append(f"longest pause of the event loop {pause:.0f} ms, without a copy {still:.0f} ms")
    row.notes.append(f"slowest add meanwhile {add:.0f} ms; {BALLAST} MB copied in {figures['took']:.2f} s")
    row.notes.append(
        f"{figures['cut']:.0f} copies were cut short by a cancellation, {figures['killed']:.0f} by a kill"
    )
    return row
