"""Adding and steering workflows, and what their steps do, cancelled; and what must hold afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import aiosqlite

from backlite_async import AddOperation, Chain, JobStatus, WorkflowRun, chain, group
from tests.torture.programs.t06_cases import Locked
from tests.torture.programs.t06_control import Ordered
from tests.torture.programs.t06_steps import FEW, Ended
from tests.torture.programs.t06_work import Transaction
from tests.torture.programs.t06_world import EXTENSION, LIMIT, Mark, Step
from tests.torture.t01_flows import Flow, entangled, flows_in

__all__ = ["FLOWS"]

STEPS = 4
LAST, CALLBACK, FALLBACK, BESIDE = 3, 4, 5, 9
"""Parts beside the first, and the two side by side; and a job of no workflow that is added with it."""

ALL = [*range(STEPS)]

GUARDED = 1
"""The part whose transaction is cut."""

OF_CALL = """
SELECT DISTINCT workflow FROM (
    SELECT workflow, payload FROM backlite_jobs UNION ALL SELECT workflow, payload FROM backlite_completed
) WHERE workflow IS NOT NULL AND json_extract(CAST(payload AS TEXT), '$.call') = ?
"""


class Woven(Ordered):
    """A case of a workflow: one step, two side by side, one after both, and a callback."""

    async def prepare(self) -> None:
        await super().prepare()
        self.must: dict[int, tuple[str, set[int]]] = {}  # how a workflow must end, and which parts have run

    def flow(self) -> Chain:
        """Build the workflow of this call."""
        call, ends = self.number, [ALL, [*ALL, EXTENSION], [0, 2, FALLBACK], [*ALL, FALLBACK], []]
        return chain(
            Step(call, 0, [[]]),
            group(Step(call, 1, [[0]]), Step(call, 2, [[0]])),
            Step(call, LAST, [[0, 1, 2]]),
            if_failed=Step(call, FALLBACK, [[0]]),
            on_complete=Step(call, CALLBACK, ends),
        )

    async def saved(self) -> Chain:
        """Add the workflow of this call."""
        order = self.flow()
        await self.client.add(order).save()
        return order

    def stored(self) -> tuple[Flow, ...]:
        """Return the workflows of this call as another connection sees them."""
        with closing(sqlite3.connect(self.world.file, isolation_level=None)) as other:
            other.execute("BEGIN")  # what is read belongs together
            ids = other.execute(OF_CALL, (self.number,)).fetchall()
            return tuple(flow for (workflow_id,) in ids for flow in flows_in(other, workflow_id))

    def check_whole(self) -> tuple[Flow, ...]:
        """What is stored of this call is one workflow, or nothing; return it."""
        flows = self.stored()
        for what in entangled(flows):
            self.world.problem(what)
        self.world.require(len(flows) <= 1, f"{len(flows)} workflows of one call")
        rows = self.rows()
        self.world.require((rows >= STEPS) if flows else rows == 0, f"{len(flows)} workflows, {rows} jobs")
        return flows

    def promised(self, end: str = "succeeded", parts: set[int] | None = None) -> None:
        """Take note that the workflow of this call is there, and how it must end."""
        self.world.acknowledge(self.number)
        self.must[self.number] = end, {*ALL, CALLBACK} if parts is None else parts

    def at_last(self) -> None:
        """Every workflow that there is has ended as it must, and those of others are none."""
        calls = range(1, self.world.calls + 1)
        found = 0
        for self.number in calls:
            flows = self.check_whole()
            found += len(flows)
            self.world.lost += self.number in self.must and not flows
            end, parts = self.must.get(self.number, ("succeeded", {*ALL, CALLBACK} if flows else set()))
            self.world.require(bool(flows) or self.number not in self.must, f"workflow {self.number} is lost")
            ends = [flow.status for flow in flows]
            self.world.require(ends in ([], [end]), f"workflow {self.number} is {ends}, not {end}")
            ran = {part for call, part in self.world.ran if call == self.number}
            self.world.require(ran == parts, f"of workflow {self.number} ran {ran}, not {parts}")
        there = self.world.count("SELECT count(*) FROM backlite_workflows")
        self.world.require(there == found, f"{there} workflows are there, {found} of them with jobs")
        left = "SELECT count(*) FROM backlite_steps WHERE workflow NOT IN (SELECT id FROM backlite_workflows)"
        self.world.require(self.world.count(left) == 0, "nodes of no workflow")


class Weave(Woven):
    """A save of a workflow."""

    async def prepare(self) -> None:
        await super().prepare()
        self.next()
        await self.saved()  # later ones need not say what queues there are
        self.promised()

    async def before(self) -> None:
        self.next()

    async def call(self) -> Any:
        return await self.client.add(self.flow()).save()

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        flows = self.check_whole()
        if ended.how == "returned":
            self.world.require([*ended.value] == [flow.id for flow in flows], f"save() says {ended.value}")
            self.promised()
        if self.workers:
            self.world.require(await self.world.until_drained(), "steps do not start")


class WeaveAgain(Weave):
    """A save that is tried again after it was cut: it adds nothing twice."""

    async def before(self) -> None:
        await super().before()
        self.operation = self.client.add(self.flow())

    async def call(self) -> Any:
        return await self.operation.save()

    async def after(self, ended: Ended) -> None:
        if ended.how != "returned":
            ended = ended._replace(how="returned", value=await self.call())
        await super().after(ended)


class WeaveAndRun(Weave):
    """A save where steps run at once."""

    workers = 2


class WeaveLocked(Locked, Weave):
    """A save while the database is locked."""


class WeaveAmongOthers(Weave):
    """A save that shares its commit with others, which are not cut."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        others = []
        for _ in range(3):
            self.next()
            self.promised()
            others.append(asyncio.ensure_future(self.client.add(self.flow()).save()))
        await super().before()
        self.others = others

    async def after(self, ended: Ended) -> None:
        await asyncio.gather(*self.others)
        await super().after(ended)


