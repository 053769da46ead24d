"""Orders to those who run jobs, and adds of unique jobs, cancelled; and what must hold afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import Any, ClassVar

import aiosqlite

from backlite_async import AddOperation, JobStatus
from tests.torture.programs.t06_cases import Case, Locked
from tests.torture.programs.t06_steps import FEW, Ended
from tests.torture.programs.t06_work import Open, SaveWithin
from tests.torture.programs.t06_world import LIMIT, SOON, Held, Mark, Turn

__all__ = ["CONTROL"]

JOBS = 3


class Ordered(Open):
    """A case whose jobs nobody runs before the end of the sweep, and each of which counts alone."""

    def new(self, kind: type[Mark | Turn] = Mark, part: int = 0) -> AddOperation:
        """Begin to add a job of this call, of one key."""
        return self.client.add(kind(self.number, part)).key(f"k{self.number}")

    def next(self) -> None:
        """Count a call."""
        self.world.calls += 1
        self.number = self.world.calls

    async def flushed(self) -> None:
        """Wait until what was cut has been written, if it will be: writes come in their order."""
        await self.client.resume("nothing")

    def rows(self, *, part: int | None = None) -> int:
        """Return how many jobs of this call another connection sees."""
        sql = (
            "SELECT count(*) FROM (SELECT payload FROM backlite_jobs UNION ALL SELECT payload FROM"
            " backlite_completed) WHERE json_extract(CAST(payload AS TEXT), '$.call') = ?"
        )
        if part is None:
            return self.world.count(sql, self.number)
        return self.world.count(
            f"{sql} AND json_extract(CAST(payload AS TEXT), '$.part') = ?", self.number, part
        )

    def statuses(self, ids: list[str]) -> list[str]:
        """Return the statuses of jobs as another connection sees them."""
        with closing(sqlite3.connect(self.world.file)) as other:
            sql = "SELECT status FROM backlite_jobs WHERE id = ?1 UNION ALL SELECT status FROM"
            return [
                other.execute(f"{sql} backlite_completed WHERE id = ?1", (one,)).fetchone()[0] for one in ids
            ]

    def let_in(self) -> int:
        """Return how many jobs of this call's key are let in."""
        sql = "SELECT count(*) FROM backlite_jobs WHERE key = ? AND due_at IS NOT NULL"
        return self.world.count(sql, f"k{self.number}")


class Cancel(Ordered):
    """A cancellation of jobs that are pending: all of them, or none."""

    async def before(self) -> None:
        self.next()
        self.ids = [*await self.client.add(*[Mark(self.number, part) for part in range(JOBS)]).save()]

    async def call(self) -> int:
        return await self.client.cancel(*self.ids)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        found = set(self.statuses(self.ids))
        wanted = [{"cancelled"}] if ended.how == "returned" else [{"cancelled"}, {"pending"}]
        self.world.require(found in wanted, f"of jobs that were cancelled some are {found}")
        self.world.require(ended.how != "returned" or ended.value == JOBS, f"cancel() says {ended.value}")
        again = await self.client.cancel(*self.ids)
        self.world.require(again == (0 if found == {"cancelled"} else JOBS), f"cancel() again says {again}")
        self.world.require(set(self.statuses(self.ids)) == {"cancelled"}, "a job cannot be cancelled again")
        self.world.cancelled.add(self.number)


class CancelTurn(Ordered):
    """A cancellation of the job of a key whose turn it is: then it is the next one's turn."""

    async def before(self) -> None:
        self.next()
        self.ids = [(await self.new(Turn, part).save())[0] for part in range(JOBS)]

    async def call(self) -> int:
        return await self.client.cancel(self.ids[0])

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        found = self.statuses(self.ids)
        whole = found[1:] == ["pending"] * 2 and found[0] in ("cancelled", "pending") and self.let_in() == 1
        self.world.require(whole, f"jobs of a key are {found}, {self.let_in()} of them are let in")
        self.world.require(found[0] == "cancelled" or ended.how != "returned", "not cancelled")
        await self.client.cancel(*self.ids)
        self.world.require(set(self.statuses(self.ids)) == {"cancelled"}, "a job cannot be cancelled again")


