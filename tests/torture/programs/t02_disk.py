"""A record of system calls, and the disk that a power loss may have left at any point of it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512
DATABASE, LOG, JOURNAL, FOLDER = "", "-wal", "-journal", "/"
FILES = (DATABASE, LOG, JOURNAL)
MODES = ("kept", "lost", "cut", "mixed", "torn")
"""What happens to unsynced changes: all kept, all lost, only the earlier ones, any, any sectors."""

TRACED = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,"
    "fsync,fdatasync,sync_file_range,unlink,unlinkat,rename,renameat,renameat2"
)


@dataclass(slots=True)
class Event:
    """Something that happened to a file, at the end of its system call."""

    what: str  # "create" "unlink" "write" "truncate" "sync" "note"
    file: str  # what its name adds to the database's; FOLDER
    at: float  # wall clock
    offset: int = 0  # truncate: the new size; sync: the number of events before the call began
    data: bytes = b""
    words: tuple[Any, ...] = ()  # of a note


class Unaccounted(Exception):
    """A system call that this model of a disk does not know."""


def recorded(log: Path, database: str, notes: str) -> list[Event]:
    """Read the output of `strace -f -y -ttt -xx -s 1000000 -e trace=TRACED`."""
    names = {_escaped(database + suffix): suffix for suffix in FILES}
    names[_escaped(str(Path(database).parent))] = FOLDER
    names[_escaped(notes)] = "notes"
    events: list[Event] = []
    begun: dict[str, tuple[str, int]] = {}
    with log.open(encoding="ascii") as lines:
        for line in lines:
            process, at, call = line.rstrip("\n").split(maxsplit=2)
            began = len(events)
            if call.endswith("<unfinished ...>"):
                begun[process] = (call.removesuffix("<unfinished ...>"), began)
                continue
            if call.startswith("<... "):
                head, began = begun.pop(process)
                call = head + call.split(" resumed>", 1)[1]
            event = _event(call, float(at), began, names)
            if event is not None:
                events.append(event)
    return events


_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_FILE = re.compile(r"\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def _escaped(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _event(call: str, at: float, began: int, names: dict[str, str]) -> Event | None:
    """Return what a call did to one of our files; None if it did nothing."""
    parts = _CALL.match(call)
    if parts is None or int(parts[3]) < 0:
        return None
    name, arguments, answer = parts[1], parts[2], int(parts[3])
    if name in ("openat", "open", "creat", "unlink", "unlinkat"):
        text = _TEXT.search(arguments)
        file = names.get(text[1]) if text else None
        if file not in FILES:
            return None
        if "O_TRUNC" in arguments or name == "creat":
            raise Unaccounted(call[:200])
        if name.startswith("unlink"):
            return Event("unlink", file, at)
        return Event("create", file, at) if "O_CREAT" in arguments else None
    opened = _FILE.match(arguments)
    if opened is None or opened[1] not in names:
        if any(f'"{path}"' in arguments for path in names):
            raise Unaccounted(call[:200])
        return None
    return _change(name, arguments, answer, Event("", names[opened[1]], at, began))


def _change(name: str, arguments: str, answer: int, event: Event) -> Event:
    """Complete the event of a call on an open file."""
    if name in ("fsync", "fdatasync"):
        event.what = "sync"
        return event
    if name == "ftruncate":
        event.what, event.offset = "truncate", int(arguments.rsplit(",", 1)[1])
        return event
    text = _TEXT.search(arguments)
    if text is None or event.file == FOLDER or name not in ("write", "pwrite64"):
        raise Unaccounted(f"{name}({arguments[:200]})")
    event.data = _bytes(text[1])[:answer]
    if event.file == "notes" and name == "write":
        event.what, event.words = "note", tuple(json.loads(event.data))
    elif name == "pwrite64":
        event.what, event.offset = "write", int(arguments.rsplit(",", 1)[1])
    else:
        raise Unaccounted(f"{name}({arguments[:200]})")
    return event


@dataclass(slots=True)
class File:
    """What of a file is on disk for good, and the changes since, each with the number of its event."""

    stored: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Event]] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """Store the changes that had been made before the sync began."""
        for number, event in self.pending:
            if number < before:
                change(self.stored, event.what, event.offset, event.data)
        self.pending = [one for one in self.pending if one[0] >= before]

    def drawn(self, keep: Callable[[int], bool], torn: bool) -> bytearray:
        """Return what a power loss may have left."""
        content = bytearray(self.stored)
        for number, event in self.pending:
            if torn and event.what == "write":
                for offset, data in sectors(event.offset, event.data):
                    if keep(number):
                        change(content, "write", offset, data)
            elif keep(number):
                change(content, event.what, event.offset, event.data)
        return content


def change(content: bytearray, what: str, offset: int, data: bytes) -> None:
    """Write into a file's content, or change its size; what lies between is zero."""
    size = offset + len(data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if what == "write":
        content[offset:size] = data
    else:
        del content[size:]


def sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the parts of a write that a disk writes at once."""
    at = 0
    while at < len(data):
        length = SECTOR - (offset + at) % SECTOR
        yield offset + at, data[at : at + length]
        at += length


class Disk:
    """The files as processes see them, and what of it is on disk.

    As strict as POSIX is: a name is there, or gone, for good only when its folder has been synced.
    """

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self._stored: dict[str, File] = {}
        self._moves: list[tuple[int, str, File | None]] = []
        self._number = 0

    @property
    def settled(self) -> bool:
        """Whether nothing is left to lose."""
        return not self._moves and not any(file.pending for file in self.names.values())

    def apply(self, event: Event) -> None:
        """Follow the processes by one event."""
        number, self._number = self._number, self._number + 1
        if event.what == "create":
            if event.file not in self.names:
                file = self.names[event.file] = File()
                self._moves.append((number, event.file, file))
        elif event.what == "unlink":
            del self.names[event.file]
            self._moves.append((number, event.file, None))
        elif event.what == "sync" and event.file == FOLDER:
            for _, name, moved in (move for move in self._moves if move[0] < event.offset):
                _move(self._stored, name, moved)
            self._moves = [move for move in self._moves if move[0] >= event.offset]
        elif event.what == "sync":
            self.names[event.file].sync(event.offset)
        elif event.what != "note":
            self.names[event.file].pending.append((number, event))

    def drawn(self, mode: str, rng: random.Random) -> dict[str, bytearray]:
        """Return the files that a power loss may have left: one of very many draws."""
        if mode == "cut":
            last = rng.choice(self._open_numbers() or [0])
            keep: Callable[[int], bool] = last.__gt__
        elif mode in ("kept", "lost"):
            answer = mode == "kept"
            keep = lambda number: answer  # noqa: E731 - shorter than a function for each
        else:
            share = rng.choice((0.05, 0.25, 0.5, 0.75, 0.95))
            keep = lambda number: rng.random() < share  # noqa: E731
        names = dict(self._stored)
        for number, name, file in self._moves:
            if keep(number):
                _move(names, name, file)
        return {name: file.drawn(keep, mode == "torn") for name, file in names.items()}

    def _open_numbers(self) -> list[int]:
        """Return the numbers of all changes that are not on disk for good."""
        found = [number for number, _, _ in self._moves]
        for file in self.names.values():
            found += [number for number, _ in file.pending]
        return sorted(found)


def _move(names: dict[str, File], name: str, file: File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file
