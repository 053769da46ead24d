"""Owner files: the operating system tells who lives, the file tells what a dead one had started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from backlite_async._clock import from_millis
from backlite_async._job import Owner, OwnerInfo
from backlite_async.stores.sqlite import owners
from backlite_async.stores.sqlite.locks import SharedFile, shared_file, side_folder
from backlite_async.stores.sqlite.owners import OwnerFile, OwnerFolder

PROCESS = """
import os, sys
from backlite_async._job import Owner
from backlite_async.stores.sqlite.owners import OwnerFile
from backlite_async.stores.sqlite.locks import shared_file
from backlite_async.stores.sqlite.owners import OwnerFolder

path, folder, name = sys.argv[1:]
print("ready", flush=True)
for line in sys.stdin:
    what, *arguments = line.split()
    if what == "appear":
        about = {"host": "a-host", "started_at": 7000, "workers": 4}
        file = OwnerFile(folder, Owner(id=name, beat=2.5, slots=3, pid=os.getpid(), **about))
        print(file.appear(), flush=True)
    elif what == "unborn":
        file = OwnerFile(folder, Owner(id=name, beat=2.5, slots=3))
        print("made", flush=True)
    elif what in ("started", "ended"):
        getattr(file, what)(arguments[0], int(arguments[1]))
        print("done", flush=True)
    elif what == "fork":
        if (child := os.fork()) == 0:
            sys.stdin.read()
            os._exit(0)
        print(child, flush=True)
    elif what == "charge":
        dead = OwnerFolder(folder, shared_file(path, folder)).dead()
        print(*[owner.id for owner in dead], flush=True)
"""


class Process:
    """Another process with an owner of its own."""

    def __init__(self, path: str, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, path, side_folder(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, what: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "app.db"
    file.touch(0o600)
    os.mkdir(side_folder(str(file)))
    return str(file)


@pytest.fixture
def shared(path: str) -> Iterator[SharedFile]:
    found = shared_file(path, side_folder(path))
    yield found
    assert found.burying == set()


@pytest.fixture
def folder(path: str, shared: SharedFile) -> OwnerFolder:
    return OwnerFolder(side_folder(path), shared)


def names(path: str) -> list[str]:
    return sorted(name for name in os.listdir(side_folder(path)) if not name.endswith(".lock"))


def test_who_lives_is_not_dead(path: str, folder: OwnerFolder) -> None:
    """Its lock is held; how often it renews can be read."""
    with Process(path, "other") as other:
        assert other.tell("appear") == "True"
        assert folder.others() == ["other"]
        assert folder.dead() == []
        assert folder.beat("other") == 2.5
        assert folder.beat("nobody") is None


def test_what_a_dead_owner_had_started(path: str, folder: OwnerFolder) -> None:
    """Those that had started and not ended, by id and fence; and the file goes when it is buried."""
    long_id = "x" * 500
    with Process(path, "other") as other:
        other.tell("appear")
        for line in ("started a 1", "started b 1", "ended a 1", f"started {long_id} 2", "started c 3"):
            other.tell(line)
        other.tell("started d 4")  # no slot is left: it does not count, and nothing breaks
        other.tell("ended c 2")
    assert folder.beat("other") == 0.0
    [dead] = folder.dead()
    started = {name for name in [("a", 1), ("b", 1), ("b", 2), ("c", 3), ("d", 4)] if dead.started(*name)}
    assert started == {("b", 1), ("c", 3)}
    assert dead.started(long_id, 2)
    assert folder.dead() == []  # it is being released already, by ourselves
    assert folder.beat("other") == 0.0
    dead.bury()
    assert names(path) == []
    assert folder.beat("other") is None


def test_one_process_takes_charge(path: str, folder: OwnerFolder) -> None:
    """Others find nobody to release, and know that it is dead; after a death in charge the next one does."""
    with Process(path, "other") as other:
        other.tell("appear")
        other.tell("started a 1")
    with Process(path, "survivor") as survivor:
        assert survivor.tell("charge") == "other"
        assert folder.dead() == []
        assert folder.beat("other") == owners.RELEASE_LIMIT  # should the survivor be stopped now
    [dead] = folder.dead()
    assert dead.started("a", 1)
    dead.leave()
    [again] = folder.dead()
    again.bury()


def test_own_owners_are_never_looked_at(path: str, folder: OwnerFolder, shared: SharedFile) -> None:
    """Opening and closing one's own file would drop its lock, for everybody to see."""
    shared.owners.add("mine")
    file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
    assert file.appear()
    assert (folder.others(), folder.dead(), folder.beat("mine")) == ([], [], None)
    with Process(path, "other") as other:
        assert other.tell("charge") == ""
        file.close(keep=True)
        assert other.tell("charge") == "mine"
    shared.owners.discard("mine")
    for dead in folder.dead():
        dead.bury()


def test_an_orderly_end_leaves_nothing(path: str, shared: SharedFile) -> None:
    """Without claims there is nothing that others should look for."""
    shared.owners.add("mine")
    file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
    file.appear()
    file.close(keep=False)
    file.close(keep=False)
    shared.owners.discard("mine")
    assert names(path) == []