class CancelRunning(Ordered):
    """A cancellation of a job that runs."""

    workers = 2

    async def before(self) -> None:
        self.next()
        self.world.release.clear()
        self.world.started.clear()
        [self.id] = await self.client.add(Held(self.number)).save()
        async with asyncio.timeout(LIMIT):
            await self.world.started.wait()

    async def call(self) -> int:
        return await self.client.cancel(self.id)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        asked = "SELECT count(*) FROM backlite_jobs WHERE cancelled_at IS NULL"
        if self.world.count(asked):  # else it was stored, and whoever runs the job knows
            self.world.require(ended.how != "returned", "cancel() has returned, and nothing is stored")
            await self.client.cancel(self.id)
        await self.until_cancelled()
        self.world.require(self.world.ran[self.number, 0] == 1, "ran again after it was cancelled")
        await self.world.settled()

    async def until_cancelled(self) -> None:
        """Wait until the job has ended."""
        deadline = time.monotonic() + SOON
        while (found := await self.client.status(self.id)) is not JobStatus.CANCELLED:
            if time.monotonic() > deadline:
                self.world.problem(f"a running job that was cancelled is {found}")
                return
            await asyncio.sleep(0.001)


class Pause(Ordered):
    """A pause: it holds, or not, but nothing in between; and what is added meanwhile runs at its end."""

    workers = 2
    options: ClassVar[dict[str, bool]] = {}
    queue = "marks"

    async def before(self) -> None:
        self.next()

    async def call(self) -> None:
        await self.client.pause(self.queue, **self.options)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        if ended.how == "returned":
            self.world.require(self.paused(), "pause() has returned, and the queue is not paused")
            await self.new().save()
            await self.client.status("a round to the database")
            self.world.require(self.world.ran[self.number, 0] == 0, "a job of a paused queue has run")
        else:
            await self.new().save()
        self.world.acknowledge(self.number)
        await self.client.resume(self.queue, **self.options)
        self.world.require(await self.world.until_drained(), "jobs do not start when the pause is over")

    def paused(self) -> bool:
        """Return whether others see the queue paused."""
        sql = "SELECT count(*) FROM backlite_queues WHERE queue = ? AND paused_at IS NOT NULL"
        return self.world.count(sql, self.queue) == 1


class PauseHere(Pause):
    """A pause in this client alone."""

    ways: tuple[str, ...] = FEW
    options: ClassVar[dict[str, bool]] = {"here": True}

    def paused(self) -> bool:
        return True


class PauseWaiting(Pause):
    """A pause that waits until the last job of the queue has ended."""

    options: ClassVar[dict[str, bool]] = {"wait": True}
    queue = "held"

    async def before(self) -> None:
        await super().before()
        self.world.release.clear()
        self.world.started.clear()
        await self.client.add(Held(self.number)).save()
        self.world.acknowledge(self.number)
        async with asyncio.timeout(LIMIT):
            await self.world.started.wait()

    async def call(self) -> None:
        self.world.loop.call_later(0.003, self.world.release.set)
        await super().call()

    async def after(self, ended: Ended) -> None:
        if ended.how == "returned":
            self.world.require(self.paused(), "pause() has returned, and the queue is not paused")
            running = self.world.count("SELECT count(*) FROM backlite_jobs WHERE queue = 'held'")
            self.world.require(running == 0, "pause(wait=True) has returned, and a job runs")
        self.world.release.set()
        await self.client.resume(self.queue, here="here" in self.options)
        self.world.require(await self.world.until_drained(), "the job never ends")


class PauseHereWaiting(PauseWaiting):
    """A pause in this client alone, that waits."""

    ways: tuple[str, ...] = FEW
    options: ClassVar[dict[str, bool]] = {"here": True, "wait": True}

    def paused(self) -> bool:
        return True


class Resume(Pause):
    """The end of a pause."""

    async def before(self) -> None:
        await super().before()
        await self.client.pause(self.queue)
        await self.new().save()
        self.world.acknowledge(self.number)

    async def call(self) -> None:
        await self.client.resume(self.queue)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.world.require(not (ended.how == "returned" and self.paused()), "resume() has returned")
        if self.paused():
            self.world.require(self.world.ran[self.number, 0] == 0, "a job of a paused queue has run")
            await self.client.resume(self.queue)
        self.world.require(await self.world.until_drained(), "jobs do not start when the pause is over")


class List(Ordered):
    """A question for the queues."""

    async def before(self) -> None:
        self.next()

    async def call(self) -> Any:
        return await self.client.queues.list()

    async def after(self, ended: Ended) -> None:
        again = await self.client.queues.list()
        self.world.require([queue.name for queue in again] == [], f"queues.list() says {again}")
        self.world.require(ended.how != "returned" or ended.value == again, f"{ended.value}, then {again}")


