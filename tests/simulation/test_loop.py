from __future__ import annotations

import asyncio

import anyio
import pytest

from .clock import EPOCH, SimClock
from .loop import Deadlock, Livelock, SimLoop, run


def order(seed: int, *, shuffle: bool = True) -> list[int]:
    seen: list[int] = []

    async def note(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(number)

    async def main() -> None:
        await asyncio.gather(*(note(number) for number in range(4)))

    run(SimLoop(seed, shuffle=shuffle), main())
    return seen


def test_seed_decides_the_order() -> None:
    """One seed gives one interleaving, other seeds give others."""
    assert all(order(seed) == order(seed) for seed in range(20))
    assert len({tuple(order(seed)) for seed in range(20)}) > 15


def test_without_shuffling_the_order_is_that_of_asyncio() -> None:
    """With `shuffle=False` what was ready first runs first, whatever the seed."""
    assert order(1, shuffle=False) == order(2, shuffle=False) == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("begun", [0.0, 19_298_291.5, 31_536_000.0, 1e9])
def test_time_goes_on_however_late_it_is(begun: float) -> None:
    """Months after its start, two timers may be closer than a float can tell from a microsecond."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begun)
        for number in range(500):
            await asyncio.sleep(0.1 + number * 1.23456789e-7)
        return loop.time() - begun

    assert 50.0 < run(SimLoop(1), main()) < 50.1


def test_waiting_for_nothing_is_a_deadlock() -> None:
    """A wait that nobody can end is reported, with the time."""

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 2\.0"):
        run(SimLoop(0), main())


def test_spinning_is_a_livelock() -> None:
    """A loop that never ends is reported."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run(SimLoop(0, patience=1000), main())


def test_anyio_runs_on_it_and_long_waits_are_free() -> None:
    """An anyio scope cuts off a sleep of hours at its instant, in a few callbacks."""
    loop = SimLoop(3)

    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(3600) as scope:
            await anyio.sleep(7200)
        return scope.cancelled_caught, loop.time()

    caught, ended_at = run(loop, main())
    assert caught
    assert 3600 <= ended_at < 3600.001
    assert loop.steps < 20


def test_early_timers_come_before_their_time() -> None:
    """With `early`, timers fire up to that much too soon, and never sooner."""
    loop = SimLoop(0, early=0.001)
    gaps = []

    async def main() -> None:
        for _ in range(200):
            due = loop.time() + 1
            await asyncio.sleep(1)
            gaps.append(due - loop.time())

    run(loop, main())
    assert max(gaps) <= 0.001
    assert sum(gap > 0 for gap in gaps) > 150


def test_clock_jumps_its_wall_only() -> None:
    """The wall moves by what it is told; the monotonic part never steps."""
    loop = SimLoop(0)
    clock = SimClock(loop)

    async def main() -> list[tuple[int, float]]:
        seen = []
        for by in (3600.0, -3600.0, 0.0):
            clock.jump(by)
            seen.append((clock.now() - EPOCH, round(clock.monotonic(), 3)))
            await asyncio.sleep(1)
        return seen

    assert run(loop, main()) == [(3_600_000, 0.0), (1000, 1.0), (2000, 2.0)]
