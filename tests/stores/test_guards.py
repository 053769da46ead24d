"""What keeps the SQLite store right when something beside it goes wrong; each guard by itself."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from backlite_async import DatabaseUnavailable, DatabaseUnusable
from backlite_async._errors import DatabaseReplaced
from backlite_async._job import Owner
from backlite_async.stores.sqlite import callers, locks
from backlite_async.stores.sqlite.blocks import Block
from backlite_async.stores.sqlite.callers import TransactionWatch
from backlite_async.stores.sqlite.connection import Connection
from backlite_async.stores.sqlite.database import Database, is_busy
from backlite_async.stores.sqlite.doorbell import Doorbell
from backlite_async.stores.sqlite.locks import shared_file, side_folder
from backlite_async.stores.sqlite.owners import SLOT, OwnerFile, OwnerFolder
from backlite_async.stores.sqlite.store import SQLiteStore

from .conftest import Opener
from .test_contract import again, claim_one, complete, new

SECONDS = 10
"""How long anything here may take."""


def database(store: SQLiteStore) -> Database:
    return store._database


def owner(name: str) -> Owner:
    return Owner(id=name, beat=1.0, slots=4)


# -- transactions ----------------------------------------------------------------------------------


async def test_threads_of_a_process_write_one_after_the_other(open_store: Opener) -> None:
    """A renewal's thread does not get into the transaction that another thread has open."""
    file = database(await open_store())
    order: list[str] = []

    def inner() -> None:
        file.transact(lambda raw: order.append("second"))

    thread = threading.Thread(target=inner)

    def outer(raw: sqlite3.Connection) -> None:
        thread.start()
        thread.join(0.2)  # it would be over by now, or would have failed
        order.append("first")

    file.transact(outer)
    thread.join(SECONDS)
    assert order == ["first", "second"]


