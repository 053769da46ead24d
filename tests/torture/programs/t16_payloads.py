"""Puts payloads straight into the table, and sees what becomes of them: t16_payloads.py PIPE FILE SEED ..."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import structlog

from backlite_async import AddOperation, BackliteError, Client, JobContext, PayloadError, Task
from tests.torture.children import Wire
from tests.torture.programs.t16_inputs import CANARY, GIANTS, Inputs
from tests.torture.programs.t16_types import CONFIG, TYPES, Plain, fits

BATCH = 500
LIMIT = 60.0
"""Seconds in which a batch has to end."""

TROUBLE = ("store.failing", "job.unwritable", "job.lease_lost", "job.retried", "job.crashed")

COLUMNS = ("meta", "tags", "key", "parent")
"""What others may have written beside a payload."""

INSERT = """
INSERT INTO backlite_jobs (id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at)
VALUES (?, ?, ?, ?, 3, 0, 0, 0)
"""

wire = Wire(int(sys.argv[1]))
Stored = tuple[type[Task], bytes]


class Ended(NamedTuple):
    """What the table says of a job that has ended."""

    job: str
    status: str
    attempt: int
    error: str | None


class Harness:
    """A client, what it is given, and what it makes of it."""

    def __init__(self, file: str) -> None:
        self.client = Client(file, workers=50)
        self.raw = sqlite3.connect(file, isolation_level=None, timeout=30.0)
        self.changed = asyncio.Event()
        self.done: set[str] = set()
        self.runs: dict[str, list[Task]] = {}
        self.seen: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: dict[str, list[str]] = {"wrong": [], "escaped": [], "leaked": []}
        self.numbers = itertools.count()
        self.slowest = 0.0
        for kind in TYPES:
            self.client.register(kind, self.handle)
        structlog.configure(processors=[self._logged])
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.escaped(context))
        sys.unraisablehook = threading.excepthook = self.escaped

    async def handle(self, task: Any, job: JobContext) -> None:
        self.runs.setdefault(job.id, []).append(task)
        said: dict[str, Any] = {"id": job.id, "key": job.key}
        for name in ("meta", "tags"):
            with contextlib.suppress(ValueError):  # what is no JSON
                said[name] = getattr(job, name)
        self.seen[job.id] = said

    def escaped(self, what: object) -> None:
        self.found("escaped", f"{what}")

    def found(self, kind: str, what: str) -> None:
        """Take note of something that may not be."""
        self.counts[kind] += 1
        self.wrong[kind].append(what[:250])

    def _logged(self, logger: Any, method: str, event: Any) -> Any:
        if event["event"] in TROUBLE:
            self.escaped(dict(event))
        if CANARY in str(event):
            self.found("leaked", f"logged: {event}")
        if event["event"] in ("job.succeeded", "job.failed"):
            self.done.add(event["job_id"])
            self.changed.set()
        raise structlog.DropEvent

    async def until_done(self, ids: Iterable[str]) -> None:
        """Wait until jobs have ended."""
        wanted = set(ids)
        async with asyncio.timeout(LIMIT):
            while not wanted <= self.done:
                self.changed.clear()
                await self.changed.wait()

    async def batch(self, stored: list[Stored]) -> None:
        """Store payloads behind the client's back and judge what becomes of each."""
        given = {f"raw-{next(self.numbers)}": one for one in stored}
        self.raw.execute("BEGIN IMMEDIATE")
        self.raw.executemany(
            INSERT, [(job, CONFIG.name, kind.__name__, payload) for job, (kind, payload) in given.items()]
        )
        self.raw.execute("COMMIT")
        self.client.notify()
        await self.until_done(given)
        for ended in self._ended():
            self.judge(ended, *given[ended.job])

    async def said(self, texts: list[str], metas: list[Any]) -> None:
        """Say hostile things of jobs: each is refused at once, or comes back as it was."""
        given: dict[str, dict[str, Any]] = {}
        for text, meta in zip(texts, metas, strict=True):
            for option, value in (
                ("key", text),
                ("id", text),
                ("unique", text),
                ("tags", text),
                ("meta", meta),
            ):
                self.counts["said"] += 1
                try:
                    operation: AddOperation = getattr(self.client.add(Plain(1, "a")), option)(value)
                    [job_id] = saved = await operation.save()
                except BackliteError as error:
                    self.counts["options refused"] += 1
                    if len(str(error)) > 1000:
                        self.found("wrong", f"a long text: {error}")
                except Exception as error:  # whatever it is, it is none of what an option may raise
                    self.escaped(f".{option}({_shown(value)}) raised {error!r}")
                else:
                    if not saved.existing:
                        given[job_id] = {option: (value,) if option == "tags" else value}
        await self.until_done(given)
        for job_id, said in given.items():
            self.same(job_id, said, self.seen.pop(job_id, {}))
            record = await self.client.get(job_id)
            if record is None:
                self.found("wrong", f"{said}: no record")
            else:
                self.same(
                    job_id, said, {name: getattr(record, name) for name in ("id", "key", "tags", "meta")}
                )
        self.runs.clear()
        self._ended()

    def same(self, job_id: str, said: dict[str, Any], found: dict[str, Any]) -> None:
        """What was said of a job is what is found."""
        for option, value in said.items():
            told = _plain(value) if option == "meta" else value
            if option != "unique" and found.get(option) != told:
                self.found(
                    "wrong", f"{job_id}: said {option} {value!r:.200}, found {found.get(option)!r:.200}"
                )

    async def beside(self, texts: list[str]) -> None:
        """Store texts beside payloads behind the client's back: each job runs once all the same."""
        rows = [
            (f"beside-{next(self.numbers)}", column, text.encode("utf-8", "surrogatepass")[cut:])
            for text in texts
            for column in COLUMNS
            for cut in (0, 1)  # perhaps in the middle of a character
        ]
        self.raw.execute("BEGIN IMMEDIATE")
        for job_id, column, text in rows:
            self.raw.execute(INSERT, (job_id, CONFIG.name, "Plain", b'{"number":1,"text":"a"}'))
            self.raw.execute(
                f"UPDATE backlite_jobs SET {column} = CAST(? AS TEXT) WHERE id = ?", (text, job_id)
            )
        self.raw.execute("COMMIT")
        self.client.notify()
        await self.until_done(job_id for job_id, _, _ in rows)
        for job_id, column, text in rows:
            self.counts["beside"] += 1
            if len(self.runs.pop(job_id, [])) != 1:
                self.found("wrong", f"{column} {text!r:.100} and it has not run once")
            try:
                await self.client.get(job_id)
            except BackliteError:
                self.counts["unreadable"] += 1
            except Exception as error:  # whatever it is, get() does not raise it
                self.escaped(f"get() of {column} {text!r:.100} raised {error!r}")
        self.seen.clear()
        self._ended()

    def _ended(self) -> list[Ended]:
        """Return the records of all that have ended, and remove them."""
        rows = self.raw.execute("SELECT id, status, attempt, error FROM backlite_completed").fetchall()
        self.raw.execute("DELETE FROM backlite_completed")
        self.raw.execute("DELETE FROM backlite_unique")
        self.done.clear()
        return [Ended(*row) for row in rows]

    def judge(self, ended: Ended, kind: type[Task], payload: bytes) -> None:
        """It ran once with a value of its type, or has failed at once with a reason."""
        runs, attempt, text = self.runs.pop(ended.job, []), ended.attempt, ended.error or ""
        self.counts["inputs"] += 1
        self.counts[ended.status] += 1
        if CANARY in text:
            self.found("leaked", f"kept: {text}")
        if _decodes(kind, payload):
            right = ended.status == "succeeded" and len(runs) == 1 and attempt == 1 and ended.error is None
            right = right and type(runs[0]) is kind and fits(runs[0], kind)
        else:
            right = ended.status == "failed" and not runs and attempt == 1 and "does not decode" in text
            right = right and len(text) <= 16_384
        if not right:
            self.found("wrong", f"{ended}, ran with {runs}: {kind.__name__} {payload[:200]!r}")

    async def save(self, tasks: list[Task]) -> None:
        """Save tasks, and see that each runs as the same, or is refused."""
        given = {}
        for task in tasks:
            try:
                [job] = await self.client.add(task).save()
            except PayloadError:
                self.counts["refused"] += 1
            except Exception as error:  # whatever it is, it is none of what save() may raise
                self.escaped(f"save({task}) raised {error!r}")
            else:
                given[job] = task
        await self.until_done(given)
        self._ended()
        for job, task in given.items():
            self.counts["saved"] += 1
            runs = self.runs.pop(job, [])
            if len(runs) != 1 or not _same(runs[0], task):
                self.found("wrong", f"saved, and run as another: {task}, {runs}")


