"""The options of an add: what they take, what they store, and what keeps a job from being added."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, ClassVar

import aiosqlite
import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import (
    Added,
    AlreadyExists,
    BackliteError,
    Client,
    DatabaseUnavailable,
    InvalidState,
    InvalidType,
    InvalidValue,
    Job,
    JobContext,
    JobStatus,
    PayloadError,
    QueueConfig,
    Retention,
    Task,
    current_job,
)
from backlite_async._fingerprint import fingerprint
from backlite_async._graph import NewWorkflow
from backlite_async._job import More, NewJob, Unique
from backlite_async._options import MAX_META, encoded_meta
from backlite_async._task import task_type
from backlite_async.stores import MemoryStore

from .conftest import LIMIT, Journal

HOUR = timedelta(hours=1)
START = 1_900_000_000_000


class Note(Task):
    config: ClassVar[QueueConfig] = QueueConfig("notes", retention=Retention(payload="always"))
    text: str = ""
    number: float = 0.0


class Letter(Task):
    """In the same queue as Note, with the same fields."""

    config: ClassVar[QueueConfig] = Note.config
    text: str = ""
    number: float = 0.0


class Errand(Task):
    config: ClassVar[QueueConfig] = QueueConfig(
        "errands", priority=3, max_attempts=7, timeout=60, concurrency_per_key=2
    )
    text: str = ""


class Bag(Task):
    config: ClassVar[QueueConfig] = QueueConfig("bags")
    what: Any = None
    numbers: dict[int, str] = {}
    points: set[Point] = set()


class Point(msgspec.Struct, frozen=True):
    x: int
    y: int = 0


class Hands:
    """A clock whose wall time stands still until it is moved."""

    def __init__(self) -> None:
        self.millis = START

    def now(self) -> int:
        return self.millis

    def monotonic(self) -> float:
        return time.monotonic()


class Recording(MemoryStore):
    """A memory store that tells what it was given, takes any connection, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[NewJob, Unique | None, bool]] = []
        self.failure: BaseException | None = None

    async def add(
        self, jobs: Sequence[NewJob], *, workflows: Sequence[NewWorkflow] = (), again: bool = False
    ) -> None:
        self.given += [(job, None, again) for job in jobs]
        await super().add(jobs, workflows=workflows, again=again)
        self._fail()

    async def add_unique(self, job: NewJob, unique: Unique, *, now: int, again: bool = False) -> str | None:
        self.given.append((job, unique, again))
        return await super().add_unique(job, unique, now=now, again=again)  # which calls add()

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


async def jobs_of(client: Client, *job_ids: str) -> list[Job]:
    """Return the records of jobs that are there."""
    found = [await client.get(job_id) for job_id in job_ids]
    assert None not in found
    return [job for job in found if job is not None]


async def stored(*tasks: Task, options: Callable[[Any], Any] = lambda operation: operation) -> list[NewJob]:
    """Return what the store gets for these tasks with these options."""
    store = Recording()
    async with Client(store, workers=0) as client:
        await options(client.add(*tasks)).save()
    return [job for job, unique, _ in store.given if unique is None]


# -- what they take -------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"


class Name(StrEnum):
    ONE = "one"


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE

