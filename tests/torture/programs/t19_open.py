"""Opens damaged files with the library, adds to them, drains them, and tells what it was told.

    t19_open.py ORDER

ORDER is JSON, see `Order`. The role "make" leaves a file with jobs of all sorts in it. The role "open" takes
copies of it, damages each, and appends lines to a report: when it begins with a copy, and what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from backlite_async import BackliteError, Client, JobContext, QueueConfig, Retention, Task

TOGETHER = 6
"""Damaged files that are open at a time."""

QUIET, NOTICED = 2.0, 0.1
"""Seconds without any news after which nothing more is to come: in general, and after an error was told."""


class Payload(Task):
    key: str
    fill: str


class Small(Payload):
    config: ClassVar[QueueConfig] = QueueConfig("small", retention=Retention(payload="always"))


class Big(Payload):
    """Longer than a page of the database."""

    config: ClassVar[QueueConfig] = QueueConfig("big", retention=Retention())


class Plain(Payload):
    """Nothing is kept of it."""

    config: ClassVar[QueueConfig] = QueueConfig("plain")


class Later(Payload):
    """Not due for a year."""

    config: ClassVar[QueueConfig] = QueueConfig("later", retention=Retention(payload="always"))


class Left(Payload):
    """Running when its process died."""

    config: ClassVar[QueueConfig] = QueueConfig("left", retention=Retention(payload="always"))


class Done(Payload):
    """Completed, and kept."""

    config: ClassVar[QueueConfig] = QueueConfig("done", retention=Retention(payload="always"))


KINDS: tuple[type[Payload], ...] = (Small, Big, Plain, Later, Left, Done)
DUE = ("small", "big", "plain", "left")


@dataclass
class Order:
    """What this process is to do."""

    role: str
    folder: str  # has the file "base", and what is in it as JSON, "added"
    seed: int = 0
    trials: list[int] = field(default_factory=list)
    report: str = ""  # the file to which lines are appended
    limit: float = 20.0  # seconds for one trial


@dataclass
class Report:
    """What came of one damaged file."""

    trial: int
    fault: str
    bits: int  # how many have changed; 0: the file was cut short
    refused: str | None = None  # the error of start()
    noticed: list[str] = field(default_factory=list)  # clear errors later on
    unclear: list[str] = field(default_factory=list)  # errors that are not the library's
    wrong: list[str] = field(default_factory=list)  # payloads that nobody added
    altered: list[str] = field(default_factory=list)  # payloads in which the very bits have changed
    mistaken: list[str] = field(default_factory=list)  # answers about another job than was asked for
    missing: list[str] = field(default_factory=list)  # jobs that should have ended and have not
    early: list[str] = field(default_factory=list)  # jobs that ran and should not have
    repeated: list[str] = field(default_factory=list)  # jobs that ran twice
    lost: list[str] = field(default_factory=list)  # jobs added to the damaged file, acknowledged, not run
    failed: list[str] = field(default_factory=list)  # ids of jobs of which it was told that they have failed
    whole: bool | None = None  # what SQLite's own check says of the damaged file, where asked
    hung: bool = False
    seconds: float = 0.0


def text_of(kind: type[Payload], key: str) -> Payload:
    words = {"Big": 900, "Small": 12}.get(kind.__name__, 3)
    return kind(key, f"{key} " * words)


def plan() -> Iterator[tuple[type[Payload], str]]:
    """Return the jobs of the file, in the order in which they are added."""
    for kind, count in ((Done, 8), (Small, 16), (Big, 4), (Plain, 8), (Later, 4), (Left, 2)):
        for number in range(count):
            yield kind, f"{kind.__name__.lower()}-{number}"


async def make(folder: Path) -> None:
    """Make the file, then die while jobs run."""
    added: dict[str, str] = {}
    adding = Client(folder / "base", workers=0)
    async with adding:
        for kind, key in plan():
            operation = adding.add(text_of(kind, key))
            if kind is Later:
                operation.wait(timedelta(days=365))
            added[key] = (await operation.save())[0]
    running = Client(folder / "base", lease=0.2)
    reached: Counter[str] = Counter()
    changed = asyncio.Event()

    async def run(task: Payload) -> None:
        reached[type(task).__name__] += 1
        changed.set()
        if isinstance(task, Left):
            await asyncio.Event().wait()

    running.register(Done, run)
    running.register(Left, run)
    await running.start()
    while reached != {"Done": 8, "Left": 2}:
        await changed.wait()
        changed.clear()
    for key in (key for key in added if key.startswith("done")):
        while await running.status(added[key]) != "succeeded":
            await asyncio.sleep(0.005)
    (folder / "added").write_text(json.dumps(added))
    os._exit(0)


def damage(content: bytes, order: Order, trial: int) -> tuple[bytes, str, int]:
    """Return a damaged copy of a file, what was done to it, and how many bits have changed."""
    rng = random.Random(f"{order.seed} {trial}")
    sort = rng.random()
    size, page = len(content), 4096
    if sort < 0.15:
        cut = rng.randrange(1, size) if sort < 0.08 else rng.randrange(1, size // page) * page
        return content[:cut], f"cut to {cut} of {size} bytes", 0
    count = rng.choice((2, 4, 8)) if sort < 0.25 else 1
    damaged = bytearray(content)
    changed = set()
    for _ in range(count):
        if sort < 0.35:
            at = rng.randrange(100)  # the file's header
        elif sort < 0.6:
            at = rng.randrange(size // page) * page + rng.randrange(64)  # where pages have theirs
        else:
            at = rng.randrange(size)
        changed.add((at, rng.randrange(8)))
    for at, bit in changed:
        damaged[at] ^= 1 << bit
    where = ", ".join(f"{at}.{bit} (page {at // page + 1})" for at, bit in sorted(changed))
    return bytes(damaged), f"flipped {where}", len(changed)


_report: contextvars.ContextVar[Report | None] = contextvars.ContextVar("report", default=None)


class Told(logging.Handler):
    """Takes down what the library logs of trouble, for the trial whose client logs it."""

    def emit(self, record: logging.LogRecord) -> None:
        report = _report.get()
        line = record.getMessage()
        event = line.split(maxsplit=1)[0]
        if report is None or event not in ("store.failing", "job.failed", "job.unwritable", "job.retried"):
            if report is not None and record.levelno >= logging.ERROR:
                report.noticed.append(line[:200])
            return
        failed = re.search(r" job_id=(\S+)", line) if event == "job.failed" else None
        if failed:
            report.failed.append(failed[1])
        clear = event != "store.failing" or re.search(r" error='?\"?(Database|Payload|Invalid)", line)
        (report.noticed if clear else report.unclear).append(line[:1500])


class Trial:
    """One damaged file in the hands of the library."""

    def __init__(self, order: Order, number: int, content: bytes, added: dict[str, str]) -> None:
        self.order = order
        self.content, fault, bits = damage(content, order, number) if number >= 0 else (content, "none", 0)
        self.report = Report(number, fault, bits)
        self.file = Path(tempfile.mkdtemp(dir=order.folder), "damaged")
        self.ids = dict(added)
        self.known = {key: msgspec.json.encode(text_of(kind, key)) for kind, key in plan()}
        self.due = {key for key in added if key.split("-")[0] in DUE}
        self.fresh: set[str] = set()
        self.ran: Counter[str] = Counter()
        self.touched: set[str] = set()  # ids of jobs that ran with another payload
        self.news = asyncio.Event()

    async def run(self) -> Report:
        """Open, add, drain, ask, stop; within the limit."""
        began = time.monotonic()
        _report.set(self.report)
        self.file.write_bytes(self.content)
        try:
            async with asyncio.timeout(self.order.limit):
                await self._use()
        except TimeoutError:
            self.report.hung = True
        self.report.seconds = time.monotonic() - began
        self._judge()
        shutil.rmtree(self.file.parent)
        return self.report

    async def _use(self) -> None:
        client = Client(self.file, lease=1.0, busy_timeout=1.0)
        for kind in KINDS:
            client.register(kind, self._handle)
        try:
            await client.start()
        except BackliteError as error:
            self.report.refused = f"{type(error).__name__}: {error}"
            return
        except Exception as error:
            self.report.unclear.append(f"start: {type(error).__name__}: {error}")
            return
        try:
            for number in range(3):
                task = text_of(Small, f"fresh-{number}")
                self.known[task.key] = msgspec.json.encode(task)
                with self._errors("save"):
                    self.ids[task.key] = (await client.add(task).save())[0]
                    self.fresh.add(task.key)
            await self._drained()
            await self._ask(client)
        finally:
            with self._errors("stop"):
                await client.stop(0.0)

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BackliteError as error:
            self.report.noticed.append(f"{doing}: {type(error).__name__}: {error}")
        except Exception as error:
            self.report.unclear.append(f"{doing}: {type(error).__name__}: {error}")

    async def _handle(self, task: Payload, job: JobContext) -> None:
        key = task.key
        if type(task) is type_of(key) and msgspec.json.encode(task) == self.known.get(key):
            self.ran[key] += 1
        else:
            self.touched.add(job.id)
            record = await job.client.get(job.id)
            self._look(task, None if record is None else record.payload)
        self.news.set()

    def _look(self, task: Payload, payload: bytes | None) -> None:
        """Judge a task that a handler got and nobody added: it may be what its altered payload says."""
        kind = type(task)
        ours = [known for key, known in self.known.items() if type_of(key) is kind]
        near = any(distance(payload, one) <= self.report.bits for one in ours)
        with contextlib.suppress(msgspec.MsgspecError):
            if near and msgspec.json.decode(payload or b"", type=kind) == task:
                self.report.altered.append(f"a handler of {kind.__name__} got {payload!r:.300}")
                return
        self.report.wrong.append(f"a handler got {task!r:.200}, its payload is {payload!r:.200}")

    async def _drained(self) -> None:
        """Wait until everything has run that should, or nothing is to come any more."""
        while self._open(self.due | self.fresh):
            self.news.clear()
            try:
                async with asyncio.timeout(NOTICED if self.report.noticed or self.report.unclear else QUIET):
                    await self.news.wait()
            except TimeoutError:
                return

    def _open(self, keys: set[str]) -> list[str]:
        """Return which of these jobs have neither run nor failed."""
        over = self.touched.union(self.report.failed)
        return sorted(key for key in keys - self.ran.keys() if self.ids[key] not in over)

    async def _ask(self, client: Client) -> None:
        """Ask for every job; what has completed and is kept must be told."""
        for key, job_id in self.ids.items():
            with self._errors("get"):
                job = await client.get(job_id)
                if job is not None and job.payload not in (None, self.known[key]):
                    near = distance(job.payload, self.known[key]) <= self.report.bits
                    told = f"get({key}) told {job.id}, {job.payload!r:.100}"
                    (self.report.altered if near else self.report.mistaken).append(told)
                if key.startswith("done") and (job is None or job.status != "succeeded"):
                    self.report.missing.append(f"{key} is {job and str(job.status)}")

    def _judge(self) -> None:
        report = self.report
        if report.refused is None and not report.hung:
            report.missing += self._open(self.due)
            report.lost += self._open(self.fresh)
            report.early += sorted(key for key in self.ran if key.split("-")[0] in ("later", "done"))
            report.repeated += sorted(key for key, count in self.ran.items() if count > 1)
        odd = (report.missing, report.lost, report.early, report.repeated, report.altered, report.mistaken)
        if any(odd) or report.wrong:
            self.file.write_bytes(self.content)
            report.whole = whole(self.file)


def type_of(key: str) -> type[Payload] | None:
    """Return the type of the task with this key."""
    name = key.split("-", maxsplit=1)[0].replace("fresh", "small")
    return next((kind for kind in KINDS if kind.__name__.lower() == name), None)


def distance(one: object, other: bytes) -> int:
    """Return in how many bits two payloads differ; very many if they are not of the same length."""
    if isinstance(one, str):  # a bit of its type has flipped
        one = one.encode()
    if not isinstance(one, bytes) or len(one) != len(other):
        return 1 << 30
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def whole(file: Path) -> bool:
    """Return whether SQLite's own check finds nothing wrong."""
    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return False


async def open_all(order: Order) -> None:
    """Go through the trials, several at a time."""
    content = Path(order.folder, "base").read_bytes()
    added = json.loads(Path(order.folder, "added").read_text())
    report = os.open(order.report, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    room = asyncio.Semaphore(TOGETHER)

    def tell(**what: Any) -> None:
        os.write(report, json.dumps(what).encode() + b"\n")

    def stray(*what: Any) -> None:
        tell(stray=repr(what)[:1000])

    asyncio.get_running_loop().set_exception_handler(lambda _, context: stray(context))
    threading.excepthook = stray
    sys.unraisablehook = stray

    async def one(number: int) -> None:
        async with room:
            tell(begin=number)
            tell(end=asdict(await Trial(order, number, content, added).run()))

    await asyncio.gather(*(asyncio.create_task(one(number)) for number in order.trials))


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    if order.role == "make":
        asyncio.run(make(Path(order.folder)))
    logger = logging.getLogger("backlite_async")
    logger.addHandler(Told())
    logger.setLevel(logging.WARNING)
    asyncio.run(open_all(order))
    os._exit(0)  # whatever threads may hang


if __name__ == "__main__":
    main()
