"""Jobs that are claimed before a worker is free: how many, in which order, and for how long."""

from __future__ import annotations

import pytest

from backlite_async import _ahead
from backlite_async._ahead import KNOWN_AFTER, LIMIT, LONGEST_GAP, MOST, WORK, Ahead
from backlite_async._job import ClaimedJob

FAR = 1_000_000


def job(number: int, fence: int = 1) -> ClaimedJob:
    return ClaimedJob(
        id=str(number),
        queue="work",
        task="Work",
        payload="{}",
        attempt=1,
        max_attempts=3,
        crashes=0,
        fence=fence,
        created_at=0,
        scheduled_at=0,
    )


def paced(gap: float, *, ends: int = 2000, threaded: bool = False) -> Ahead:
    """Return one that has seen jobs end, `gap` seconds apart."""
    ahead = Ahead()
    for number in range(ends):
        ahead.ended(1000.0 + number * gap, threaded=threaded)
    return ahead


def put(ahead: Ahead, *numbers: int, fence: int = 1, threaded: bool = False, since: float = 0.0) -> None:
    for number in numbers:
        ahead.put(job(number, fence), threaded=threaded, since=since, until=FAR)


def lows(ahead: Ahead) -> tuple[bool, bool]:
    return ahead.low(threaded=False), ahead.low(threaded=True)


def taken(ahead: Ahead, threads_free: int = 1) -> list[str]:
    found = []
    while one := ahead.take(threads_free):
        found.append(one.id)
    return found


# -- how many --------------------------------------------------------------------------------------


def test_nothing_is_claimed_ahead_before_enough_have_ended() -> None:
    """A pace is known after so many ends, not before, however quick they were."""
    ahead = Ahead()
    for _ in range(KNOWN_AFTER - 1):
        ahead.ended(5.0, threaded=False)
        assert ahead.room(threaded=False) == 0
    ahead.ended(5.0, threaded=False)
    room = ahead.room(threaded=False)
    assert room is None or room >= 0
    for _ in range(KNOWN_AFTER * 10):
        ahead.ended(5.0, threaded=False)
    assert ahead.room(threaded=False) == MOST


@pytest.mark.parametrize("gap", [0.0005, 0.001, 0.003, 0.007])
def test_what_ends_within_the_work_is_claimed_ahead(gap: float) -> None:
    """It goes by time, not by number."""
    room = paced(gap).room(threaded=False)
    assert room is not None
    assert abs(room - WORK / gap) <= 1


@pytest.mark.parametrize(("gap", "room"), [(0.0, MOST), (WORK / MOST / 2, MOST), (WORK * 1.01, 0), (3.0, 0)])
def test_number_has_its_limits(gap: float, room: int) -> None:
    """At most so many; none where one takes longer than what is to be claimed ahead."""
    assert paced(gap).room(threaded=False) == room


def test_pace_is_an_average_that_moves() -> None:
    """One slow job among quick ones changes little; many of them, much."""
    ahead = paced(0.001)
    ahead.ended(1002.0 - 0.001 + 0.002, threaded=False)
    first = ahead.room(threaded=False)
    assert first is not None
    assert 18 <= first <= 20
    for number in range(1, 5 * KNOWN_AFTER):
        ahead.ended(1002.001 + number * 0.01, threaded=False)
    assert ahead.room(threaded=False) in (1, 2)


def test_to_be_idle_is_not_to_be_slow() -> None:
    """An hour between two ends counts as a tenth of a second."""
    idle, slow = paced(0.001), paced(0.001)
    idle.ended(1002.0 + 3600.0, threaded=False)
    slow.ended(1002.0 - 0.001 + LONGEST_GAP, threaded=False)
    assert idle.room(threaded=False) == slow.room(threaded=False) != 0


def test_more_is_claimed_once_half_is_gone() -> None:
    """Nobody asks the store for each job that ends."""
    ahead = paced(WORK / 10.5)
    worth = ahead.room(threaded=False)
    assert worth == 10
    put(ahead, *range(worth))
    for left in range(worth, -1, -1):
        assert len(ahead) == left
        assert ahead.room(threaded=False) == (worth - left if 2 * left <= worth else None)
        ahead.take(0)


def test_nothing_more_is_wanted_while_there_is_enough_of_both_sorts() -> None:
    """Each sort is looked at by itself."""
    ahead = paced(0.001)
    for number in range(2000):
        ahead.ended(1000.0 + number * 0.001, threaded=True)
    assert lows(ahead) == (True, True)
    put(ahead, *range(20))
    assert lows(ahead) == (False, True)
    put(ahead, *range(20), threaded=True)
    assert lows(ahead) == (False, False)
    assert ahead.room(threaded=False) is None
    assert ahead.room(threaded=True) is None


def test_sorts_have_paces_of_their_own() -> None:
    """Quick coroutines do not make anybody claim for threads."""
    ahead = paced(0.001)
    assert ahead.room(threaded=True) == 0
    assert paced(0.001, threaded=True).room(threaded=False) == 0


# -- in which order --------------------------------------------------------------------------------


def test_jobs_come_in_the_order_of_their_claims() -> None:
    """What was claimed first starts first, in the order in which its claim returned it."""
    ahead = Ahead()
    put(ahead, 1, 2, fence=1)
    put(ahead, 3, fence=1, threaded=True)
    put(ahead, 4, fence=2, threaded=True)
    put(ahead, 5, fence=2)
    assert (bool(ahead), len(ahead)) == (True, 5)
    assert taken(ahead) == ["1", "2", "3", "5", "4"]
    assert (bool(ahead), len(ahead)) == (False, 0)


