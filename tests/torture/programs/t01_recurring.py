"""Lives with schedules, killed at a system call.

Beside what the other lives note there is `scheduled`, `unscheduling` and `unscheduled` around a
`schedules.delete()`, and `now`, before a run that is beside those of its schedule.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from tests.torture.programs import t01_service
from tests.torture.programs.t01_lives import Application, Kept, drained, made_empty
from tests.torture.programs.t01_service import Served

INSTANTS, EVERY, RUNS = 4, 0.015, 4


def soon(count: int = INSTANTS) -> list[datetime]:
    """Return instants that are about to come; those that are over before they are stored are never due."""
    now = datetime.now(UTC)
    return [now + timedelta(seconds=0.02 + EVERY * number) for number in range(count)]


async def schedule(app: Application, name: str, **said: Any) -> None:
    """Make a schedule, and take note of it."""
    await app.client.schedule(name, Kept(f"run {name}"), missed="all", **said)
    app.note("scheduled", schedule=name)


async def recur(database: str, ledger: str) -> None:
    """Run schedules to their ends: at some instants, at intervals, one run at a time."""
    app = Served(database, ledger)
    async with app.client:
        await schedule(app, "at", at=soon())
        await schedule(app, "every", every=EVERY, max_runs=RUNS)
        await schedule(app, "alone", at=soon(1), overlap=False, jitter=0.01)
        await drained(database)


async def rearrange(database: str, ledger: str) -> None:
    """Do to schedules whatever can be done to them."""
    app = Served(database, ledger)
    schedules = app.client.schedules
    async with app.client:
        await schedule(app, "steered", every=EVERY)
        await schedule(app, "deleted", at=soon(2))
        await app.ends(1)
        await schedules.pause("steered", "deleted")
        app.note("now", schedule="steered")
        await schedules.run_now("steered")
        await schedules.edit("steered", every=2 * EVERY)
        await schedules.resume("steered")
        await app.ends(3)
        app.note("unscheduling", schedule="deleted")
        await schedules.delete("deleted")
        app.note("unscheduled", schedule="deleted")
        await schedules.pause("steered")


async def catch_up(database: str, ledger: str) -> None:
    """Begin where a process has died that had a schedule, make up for what was due, and declare another."""
    app = Served(database, ledger)
    app.client.schedule("declared", Kept("run declared"), every=EVERY, max_runs=2, missed="all")
    async with app.client:
        await drained(database)


async def recover(database: str, ledger: str, made: type[Served] = Served) -> None:
    """Begin after a death, and see schedules to their ends, but those that have none, and steps due later."""
    app = made(database, ledger, after=True)
    async with app.client:
        await app.client.schedules.pause("steered")
        await app.client.jobs.run_now(queue="steps", state="pending")
    await t01_service.recover(database, ledger, made)


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use."""
    await t01_service.rehearse(database, ledger)
    await recur(database, ledger)


# -- what some lives find -----------------------------------------------------------------------------


async def made_watched(database: str, ledger: str) -> None:
    """Die while a schedule is due."""
    await made_empty(database, ledger)
    app = Served(database, ledger)
    await app.client.start()
    await schedule(app, "left", every=EVERY, max_runs=3 * RUNS)
    await app.ends(2)
    os.kill(os.getpid(), signal.SIGKILL)