REFUSED: list[tuple[str, tuple[Any, ...], type[BackliteError], str]] = [
    ("priority", (11,), InvalidValue, r"priority=11 must lie between -10 and 10"),
    ("priority", (-11,), InvalidValue, r"priority=-11 must lie between -10 and 10"),
    ("priority", (1.0,), InvalidType, r"priority=1.0 must be a whole number"),
    ("priority", (True,), InvalidType, r"priority=True must be a whole number"),
    ("priority", (None,), InvalidType, r"priority=None must be a whole number"),
    ("max_attempts", (0,), InvalidValue, r"max_attempts=0 must lie between 1 and 1,000,000"),
    ("max_attempts", (1_000_001,), InvalidValue, r"max_attempts=1000001 must lie"),
    ("max_attempts", (None,), InvalidType, r"max_attempts=None must be a whole number"),
    ("max_attempts", (True,), InvalidType, r"max_attempts=True must be a whole number"),
    ("timeout", (None,), InvalidType, r"timeout=None.*the queue's applies.*QueueConfig\(timeout=\.\.\.\)"),
    ("timeout", (0,), InvalidValue, r"timeout=0 leaves no time to run.*the queue's applies"),
    ("timeout", (-1,), InvalidValue, r"timeout=-1 must lie between 0 and 100 years"),
    ("timeout", ("5",), InvalidType, r"timeout must be a number of seconds or a timedelta, not '5'"),
    ("timeout", (float("nan"),), InvalidValue, r"timeout=nan must lie"),
    ("key", (42,), InvalidType, r"key=42 must be a str, such as \.key\('customer-42'\)"),
    ("key", (None,), InvalidType, r"key=None must be a str"),
    ("key", ("",), InvalidValue, r"key='' must have 1 to 200 printable characters"),
    ("key", ("x" * 201,), InvalidValue, r"key='xxx.*\.\.\. must have 1 to 200 printable .* not 201; .*hash"),
    ("key", ("a\nb",), InvalidValue, r"key='a\\nb' must have 1 to 200 printable"),
    ("key", ("\ud800",), InvalidValue, r"key='\\ud800' must have"),
    ("unique", (42,), InvalidType, r"unique=42 must be a str"),
    ("unique", ("",), InvalidValue, r"unique='' must have 1 to 200 printable"),
    ("unique", ("k", -1), InvalidValue, r"within=-1 must lie between 0 and 100 years"),
    ("unique", ("k", "1h"), InvalidType, r"within must be a number of seconds or a timedelta, not '1h'"),
    ("unique", ("k", None, "skip"), InvalidValue, r"on_conflict='skip' must be \"keep\" .*\"replace\" .*\"r"),
    ("unique", ("k", None, None), InvalidType, r"on_conflict=None must be \"keep\""),
    ("id", (42,), InvalidType, r"id=42 must be a str"),
    ("id", ("",), InvalidValue, r"id='' must have 1 to 200 printable"),
    ("id", ("a\0",), InvalidValue, r"id='a\\x00' must have 1 to 200 printable"),
    ("id", ("a", "skip"), InvalidValue, r"on_conflict='skip' must be \"keep\""),
    ("tags", (5,), InvalidType, r"tags=5 must be a str"),
    ("tags", (["a", "b"],), InvalidType, r"tags=\['a', 'b'\] must be str, .* \.tags\(\*names\)"),
    ("tags", ("a", ""), InvalidValue, r"tags='' must have 1 to 100 printable"),
    ("tags", ("x" * 101,), InvalidValue, r"must have 1 to 100 printable characters and not 101"),
    ("tags", tuple(map(str, range(21))), InvalidValue, r"tags=\['0', .* are 21, a job has at most 20; "),
    ("meta", (None,), InvalidType, r"meta=None must be a dict, such as \.meta\("),
    ("meta", ([1],), InvalidType, r"meta=\[1\] must be a dict"),
    ("meta", ({1: 2},), InvalidType, r"meta has the key 1 - at `\$`; keys must be str"),
    ("meta", ({"a": [{1: 2}]},), InvalidValue, r"meta has the key 1 - at `\$\['a'\]\[0\]`; keys must be str"),
    ("meta", ({"a": object()},), InvalidValue, r"meta cannot be encoded as JSON: .*object.*; write text"),
    ("meta", ({"a": "\ud800"},), InvalidValue, r"meta cannot be encoded as JSON: .*surrogates"),
    ("meta", ({"a": {"b": datetime.now(UTC)}},), InvalidValue, r"has a datetime - at `\$\['a'\]\['b'\]`;"),
    ("meta", ({"a": {1, 2}},), InvalidValue, r"meta has a set - at `\$\['a'\]`"),
    ("meta", ({"a": b"x"},), InvalidValue, r"meta has a bytes - at `\$\['a'\]`"),
    ("meta", ({"a": Point(1)},), InvalidValue, r"meta has a Point - at `\$\['a'\]`; .*msgspec\.to_builtins"),
    ("meta", ({"a": Colour.RED},), InvalidValue, r"meta has a Colour - at `\$\['a'\]`"),
    ("meta", ({"a": float("nan")},), InvalidValue, r"meta has nan, which JSON has not - at `\$\['a'\]`"),
    ("meta", ({"a": [float("-inf")]},), InvalidValue, r"has -inf, which JSON has not - at `\$\['a'\]\[0\]`"),
    ("meta", ({"a": "x" * MAX_META},), InvalidValue, r"meta has 8,200 bytes as JSON, the limit is 8,192"),
    ("meta", ({"a": nested(101)},), InvalidValue, r"meta is nested in more than 100 levels"),
    ("meta", ({"a": nested(3000)},), InvalidValue, r"meta is nested in more than 100 levels"),
    ("meta", (CYCLE,), InvalidValue, r"meta is nested in more than 100 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "values", "error", "message"), REFUSED)
def test_a_wrong_value_is_refused_at_the_call(
    option: str, values: tuple[Any, ...], error: type[BackliteError], message: str
) -> None:
    """What is raised names the option and the value, and says what to write instead."""
    operation = Client(":memory:").add(Note())
    with pytest.raises(error, match=message) as caught:
        getattr(operation, option)(*values)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize("option", ["unique", "id"])
@pytest.mark.parametrize("count", [0, 2])
def test_what_is_unique_is_one_task(option: str, count: int) -> None:
    """`.unique()` and `.id()` of several tasks, or of none, are a ValueError at the call."""
    operation = Client(":memory:").add(*[Note()] * count)
    message = rf"^\.{option}\(\) is for one task at a time, and this operation has {count}; write client\.add"
    with pytest.raises(ValueError, match=message):
        getattr(operation, option)("a")


@pytest.mark.filterwarnings("error")
def test_a_refused_option_is_no_forgotten_save() -> None:
    """An operation that is dropped since an option was refused gives one error, not a warning beside it."""
    client = Client(":memory:")
    with warnings.catch_warnings(record=True) as caught:
        with pytest.raises(InvalidValue):
            client.add(Note()).priority(99)
        with pytest.raises(InvalidValue):
            client.add(Note()).wait(-1)
    assert [str(warning.message) for warning in caught] == []
    operations = [client.add(Note()).priority(1)]
    with pytest.warns(RuntimeWarning, match="was never saved"):
        operations.clear()


async def test_the_limits_themselves_are_taken(database: str) -> None:
    """The largest and smallest values that are allowed are stored as they are."""
    long, tags = "ä" * 200, tuple(f"{n:100}" for n in range(20))
    meta = {"a": "x" * (MAX_META - 8)}
    async with Client(database, workers=0) as client:
        add = client.add(Note()).priority(10).max_attempts(1_000_000).timeout(timedelta(days=36500))
        ids = await add.key(long).id("i" * 200).unique(long).tags(*tags).meta(meta).save()
        low = await client.add(Note()).priority(-10).max_attempts(1).timeout(0.0001).key(" ").save()
        high_job, low_job = await jobs_of(client, *ids, *low)
    assert (high_job.id, high_job.priority, high_job.max_attempts) == ("i" * 200, 10, 1_000_000)
    assert (high_job.timeout, high_job.key, high_job.tags) == (36500 * 86400, long, tags)
    assert high_job.meta == meta
    assert (low_job.priority, low_job.max_attempts, low_job.timeout, low_job.key) == (-10, 1, 0.001, " ")


async def test_the_last_call_counts(database: str) -> None:
    """An option that is given twice has its last value, also one that takes everything back."""
    async with Client(database, workers=0) as client:
        operation = client.add(Note())
        for n in (1, 2):
            same = operation.priority(n).max_attempts(n).timeout(n).key(str(n)).meta({"n": n}).tags(str(n))
            assert same.unique(str(n)).id(str(n)) is operation
        ids = await operation.save()
        [job] = await jobs_of(client, *ids)
        other = await client.add(Note()).meta({"n": 1}).tags("a").meta({}).tags().save()
        [bare] = await jobs_of(client, *other)
        again = await client.add(Note()).unique("1").unique("2").save()
    assert (job.id, job.priority, job.max_attempts, job.timeout, job.key) == ("2", 2, 2, 2.0, "2")
    assert (job.meta, job.tags) == ({"n": 2}, ("2",))
    assert (bare.meta, bare.tags) == ({}, ())
    assert again == ["2"]


async def test_options_come_before_the_jobs() -> None:
    """What a stored operation, or one that may be, is given would have no effect: so it is an error."""
    store = Recording()
    async with Client(store, workers=0) as client:
        operation = client.add(Note())
        store.failure = DatabaseUnavailable("disk")
        with pytest.raises(DatabaseUnavailable):
            await operation.save()
        with pytest.raises(InvalidState, match=r"\.priority\(\) comes too late: .* save\(\) it again, or"):
            operation.priority(5)
        await operation.save()
        with pytest.raises(InvalidState, match=r"\.wait\(\) comes too late"):
            operation.wait(5)


# -- what the store gets --------------------------------------------------------------------------


async def test_a_plain_job_carries_nothing_more() -> None:
    """Without options, and with those that every job has, there is no `more`: the quick way."""
    plain = await stored(Note(), Errand())
    assert [(job.more, job.priority, job.max_attempts) for job in plain] == [(None, 0, 3), (None, 3, 7)]
    [job] = await stored(Errand(), options=lambda add: add.priority(-1).max_attempts(2).wait(5))
    assert (job.more, job.priority, job.max_attempts) == (None, -1, 2)
    [job] = await stored(Errand(), options=lambda add: add.priority(0))
    assert job.priority == 0


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (lambda add: add.key("a"), More(key="a", turns=2)),
        (lambda add: add.timeout(1.5), More(timeout=1500)),
        (lambda add: add.timeout(timedelta(microseconds=1)), More(timeout=1)),
        (lambda add: add.timeout(1e-12), More(timeout=1)),
        (lambda add: add.timeout(0.0011), More(timeout=2)),
        (lambda add: add.meta({"a": [1, (2,)]}), More(meta='{"a":[1,[2]]}')),
        (lambda add: add.tags("b", "a", "b"), More(tags='["b","a"]')),
        (lambda add: add.key(Name.ONE).tags(Name.ONE), More(key="one", turns=2, tags='["one"]')),
    ],
)
async def test_what_most_jobs_have_not(options: Callable[[Any], Any], more: More) -> None:
    """Each option is stored for itself, times in milliseconds, the limit of its key with a key."""
    [job] = await stored(Errand(), options=options)
    assert job.more == more
    assert job.more is not None
    assert {type(value) for value in (job.more.key, job.more.tags)} <= {str, type(None)}


