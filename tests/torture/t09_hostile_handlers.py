"""T9: a zoo of handlers that do what no handler should.

Each specimen is shown in a process of its own: its job runs beside two others, and three wait for a
worker. It has survived if its own job ends as it should, all jobs beside it complete, and as many
workers as were asked for are alive in the end; in the same process, or for those that kill it, in one
that a supervisor starts again and that goes on with what is left.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.children import Children, Event, Hang
from tests.torture.kit import Budget, Row, intact
from tests.torture.zoo import ZOO, Specimen

__all__ = ["SECONDS", "Exhibit", "judge", "run"]

SECONDS = 35.0

LIFE = 90.0
"""Seconds after which the supervisor kills a process that does not end."""

HUNG = 20.0
"""The same, of one that may hang."""

LIVES = 6
"""Processes that one specimen may use up."""


@dataclass
class Exhibit:
    """One specimen's lives, and what is left in its file."""

    specimen: Specimen
    loop: str
    lives: int = 0
    hangs: int = 0
    statuses: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    jobs: list[tuple[str, str, str]] = field(default_factory=list)  # id, queue, status
    effects: int = 0
    whole: bool = False
    sound: bool = True
    seconds: float = 0.0


def judge(exhibit: Exhibit) -> list[str]:
    """Return what is wrong with the end of an exhibit."""
    specimen, wrong = exhibit.specimen, []
    if exhibit.hangs and not specimen.hangs:
        wrong.append(f"hung {exhibit.hangs} times")
    if not exhibit.whole:
        died = [event["error"] for event in exhibit.events if event["what"] == "died"]
        wrong.append(f"not all workers were alive in the end: {exhibit.statuses} {died[:2]}")
    if exhibit.lives > 1 and not specimen.kills:
        wrong.append(f"the process ended: {exhibit.statuses}")
    fates = [status for _, queue, status in exhibit.jobs if queue in ("hostile", "timed")]
    if (fates or ["gone"])[0] not in specimen.fate:
        wrong.append(f"its job is {fates}, not {' or '.join(specimen.fate)}")
    beside = [status for _, queue, status in exhibit.jobs if queue not in ("hostile", "timed")]
    if len(beside) < 5 or set(beside) != {"succeeded"}:
        wrong.append(f"the jobs beside it: {Counter(beside)}")
    if exhibit.effects != specimen.effects:
        wrong.append(f"{exhibit.effects} effects of its transactions, not {specimen.effects}")
    if not exhibit.sound:
        wrong.append("the file is corrupt")
    if not specimen.unwritable and any(event["what"] == "job.unwritable" for event in exhibit.events):
        wrong.append("an outcome could not be stored")
    stated = {event["text"] for event in exhibit.events if event["what"] == "stated" and not event["held"]}
    return wrong + sorted(stated) + _runs(exhibit)


def _runs(exhibit: Exhibit) -> list[str]:
    """No job beside a specimen runs more often than its processes have died."""
    runs = Counter(
        event["job_id"]
        for event in exhibit.events
        if event["what"] == "job.started" and event["queue"] not in ("hostile", "timed")
    )
    allowed = exhibit.lives + exhibit.specimen.disturbs
    return [f"job {job} ran {count} times" for job, count in runs.items() if count > allowed]