class WeaveWithin(Weave):
    """A save of a workflow and a job in a transaction of the caller, who then commits."""

    workers = 2
    commits = True

    async def before(self) -> None:
        self.next()
        self.connection = await aiosqlite.connect(self.world.file, isolation_level=None)
        await self.connection.execute("BEGIN IMMEDIATE")

    def made(self) -> AddOperation:
        """Begin to add both."""
        return self.client.add(self.flow(), Mark(self.number, BESIDE)).tx(self.connection)

    async def call(self) -> Any:
        return await self.made().save()

    async def run(self, way: str, k: int) -> Ended | None:
        ended = await super().run(way, k)
        if ended is not None:  # at once: what was cut has nothing more to do in the caller's transaction
            self.whole = ended.how == "returned"
            await self.check_within()
        return ended

    async def check_within(self) -> None:
        """The caller's transaction goes on, and has all of it, or nothing."""
        self.world.require(self.connection.in_transaction, "the caller's transaction is over")
        found = []
        for table in ("workflows", "steps", "jobs"):
            query = f"SELECT count(*) FROM backlite_{table}"
            [[number]] = await self.connection.execute_fetchall(query)
            found.append(int(number) - self.world.count(query))
        wanted = [[1, STEPS, STEPS + 1]] if self.whole else [[0, 0, 0], [1, STEPS, STEPS + 1]]
        self.world.require(found in wanted, f"in it, workflows, nodes and jobs: {found}")
        self.whole = found == [1, STEPS, STEPS + 1]

    async def release(self) -> None:
        await self.connection.execute("COMMIT" if self.commits else "ROLLBACK")
        await self.connection.close()

    async def after(self, ended: Ended) -> None:
        flows = self.check_whole() if self.rows() else ()
        committed = self.whole and self.commits
        self.world.require(bool(flows) == committed, f"committed {self.whole}, found {len(flows)} workflows")
        if committed:
            self.promised()
            self.must[self.number][1].add(BESIDE)
        self.world.require(await self.world.until_drained(), "steps that were committed do not start")
        await self.world.settled()