async def test_options_count_for_all_jobs_of_an_operation() -> None:
    """Each task gets them, with the limit of its own queue."""
    jobs = await stored(Errand(), Note(), Errand(), options=lambda add: add.key("a").priority(1))
    assert [job.more.turns for job in jobs if job.more] == [2, None, 2]
    assert [job.priority for job in jobs] == [1, 1, 1]


async def test_a_repeated_save_has_the_same_id_and_says_so() -> None:
    """After an unknown outcome the same job is stored again, as one that may be there; nothing is doubled."""
    store = Recording()
    async with Client(store, workers=0) as client:
        for add in (client.add(Note()).unique(), client.add(Note("b")).id("mine", on_conflict="raise")):
            store.given.clear()
            store.failure = DatabaseUnavailable("disk")
            with pytest.raises(DatabaseUnavailable):
                await add.save()
            ids = await add.save()
            assert (ids.new, ids.existing) == ((*ids,), ())
            saved = [(job, again) for job, unique, again in store.given if unique is not None]
            assert saved == [(saved[0][0], False), (saved[0][0], True)]
            assert saved[0][0].id == ids[0]


async def test_a_save_after_a_refused_one_is_a_new_one() -> None:
    """Where another job was in the way nothing is stored for sure, so the next save is no repetition."""
    store = Recording()
    async with Client(store, workers=0) as client:
        await client.add(Note()).id("mine").save()
        operation = client.add(Note()).id("mine", on_conflict="raise")
        for _ in range(2):
            with pytest.raises(AlreadyExists):
                await operation.save()
    assert [again for _, unique, again in store.given if unique is not None] == [False, False, False]