class SaveUnique(Ordered):
    """A save of a job that there may be once: it is there and known, or not at all."""

    async def before(self) -> None:
        self.next()

    def operation(self, part: int = 0) -> AddOperation:
        """Begin to add the job."""
        return self.new(Mark, part).unique(f"u{self.number}")

    async def call(self) -> list[str]:
        return await self.operation().save()

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.check_one(ended)
        [job_id] = await self.operation(1).save()
        self.world.acknowledge(self.number)
        self.world.require(self.rows() == 1, f"{self.rows()} jobs of one unique key")
        self.world.require(
            ended.how != "returned" or ended.value == [job_id], f"{ended.value}, then {job_id}"
        )

    def check_one(self, ended: Ended) -> None:
        """The job and what is known of its key are both there, or neither."""
        found = (self.rows(), self.remembered())
        wanted = [(1, 1)] if ended.how == "returned" else [(0, 0), (1, 1)]
        self.world.require(found in wanted, f"jobs, and keys that are remembered: {found}")

    def remembered(self) -> int:
        """Return how often the key is known."""
        return self.world.count("SELECT count(*) FROM backlite_unique WHERE key = ?", f"u{self.number}")


class SaveUniqueLocked(Locked, SaveUnique):
    """The same while the database is locked."""


class SaveUniqueAgain(SaveUnique):
    """A save that is tried again after it was cut: it finds its own job, and adds nothing twice."""

    async def before(self) -> None:
        await super().before()
        self.again = self.operation()

    async def call(self) -> list[str]:
        return await self.again.save()

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            saved = await self.again.save()
            self.world.require(not saved.existing, "its own job was in its way")
            ended = ended._replace(how="returned", value=saved)
        await super().after(ended)


class SaveOwnId(SaveUniqueAgain):
    """A save of a job with an id of its own, a unique key and a key, tried again."""

    def operation(self, part: int = 0) -> AddOperation:
        return super().operation(part).id(f"own-{self.number}").meta({"n": self.number}).tags("a")


class SaveReplace(SaveUnique):
    """A save that replaces what a pending job is to do: wholly, or not at all."""

    async def before(self) -> None:
        await super().before()
        [self.id] = await super().operation(1).wait(LIMIT * 100).save()
        self.world.acknowledge(self.number)

    def operation(self, part: int = 0) -> AddOperation:
        return super().operation(part).unique(f"u{self.number}", None, "replace")

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.check_one(ended._replace(how="returned"))
        due = "SELECT count(*) FROM backlite_jobs WHERE id = ? AND scheduled_at <= created_at + 50000"
        found = (self.rows(part=0), self.world.count(due, self.id))
        wanted = [(1, 1)] if ended.how == "returned" else [(0, 0), (1, 1)]
        self.world.require(found in wanted, f"its task, its due time are replaced: {found}")
        await super().after(ended)


class SaveTurns(Ordered):
    """A save of jobs of one key, whose turns come one by one."""

    workers = 2

    async def before(self) -> None:
        self.next()

    async def call(self) -> list[str]:
        tasks = [Turn(self.number, part) for part in range(JOBS)]
        return await self.client.add(*tasks).key(f"k{self.number}").save()

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        rows = self.rows()
        wanted = [JOBS] if ended.how == "returned" else [0, JOBS]
        self.world.require(rows in wanted, f"{rows} of {JOBS} jobs are there")
        if ended.how == "returned":
            self.world.acknowledge(self.number)
        self.world.require(await self.world.until_drained(), "jobs wait for a turn that nobody has")


class Within(Ordered):
    """A save of a unique job in a transaction of the caller, which goes on, and is committed."""

    workers = 2

    async def prepare(self) -> None:
        await super().prepare()
        with closing(sqlite3.connect(self.world.file)) as other:
            other.execute("CREATE TABLE notes (call INTEGER, part INTEGER)")

    async def before(self) -> None:
        self.next()
        self.connection = await aiosqlite.connect(self.world.file, isolation_level=None)
        await self.connection.execute("BEGIN IMMEDIATE")
        await self.connection.execute("INSERT INTO notes VALUES (?, 0)", (self.number,))

    def operation(self, part: int = 0) -> AddOperation:
        """Begin to add the job."""
        return self.new(Mark, part).unique(f"u{self.number}").tx(self.connection)

    async def call(self) -> list[str]:
        return await self.operation().save()

    async def run(self, way: str, k: int) -> Ended | None:
        ended = await super().run(way, k)
        if ended is not None:  # at once: what was cut has nothing more to do in the caller's transaction
            self.found = await self.within()
            self.world.require(self.connection.in_transaction, "the caller's transaction is over")
            wanted = [(1, 1)] if ended.how == "returned" else [(0, 0), (1, 1)]
            self.world.require(self.found in wanted, f"in it, jobs and keys that are known: {self.found}")
        return ended

    async def within(self) -> tuple[int, int]:
        """Return how many jobs and known keys of this call the caller's transaction has."""
        call = "json_extract(CAST(payload AS TEXT), '$.call') = ?"
        found = []
        for sql, value in (
            (f"SELECT count(*) FROM backlite_jobs WHERE {call}", self.number),
            ("SELECT count(*) FROM backlite_unique WHERE key = ?", f"u{self.number}"),
        ):
            [[number]] = await self.connection.execute_fetchall(sql, (value,))
            found.append(int(number))
        return found[0], found[1]

    async def release(self) -> None:
        await self.connection.execute("INSERT INTO notes VALUES (?, 1)", (self.number,))
        await self.connection.execute("COMMIT")
        await self.connection.close()

    async def after(self, ended: Ended) -> None:
        notes = self.world.count("SELECT count(*) FROM notes WHERE call = ?", self.number)
        self.world.require(notes == 2, f"{notes} of the caller's own 2 rows are there")
        self.world.require(self.rows() == self.found[0], f"committed {self.rows()} jobs, not {self.found[0]}")
        if ended.how == "returned":
            self.world.acknowledge(self.number)
        self.world.require(await self.world.until_drained(), "jobs that were committed do not start")
        await self.world.settled()