class Keeper:
    """Shows specimens one after the other, in the forks of one server."""

    def __init__(self, children: Children, folder: Path) -> None:
        self._children = children
        self._server = children.start("t09_zoo.py")
        self._folder = folder

    def show(self, specimen: Specimen, loop: str, number: int) -> Exhibit:
        """Let a specimen live, again and again, until everything is done or it has used up its lives."""
        exhibit, began = Exhibit(specimen, loop), time.monotonic()
        folder = self._folder / str(number)
        folder.mkdir()
        while exhibit.lives < LIVES and not exhibit.whole:
            exhibit.lives += 1
            events = self._live(exhibit, folder)
            exhibit.events += events
            exhibit.whole = any(event["what"] == "whole" for event in events)
        exhibit.seconds = time.monotonic() - began
        file = folder / "app.db"
        exhibit.sound = intact(file)
        with closing(sqlite3.connect(file)) as connection:
            exhibit.jobs = connection.execute(
                "SELECT id, queue, status FROM backlite_jobs"
                " UNION ALL SELECT id, queue, status FROM backlite_completed"
            ).fetchall()
            with suppress(sqlite3.OperationalError):  # no such table: none was written
                exhibit.effects = connection.execute("SELECT count(*) FROM effects").fetchone()[0]
        return exhibit

    def _live(self, exhibit: Exhibit, folder: Path) -> list[Event]:
        before = len(self._children.events)
        command = {"name": exhibit.specimen.name, "folder": str(folder), "loop": exhibit.loop}
        self._children.tell(self._server, **command)
        try:
            limit = HUNG if exhibit.specimen.hangs else LIFE
            self._children.until(lambda: self._over(before), limit, "life")
        except Hang:
            exhibit.hangs += 1
            born = [event["pid"] for event in self._children.events[before:] if event["what"] == "born"]
            with suppress(ProcessLookupError):
                os.kill(born[0], signal.SIGKILL)
            self._children.until(lambda: self._over(before), LIFE, "the end of what was killed")
        exhibit.statuses.append(self._children.events[-1].get("status", 0))
        return self._children.events[before:]

    def _over(self, before: int) -> bool:
        return any(event["what"] == "over" for event in self._children.events[before:])


def run(
    budget: Budget,
    *,
    names: Sequence[str] = tuple(ZOO),
    loops: Sequence[str] = ("asyncio", "uvloop"),
    keepers: int = 3,
    library: Path | None = None,
) -> Row:
    """Show every specimen under the first event loop, and as many as there is time for under the next."""
    row = Row("T9", "handlers that do what no handler should", unit="specimens")
    todo = deque((name, loop) for loop in loops for name in names)
    least = len(names)
    shown: list[Exhibit] = []
    trouble: list[str] = []

    def keep(folder: Path) -> None:
        folder.mkdir()
        with Children(library=library) as children:
            keeper = Keeper(children, folder)
            while todo and (len(shown) < least or budget.more(len(shown))):
                name, loop = todo.popleft()
                try:
                    shown.append(keeper.show(ZOO[name], loop, len(todo)))
                except Exception as error:  # the row goes on, and fails for this
                    trouble.append(f"{name} ({loop}): {type(error).__name__}: {error}")
                    return

    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=keep, args=[Path(folder, str(n))]) for n in range(keepers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _bars(row, shown, trouble, least)
    return row


def _bars(row: Row, shown: list[Exhibit], trouble: list[str], least: int) -> None:
    """Write down the figures, and require that every specimen has survived."""
    wrong = [(exhibit, judge(exhibit)) for exhibit in shown]
    row.trials = len(shown)
    row.hangs = sum(exhibit.hangs for exhibit in shown if not exhibit.specimen.hangs)
    row.corrupt = sum(not exhibit.sound for exhibit in shown)
    row.lost = sum(status == "pending" for exhibit in shown for _, _, status in exhibit.jobs)
    row.doubles = sum(len(_runs(exhibit)) for exhibit in shown)
    survived = sum(not found for _, found in wrong)
    killers = sum(exhibit.specimen.kills for exhibit in shown)
    row.notes.append(f"{least} in the zoo; shown {len(shown)}, survived {survived}")
    row.notes.append(f"{killers} of them kill their process, {sum(e.lives - 1 for e in shown)} restarts")
    for exhibit, found in wrong:
        row.require(f"{exhibit.specimen.name} ({exhibit.loop}): {'; '.join(found)}", not found)
    row.require(f"every specimen is shown: {trouble}", not trouble and len(shown) >= least)