async def test_a_repeated_save_looks_at_the_present_time(database: str, journal: Journal) -> None:
    """What was added within a time is counted back from when it is decided, not from the first try."""
    clock = Hands()
    busy = DatabaseUnavailable("disk")

    class Failing(Client):
        failures: ClassVar[list[BackliteError]] = [busy]

        def open_store(self) -> Any:
            return _FailsOnce(super().open_store(), self.failures)

    async with Failing(database, clock=clock) as client:
        client.register(Note, lambda task: None)
        client.failures.clear()
        first = await client.add(Note()).unique("k", within=60).save()
        await journal.ended(*first)
        clock.millis += 59_000
        client.failures.append(busy)
        operation = client.add(Note()).unique("k", within=60)
        with pytest.raises(DatabaseUnavailable):
            await operation.save()
        clock.millis += 2_000
        assert not existing(await operation.save())


class _FailsOnce:
    """A store whose next `add_unique` does nothing but fail, if it is to."""

    def __init__(self, store: Any, failures: list[BackliteError]) -> None:
        self._store = store
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def add_unique(self, *args: Any, **kwargs: Any) -> Any:
        if self._failures:
            raise self._failures.pop()
        return await self._store.add_unique(*args, **kwargs)


async def test_meta_is_taken_at_the_call(database: str) -> None:
    """What happens to the dict afterwards does not matter."""
    meta: dict[str, Any] = {"a": [1]}
    async with Client(database, workers=0) as client:
        operation = client.add(Note()).meta(meta)
        meta["a"].append(2)
        [job] = await jobs_of(client, *await operation.save())
    assert job.meta == {"a": [1]}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain))
def test_meta_comes_back_as_it_was_or_is_refused(meta: dict[str, Any]) -> None:
    """Whatever plain data are taken are the same data, of the same types, when they are decoded."""
    try:
        encoded = encoded_meta(meta)
    except InvalidValue as error:
        assert "surrogates" in str(error) or "bytes as JSON" in str(error)  # noqa: PT017
        return
    back = msgspec.json.decode(encoded or "{}")
    assert json.dumps(back) == json.dumps(meta)


# -- what the handler sees ------------------------------------------------------------------------


async def test_a_handler_sees_what_was_stored(database: str, journal: Journal) -> None:
    """Key, meta, tags and its own timeout are at hand, and the same in the record."""
    seen: list[JobContext] = []
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note, job: JobContext) -> None:
            seen.append(job)

        add = client.add(Note("a")).key("customer-42").timeout(90).meta({"a": {"b": None}}).tags("x", "y")
        ids = [*await add.save(), *await client.add(Note()).save()]
        await journal.ended(*ids)
        record, bare_record = await jobs_of(client, *ids)
    job, bare = sorted(seen, key=lambda job: job.id)
    assert (job.key, job.meta, job.tags, job.parent) == ("customer-42", {"a": {"b": None}}, ("x", "y"), None)
    assert job.meta is job.meta
    assert not job.cancelled
    assert (record.key, record.meta, record.tags, record.timeout) == (job.key, job.meta, job.tags, 90.0)
    assert (bare.key, bare.meta, bare.tags, bare.parent) == (None, {}, (), None)
    assert bare.meta is bare.meta
    assert (bare_record.key, bare_record.meta, bare_record.tags, bare_record.timeout) == (None, {}, (), None)


async def test_a_handler_is_told_of_a_cancellation(journal: Journal) -> None:
    """`job.cancelled` says what was asked for, which the dispatcher writes down."""
    async with Client(":memory:") as client:

        @client.handler(Note)
        async def note(task: Note, job: JobContext) -> None:
            assert job.cancelled is False
            job.cancel_asked = True
            assert job.cancelled is True

        [job_id] = await client.add(Note()).save()
        await journal.ended(job_id)
        assert await client.status(job_id) is JobStatus.SUCCEEDED


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_job_knows_who_added_it(database: str, threaded: bool, journal: Journal) -> None:
    """What a handler adds through its own client has its job as parent; all other jobs have none."""
    other = Client(":memory:", workers=0)
    added: list[str] = []

    async def in_loop(task: Errand, job: JobContext) -> None:
        added.extend(await client.add(Note("a"), Note("b")).key("k").save())
        added.extend(await client.add(Note("c")).unique().save())
        added.extend(await other.add(Note()).save())

    def in_thread(task: Errand, job: JobContext) -> None:
        anyio.from_thread.run(in_loop, task, job)

    async with Client(database, workers=1) as client, other:
        client.register(Errand, in_thread if threaded else in_loop)
        [parent] = await client.add(Errand()).save()
        await journal.ended(parent)
        children = await jobs_of(client, *added[:3])
        strangers = await jobs_of(other, added[3])
        [outside] = await jobs_of(client, *await client.add(Note("d")).save())
    assert [(job.parent, job.key) for job in children] == [(parent, "k"), (parent, "k"), (parent, None)]
    assert strangers[0].parent is None
    assert outside.parent is None


async def test_a_job_added_in_a_transaction_knows_its_parent(file: str, journal: Journal) -> None:
    """So does one that is added inside `job.transaction()`."""
    added: list[str] = []
    async with Client(file) as client:

        @client.handler(Errand)
        async def errand(task: Errand, job: JobContext) -> None:
            async with job.transaction() as connection:
                added.extend(await client.add(Note()).tx(connection).unique("once").save())
                added.extend(await client.add(Note()).tx(connection).unique("once").save())

        [parent] = await client.add(Errand()).save()
        await journal.ended(parent)
        [job] = await jobs_of(client, added[0])
    assert job.parent == parent
    assert added[0] == added[1]