async def test_writer_waits_for_its_turn(
    path: str, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process has the turn, who wants to write holds the queue and waits."""
    monkeypatch.setattr(locks, "TURN_LIMIT", SECONDS)
    store = await open_store()
    turn, queue = (
        os.open(os.path.join(side_folder(path), name), os.O_RDWR) for name in ("turn.lock", "queue.lock")
    )
    fcntl.flock(turn, fcntl.LOCK_EX)
    adding = asyncio.create_task(store.add([new("a")]))
    try:
        while not adding.done():
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            fcntl.flock(queue, fcntl.LOCK_UN)
            await asyncio.sleep(0)
        assert not adding.done()
    finally:
        os.close(turn)
        os.close(queue)
        await asyncio.wait_for(adding, SECONDS)


def test_turn_is_given_back(path: str) -> None:
    """Whoever has written leaves the turn, and the queue, to the others."""
    Path(path).touch()
    folder = side_folder(path)
    os.mkdir(folder)
    turn = locks.WriteTurn(folder)
    with turn.taken(threading.Event()):
        assert free(folder) == {"turn.lock": False, "queue.lock": True}
    assert free(folder) == {"turn.lock": True, "queue.lock": True}


def free(folder: str) -> dict[str, bool]:
    """Return which locks nobody has."""
    found = {}
    for name in ("turn.lock", "queue.lock"):
        file = os.open(os.path.join(folder, name), os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found[name] = False
        else:
            found[name] = True
        finally:
            os.close(file)
    return found


async def test_error_that_is_no_lock_is_not_tried_again(open_store: Opener) -> None:
    """Only a locked database is tried until the busy timeout."""
    file = database(await open_store(busy_timeout=SECONDS))
    tries = []

    def run(raw: sqlite3.Connection) -> None:
        tries.append(1)
        raw.execute("SELECT * FROM no_such_table")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        file.transact(run)
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("code", "busy"), [(5, True), (6, True), (517, True), (262, True), (1, False), (10, False)]
)
def test_what_is_a_lock(code: int, busy: bool) -> None:
    """BUSY and LOCKED, with all that they are extended to, and nothing else."""
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    assert is_busy(error) is busy


async def test_full_database_is_unavailable(open_store: Opener) -> None:
    """Where there is no room the add fails as one that may work later, and does once there is room."""
    store = await open_store()
    raw = database(store).writer.raw
    pages = raw.execute("PRAGMA page_count").fetchall()[0][0]
    raw.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    large = new("a", payload=b'"' + b"x" * 100_000 + b'"')
    with pytest.raises(DatabaseUnavailable, match="full"):
        await store.add([large])
    raw.execute("PRAGMA max_page_count = 1000000").fetchall()
    await store.add([large])


class OtherMode:
    """A connection to a file system that takes no write-ahead log."""

    def execute(self, _: str) -> OtherMode:
        return self

    def fetchall(self) -> list[tuple[str]]:
        return [("delete",)]


def test_file_without_a_write_ahead_log_is_refused(path: str) -> None:
    """What depends on the log is not tried without it."""
    file = Database(path, synchronous="FULL", busy_timeout=0.0)
    with pytest.raises(DatabaseUnusable, match="cannot use write-ahead logging here"):
        file._prepare_writer(OtherMode())  # type: ignore[arg-type]


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Let files have the mode that they are made with."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
async def test_new_database_is_for_its_user_alone(path: str, open_store: Opener) -> None:
    """Jobs may hold anything: where we make the file, nobody else may read it, nor what lies beside it."""
    store = await open_store()
    await store.add([new("a")])
    for name in (path, path + "-wal", path + "-shm"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600, name


# -- group commits ---------------------------------------------------------------------------------


async def test_failed_add_wakes_nobody(open_store: Opener) -> None:
    """What was rolled back is no reason to look for jobs."""
    store = await open_store()
    called: list[int] = []
    store.listen(lambda: called.append(1))
    with pytest.raises(DatabaseUnusable):
        await store.add([new("a", max_attempts=0)])
    assert called == []
    await store.add([new("a")])
    assert called


async def test_writer_that_is_cancelled_before_it_begins_is_followed_by_another(open_store: Opener) -> None:
    """A cancellation of all tasks reaches the writer, too, but does not leave a write waiting for ever."""
    store = await open_store()
    adding = asyncio.create_task(store.add([new("a")]))
    await asyncio.sleep(0)
    (writer,) = [task for task in asyncio.all_tasks() if task.get_name() == "backlite writer"]
    writer.cancel()
    await asyncio.wait_for(adding, SECONDS)


async def test_cancelled_call_is_waited_for(path: str) -> None:
    """What the database's thread does cannot be undone by not listening: the caller stays until its end."""
    connection = await Connection.open(path)
    begun, go_on = threading.Event(), threading.Event()

    def run(raw: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(SECONDS)

    calling = asyncio.create_task(connection.call(run))
    await anyio.to_thread.run_sync(begun.wait, SECONDS)
    calling.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not calling.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(calling, SECONDS)
    await connection.close()


async def test_cancelled_call_asks_nothing_of_a_connection_that_is_being_closed(path: str) -> None:
    """It waits for its own answer, which comes all the same; no error of an idle question is left behind."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    connection = await Connection.open(path)
    begun, go_on = threading.Event(), threading.Event()

    def run(raw: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(SECONDS)

    calling = asyncio.create_task(connection.call(run))
    await anyio.to_thread.run_sync(begun.wait, SECONDS)
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not calling.done()
    go_on.set()
    ends = await asyncio.wait_for(asyncio.gather(calling, closing, return_exceptions=True), SECONDS)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 2
    gc.collect()
    assert told == []


# -- the callers' transactions ---------------------------------------------------------------------


async def test_end_of_a_transaction_is_told_once_its_connection_has_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite leaves a transaction before its rows can be seen; who is told earlier looks in vain."""
    asked, settled, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def settle(_: object) -> None:
        asked.set()
        await settled.wait()

    monkeypatch.setattr(callers, "in_transaction", lambda _: False)
    monkeypatch.setattr(callers, "settled", settle)
    watch = TransactionWatch(told.set, never)
    connection: Any = object()
    watch.watch(connection, "a")
    await asyncio.wait_for(asked.wait(), SECONDS)
    assert not told.is_set()
    settled.set()
    await asyncio.wait_for(told.wait(), SECONDS)
    await watch.close()


async def never(_: str) -> bool:
    return False


async def test_commit_that_is_followed_by_a_begin_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that seems to stay in its transaction is asked about by its rows."""
    told = asyncio.Event()

    async def visible(job_id: str) -> bool:
        return job_id == "a"

    async def settle(_: object) -> None:
        return

    monkeypatch.setattr(callers, "in_transaction", lambda _: True)
    monkeypatch.setattr(callers, "settled", settle)
    monkeypatch.setattr(callers, "ROW_LOOK", 0.0)
    watch = TransactionWatch(told.set, visible)
    connection: Any = object()
    watch.watch(connection, "a")
    await asyncio.wait_for(told.wait(), SECONDS)
    await watch.close()


# -- blocks of handlers ----------------------------------------------------------------------------


async def test_block_has_the_write_lock_from_its_beginning(path: str, open_store: Opener) -> None:
    """Whoever begins a block can write in it, whatever others do meanwhile."""
    block = await Block.begin(database(await open_store()), SECONDS)
    other = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    await block.close()
    other.execute("BEGIN IMMEDIATE")
    other.close()


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_block_is_as_durable_as_its_store(open_store: Opener, durability: str, level: int) -> None:
    """The commit of a block is synced like an add."""
    block = await Block.begin(database(await open_store(durability=durability)), SECONDS)
    assert list(await block.connection.execute_fetchall("PRAGMA synchronous")) == [(level,)]
    await block.close()


async def test_block_that_was_ended_commits_nothing(open_store: Opener) -> None:
    """A block whose time is up when it commits has not committed, which is no error of the database."""
    block = await Block.begin(database(await open_store()), 0.001)
    with anyio.fail_after(SECONDS):
        while not block.overdue:
            await asyncio.sleep(0.001)

    def complete(_: sqlite3.Connection) -> bool:
        raise AssertionError("there is nothing to complete")

    await block.commit(complete)
    assert not block.committed


async def test_block_commits_into_the_file_that_it_began_in(path: str, open_store: Opener) -> None:
    """Where the file was replaced under a block, its end is an error, and nothing is written anywhere."""
    block = await Block.begin(database(await open_store()), SECONDS)
    os.rename(path, path + ".old")
    Path(path).touch()
    with pytest.raises(DatabaseReplaced, match="replaced by another file"):
        await block.commit(lambda _: True)
    assert not block.committed


# -- doorbells -------------------------------------------------------------------------------------


async def test_doorbell_rests_when_it_cannot_accept(
    path: str, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without descriptors who calls is left waiting for a while; to try again at once is of no use."""
    await open_store()
    bell = Doorbell(side_folder(path), "mine", rung=ignore, gone=ignore)
    monkeypatch.setattr(bell, "_listener", NoDescriptors(bell._listener))
    bell._accept()
    assert not asyncio.get_running_loop().remove_reader(bell._listener)
    bell.detach()
    bell.close(keep=False)


def ignore() -> None:
    pass


class NoDescriptors:
    """A socket that has callers, and a process that has no descriptors left for them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def accept(self) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# -- owners ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [True, False])
async def test_owner_file_stays_while_claims_are_left(path: str, left: bool) -> None:
    """At an orderly end the file goes, unless others are to release what is left."""
    store = SQLiteStore(path, durability="full", busy_timeout=5.0)
    await store.open(install=True, owner=owner("mine"))
    await store.add([new("a")])
    job = await claim_one(store, owner="mine")
    if not left:
        await store.finish([complete(job)])
    await store.close()
    assert [file.name for file in Path(side_folder(path)).glob("*.owner")] == ["mine.owner"] * left


async def test_claims_of_others_keep_no_owner_file(path: str) -> None:
    """Only an owner's own claims are a reason to leave its file."""
    store = SQLiteStore(path, durability="full", busy_timeout=5.0)
    await store.open(install=True, owner=owner("mine"))
    await store.add([new("a")])
    await claim_one(store, owner="other")
    await store.close()
    assert list(Path(side_folder(path)).glob("*.owner")) == []


async def test_one_owner_leads_and_is_followed_by_another(path: str) -> None:
    """What is to be done once is done by one owner, and by another when that one has gone."""
    stores = [SQLiteStore(path, durability="full", busy_timeout=5.0) for _ in range(2)]
    for number, store in enumerate(stores):
        await store.open(install=True, owner=owner(f"owner-{number}"))
    first, second = stores
    assert (first.leads(), second.leads(), first.leads()) == (True, False, True)
    await first.close()
    assert second.leads()
    await second.close()


@pytest.fixture
def own_file(path: str) -> Iterator[OwnerFile]:
    """Return an owner file with room for one job."""
    Path(path).touch()
    os.mkdir(side_folder(path))
    file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
    assert file.appear()
    yield file
    file.close(keep=False)


def written_down(path: str) -> list[str]:
    """Return what another process would read of the owner: fences and ids."""
    content = (Path(side_folder(path)) / "mine.owner").read_bytes()
    slots = (content[begin : begin + SLOT] for begin in range(SLOT, len(content), SLOT))
    return [slot[1 : 1 + slot[0]].decode() for slot in slots if slot[0]]


def test_job_is_crossed_out_when_it_has_ended(path: str, own_file: OwnerFile) -> None:
    """Only what is under way counts a crash when the process dies."""
    own_file.started("a", 7)
    assert written_down(path) == ["7 a"]
    own_file.ended("a", 6)
    assert written_down(path) == ["7 a"]
    own_file.ended("a", 7)
    assert written_down(path) == []


def test_place_of_a_job_is_free_again(path: str, own_file: OwnerFile) -> None:
    """However many jobs there were, the next one is written down."""
    for fence in range(1, 4):
        own_file.started("a", fence)
        assert written_down(path) == [f"{fence} a"]
        own_file.ended("a", fence)


def test_owner_that_another_has_just_buried_is_not_ours(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was removed between its opening and its locking belongs to nobody any more."""
    Path(path).touch()
    folder = side_folder(path)
    os.mkdir(folder)
    file = Path(folder) / "gone.owner"
    file.touch()
    take = fcntl.lockf

    def late(descriptor: int, how: int) -> None:
        file.unlink()
        take(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    assert OwnerFolder(folder, shared_file(path, folder)).dead() == []


def test_owner_of_this_process_that_is_being_made_is_left_alone(path: str) -> None:
    """What another client of this process has just created is not swept away."""
    Path(path).touch()
    folder = side_folder(path)
    os.mkdir(folder)
    shared = shared_file(path, folder)
    shared.owners.add("mine")
    unborn = {name: Path(folder) / f"{name}.unborn" for name in ("mine", "others")}
    for file in unborn.values():
        file.touch()
    assert OwnerFolder(folder, shared).dead() == []
    assert [file.exists() for file in unborn.values()] == [True, False]


async def test_retry_is_told_to_the_others(path: str, open_store: Opener) -> None:
    """A job that goes back may be for somebody else in this process: all others hear of it."""
    first, second = await open_store(), await open_store()
    heard = asyncio.Event()
    await first.add([new("a")])
    job = await claim_one(first)
    await asyncio.sleep(0)
    second.listen(heard.set)
    await first.finish([again(job)])
    await asyncio.wait_for(heard.wait(), SECONDS)
