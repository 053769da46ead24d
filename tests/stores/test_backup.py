"""Backups: the database at one instant, whole or not there at all."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from backlite_async import DatabaseUnusable, InvalidValue, JobStatus
from backlite_async.stores.sqlite import backup as module

from .conftest import Opener
from .test_contract import claim_one, complete, new, record


async def test_a_copy_is_the_database_at_one_instant(open_store: Opener, path: str, tmp_path: Path) -> None:
    """What was added before is there, what runs is pending as if not claimed, what has ended has ended."""
    store = await open_store()
    await store.add([new("ended"), new("runs", due_at=5), new("waits", due_at=900)])
    ended = await claim_one(store, room=1)
    await store.finish([complete(ended)])
    await claim_one(store, room=1)
    application = sqlite3.connect(path)
    application.execute("CREATE TABLE own (a)")
    application.execute("INSERT INTO own VALUES (7)")
    application.commit()
    application.close()
    await store.backup(str(tmp_path / "copy.db"))
    await store.add([new("later")])
    copy = await open_store(str(tmp_path / "copy.db"))
    runs = await record(copy, "runs")
    assert (runs.status, runs.attempt, runs.owner) == (JobStatus.PENDING, 0, None)
    assert await copy.status("ended", now=0) is JobStatus.SUCCEEDED
    assert await copy.status("waits", now=0) is JobStatus.PENDING
    assert await copy.status("later", now=0) is JobStatus.NOT_FOUND
    assert (await claim_one(copy)).id == "runs"
    assert (await record(store, "runs")).status is JobStatus.RUNNING
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("SELECT a FROM own").fetchall() == [(7,)]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_what_is_to_be_cancelled_has_ended_in_the_copy(open_store: Opener, tmp_path: Path) -> None:
    """Nobody there is asked to end it, and it must not run again."""
    store = await open_store()
    await store.add([new("runs")])
    await claim_one(store)
    assert (await store.cancel(["runs"], now=5)).asked == ["runs"]
    await store.backup(str(tmp_path / "copy.db"))
    copy = await open_store(str(tmp_path / "copy.db"))
    assert await copy.status("runs", now=0) is JobStatus.NOT_FOUND
    assert await store.status("runs", now=0) is JobStatus.RUNNING


async def test_a_copy_is_one_file_with_the_mode_of_the_database(
    open_store: Opener, path: str, tmp_path: Path
) -> None:
    """It can be moved as it is, and nobody else may read it."""
    (tmp_path / "copies").mkdir()
    store = await open_store()
    os.chmod(path, 0o640)
    await store.backup(str(tmp_path / "copies" / "copy.db"))
    assert os.listdir(tmp_path / "copies") == ["copy.db"]
    assert os.stat(tmp_path / "copies" / "copy.db").st_mode & 0o777 == 0o640


async def test_nothing_is_ever_replaced(open_store: Opener, path: str, tmp_path: Path) -> None:
    """Neither another file, nor a link that leads nowhere, nor the database itself."""
    store = await open_store()
    (tmp_path / "there").write_text("precious")
    os.symlink("nowhere", tmp_path / "link")
    for target in ("there", "link", Path(path).name):
        with pytest.raises(InvalidValue, match="something is there"):
            await store.backup(str(tmp_path / target))
    with pytest.raises(InvalidValue, match="does not exist"):
        await store.backup(str(tmp_path / "no" / "copy.db"))
    assert (tmp_path / "there").read_text() == "precious"


async def test_a_file_that_appears_meanwhile_is_not_replaced(
    open_store: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two backups to one path the second one fails, at its end if need be."""
    store = await open_store()
    target = tmp_path / "copy.db"
    monkeypatch.setattr(module, "_sync", lambda _: target.write_text("another's"))
    with pytest.raises(DatabaseUnusable, match="cannot be written"):
        await store.backup(str(target))
    assert target.read_text() == "another's"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".unfinished")]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10, 20, 50])
async def test_a_cancelled_backup_leaves_nothing(
    open_store: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Or the whole copy, if it was that far; and no lock."""
    monkeypatch.setattr(module, "PAGES", 1)
    store = await open_store()
    await store.add([new(str(number), payload=b"1" * 500) for number in range(500)])
    task = asyncio.create_task(store.backup(str(tmp_path / "copy.db")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    left = [name for name in os.listdir(tmp_path) if "copy" in name]
    assert left in ([], ["copy.db"])
    if left:
        copy = await open_store(str(tmp_path / "copy.db"))
        assert await copy.status("499", now=0) is JobStatus.PENDING
    await store.add([new("after")])


async def test_writes_go_on_beside_a_backup(
    open_store: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that takes long neither waits for writers nor makes them wait, nor begins anew."""
    store = await open_store()
    await store.add([new(str(number), payload=b"1" * 500) for number in range(300)])
    added: list[str] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "PAGES", 5)

    def write_one() -> None:
        added.append(f"beside {len(added)}")
        asyncio.run_coroutine_threadsafe(store.add([new(added[-1])]), loop).result(10)

    class Watching(threading.Event):
        """Looked at after each step of the copying."""

        def is_set(self) -> bool:
            if len(added) < 5:
                write_one()
            return False

    copy_steps = module._copy

    def copy_slowly(raw: sqlite3.Connection, unfinished: str, target: str, _: threading.Event) -> None:
        copy_steps(raw, unfinished, target, Watching())

    monkeypatch.setattr(module, "_copy", copy_slowly)
    await store.backup(str(tmp_path / "copy.db"))
    assert len(added) == 5
    copy = await open_store(str(tmp_path / "copy.db"))
    assert await copy.status("299", now=0) is JobStatus.PENDING
    assert {await copy.status(name, now=0) for name in added} == {JobStatus.NOT_FOUND}
