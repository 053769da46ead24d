"""The short form of T6, and proof that it can fail."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

import backlite_async

from .kit import Budget
from .t06_cancellation import run


def test_cancelled_at_some_steps_of_every_call() -> None:
    """Nothing is lost, doubled, held or left behind, whichever step a call is cancelled after."""
    row = run(Budget(seconds=6, least=80, most=60))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


class Break(NamedTuple):
    """A change to the library, the case that notices it, and what is said then."""

    case: str
    file: str
    old: str
    new: str
    told: str
    points: int = 20


BREAKS = {
    "a write lock that is left": Break(
        "save",
        "stores/sqlite/commits.py",
        "        return await (_insist(future) if insist else future)\n",
        """
        try:
            return await (_insist(future) if insist else future)
        except asyncio.CancelledError:
            self._database.writer.raw.execute("BEGIN IMMEDIATE")
            raise
""",
        "another connection does not get the write lock",
    ),
    "half an operation": Break(
        "tx save",
        "stores/sqlite/store.py",
        'await connection.execute_fetchall(statements()[name], {"jobs": rows.added(jobs)})\n',
        "for job in jobs:\n"
        "                one = rows.added([job])\n"
        '                await connection.execute_fetchall(statements()[name], {"jobs": one})\n',
        "of 3 jobs are there",
    ),
    "half a unique add": Break(
        "tx save unique",
        "stores/sqlite/unique.py",
        '        undone = asyncio.gather(run("rollback_to_savepoint"), run("release_savepoint"))\n'
        "        await asyncio.shield(undone)\n",
        "",
        "in it, jobs and keys that are known: (1, 0)",
    ),
    "a cancellation job by job": Break(
        "cancel",
        "_client.py",
        "        done = await self.open_store().cancel(ids, now=self.clock.now())\n",
        """
        for job_id in ids:
            done = await self.open_store().cancel([job_id], now=self.clock.now())
""",
        "of jobs that were cancelled some are",
    ),
    "a cancellation that goes through to the client": Break(
        "stop, job runs on",
        "_client.py",
        "            await asyncio.wait([running.task])\n        return",
        "            await running.task\n        return",
        "what ended in time is not completed",
    ),
    "a workflow in a transaction, half of it": Break(
        "tx save flow",
        "stores/sqlite/unique.py",
        '        undone = asyncio.gather(run("rollback_to_savepoint"), run("release_savepoint"))\n'
        "        await asyncio.shield(undone)\n",
        "",
        "in it, workflows, nodes and jobs: ",
        points=8,
    ),
    "a workflow that is cancelled step by step": Break(
        "cancel flow",
        "_workflows.py",
        "            return await self._client.cancel(workflow_id) > 0\n",
        """
            run = await self.get(workflow_id)
            done = [await self._client.cancel(step.id) for step in reversed(run.steps)]
            return sum(done) > 0
""",
        "of steps that were cancelled some are",
        points=8,
    ),
    "a schedule that is edited bit by bit": Break(
        "edit schedule",
        "_schedules.py",
        "        job = None if task is None else self._job(task)[0]\n",
        """
        if task is not None and changes:
            await self.edit(name, **changes)
        job = None if task is None else self._job(task)[0]
""",
        "a schedule that was changed is",
        points=8,
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_library_is_noticed(tmp_path: Path, name: str) -> None:
    """A copy of the library that breaks a promise makes the row fail, and it says which promise."""
    broken = BREAKS[name]
    copy = tmp_path / "backlite_async"
    shutil.copytree(Path(backlite_async.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / broken.file).read_text()
    assert text.count(broken.old) == 1
    (copy / broken.file).write_text(text.replace(broken.old, broken.new))
    for seed in range(5):  # a few points may all be beside the one that counts
        row = run(
            Budget(seconds=6, most=20 * broken.points), library=tmp_path, cases=[broken.case], seed=seed
        )
        if row.failures:
            break
    assert any(broken.told in failure for failure in row.failures), row.failures
