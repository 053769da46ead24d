"""T2 in seconds, and that it can fail."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .kit import Budget, Missing
from .programs.t02_disk import DATABASE, FOLDER, LOG, MODES, Disk, Event, Unaccounted, recorded
from .programs.t02_images import Checker, Count, Order, events_of
from .programs.t02_judge import Facts, Found, judge
from .t02_power_loss import memory, record, require_tracing, run


@pytest.fixture(scope="module")
def client() -> list[Event]:
    """What happened to the files of a small client."""
    try:
        require_tracing()
    except Missing as error:
        pytest.skip(str(error))
    plan = {"role": "alone", "checkpoint": 40, "adders": 2, "operations": 8}
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        return events_of(record(Path(folder, "record"), plan))


def checked(events: Sequence[Event], images: int = 150) -> Count:
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        return Checker(Order(folder, images), [events]).run()


def test_no_power_loss_loses_what_was_acknowledged() -> None:
    """Whatever unsynced changes a power loss leaves, everything acknowledged is there."""
    try:
        row = run(Budget(seconds=0, least=250))
    except Missing as error:
        pytest.skip(str(error))
    assert row.failures == []
    assert (row.lost, row.corrupt, row.hangs) == (0, 0, 0)
    assert row.trials >= 250


def test_images_of_an_honest_client_are_right(client: list[Event]) -> None:
    """Nothing is held against a client whose syncs count."""
    count = checked(client)
    assert count.wrong == {}
    assert set(count.modes) == set(MODES)


@pytest.mark.parametrize(
    ("without", "wrong"),
    [
        pytest.param(LOG, {"lost", "undone"}, id="no sync of the log"),
        pytest.param(DATABASE, {"corrupt"}, id="no sync of the database before its log is overwritten"),
        pytest.param(FOLDER, {"lost"}, id="no sync of the folder"),
    ],
)
def test_a_missing_sync_is_noticed(client: list[Event], without: str, wrong: set[str]) -> None:
    """A client that leaves out a kind of sync loses or breaks something."""
    careless = [event for event in client if event.what != "sync" or event.file != without]
    renumbered = [
        Event("sync", event.file, event.at, number) if event.what == "sync" else event
        for number, event in enumerate(careless)
    ]
    assert checked(renumbered, 400).wrong.keys() >= wrong


def first(client: list[Event], holds: Callable[[tuple[Any, ...]], bool]) -> tuple[int, Event]:
    return next((n, event) for n, event in enumerate(client) if event.what == "note" and holds(event.words))


def told(client: list[Event], at: int, *words: Any) -> list[Event]:
    """Return the same history with a false note in it."""
    note = Event("note", "notes", client[at].at, words=words)
    later = [
        Event("sync", event.file, event.at, event.offset + 1) if event.what == "sync" else event
        for event in client[at:]
    ]
    return [*client[:at], note, *later]


def test_a_save_that_was_never_made_is_noticed(client: list[Event]) -> None:
    """An acknowledgement without its job counts as a lost save in every later image."""
    false = told(client, len(client) // 4, "ack", "plain-x-0", [["plain-x-0/0/1/kept", "an id"]])
    assert checked(false).wrong["lost"] > 50


def test_an_early_word_of_a_completion_is_noticed(client: list[Event]) -> None:
    """A completion told before it is stored is undone by some power loss."""
    at, event = first(client, lambda words: words[0] == "end" and words[1].endswith("/kept"))
    false = told(client, at, "done", event.words[1], "succeeded")[: at + 30]
    assert checked(false).wrong.get("undone", 0) > 0


ROW = ("an id", "pending", 1)
SEAL = "order-plain-x-0:0:1:sealed"
SEALED = {f"{SEAL}/0/1/kept": ROW}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (Found(live={"plain-x-0/0/1/kept": ROW}), None),
        (Found(live={"plain-x-0/0/2/kept": ROW}), "half"),
        (Found(live={"plain-x-0/0/2/kept": ROW}, completed={"plain-x-0/1/2/kept": ROW}), None),
        (Found(live={"plain-x-0/0/1/kept": ROW}, completed={"plain-x-0/0/1/kept": ROW}), "half"),
        (Found(live={"order-x-0/0/1/kept": ROW}, orders={"order-x-0"}), None),
        (Found(live={"order-x-0/0/1/kept": ROW}), "half"),
        (Found(orders={"order-x-0"}), "half"),
        (Found(live={"never-x-0/0/1/kept": ROW}, orders={"never-x-0"}), "half"),
        (Found(orders={"never-x-0"}), "half"),
        (Found(live={"plain-x-0/0/1/sealed": ROW}), None),
        (Found(completed={"plain-x-0/0/1/sealed": ROW}), "half"),
        (Found(live={"plain-x-0/0/1/sealed": ROW, **SEALED}, orders={SEAL}), "half"),
        (
            Found(completed={"plain-x-0/0/1/sealed": ROW, **SEALED}, orders={SEAL}),
            None,
        ),
        (Found(corrupt=["integrity: no"]), "corrupt"),
    ],
)
def test_half_an_operation_is_noticed(found: Found, wrong: str | None) -> None:
    """All jobs of an operation are there, with its transaction's other row; or none, and no such row."""
    assert list(judge(Facts(), found, 0.0)) == ([] if wrong is None else [wrong])


