"""Lives with workflows, killed at a system call.

Beside what the other lives note there is `flow`, a workflow that was saved: its id, its name and the state
in which it must end ("any": it depends), and `mistold`, a step that was told of too few or too many
results.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

sys.path.append(str(Path(__file__).parents[3]))  # the checkout; the library may be another copy

from backlite_async import Discard, JobContext, QueueConfig, Workflow, chain, group
from tests.torture.programs import t01_recurring
from tests.torture.programs.t01_lives import KEEP, Kept, drained, made_empty
from tests.torture.programs.t01_service import Served

LATER = 3600.0
"""Seconds: what is then due has not run before it is cancelled, however busy the machine."""


class Step(Kept):
    """Tells what it was told. Plans beside those of others: extend; skipped must not run, perhaps may."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "steps", max_attempts=3, max_crashes=20, backoff=0.002, retention=KEEP
    )
    told: int = 0  # results that it must be told of


class Woven(Served):
    """An application that also runs workflows."""

    def __init__(self, database: str, ledger: str, *, workers: int = 4, after: bool = False) -> None:
        super().__init__(database, ledger, workers=workers, after=after)
        self.client.register(Step, self.step)

    async def step(self, task: Step, job: JobContext) -> str:
        """Do what the plan says."""
        results = await job.results(str) if job.workflow else {}
        if len(results) != task.told:
            self.note("mistold", job=job.id, name=task.name, told=len(results))
        if task.plan == "extend":
            await job.extend(Step(f"more of {task.name}", told=task.told + 1))
            await job.extend(chain(Step("and on", told=task.told + 1), Step("still", told=task.told + 2)))
        if task.plan == "spare" and job.attempt == 1:
            self.begin(task, job)
            self.again(job, "to be retried")
            raise Discard(task.name)
        await self.handle(task, job)
        return task.name

    async def weave(self, flow: Any, name: str, end: str) -> str:
        """Save a workflow, and take note of it."""
        [workflow_id] = await self.client.add(flow).save()
        self.note("flow", flow=workflow_id, name=name, end=end)
        return workflow_id


async def weave(database: str, ledger: str) -> None:
    """Run workflows of every form to their ends."""
    app = Woven(database, ledger)
    async with app.client:
        ids = [
            await app.weave(
                chain(
                    Step("one"),
                    Step("two", "raise", told=1),
                    Step("three", told=2),
                    on_success=Step("then", told=3),
                ),
                "chain",
                "succeeded",
            ),
            await app.weave(
                group(Step("left"), Step("right", "raise")).then(group(Step("a", told=2), Step("b", told=2))),
                "group",
                "succeeded",
            ),
            await app.weave(
                chain(
                    Step("first"),
                    Step("broken", "fail", told=1),
                    Step("never", "skipped"),
                    Step("nor this", "skipped"),
                    if_failed=Step("undo", told=1),
                    on_complete=Step("over", told=2),
                ),
                "failing",
                "failed",
            ),
            await app.weave(chain(Step("longer", "extend"), Step("end", told=1)), "extended", "succeeded"),
        ]
        for workflow_id in ids:
            await app.client.wait(workflow_id)
        await drained(database)


async def mend(database: str, ledger: str) -> None:
    """Retry what has failed, so that what was skipped runs after all; cancel a whole."""
    app = Woven(database, ledger)
    async with app.client:
        flow = Workflow()
        first = flow.add(Step("first"))
        fails = flow.add(Step("spare", "spare", told=1), after=[first], name="spare")
        flow.add(Step("after it", "perhaps", told=2), after=[fails])
        workflow_id = await app.weave(flow, "mended", "any")
        await app.client.wait(workflow_id)
        await app.client.jobs.retry(fails.id)
        await app.client.wait(workflow_id)
        late = chain(Step("later"), Step("never", told=1))
        [cancelled] = await app.client.add(late).wait(LATER).save()
        for step in late.steps:
            app.note("cancelling", job=step.id)
        await app.client.cancel(cancelled)
        for step in late.steps:
            app.note("cancelled", job=step.id)


async def go_on(database: str, ledger: str) -> None:
    """Begin where a process has died in the middle of workflows."""
    app = Woven(database, ledger)
    async with app.client:
        await drained(database)


async def recover(database: str, ledger: str) -> None:
    """Begin after a death, and be done with everything."""
    await t01_recurring.recover(database, ledger, Woven)


async def rehearse(database: str, ledger: str) -> None:
    """Use what lives use."""
    await t01_recurring.rehearse(database, ledger)
    await weave(database, ledger)


async def made_woven(database: str, ledger: str) -> None:
    """Die while steps run."""
    await made_empty(database, ledger)
    app = Woven(database, ledger)
    await app.client.start()
    await app.weave(
        group(chain(Step("a"), Step("b", told=1)), Step("c", "long")).then(Step("d", told=3)),
        "left",
        "succeeded",
    )
    await app.ends(2)
    os.kill(os.getpid(), signal.SIGKILL)