def _decodes(kind: type[Task], payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=kind)
    except (ValueError, RecursionError):  # with all of msgspec's own, and UnicodeDecodeError
        return False
    return True


def _shown(value: Any) -> str:
    """Return how a value looks, if it can be said."""
    try:
        return repr(value)[:100]
    except RecursionError:
        return f"a deep {type(value).__name__}"


def _plain(value: Any) -> Any:
    """Return what JSON makes of a value."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _same(one: Task, other: Task) -> bool:
    """Return whether two tasks are equal, or what is not equal to itself is written alike in them."""
    with contextlib.suppress(ArithmeticError):  # signalling not-a-numbers are not to be compared
        if one == other:
            return True
    return msgspec.json.encode(one) == msgspec.json.encode(other)


async def main(file: str, seed: int, seconds: float, *, least: int, examples: int, giants: int) -> None:
    inputs = Inputs(TYPES, seed, examples)
    deadline = time.monotonic() + seconds
    async with Client(file, workers=0):
        pass  # makes the tables
    harness = Harness(file)
    with contextlib.closing(harness.raw):
        async with harness.client:
            for tasks in inputs.good.values():
                await harness.save(tasks)
            for name, make in GIANTS[:giants]:
                payload, began = make(), time.monotonic()
                await harness.batch([(kind, payload) for kind in TYPES if kind.__name__ == name])
                harness.slowest = max(harness.slowest, time.monotonic() - began)
            texts = inputs.texts()
            bad = inputs.bad()
            while harness.counts["said"] < least // 4 or time.monotonic() < deadline - seconds / 2:
                some = list(itertools.islice(texts, 50))
                await harness.said(some, [inputs.meta(text) for text in some])
                await harness.beside(some)
            while harness.counts["inputs"] < least or time.monotonic() < deadline:
                await harness.batch(list(itertools.islice(bad, BATCH)))
            await harness.save([task for tasks in inputs.good.values() for task in tasks[:3]])
        left = harness.raw.execute("SELECT count(*) FROM backlite_jobs").fetchone()[0]
    wrong = {kind: found[:3] for kind, found in harness.wrong.items()}
    wire.note("tally", counts=harness.counts, wrong=wrong, left=left, slowest=harness.slowest)


asyncio.run(
    main(
        sys.argv[2],
        int(sys.argv[3]),
        float(sys.argv[4]),
        least=int(sys.argv[5]),
        examples=int(sys.argv[6]),
        giants=int(sys.argv[7]),
    )
)