async def test_higher_priorities_run_first(database: str, journal: Journal) -> None:
    """Of what is due the highest priority runs first, over all queues; among equals the oldest."""
    order: list[str] = []
    async with Client(database, workers=1) as client:
        ids: list[str] = []
        for n, priority in enumerate([0, 5, -5, 5, 0]):
            ids += await client.add(Note(f"{priority} {n}")).priority(priority).save()
        ids += await client.add(Errand("3 5")).save()

        def run(task: Note | Errand) -> None:
            order.append(task.text)

        client.register(Note, run)
        client.register(Errand, run)
        await journal.ended(*ids)
    assert order == ["5 1", "5 3", "3 5", "0 0", "0 4", "-5 2"]


# -- what keeps a job from being added ------------------------------------------------------------


def existing(added: Added) -> bool:
    """Return whether the one id of an add is not new, which must be said in both ways."""
    [job_id] = added
    assert (added.new, added.existing) in (((job_id,), ()), ((), (job_id,)))
    return job_id in added.existing


async def test_a_unique_job_is_added_once(database: str, journal: Journal) -> None:
    """While a job of its key is pending or running, its id is the answer; then another may come."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def note(task: Note) -> None:
        begun.set()
        await go_on.wait()

    async with Client(database) as client:
        first = await client.add(Note("a")).unique("k").save()
        second = await client.add(Note("b")).unique("k").save()
        assert (existing(first), existing(second)) == (False, True)
        assert [*second] == first == [first[0]]
        client.register(Note, note)
        with anyio.fail_after(LIMIT):
            await begun.wait()
        assert existing(await client.add(Note("c")).unique("k").save())
        go_on.set()
        await journal.ended(first[0])
        third = await client.add(Note("d")).unique("k").save()
        assert not existing(third)
        [kept] = await jobs_of(client, *first)
        assert kept.payload == b'{"text":"a","number":0.0}'


async def test_a_retry_keeps_its_key(database: str, journal: Journal) -> None:
    """A job that waits for its next attempt is still in the way."""
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note) -> None:
            raise ValueError

        [job_id] = await client.add(Note()).unique("k").save()
        await journal.seen("job.retried", job_id)
        assert existing(await client.add(Note()).unique("k").save())


async def test_keys_of_other_queues_and_of_concurrency_are_others(database: str) -> None:
    """A unique key counts in its queue, for all types in that, and is no `.key()`."""
    async with Client(database, workers=0) as client:
        first = await client.add(Note()).unique("k").save()
        assert not existing(await client.add(Errand()).unique("k").save())
        assert not existing(await client.add(Note()).unique("other").key("k").save())
        assert not existing(await client.add(Note()).key("k").save())
        letter = await client.add(Letter()).unique("k").save()
        assert letter.existing == (*first,)


async def test_without_a_key_equal_tasks_are_one(database: str) -> None:
    """The default key is what the task says, with its type: not its object, not the order of its sets."""
    async with Client(database, workers=0) as client:
        first = await client.add(Note("a", 1)).unique().save()
        assert existing(await client.add(Note("a", 1.0)).unique().save())
        assert not existing(await client.add(Note("a", 2)).unique().save())
        assert not existing(await client.add(Note("b", 1)).unique().save())
        assert not existing(await client.add(Letter("a", 1)).unique().save())
        assert not existing(await client.add(Note("a", 1)).save())
        with pytest.raises(AlreadyExists, match="has the same task") as caught:
            await client.add(Note("a", 1)).unique(on_conflict="raise").save()
        assert caught.value.job_id == first[0]


async def test_within_remembers_a_job_that_has_ended(database: str, journal: Journal) -> None:
    """A job that was added less than `within` ago is in the way, however it ended; a live one always is."""
    clock = Hands()
    async with Client(database, clock=clock) as client:
        client.register(Note, lambda task: None)
        first = await client.add(Note()).unique("k", within=HOUR).save()
        await journal.ended(*first)
        clock.millis += 3_599_999
        second = await client.add(Note()).unique("k", within=HOUR).save()
        assert second.existing == (*first,)
        clock.millis += 1
        third = await client.add(Note()).unique("k", within=HOUR).save()
        assert not existing(third)
        await journal.ended(*third)
        clock.millis += 60_000
        assert existing(await client.add(Note()).unique("k", within=61).save())
        fourth = await client.add(Note()).unique("k", within=60).wait(1).save()
        assert not existing(fourth)
        fifth = await client.add(Note()).unique("k").save()
        assert fifth.existing == (*fourth,)
        clock.millis += 3_600_000
        client.notify()
        await journal.ended(*fourth)
        assert not existing(await client.add(Note()).unique("k", within=HOUR).save())


async def test_replace_gives_a_pending_job_the_new_task(database: str) -> None:
    """It gets payload and due time; id, attempts, priority and all else stay its own."""
    at = datetime(2040, 1, 1, tzinfo=UTC)
    async with Client(database, workers=0) as client:
        first = (
            client.add(Note("a")).unique("k").priority(2).max_attempts(5).meta({"n": 1}).tags("a").timeout(1)
        )
        [job_id] = await first.wait(HOUR).save()
        [before] = await jobs_of(client, job_id)
        other = (
            client.add(Letter("b")).unique("k", on_conflict="replace").priority(9).meta({"n": 2}).tags("b")
        )
        added = await other.at(at).save()
        [after] = await jobs_of(client, job_id)
        assert existing(added)
        assert (after.payload, after.task, after.due_at) == (b'{"text":"b","number":0.0}', "Letter", at)
        assert (after.priority, after.max_attempts, after.timeout) == (2, 5, 1.0)
        assert (after.meta, after.tags, after.created_at) == ({"n": 1}, ("a",), before.created_at)
        await client.add(Note("c")).unique("k", on_conflict="replace").save()
        [now] = await jobs_of(client, job_id)
        assert now.due_at < before.due_at


async def test_a_replaced_job_runs_when_it_is_due_now(database: str, journal: Journal) -> None:
    """What was for later and is replaced without a wait runs at once, with the new task."""
    seen: list[str] = []
    async with Client(database) as client:
        client.register(Note, lambda task: seen.append(task.text))
        first = await client.add(Note("later")).unique("k").wait(HOUR).save()
        assert existing(await client.add(Note("now")).unique("k", on_conflict="replace").save())
        await journal.ended(*first)
    assert seen == ["now"]


async def test_what_is_no_longer_pending_is_not_replaced(database: str, journal: Journal) -> None:
    """A running job, and one that has ended, stays as it is, and its id is the answer."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    seen: list[str] = []
    async with Client(database) as client:

        @client.handler(Note)
        async def note(task: Note) -> None:
            begun.set()
            await go_on.wait()
            seen.append(task.text)

        first = await client.add(Note("a")).unique("k", within=HOUR).save()
        with anyio.fail_after(LIMIT):
            await begun.wait()
        assert existing(await client.add(Note("b")).unique("k", HOUR, "replace").save())
        go_on.set()
        await journal.ended(*first)
        assert existing(await client.add(Note("c")).unique("k", HOUR, "replace").save())
        [job] = await jobs_of(client, *first)
    assert job.payload == b'{"text":"a","number":0.0}'
    assert seen == ["a"]