class WithinAgain(Within):
    """The same, saved again in the same transaction after it was cut."""

    async def before(self) -> None:
        await super().before()
        self.again = self.operation()

    async def call(self) -> list[str]:
        return await self.again.save()

    async def run(self, way: str, k: int) -> Ended | None:
        ended = await super().run(way, k)
        if ended is not None and ended.how == "cancelled":
            saved = await self.again.save()
            self.world.require(not saved.existing, "its own job was in its way")
            self.found = await self.within()
            self.world.require(self.found == (1, 1), f"in it, jobs and keys that are known: {self.found}")
        return ended


class WithinUndone(Within):
    """The same, inside a savepoint of the caller, who goes back to it and then commits."""

    async def before(self) -> None:
        await super().before()
        await self.connection.execute("SAVEPOINT mine")

    async def release(self) -> None:
        await self.connection.execute("ROLLBACK TO mine")
        await self.connection.execute("RELEASE mine")
        self.found = await self.within()
        self.world.require(self.found == (0, 0), f"in spite of the caller's savepoint: {self.found}")
        await super().release()

    async def after(self, ended: Ended) -> None:
        await super().after(ended._replace(how="cancelled"))


class WithinReplace(Within):
    """A save in the caller's transaction that replaces what a pending job is to do."""

    async def before(self) -> None:
        self.next()
        [self.id] = await self.new(Mark, 1).unique(f"u{self.number}").wait(LIMIT * 100).save()
        self.world.calls -= 1
        await super().before()

    def operation(self, part: int = 0) -> AddOperation:
        return super().operation(part).unique(f"u{self.number}", None, "replace")

    async def run(self, way: str, k: int) -> Ended | None:
        ended = await super().run(way, k)
        self.world.require(self.found == (1, 1), f"in it, jobs and keys that are known: {self.found}")
        return ended

    async def after(self, ended: Ended) -> None:
        due = "SELECT count(*) FROM backlite_jobs WHERE id = ? AND scheduled_at > created_at + 50000"
        if self.world.count(due, self.id):
            self.world.require(ended.how != "returned", "a job that was replaced is as before")
            self.world.require(self.rows(part=1) == 1, "its task was replaced, and its due time was not")
            await self.client.cancel(self.id)
        await super().after(ended)


class WithinTurns(SaveWithin):
    """A save of jobs of one key in a transaction of the caller."""

    ways: tuple[str, ...] = FEW

    async def call(self) -> None:
        await self.client.add(*self.tasks).key("k").meta({"a": 1}).tags("t").tx(self.connection).save()
        self.returned = self.tasks[0].call


CONTROL: dict[str, type[Case]] = {
    "cancel": Cancel,
    "cancel, turn": CancelTurn,
    "cancel, running": CancelRunning,
    "pause": Pause,
    "pause here": PauseHere,
    "pause and wait": PauseWaiting,
    "pause here and wait": PauseHereWaiting,
    "resume": Resume,
    "queues": List,
    "save unique": SaveUnique,
    "save unique, locked": SaveUniqueLocked,
    "save unique, again": SaveUniqueAgain,
    "save own id, again": SaveOwnId,
    "save unique, replaces": SaveReplace,
    "save, turns": SaveTurns,
    "tx save unique": Within,
    "tx save unique, again": WithinAgain,
    "tx save unique, undone": WithinUndone,
    "tx save unique, replaces": WithinReplace,
    "tx save, key": WithinTurns,
}
"""By name: the call, then the situation."""