class WeaveWithinAgain(WeaveWithin):
    """The same, saved again in the same transaction after it was cut."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        await super().before()
        self.operation = self.made()

    async def call(self) -> Any:
        return await self.operation.save()

    async def run(self, way: str, k: int) -> Ended | None:
        ended = await super().run(way, k)
        if ended is not None and ended.how == "cancelled":
            await self.call()
            self.whole = True
            await self.check_within()
        return ended


class WeaveWithinRolledBack(WeaveWithin):
    """The same, and the caller rolls back."""

    ways: tuple[str, ...] = FEW
    commits = False


class Ask(Woven):
    """A question for a workflow."""

    ways: tuple[str, ...] = FEW

    async def prepare(self) -> None:
        await super().prepare()
        self.next()
        self.order = await self.saved()
        self.promised()

    async def before(self) -> None:
        pass

    async def call(self) -> object:
        return await self.client.workflow(self.order.id)

    async def after(self, ended: Ended) -> None:
        again = await self.call()
        self.world.require(ended.how != "returned" or ended.value == again, f"{ended.value}, then {again}")
        [run] = again if isinstance(again, list) else [again]
        found = (run.id, run.status) if isinstance(run, WorkflowRun) else None
        self.world.require(found == (self.order.id, JobStatus.PENDING), f"says {again}")


class AskForAll(Ask):
    """A question for all workflows."""

    async def call(self) -> object:
        return [*await self.client.workflows.list()]


class Running(Woven):
    """A case of workflows whose steps run."""

    workers = 2

    async def held(self, part: int = 0) -> Chain:
        """Begin a workflow, and return once this part of it runs, which does not end by itself."""
        self.next()
        self.world.release.clear()
        self.world.started.clear()
        self.world.holding.add((self.number, part))
        order = await self.saved()
        async with asyncio.timeout(LIMIT):
            await self.world.started.wait()
        return order


class Wait(Running):
    """A wait for the end of a workflow that runs."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        self.order = await self.held(LAST)
        self.promised()

    async def call(self) -> Any:
        self.world.loop.call_later(0.003, self.world.release.set)
        return await self.client.wait(self.order.id)

    async def after(self, ended: Ended) -> None:
        self.world.release.set()
        again = await self.client.workflows.wait(self.order.id, LIMIT)
        runs: list[WorkflowRun] = [again, *([ended.value] if ended.how == "returned" else [])]
        for run in runs:
            ended_well = run.id == self.order.id and run.status is JobStatus.SUCCEEDED
            self.world.require(ended_well, f"wait() says {run}")
        self.world.require(await self.world.until_drained(), "the callback does not start")

    async def finish(self) -> None:
        await super().finish()
        left = self.world.count("SELECT count(*) FROM backlite_watches")
        self.world.require(left == 0, f"{left} waits are left")


class Cancel(Woven):
    """A cancellation of a workflow that is pending: all of it, or nothing."""

    async def before(self) -> None:
        self.next()
        self.order = await self.saved()
        self.ids = [step.id for step in self.order.steps]

    async def call(self) -> int:
        return await self.client.workflows.cancel(self.order.id)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.check_whole()
        found = set(self.statuses(self.ids))
        wanted = [{"cancelled"}] if ended.how == "returned" else [{"cancelled"}, {"pending"}]
        self.world.require(found in wanted, f"of steps that were cancelled some are {found}")
        self.world.require(ended.how != "returned" or ended.value == 1, f"cancel() says {ended.value}")
        if found != {"cancelled"}:
            again = await self.call()
            self.world.require(again == 1, f"cancel() again says {again}")
        self.promised("cancelled", {CALLBACK})


class CancelRunning(Running):
    """A cancellation of a workflow of which a step runs, by the id of the whole."""

    ways: tuple[str, ...] = FEW

    async def before(self) -> None:
        self.order = await self.held()

    async def call(self) -> int:
        return await self.client.cancel(self.order.id)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.check_whole()
        asked = "SELECT count(*) FROM backlite_workflows WHERE id = ? AND cancelled_at IS NOT NULL"
        if not self.world.count(asked, self.order.id):
            self.world.require(ended.how != "returned", "cancel() has returned, and nothing is stored")
            await self.call()
        self.world.require(await self.world.until_drained(), "a step that was cancelled does not end")
        self.promised("cancelled", {0, CALLBACK})
        await self.world.settled()