def test_a_forked_child_does_not_keep_an_owner_alive(path: str, folder: OwnerFolder) -> None:
    """The lock belongs to the process that died, whoever else has the file open."""
    with Process(path, "other") as other:
        other.tell("appear")
        child = int(other.tell("fork"))
    try:
        [dead] = folder.dead()
        dead.bury()
    finally:
        os.kill(child, 9)


def test_an_unborn_owner_is_swept_away(path: str, folder: OwnerFolder) -> None:
    """What died before it had its name had claimed nothing; its socket goes with it."""
    with Process(path, "other") as other:
        other.tell("unborn")
        socket = os.path.join(side_folder(path), owners.socket_name("other"))
        Path(socket).touch()
    assert folder.dead() == []
    assert names(path) == []


def test_whoever_was_swept_away_while_it_appeared_is_told(path: str, folder: OwnerFolder) -> None:
    """It must make its file anew: without one it would look dead."""
    with Process(path, "survivor") as survivor:
        file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
        survivor.tell("charge")  # sweeps, for the file is not locked yet
        assert not file.appear()
        file.close(keep=True)
        file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
        assert file.appear()
        file.close(keep=False)


def test_a_folder_that_was_removed_is_no_trouble(path: str, folder: OwnerFolder) -> None:
    """There is nobody in it."""
    for name in os.listdir(side_folder(path)):
        os.unlink(os.path.join(side_folder(path), name))
    os.rmdir(side_folder(path))
    assert (folder.others(), folder.dead(), folder.beat("x")) == ([], [], None)


def test_a_full_disk_is_an_error_of_the_start(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written in full before it is mapped; else a full disk would end the process later."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
    assert names(path) == []


def test_who_the_others_are(path: str, folder: OwnerFolder) -> None:
    """What they have written down is told, and whether they live; looking harms none of them."""
    processes = [Process(path, name) for name in ("other", "third", "survivor")]
    with processes[0] as other, processes[1] as third, processes[2] as survivor:
        assert (other.tell("appear"), third.tell("appear")) == ("True", "True")
        for _ in range(2):
            known = {info.id: info for info in folder.infos(9000)}
            assert known["other"] == OwnerInfo(
                id="other",
                host="a-host",
                pid=other.process.pid,
                started_at=from_millis(7000),
                workers=4,
                running=0,
                alive=True,
                seen_at=from_millis(9000),
            )
            assert survivor.tell("charge") == ""
        third.kill()
        gone = {info.id: info for info in folder.infos(9000)}["third"]
        assert (gone.alive, gone.seen_at, gone.host) == (False, None, "a-host")
        assert survivor.tell("charge") == "third"
        [found, buried] = sorted(folder.infos(9000), key=lambda info: info.id)
        assert (found.alive, buried.alive, buried.host, buried.workers) == (True, False, "a-host", 4)
        assert folder.beat("third") == owners.RELEASE_LIMIT


def test_a_look_takes_no_lock(path: str, folder: OwnerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks for the dead at that moment finds them."""
    with Process(path, "dead") as dead:
        dead.tell("appear")
    with Process(path, "survivor") as survivor:
        charged: list[str] = []
        close = os.close

        def looked_at(file: int) -> None:
            charged.append(survivor.tell("charge"))
            close(file)

        monkeypatch.setattr(os, "close", looked_at)
        folder.infos(0)
        monkeypatch.undo()
        assert charged == ["dead"]


def test_own_files_are_not_opened_to_tell_of_owners(
    path: str, folder: OwnerFolder, shared: SharedFile
) -> None:
    """Neither of our own owners nor of those that we release: closing them would drop the lock."""
    shared.owners.add("mine")
    file = OwnerFile(side_folder(path), Owner(id="mine", beat=1.0, slots=1))
    file.appear()
    with Process(path, "other") as other:
        other.tell("appear")
    [dead] = folder.dead()
    assert folder.infos(0) == []
    with Process(path, "survivor") as survivor:
        assert survivor.tell("charge") == ""
    dead.bury()
    file.close(keep=False)
    shared.owners.discard("mine")


@pytest.mark.parametrize("host", ["h" * 300, "\u00e4" * 40, ""])
def test_what_is_told_of_an_owner_fits(path: str, host: str) -> None:
    """Of a long name of the host as much as there is room for; the first job has a slot of its own."""
    owner = Owner(id="mine", beat=10 / 3, slots=1, host=host, pid=2**22, started_at=2**43, workers=10_000)
    file = OwnerFile(side_folder(path), owner)
    file.started("a", 1)
    content = (Path(side_folder(path)) / "mine.unborn").read_bytes()
    slot = content[: owners.SLOT]
    described = json.loads(slot.rstrip(b"\0"))
    assert described["beat"] == owner.beat
    assert (described["pid"], described["started_at"], described["workers"]) == (2**22, 2**43, 10_000)
    assert host.startswith(described["host"])
    assert len(described["host"]) >= min(len(host), 5)
    assert content[owners.SLOT + 1 :].startswith(b"1 a")
    file.close(keep=True)


@pytest.mark.parametrize("content", [b"", b"\0" * 128, b"{}", b"no JSON", b"[1]"])
def test_a_file_that_cannot_be_read_is_passed_over(path: str, folder: OwnerFolder, content: bytes) -> None:
    """Others are told all the same."""
    (Path(side_folder(path)) / "odd.owner").write_bytes(content)
    with Process(path, "other") as other:
        other.tell("appear")
        assert [info.id for info in folder.infos(0)] == ["other"]