def facts(*notes: tuple[Any, ...]) -> Facts:
    known = Facts()
    for at, note in enumerate(notes):
        known.learn(note, float(at))
    return known


def saved(key: str) -> tuple[Any, ...]:
    return ("ack", key.split("/", maxsplit=1)[0], [[key, "an id"]])


@pytest.mark.parametrize("kind", ["quick", "kept", "flaky", "doomed", "brief", "sleepy"])
def test_what_may_be_gone(kind: str) -> None:
    """Nothing need be left of a job that has ended, by its retention; everything, of one that has not."""
    key = f"plain-x-0/0/1/{kind}"
    kept = kind in ("kept", "flaky", "doomed")
    assert "lost" in judge(facts(saved(key)), Found(), 9.0)
    assert ("lost" in judge(facts(saved(key), ("end", key)), Found(), 9.0)) == kept
    assert ("lost" in judge(facts(saved(key), ("end", key)), Found(), 1.1)) == (kept or kind == "brief")


def test_what_was_told_stays() -> None:
    """A completion that was told does not run again or change; a retry's attempt is not forgotten."""
    key = "plain-x-0/0/1/kept"
    done = facts(saved(key), ("end", key), ("done", key, "succeeded"))
    assert judge(done, Found(completed={key: ("an id", "succeeded", 1)}), 9.0) == {}
    assert "undone" in judge(done, Found(live={key: ("an id", "running", 1)}), 9.0)
    assert "undone" in judge(done, Found(completed={key: ("an id", "failed", 1)}), 9.0)
    assert "lost" in judge(done, Found(completed={key: ("another", "succeeded", 1)}), 9.0)
    again = facts(saved(key), ("again", key, 2))
    assert judge(again, Found(live={key: ("an id", "pending", 2)}), 9.0) == {}
    assert "undone" in judge(again, Found(live={key: ("an id", "pending", 1)}), 9.0)


def test_what_was_asked_for_stays() -> None:
    """A cancellation, a pause and what was replaced."""
    key, again = "once-x-0/0/1/once", "once-x-0:again/0/1/once"
    row, known = {key: ROW}, {"u": "an id"}
    asked = facts(saved(key), ("asked", key))
    assert judge(asked, Found(live=row, asked={key}, unique=known), 9.0) == {}
    assert judge(asked, Found(completed={key: ("an id", "cancelled", 1)}), 9.0) == {}
    assert "undone" in judge(asked, Found(live=row, unique=known), 9.0)
    replacing = facts(saved(key), ("replacing", key, again))
    for found in (row, {again: ROW}):
        assert judge(replacing, Found(live=found, unique=known), 9.0) == {}
    assert "lost" in judge(replacing, Found(unique=known), 9.0)
    assert "half" in judge(replacing, Found(live={key: ROW, again: ROW}, unique=known), 9.0)
    assert "half" in judge(replacing, Found(live=row), 9.0)
    replaced = facts(saved(key), ("replacing", key, again), ("replaced", key, again))
    assert judge(replaced, Found(live={again: ROW}, unique=known), 9.0) == {}
    assert "lost" in judge(replaced, Found(live=row, unique=known), 9.0)


@pytest.mark.parametrize(
    ("states", "paused", "wrong"),
    [
        (["pausing"], False, False),
        (["pausing", "paused"], True, False),
        (["pausing", "paused"], False, True),
        (["paused", "resuming"], True, False),
        (["paused", "resuming", "resumed"], True, True),
        (["paused", "resuming", "resumed"], False, False),
    ],
)
def test_a_pause_stays(states: list[str], paused: bool, wrong: bool) -> None:
    known = facts(*((state, "q") for state in states))
    assert ("undone" in judge(known, Found(paused={"q"} if paused else set()), 9.0)) == wrong


def changes(*events: tuple[str, str, int, bytes]) -> Disk:
    disk = Disk()
    for what, file, offset, data in events:
        disk.apply(Event(what, file, 0.0, offset, data))
    return disk


def draws(disk: Disk, mode: str) -> set[tuple[tuple[str, bytes], ...]]:
    rng = random.Random(1)
    return {
        tuple(sorted((name, bytes(content)) for name, content in disk.drawn(mode, rng).items()))
        for _ in range(300)
    }


NEW = [("create", DATABASE, 0, b""), ("sync", FOLDER, 1, b"")]


