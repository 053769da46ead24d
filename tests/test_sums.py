"""Statistics of all queues together, of which a client remembers what is over."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest

from backlite_async import Client, QueueConfig, QueueStats, Task
from backlite_async._clock import SystemClock, from_millis
from backlite_async._stats import DAY, HOUR, KEEP_MINUTES, MINUTE, Tally, queue_stats
from backlite_async._sums import SETTLED, Sums
from backlite_async.stores import MemoryStore, Store
from backlite_async.stores.sqlite import stats
from backlite_async.stores.sqlite.store import SQLiteStore

BEGIN = 500_000 * HOUR + 40 * MINUTE
QUEUES = ("a", "b", "c")
WHATS = ("succeeded", "failed", "retried")


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("a")


class Clock(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = BEGIN

    def now(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(database: str, clock: Clock) -> AsyncIterator[Client]:
    """A client that runs nothing, whose time stands still."""
    async with Client(database, workers=0, clock=clock) as client:
        yield client


async def count(store: Store, at: int, *tallies: tuple[str, str, int, int]) -> None:
    """Count attempts that ended then: queue, what, buckets."""
    told: list[Tally] = [
        (queue, at // MINUTE * MINUTE, what, run, wait) for queue, what, run, wait in tallies
    ]
    if isinstance(store, MemoryStore):
        for one in told:
            store._tallies.add(one)
    else:
        assert isinstance(store, SQLiteStore)
        await store._writing().submit(partial(stats.tally, tallies=Counter(told)), durable=False)


async def succeed(client: Client, at: int, number: int = 1) -> None:
    await count(client.open_store(), at, *[("a", "succeeded", 5, 5)] * number)


async def apart(client: Client, length: int, size: int) -> list[QueueStats]:
    """Return what is counted of each queue in steps, put together."""
    store, now = client.open_store(), client.clock.now()
    begin = (now - length) // size * size
    steps: dict[int, list[tuple[str, int, int]]] = {at: [] for at in range(begin, now + 1, size)}
    for queue in QUEUES:
        for _, at, what, bucket, number in await store.stats(
            since=begin, until=now + 1, step=size, queue=queue
        ):
            steps[at].append((what, bucket, number))
    return [
        queue_stats(rows, timedelta(milliseconds=min(at + size, now) - at), from_millis(at))
        for at, rows in steps.items()
    ]


class Asked:
    """Notes what a store is asked for all queues together."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spans: list[tuple[int, int]] = []
        self._clock, self._ask = client.clock, client.open_store().stats
        monkeypatch.setattr(client.open_store(), "stats", self._noted)

    async def _noted(self, **options: Any) -> Any:
        if options.get("together"):
            self.spans.append((options["since"], options["until"]))
        return await self._ask(**options)

    def taken(self) -> list[tuple[int, int]]:
        """Return how many milliseconds ago what was asked for begins and ends, and forget it."""
        now, spans = self._clock.now(), self.spans
        self.spans = []
        return [(now - since, now + 1 - until) for since, until in spans]


def pick(rng: random.Random) -> tuple[int, int]:
    """Return a time, and how long its steps are."""
    if rng.random() < 0.5:
        sizes = (MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR)
        return rng.randrange(MINUTE, KEEP_MINUTES + 1), rng.choice(sizes)
    return rng.randrange(KEEP_MINUTES + 1, 32 * DAY + 1), rng.choice((HOUR, 3 * HOUR, DAY, 20 * DAY))


@pytest.mark.parametrize("seed", range(4))
async def test_together_is_the_sum_of_all(client: Client, clock: Clock, seed: int) -> None:
    """Whenever it is asked, whatever was asked before; also where outcomes are late, and time goes back."""
    rng, store = random.Random(seed), client.open_store()
    for _ in range(120):
        for _ in range(rng.randrange(4)):
            queue, what = rng.choice(QUEUES), rng.choice(WHATS)
            late = rng.randrange(2 * MINUTE)  # until a minute is over
            await count(store, clock.at - late, (queue, what, rng.randrange(90), rng.randrange(-1, 90)))
        clock.at += rng.choice([0, 1, 1000, 20_000, MINUTE, 7 * MINUTE, HOUR, 5 * HOUR, 3 * DAY])
        if rng.random() < 0.05:
            clock.at -= rng.choice([1, MINUTE, HOUR, 2 * DAY])
        if rng.random() < 0.1:
            await store.sum_up(now=clock.at)
        length, size = pick(rng)
        last, step = timedelta(milliseconds=length), timedelta(milliseconds=size)
        assert list(await client.queues.series(None, last, step)) == await apart(client, length, size)
        unit = MINUTE if length <= KEEP_MINUTES else HOUR
        begin = (clock.at - length) // unit * unit
        assert await client.queues.stats(None, last) == await whole_of(client, begin)
        if rng.random() < 0.3:
            assert await numbers_of(client) == Counter(
                {
                    (queue, what): number
                    for queue, _, what, _, number in await store.numbers(
                        since=(clock.at - DAY) // HOUR * HOUR, until=clock.at + 1
                    )
                }
            )


