"""What to claim next: never more than is free, and nothing where nothing is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backlite_async._job import Lane
from backlite_async._plan import Kind, plan_claim

rooms = st.integers(-5, 50)
kinds_of = st.lists(
    st.builds(Kind, st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()),
    max_size=9,
    unique_by=lambda kind: (kind.queue, kind.task),
)

ASYNC = Kind("mail", "SendEmail", False)
THREAD = Kind("mail", "Resize", True)


def plan(kinds: list[Kind], workers: int, threads: int, writes: int) -> list[Lane]:
    return plan_claim(kinds, workers_free=workers, threads_free=threads, writes_free=writes)


@given(kinds_of, rooms, rooms, rooms)
def test_no_lane_is_wider_than_what_is_free(
    kinds: list[Kind], workers: int, threads: int, writes: int
) -> None:
    """A lane has room for at least one, at most for the free workers and the unwritten outcomes."""
    for lane in plan(kinds, workers, threads, writes):
        assert 1 <= lane.room <= min(workers, writes)


@given(kinds_of, rooms, rooms, rooms)
def test_handlers_in_threads_share_the_free_threads(
    kinds: list[Kind], workers: int, threads: int, writes: int
) -> None:
    """All kinds that need a thread are in one lane, which is no wider than the free threads."""
    threaded = {(kind.queue, kind.task) for kind in kinds if kind.threaded}
    lanes = [lane for lane in plan(kinds, workers, threads, writes) if threaded & set(lane.kinds)]
    assert len(lanes) <= 1
    for lane in lanes:
        assert set(lane.kinds) == threaded
        assert lane.room <= threads


@given(kinds_of, rooms, rooms, rooms)
def test_every_kind_is_in_one_lane_or_has_no_room(
    kinds: list[Kind], workers: int, threads: int, writes: int
) -> None:
    """A kind is claimed for exactly where there is a free place for it, and then once."""
    room = min(workers, writes)
    planned = [kind for lane in plan(kinds, workers, threads, writes) for kind in lane.kinds]
    expected = [(kind.queue, kind.task) for kind in kinds if room > 0 and (threads > 0 or not kind.threaded)]
    assert sorted(planned) == sorted(expected)


@given(kinds_of, st.integers(-5, 0), st.sampled_from(["workers", "writes"]))
def test_nothing_is_claimed_without_room(kinds: list[Kind], full: int, what: str) -> None:
    """No free worker, or too many unwritten outcomes: nothing is claimed at all."""
    workers, writes = (full, 9) if what == "workers" else (9, full)
    assert plan(kinds, workers, 9, writes) == []


@given(rooms, rooms, rooms)
def test_nothing_is_claimed_without_handlers(workers: int, threads: int, writes: int) -> None:
    """A process without handlers claims nothing."""
    assert plan([], workers, threads, writes) == []


def test_free_threads_do_not_hold_up_coroutines() -> None:
    """Handlers that need no thread are claimed for when all threads are taken."""
    assert plan([ASYNC, THREAD], 10, 0, 10) == [Lane(kinds=(("mail", "SendEmail"),), room=10)]


def test_room_is_the_least_of_what_is_free() -> None:
    """Workers, threads and unwritten outcomes each bound what is claimed."""
    assert [lane.room for lane in plan([ASYNC, THREAD], 10, 4, 7)] == [7, 4]
    assert [lane.room for lane in plan([ASYNC, THREAD], 3, 4, 7)] == [3, 3]