def test_a_disk_keeps_what_was_synced() -> None:
    """A write that ended before a sync began is in every image; one that came later need not be."""
    disk = changes(
        *NEW, ("write", DATABASE, 0, b"a"), ("write", DATABASE, 1, b"b"), ("sync", DATABASE, 3, b"")
    )
    assert draws(disk, "lost") == {(("", b"a"),)}
    assert draws(disk, "kept") == {(("", b"ab"),)}
    assert draws(disk, "mixed") == {(("", b"a"),), (("", b"ab"),)}


def test_a_disk_reorders_what_was_not_synced() -> None:
    """Of unsynced writes any may be missing; in the mode "cut", only the last ones."""
    disk = changes(*NEW, ("write", DATABASE, 0, b"a"), ("write", DATABASE, 1, b"b"))
    assert draws(disk, "cut") == {(("", b""),), (("", b"a"),)}
    assert draws(disk, "mixed") == {(("", b""),), (("", b"a"),), (("", b"\0b"),), (("", b"ab"),)}


def test_a_disk_tears_writes_at_sectors() -> None:
    """Each sector of a write is there or not, by its place in the file."""
    disk = changes(*NEW, ("write", DATABASE, 510, b"abcd"))
    assert draws(disk, "mixed") == {(("", b""),), (("", bytes(510) + b"abcd"),)}
    parts = [b"", bytes(510) + b"ab", bytes(512) + b"cd", bytes(510) + b"abcd"]
    assert draws(disk, "torn") == {(("", part),) for part in parts}


def test_a_disk_forgets_names_that_were_not_synced() -> None:
    """A file whose folder was not synced may be gone, or still be there after its removal."""
    disk = changes(("create", DATABASE, 0, b""), ("write", DATABASE, 0, b"a"), ("sync", DATABASE, 2, b""))
    assert draws(disk, "lost") == {()}
    assert draws(disk, "mixed") == {(), (("", b"a"),)}
    disk = changes(*NEW, ("unlink", DATABASE, 0, b""))
    assert draws(disk, "mixed") == {(), (("", b""),)}


def test_a_disk_may_lose_a_truncation() -> None:
    """A new size that was not synced may be undone."""
    stored = [("write", DATABASE, 0, b"abc"), ("sync", DATABASE, 3, b"")]
    disk = changes(*NEW, *stored, ("truncate", DATABASE, 1, b""))
    assert draws(disk, "mixed") == {(("", b"abc"),), (("", b"a"),)}


def log_of(folder: Path, *lines: str) -> list[Event]:
    def escaped(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    log = folder / "log"
    text = "\n".join(f"7 {number}.5 {line}" for number, line in enumerate(lines)) + "\n"
    for name in ("/x/app.db-wal", "/x/app.db", "/x/notes", "/x"):
        text = text.replace(f"@{name}@", escaped(name))
    log.write_text(text)
    return recorded(log, "/x/app.db", "/x/notes")


def test_a_sync_that_overlaps_a_write_does_not_cover_it(tmp_path: Path) -> None:
    """Calls of other threads that end while a sync is under way come after its beginning."""
    lines = [
        'openat(AT_FDCWD<@/x@>, "@/x/app.db@", O_RDWR|O_CREAT, 0644) = 4<@/x/app.db@>',
        "fdatasync(4<@/x/app.db@> <unfinished ...>",
        'pwrite64(4<@/x/app.db@>, "\\x61", 1, 0) = 1',
        "<... fdatasync resumed>) = 0",
        "fsync(5<@/x@>) = 0",
        'write(3<@/x/notes@>, "\\x5b\\x31\\x5d", 3) = 3',
        'openat(AT_FDCWD<@/x@>, "@/x/other@", O_RDWR|O_CREAT, 0644) = 4</x/other>',
        "fdatasync(4<@/x/app.db@>) = -1 EIO (Input/output error)",
    ]
    events = log_of(tmp_path, *lines)
    assert [event.what for event in events] == ["create", "write", "sync", "sync", "note"]
    assert [event.offset for event in events if event.what == "sync"] == [1, 3]
    assert events[-1].words == (1,)
    disk = Disk()
    for event in events:
        disk.apply(event)
    assert draws(disk, "lost") == {(("", b""),)}


@pytest.mark.parametrize(
    "line",
    [
        'writev(4<@/x/app.db@>, [{iov_base="\\x61", iov_len=1}], 1) = 1',
        "fallocate(4<@/x/app.db@>, 0, 0, 4096) = 0",
        'rename("@/x/app.db-wal@", "@/x/app.db@") = 0',
        'openat(AT_FDCWD<@/x@>, "@/x/app.db@", O_RDWR|O_CREAT|O_TRUNC, 0644) = 4<@/x/app.db@>',
    ],
)
def test_an_unknown_way_of_writing_is_not_passed_over(tmp_path: Path, line: str) -> None:
    """What the model of a disk cannot replay ends the row instead of being ignored."""
    with pytest.raises(Unaccounted):
        log_of(tmp_path, line)
