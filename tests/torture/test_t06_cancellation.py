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
    row = run(Budget(seconds=6, least=50, most=80))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


class Break(NamedTuple):
    """A change to the library, the case that notices it, and what is said then."""

    case: str
    file: str
    old: str
    new: str
    told: str


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
    row = run(Budget(seconds=6, most=400), library=tmp_path, cases=[broken.case])
    assert any(broken.told in failure for failure in row.failures), row.failures