async def test_raise_tells_the_id_and_leaves_the_operation(database: str) -> None:
    """`AlreadyExists` is a ValueError that names job and key; the same operation can be saved later."""
    clock = Hands()
    async with Client(database, clock=clock, workers=0) as client:
        [first] = await client.add(Note("a")).unique("k").save()
        operation = client.add(Note("b")).unique("k", on_conflict="raise").wait(60)
        for _ in range(2):
            with pytest.raises(AlreadyExists) as caught:
                await operation.save()
        assert (caught.value.job_id, caught.value.what) == (first, "unique key 'k'")
        assert isinstance(caught.value, ValueError)
        assert str(caught.value).startswith(f"job {first} has the same unique key 'k', and nothing was added")
        same = pickle.loads(pickle.dumps(caught.value))
        assert (same.job_id, str(same)) == (first, str(caught.value))
        clock.millis += 5_000
        added = await operation.unique("other", on_conflict="raise").save()
        [job] = await jobs_of(client, *added)
    assert not existing(added)
    assert job.created_at == datetime.fromtimestamp(START / 1000 + 5, UTC)
    assert timedelta(0) <= job.due_at - job.created_at - timedelta(seconds=60) <= timedelta(milliseconds=1)


async def test_an_id_of_ones_own(database: str, journal: Journal) -> None:
    """It names the job everywhere, and is in the way while the job lives or is kept, in any queue."""
    clock = Hands()
    async with Client(database, clock=clock) as client:

        @client.handler(Errand)
        async def errand(task: Errand, job: JobContext) -> None:
            assert current_job().id == job.id == "order-42"

        added = await client.add(Errand("a")).id("order-42").wait(60).save()
        assert (added, added.new) == (["order-42"], ("order-42",))
        assert existing(await client.add(Errand("b")).id("order-42").save())
        assert existing(await client.add(Note("b")).id("order-42").save())
        with pytest.raises(AlreadyExists, match=r"^job order-42 has the same id, and nothing was added"):
            await client.add(Errand("b")).id("order-42", on_conflict="raise").save()
        assert existing(await client.add(Errand("c")).id("order-42", on_conflict="replace").save())
        [job] = await jobs_of(client, "order-42")
        assert (job.payload, job.due_at) == (b'{"text":"c"}', job.created_at)
        await journal.ended("order-42")
        assert await client.status("order-42") is JobStatus.NOT_FOUND
        assert not existing(await client.add(Errand("d")).id("order-42").save())
        await journal.seen("job.succeeded", "order-42", count=2)


async def test_replacing_by_id_moves_a_job_to_the_queue_of_the_task(database: str, journal: Journal) -> None:
    """An id is one of all queues: what replaces a job of another queue runs there, as what it is."""
    seen: list[str] = []
    async with Client(database) as client:
        client.register(Errand, lambda task: seen.append(task.text))
        await client.add(Note("a")).id("mine").wait(HOUR).save()
        assert existing(await client.add(Errand("b")).id("mine", on_conflict="replace").save())
        await journal.ended("mine")
    assert seen == ["b"]


class Brief(Task):
    config: ClassVar[QueueConfig] = QueueConfig("brief", retention=Retention(duration=60))


async def test_an_id_is_free_when_its_job_is_no_longer_kept(database: str, journal: Journal) -> None:
    """A completed job that is kept holds its id, until its retention ends; then another one can have it."""
    clock = Hands()
    async with Client(database, clock=clock) as client:
        client.register(Brief, lambda task: None)
        for count in (1, 2, 3):
            assert not existing(await client.add(Brief()).id("mine").save())
            await journal.seen("job.succeeded", "mine", count=count)
            assert existing(await client.add(Brief()).id("mine", on_conflict="replace").save())
            assert await client.status("mine") is JobStatus.SUCCEEDED
            clock.millis += 60_001


