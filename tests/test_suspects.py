"""A live owner gets one more renewal period, in which we could write and its lease did not change."""

from __future__ import annotations

import pytest

from backlite_async._job import ClaimedJob, Lapsed
from backlite_async._suspects import Suspects

BEAT = 10.0


def lapsed(until: int = 1000, fence: int = 7) -> Lapsed:
    job = ClaimedJob(
        id="j1",
        queue="q",
        task="T",
        payload="{}",
        attempt=1,
        max_attempts=3,
        crashes=0,
        fence=fence,
        created_at=0,
        scheduled_at=0,
    )
    return Lapsed(job=job, owner="other", until=until)


def looks(suspects: Suspects, *times: float, claim: Lapsed | None = None) -> list[bool]:
    """Look at these times; return at which the claim may be taken."""
    claim = claim or lapsed()
    return [bool(suspects.look([(claim, BEAT)], now, 0.0)) for now in times]


def test_a_claim_is_taken_after_one_beat() -> None:
    """Not before the owner's whole renewal period has passed, counted from the first look."""
    assert looks(Suspects(), 100, 102.5, 105, 107.5, 109.9, 110) == [False] * 5 + [True]


def test_looks_are_close_together() -> None:
    """While anything is suspected there are several looks in a beat; else there is no need."""
    suspects = Suspects()
    assert not suspects
    looks(suspects, 100)
    assert suspects
    assert suspects.pause == BEAT / 4
    suspects.look([], 101, 0.0)
    assert not suspects


@pytest.mark.parametrize("other", [lapsed(until=1001), lapsed(fence=8)], ids=["renewed", "claimed again"])
def test_a_changed_claim_is_another(other: Lapsed) -> None:
    """A lease that was renewed, and ended once more, begins anew; so does another claim."""
    suspects = Suspects()
    looks(suspects, 100, 102.5, 105, 107.5)
    assert looks(suspects, 109.9, 112, claim=other) == [False, False]


def test_time_in_which_we_could_not_look_does_not_count() -> None:
    """After a gap, in which this process was stopped or blocked too, the period begins anew."""
    suspects = Suspects()
    looks(suspects, 100, 102.5, 105)
    assert looks(suspects, 115, 117.5, 120, 122.5) == [False] * 4
    assert looks(suspects, 125) == [True]


def test_time_in_which_we_could_not_write_does_not_count() -> None:
    """What kept us from writing kept the owner from renewing."""
    suspects = Suspects()
    looks(suspects, 100, 102.5, 105, 107.5)
    assert suspects.look([(lapsed(), BEAT)], 110, wrote_in=BEAT) == []
    assert looks(suspects, 112.5, 115, 117.5) == [False] * 3
    assert looks(suspects, 120) == [True]


def test_owners_have_beats_of_their_own() -> None:
    """The quicker one is taken sooner, and the looks are as close as it needs."""
    suspects = Suspects()
    quick, slow = lapsed(fence=1), lapsed(fence=2)
    taken: dict[int, float] = {}
    now = 100.0
    while now <= 112 and len(taken) < 2:
        for claim in suspects.look([(quick, 1.0), (slow, BEAT)], now, 0.0):
            taken.setdefault(claim.job.fence, now)
        now += suspects.pause
    assert taken == {1: 101.0, 2: 110.0}