class Retry(Running):
    """A retry of a workflow that has failed: its step runs again, and then what was skipped."""

    async def before(self) -> None:
        self.next()
        self.failed = self.number, 1
        self.world.failing.add(self.failed)
        self.order = await self.saved()
        self.promised(parts={*ALL, CALLBACK, FALLBACK})
        self.world.require(await self.world.until_drained(), "a failing workflow does not end")
        self.world.require(self.ends() == ["failed"], f"a failing workflow is {self.ends()}")
        self.world.failing.discard(self.failed)
        self.world.cut[self.number, CALLBACK] += 1  # comes another time

    def ends(self) -> list[str | None]:
        """Return the status of the workflow, or of more than one."""
        return [flow.status for flow in self.stored()]

    async def call(self) -> int:
        return await self.client.workflows.retry(self.order.id)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        self.check_whole()
        self.world.require(ended.how != "returned" or ended.value == 1, f"retry() says {ended.value}")
        if self.ends() == ["failed"]:
            self.world.require(ended.how != "returned", "retry() has returned, and nothing is stored")
            await self.call()
        self.world.require(await self.world.until_drained(), "what was retried does not run")
        times = [self.world.ran[self.number, part] for part in (0, 1, 2, LAST, CALLBACK, FALLBACK)]
        self.world.require(times == [1, 2, 1, 1, 2, 1], f"its parts have run {times} times")


class Delete(Woven):
    """A deletion of a workflow: all of it, or nothing."""

    async def before(self) -> None:
        self.next()
        self.order = await self.saved()

    async def call(self) -> int:
        return await self.client.workflows.delete(self.order.id)

    async def after(self, ended: Ended) -> None:
        await self.flushed()
        flows = self.check_whole()
        self.world.require(ended.how != "returned" or ended.value == 1, f"delete() says {ended.value}")
        self.world.require(ended.how != "returned" or not flows, "delete() has returned, and it is there")
        if self.number % 2:  # the others run
            again = await self.call()
            self.world.require(again == len(flows), f"delete() again says {again}")
            self.world.require(not self.check_whole(), "a workflow cannot be deleted again")
        elif flows:
            self.promised()


class TransactionOfStep(Running, Transaction):
    """A transaction of a step: its effect, what it adds, its end and what follows from that are one."""

    ways: tuple[str, ...] = FEW
    whole = (1, 1, 1)

    async def prepare(self) -> None:
        await super().prepare()
        with closing(sqlite3.connect(self.world.file)) as other:
            other.execute("CREATE TABLE notes (call INTEGER, told INTEGER)")

    async def begin(self) -> None:
        self.world.extending.add((self.number, GUARDED))
        await self.saved()
        self.promised(parts={*ALL, CALLBACK, EXTENSION})

    def check(self, ended: Ended | None) -> None:
        super().check(ended)
        for what in entangled(self.stored()):
            self.world.problem(what)

    def found(self) -> tuple[int, int, int]:
        call, part = (f"json_extract(CAST(payload AS TEXT), '$.{name}') = ?" for name in ("call", "part"))
        ended = f"SELECT count(*) FROM backlite_completed WHERE {call} AND {part}"
        return (
            self.world.count("SELECT count(*) FROM notes WHERE call = ? AND told = 0", self.number),
            self.rows(part=EXTENSION),
            self.world.count(ended, self.number, GUARDED),
        )


FLOWS: dict[str, type[Woven]] = {
    "save flow": Weave,
    "save flow, again": WeaveAgain,
    "save flow, steps run": WeaveAndRun,
    "save flow, among others": WeaveAmongOthers,
    "save flow, locked": WeaveLocked,
    "tx save flow": WeaveWithin,
    "tx save flow, again": WeaveWithinAgain,
    "tx save flow, rolled back": WeaveWithinRolledBack,
    "workflow": Ask,
    "workflows": AskForAll,
    "wait, flow": Wait,
    "cancel flow": Cancel,
    "cancel flow, running": CancelRunning,
    "retry flow": Retry,
    "delete flow": Delete,
    "transaction, step": TransactionOfStep,
}
"""By name: the call, then the situation."""