def test_old_job_for_a_thread_goes_before_a_younger_one() -> None:
    """Coroutines do not starve threads."""
    ahead = Ahead()
    put(ahead, 1, fence=1, threaded=True)
    put(ahead, 2, fence=2)
    assert taken(ahead) == ["1", "2"]


@pytest.mark.parametrize("threads_free", [0, -1])
def test_job_waits_for_a_thread_while_others_go_on(threads_free: int) -> None:
    """Without a free thread only what needs none is started."""
    ahead = Ahead()
    put(ahead, 1, fence=1, threaded=True)
    put(ahead, 2, fence=2)
    assert taken(ahead, threads_free) == ["2"]
    assert len(ahead) == 1
    assert taken(ahead) == ["1"]


# -- for how long ----------------------------------------------------------------------------------


@pytest.mark.parametrize("threaded", [False, True])
def test_job_waits_so_long_and_no_longer(threaded: bool) -> None:
    """From the moment at which its claim was asked for."""
    ahead = Ahead()
    put(ahead, 1, 2, since=10.0, threaded=threaded)
    assert ahead.pause(10.0) == pytest.approx(LIMIT)
    assert ahead.overdue(10.0 + LIMIT - 0.001, 0) == []
    assert ahead.pause(10.0 + LIMIT - 0.001) == pytest.approx(0.001)
    assert [job.id for job in ahead.overdue(10.0 + LIMIT, 0)] == ["1", "2"]
    assert not ahead
    assert ahead.overdue(99.0, 0) == []


@pytest.mark.parametrize("threaded", [False, True])
def test_job_does_not_wait_beyond_its_lease(threaded: bool) -> None:
    """Monotonic time stands still while a computer sleeps; leases end by wall time."""
    ahead = Ahead()
    ahead.put(job(1), threaded=threaded, since=10.0, until=500)
    assert ahead.overdue(10.0, 499) == []
    assert [job.id for job in ahead.overdue(10.0, 500)] == ["1"]


def test_only_the_sort_that_has_waited_goes_back() -> None:
    """Coroutines go on while all threads are kept."""
    ahead = Ahead()
    put(ahead, 1, fence=1, since=0.0, threaded=True)
    put(ahead, 2, fence=2, since=0.2)
    assert [job.id for job in ahead.overdue(LIMIT, 0)] == ["1"]
    assert taken(ahead) == ["2"]


def test_claims_are_told_apart() -> None:
    """How long the first one has waited is what counts, also when earlier ones have gone."""
    ahead = Ahead()
    put(ahead, 1, 2, fence=1, since=0.0)
    put(ahead, 3, fence=2, since=0.1)
    ahead.put(job(4, 3), threaded=False, since=0.2, until=7)
    assert ahead.pause(0.2) == pytest.approx(LIMIT - 0.2)
    ahead.take(0)
    ahead.take(0)
    assert ahead.pause(0.2) == pytest.approx(LIMIT - 0.1)
    assert ahead.overdue(0.3, 7) == []
    ahead.take(0)
    assert ahead.pause(0.2) == pytest.approx(LIMIT)
    assert [job.id for job in ahead.overdue(0.3, 7)] == ["4"]


@pytest.mark.parametrize("threaded", [False, True])
def test_pause_lasts_until_the_first_of_both_sorts(threaded: bool) -> None:
    """Whichever has waited for longer."""
    ahead = Ahead()
    put(ahead, 1, fence=1, since=0.0, threaded=threaded)
    put(ahead, 2, fence=2, since=0.2, threaded=not threaded)
    assert ahead.pause(0.2) == pytest.approx(LIMIT - 0.2)


def test_lane_that_was_empty_begins_anew() -> None:
    """No claim of long ago makes a new one look old."""
    ahead = Ahead()
    put(ahead, 1, fence=1, since=0.0)
    ahead.take(0)
    assert ahead.overdue(50.0, 0) == []
    assert ahead.pause(50.0) == pytest.approx(LIMIT)
    put(ahead, 2, fence=2, since=50.0)
    assert ahead.overdue(50.0, 0) == []
    assert ahead.pause(50.0) == pytest.approx(LIMIT)


def test_what_has_waited_in_vain_was_no_pace() -> None:
    """Where jobs went back nothing more is claimed ahead, until enough have ended again."""
    ahead = paced(0.001)
    put(ahead, *range(5), since=0.0)
    assert len(ahead.overdue(LIMIT, 0)) == 5
    for number in range(KNOWN_AFTER - 1):
        assert ahead.room(threaded=False) == 0
        ahead.ended(1002.0 + number * 0.001, threaded=False)
    assert ahead.room(threaded=False) == 0
    ahead.ended(1002.1, threaded=False)
    assert ahead.room(threaded=False)


def test_all_of_both_sorts_are_given_up() -> None:
    """And their paces are forgotten."""
    ahead = paced(0.001)
    put(ahead, 1)
    put(ahead, 2, threaded=True)
    assert sorted(job.id for job in ahead.give_up()) == ["1", "2"]
    assert not ahead
    assert ahead.room(threaded=False) == 0
    assert ahead.give_up() == []


def test_limits_go_together() -> None:
    """What is claimed ahead is done long before it would go back."""
    assert WORK * 4 < LIMIT
    assert WORK < LONGEST_GAP
    assert _ahead.KNOWN_AFTER > 1