async def test_id_and_unique_key_have_their_own_rules(database: str) -> None:
    """The id is looked at first; whichever is in the way, its own `on_conflict` says what follows."""
    async with Client(database, workers=0) as client:
        await client.add(Note("by key")).unique("k").id("other").save()
        await client.add(Note("by id")).id("mine").save()

        async def add(of_id: Any, of_key: Any, own: str = "mine") -> Added:
            return await client.add(Note("new")).id(own, of_id).unique("k", None, of_key).save()

        assert (await add("keep", "raise")).existing == ("mine",)
        with pytest.raises(AlreadyExists, match="job mine has the same id"):
            await add("raise", "keep")
        assert (await add("raise", "keep", "third")).existing == ("other",)
        with pytest.raises(AlreadyExists, match="job other has the same unique key 'k'"):
            await add("keep", "raise", "third")
        await add("keep", "replace")
        by_key, by_id = await jobs_of(client, "other", "mine")
        assert (by_key.payload, by_id.payload) == (
            b'{"text":"by key","number":0.0}',
            b'{"text":"by id","number":0.0}',
        )
        await add("keep", "replace", "third")
        [by_key] = await jobs_of(client, "other")
        assert by_key.payload == b'{"text":"new","number":0.0}'
        assert await client.status("third") is JobStatus.NOT_FOUND


async def test_only_new_jobs_are_logged_as_added(database: str, journal: Journal) -> None:
    """A job that was there is not told of a second time."""
    async with Client(database, workers=0) as client:
        [first] = await client.add(Note()).unique("k").save()
        await client.add(Note()).unique("k").save()
        await client.add(Note()).unique("k", on_conflict="replace").save()
        with pytest.raises(AlreadyExists):
            await client.add(Note()).unique("k", on_conflict="raise").save()
    assert len(journal.of("job.added")) == len(journal.of("job.added", first)) == 1


async def test_a_task_that_cannot_be_stored_is_refused_before_its_key(database: str) -> None:
    """A wrong task is a `PayloadError` before its key is made of it; so is one too deep for that."""
    async with Client(database, workers=0) as client:
        with pytest.raises(PayloadError, match=r"\$.number"):
            await client.add(Note(number=float("nan"))).unique().save()
    with pytest.raises(PayloadError, match=r"Bag: is nested too deeply for \.unique\(\) without a key; give"):
        print_of(Bag(nested(2 * sys.getrecursionlimit())))


@pytest.mark.parametrize("key", ["k", None])
async def test_a_race_makes_one_job(file: str, key: str | None) -> None:
    """Two clients on one file that add the same at the same time make one job."""
    async with Client(file, workers=0) as one, Client(file, workers=0) as two:
        saves = [client.add(Note()).unique(key).save() for _ in range(50) for client in (one, two)]
        added = await asyncio.gather(*saves)
        assert len({job_id for ids in added for job_id in ids}) == 1
        assert sum(len(ids.new) for ids in added) == 1
        own = [client.add(Note()).id("mine").save() for _ in range(50) for client in (one, two)]
        assert sum(len(ids.new) for ids in await asyncio.gather(*own)) == 1


# -- the same inside a transaction ----------------------------------------------------------------


async def test_unique_inside_a_transaction(file: str) -> None:
    """It sees what the transaction has added, and what it adds is there if that commits."""
    async with Client(file, workers=0) as client, aiosqlite.connect(file) as connection:
        await connection.execute("BEGIN IMMEDIATE")
        first = await client.add(Note("a")).tx(connection).unique("k").save()
        second = await client.add(Note("b")).tx(connection).unique("k", on_conflict="replace").save()
        assert (existing(first), second.existing) == (False, (*first,))
        with pytest.raises(AlreadyExists):
            await client.add(Note("c")).tx(connection).unique("k", on_conflict="raise").save()
        own = await client.add(Note("d")).tx(connection).id("mine").save()
        assert existing(await client.add(Note("d")).tx(connection).id("mine").save())
        await connection.commit()
        kept, mine = await jobs_of(client, *first, *own)
        assert (kept.payload, mine.id) == (b'{"text":"b","number":0.0}', "mine")
        assert existing(await client.add(Note()).unique("k").save())


async def test_a_rollback_leaves_the_key_and_the_id_free(file: str) -> None:
    """What a rolled-back transaction added, or replaced, has not happened."""
    async with Client(file, workers=0) as client, aiosqlite.connect(file) as connection:
        [kept] = await client.add(Note("a")).unique("old").save()
        await connection.execute("BEGIN IMMEDIATE")
        await client.add(Note("b")).tx(connection).unique("k").id("mine").save()
        await client.add(Note("b")).tx(connection).unique("old", on_conflict="replace").save()
        await connection.rollback()
        [job] = await jobs_of(client, kept)
        assert job.payload == b'{"text":"a","number":0.0}'
        assert not existing(await client.add(Note()).unique("k").id("mine").save())


async def test_options_inside_a_transaction(file: str) -> None:
    """All that can be said of a job is stored with it there too."""
    async with Client(file, workers=0) as client, aiosqlite.connect(file) as connection:
        await connection.execute("BEGIN")
        add = client.add(Errand("a"), Errand("b")).key("k").timeout(2).meta({"n": 1}).tags("t").priority(-4)
        ids = await add.max_attempts(9).tx(connection).save()
        await connection.commit()
        for job in await jobs_of(client, *ids):
            assert (job.key, job.timeout, job.meta, job.tags) == ("k", 2.0, {"n": 1}, ("t",))
            assert (job.priority, job.max_attempts) == (-4, 9)