async def numbers_of(client: Client) -> Counter[tuple[str, str]]:
    """Return what the last day has come to, as lists of queues have it."""
    found: Counter[tuple[str, str]] = Counter()
    for queue, _, what, _, number in (await client.queues._all().numbers(DAY))[2]:
        found[queue, what] += number
    return found


async def whole_of(client: Client, begin: int) -> QueueStats:
    """Return what is counted of all since an instant, in one."""
    now, rows = client.clock.now(), []
    for queue in QUEUES:
        found = await client.open_store().stats(since=begin, until=now + 1, queue=queue)
        rows += [(what, bucket, number) for _, _, what, bucket, number in found]
    return queue_stats(rows, timedelta(milliseconds=now - begin), from_millis(begin))


async def test_the_next_asks_for_what_is_new(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last hour and of the last day: three minutes."""
    asked = Asked(client, monkeypatch)
    for last, step in ((HOUR, 60), (DAY, 3600), (DAY, None), (HOUR, 900)):
        await client.queues.series(None, timedelta(milliseconds=last), step)
    first = asked.taken()
    assert first[0] == (HOUR, 0)
    assert len(first) == 5  # of the day, hours before those minutes
    clock.at += HOUR
    for long in (timedelta(hours=1), timedelta(days=1)):
        await client.queues.series(None, long)
    asked.taken()
    for _ in range(300):
        clock.at += 2_000
        await client.queues.series(None, timedelta(hours=1), 60)
        await client.queues.stats(None, timedelta(hours=1))
        await client.queues.series(None, timedelta(days=1), 3600)
        await client.queues.stats(None, timedelta(days=1))
        spans = asked.taken()
        assert len(spans) == 4
        assert all(since <= 4 * MINUTE and until == 0 for since, until in spans)


async def test_with_an_hour_the_last_ones_are_asked_anew(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written late is told then, of minutes and of hours; until then it is not."""
    asked = Asked(client, monkeypatch)
    day, hours = timedelta(days=1), timedelta(hours=2)

    async def told() -> tuple[int, int]:
        in_hours, in_minutes = await client.queues.stats(None, day), await client.queues.stats(None, hours)
        return in_hours.succeeded, in_minutes.succeeded

    await succeed(client, clock.at - 30 * MINUTE)
    assert await told() == (1, 1)
    await succeed(client, clock.at - 90 * MINUTE)
    await succeed(client, clock.at - MINUTE)
    assert await told() == (2, 2)
    clock.at += 19 * MINUTE
    assert await told() == (2, 2)
    asked.taken()
    clock.at += MINUTE
    assert (await told())[0] == 3
    spans = asked.taken()
    assert max(since for since, _ in spans) <= SETTLED + 2 * HOUR  # not the whole day
    clock.at += 5 * MINUTE
    assert (await told())[0] == 3


async def test_a_list_asks_for_what_is_new(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last day; with each minute for what the hour has come to, with each hour for all."""
    store, asked = client.open_store(), []
    ask = store.numbers

    async def noted(*, since: int, until: int) -> Any:
        asked.append((clock.at - since, clock.at + 1 - until))
        return await ask(since=since, until=until)

    monkeypatch.setattr(store, "numbers", noted)
    await client.add(Work()).save()
    for on, expected in ((0, 3), (1000, 1), (MINUTE, 2), (1000, 1), (HOUR, 3), (1000, 1)):
        clock.at += on
        asked.clear()
        await client.queues.list()
        assert len(asked) == expected
        assert asked[-1][0] <= 3 * MINUTE
        assert asked[-1][1] == 0
    clock.at -= 1
    await client.queues.list()
    assert len(asked) == 4


async def test_as_time_goes_back_nothing_is_remembered(client: Client, clock: Clock) -> None:
    """Minutes that seemed to be over are not."""
    day = timedelta(days=1)
    clock.at += HOUR
    for last in (day, timedelta(hours=2)):
        assert (await client.queues.stats(None, last)).succeeded == 0
    clock.at -= HOUR
    await succeed(client, clock.at - 1)
    clock.at += HOUR
    for last in (day, timedelta(hours=2)):
        assert (await client.queues.stats(None, last)).succeeded == 0  # they were over, as far as one knew
    clock.at -= 1
    for last in (day, timedelta(hours=2)):
        assert (await client.queues.stats(None, last)).succeeded == 1


async def test_what_is_remembered_has_an_end(client: Client, clock: Clock) -> None:
    """Four hours of minutes, 32 days of hours, however long a client lives."""
    for _ in range(3):
        clock.at += 20 * DAY
        for _ in range(5):
            clock.at += 59 * MINUTE
            await client.queues.series(None, timedelta(hours=3), 3600)
            await client.queues.series(None, timedelta(hours=3), 60)
            await client.queues.series(None, timedelta(days=32), timedelta(days=10))
    sums = client.queues._sums
    assert sums is not None
    assert len(sums._minutes) <= 4 * 60
    assert len(sums._hours) <= 32 * 24 + 1


async def test_who_asks_at_once_asks_once(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first asks for all; the others find it, but for what is not over."""
    await succeed(client, clock.at - 30 * MINUTE, 3)
    asked = Asked(client, monkeypatch)
    found = await asyncio.gather(*(client.queues.stats(None, timedelta(hours=2)) for _ in range(5)))
    assert [each.succeeded for each in found] == [3] * 5
    spans = asked.taken()
    assert spans[0][0] == 2 * HOUR
    assert all(since <= 3 * MINUTE for since, _ in spans[1:])


async def test_one_that_is_cancelled_hinders_nobody(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await succeed(client, clock.at - 30 * MINUTE)
    store, asks, go_on = client.open_store(), asyncio.Event(), asyncio.Event()
    ask = store.stats

    async def held(**options: Any) -> Any:
        asks.set()
        await go_on.wait()
        return await ask(**options)

    monkeypatch.setattr(store, "stats", held)
    one, other = (asyncio.ensure_future(client.queues.stats(None, timedelta(hours=2))) for _ in range(2))
    await asks.wait()
    one.cancel()
    go_on.set()
    assert (await other).succeeded == 1
    assert one.cancelled()


@pytest.mark.parametrize("make", [str, lambda path: MemoryStore()], ids=["file", "store"])
def test_a_client_that_starts_anew(tmp_path: Any, clock: Clock, make: Callable[[Any], Any]) -> None:
    """On another event loop it asks its store anew."""
    client = Client(make(tmp_path / "a.db"), workers=0, clock=clock)
    seen: list[Sums | None] = []

    async def run(expected: int) -> None:
        async with client:
            found = await asyncio.gather(*(client.queues.stats(None, timedelta(hours=2)) for _ in range(3)))
            assert [each.succeeded for each in found] == [expected] * 3
            await succeed(client, clock.at - 30 * MINUTE)
            seen.append(client.queues._sums)

    asyncio.run(run(0))
    asyncio.run(run(1))
    assert seen[0] is not seen[1]


async def test_a_client_that_is_stopped_and_started(file: str, tmp_path: Any, clock: Clock) -> None:
    """It asks the store that it has then: the file may be another one."""
    client = Client(file, workers=0, clock=clock)
    for number in range(2):
        async with client:
            assert (await client.queues.stats(None, timedelta(hours=2))).succeeded == 0
            await succeed(client, clock.at - 30 * MINUTE)
        if number == 0:
            os.rename(file, tmp_path / "old.db")


async def test_to_ask_writes_nothing(file: str, clock: Clock) -> None:
    """Not even sums of what was counted."""
    async with Client(file, workers=0, clock=clock) as client:
        await succeed(client, clock.at - 30 * MINUTE)
        other = sqlite3.connect(file)
        before = other.execute("PRAGMA data_version").fetchone()
        for last in (timedelta(hours=1), timedelta(days=1)):
            assert (await client.queues.stats(None, last)).succeeded == 1
            assert sum(step.succeeded for step in await client.queues.series(None, last)) == 1
        assert other.execute("PRAGMA data_version").fetchone() == before
        other.close()