# -- what a task is unique by ---------------------------------------------------------------------


def print_of(task: msgspec.Struct) -> str:
    return fingerprint(task_type(type(task)), task)


@dataclass
class Side:
    name: str
    ends: set[str]


class Cat(msgspec.Struct, tag="cat"):
    age: int


class Dog(msgspec.Struct, tag="dog"):
    age: int


def test_a_fingerprint_is_what_it_has_always_been() -> None:
    """Its values are stored: what an older version made must be found by a newer one."""
    form = (
        '["Bag",{"numbers":{"10":"a","2":"b"},"points":[{"x":0,"y":5},{"x":1,"y":0}],'
        '"what":{"a":[1,2.5,null,true],"b":["x"],"cat":{"age":3,"type":"cat"}}}]'
    )
    what = {"b": {"x"}, "a": [1.0, 2.5, None, True], "cat": Cat(3)}
    task = Bag(what, {2: "b", 10: "a"}, {Point(1), Point(0, 5)})
    assert print_of(task) == hashlib.blake2b(form.encode(), digest_size=16).hexdigest()
    assert print_of(Note("ä", 1)) == "e24418c0ea106a84fb0a93a094f2a4ed"


PROGRAM = """
from dataclasses import dataclass
from typing import Any, ClassVar
import msgspec
from backlite_async import QueueConfig, Task
from backlite_async._fingerprint import fingerprint
from backlite_async._task import task_type

@dataclass
class Side:
    name: str
    ends: set[str]

class Letter(msgspec.Struct, frozen=True):
    text: str

class Bag(Task):
    config: ClassVar[QueueConfig] = QueueConfig("bags")
    what: Any
    letters: set[Letter]

bag = Bag({"set": set("abcdefgh"), "side": Side("s", set("uvwxyz"))}, {Letter(text) for text in "abcdefgh"})
print(fingerprint(task_type(Bag), bag), msgspec.json.encode(bag).decode())
"""


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Sets of text have another order in each process, and so has the payload; the key has not."""
    found = []
    for seed in ("1", "2", "3"):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.append(run.stdout.split())
    assert len({key for key, _ in found}) == 1
    assert len({payload for _, payload in found}) == 3


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_tasks_that_say_the_same_have_the_same_fingerprint(one: Any, other: Any) -> None:
    """And others have another: it tells apart what the encoder tells apart, whatever the order of dicts."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (print_of(Bag(one)) == print_of(Bag(other))) is same
    assert print_of(Bag(one)) == print_of(Bag(turned(one)))


def turned(value: Any) -> Any:
    """Return the same value with its dicts in another order."""
    if isinstance(value, dict):
        return {key: turned(inner) for key, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list) else copy.copy(value)


@given(st.dictionaries(st.integers(), st.text()), st.sets(st.builds(Point, st.integers(), st.integers())))
def test_what_cannot_be_sorted_has_a_place_all_the_same(numbers: dict[int, str], points: set[Point]) -> None:
    """Keys that are numbers, and sets of Structs, in any order."""
    other = Bag(None, dict(reversed(numbers.items())), {*reversed([*points])})
    assert print_of(Bag(None, numbers, points)) == print_of(other)
    assert print_of(Bag(None, {**numbers, 10**30: ""}, points)) != print_of(other)
    assert print_of(Bag(None, numbers, {*points, Point(0, 10**30)})) != print_of(other)


def test_a_fingerprint_tells_types_and_shapes_apart() -> None:
    """Another type, a list beside a dict, a number beside its text: all are different, as in JSON."""
    whats: list[Any] = [
        None, False, 0, "0", "", [], {}, [[]], [{}], {"0": 0}, [["0", 0]], {"a": 1, "b": 2}, {"a": 2, "b": 1},
        0.5, {frozenset("a"), frozenset("b")}, {frozenset("ab")}, ["a", "b"], 2**60, b"abc", Point(1, 2),
        Side("", set()), Cat(1), Dog(1),
    ]  # fmt: skip
    prints = [print_of(Bag(what)) for what in whats]
    assert len({*prints}) == len(prints)
    assert print_of(Note()) != print_of(Letter())


# -- what save() returns --------------------------------------------------------------------------


def test_added_is_a_list() -> None:
    """Which of its ids are new is all that it has beside a list."""
    added = Added(["a", "b", "c"])
    assert (added.new, added.existing) == (("a", "b", "c"), ())
    added.existing = ("b",)
    assert added == ["a", "b", "c"]
    assert isinstance(added, list)
    assert repr(added) == "['a', 'b', 'c']"
    assert (added.new, added.existing) == (("a", "c"), ("b",))
    for same in (copy.copy(added), copy.deepcopy(added), pickle.loads(pickle.dumps(added))):
        assert (type(same), same, same.new, same.existing) == (Added, added, added.new, added.existing)
    assert msgspec.json.encode(added) == b'["a","b","c"]'
    assert Added() == []


async def test_save_says_which_ids_are_new(database: str) -> None:
    """All of an ordinary operation; none of no tasks."""
    async with Client(database, workers=0) as client:
        added = await client.add(Note(), Errand()).save()
        none = await client.add().save()
    assert (added.new, added.existing) == ((*added,), ())
    assert (none, none.new, none.existing) == ([], (), ())
