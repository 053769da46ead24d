"""Steps of the wall clock: set back, set right again, and all that is no step."""

from __future__ import annotations

import math

import pytest

from backlite_async._clock import CHECK_AFTER, WallSteps

START = 1_700_000_000_000


class Hands:
    """A clock whose two hands are moved by the test."""

    def __init__(self) -> None:
        self.wall, self.steady = START, 100.0

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_by(self, seconds: float) -> None:
        """Let time go by on both."""
        self.wall += round(seconds * 1000)
        self.steady += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += round(seconds * 1000)


@pytest.fixture
def hands() -> Hands:
    """Return a clock that stands."""
    return Hands()


@pytest.fixture
def steps(hands: Hands) -> WallSteps:
    """Return what watches it, and has heeded its first look."""
    made = WallSteps(hands)
    made.heeded(made.look())
    return made


def test_at_first_nothing_is_known(hands: Hands) -> None:
    """Before the first look is heeded, nobody knows what happened to the clock while nobody ran."""
    steps = WallSteps(hands)
    assert steps.look() is None
    assert steps.look() is None
    steps.heeded(None)
    assert steps.look() == 0


def test_time_that_goes_by_is_no_step(hands: Hands, steps: WallSteps) -> None:
    """As long as both hands move together there is nothing to heed."""
    for _ in range(5):
        hands.pass_by(3600)
        assert steps.look() == 0


def test_set_back_is_told_until_it_is_heeded(hands: Hands, steps: WallSteps) -> None:
    """A clock that was set back is told by how much, again and again."""
    hands.pass_by(60)
    hands.step(-5)
    assert steps.look() == -5000
    assert steps.look() == -5000
    steps.heeded(-5000)
    assert steps.look() == 0


def test_set_right_again_is_told_by_as_much_as_it_was_wrong(hands: Hands, steps: WallSteps) -> None:
    """What was set back may come again, and what comes beyond that is no correction."""
    hands.step(-5)
    steps.heeded(steps.look())
    hands.pass_by(1)
    hands.step(8)
    assert steps.look() == 5000
    assert steps.look() == 5000
    steps.heeded(5000)
    assert steps.look() == 0
    hands.step(8)
    assert steps.look() == 0


def test_two_steps_back_are_set_right_as_one(hands: Hands, steps: WallSteps) -> None:
    """A second step back adds to the first one."""
    hands.step(-5)
    steps.heeded(steps.look())
    hands.pass_by(1)
    hands.step(-2)
    assert steps.look() == -2000
    steps.heeded(-2000)
    hands.step(100)
    assert steps.look() == 7000


def test_what_follows_is_checked_after_a_while(hands: Hands, steps: WallSteps) -> None:
    """Who should have done what follows from a step back may have died: so it is asked for once more."""
    hands.step(-5)
    steps.heeded(steps.look())
    assert steps.pause == pytest.approx(CHECK_AFTER)
    hands.pass_by(CHECK_AFTER - 0.5)
    assert steps.look() == 0
    hands.pass_by(0.5)
    assert steps.look() is None
    assert steps.look() is None
    steps.heeded(None)
    assert steps.look() == 0
    assert steps.pause == math.inf
    hands.step(5)
    assert steps.look() == 5000


def test_set_right_is_not_checked(hands: Hands, steps: WallSteps) -> None:
    """Only a step back is: waits that are too long are worse than the work of looking."""
    hands.step(-5)
    steps.heeded(steps.look())
    hands.step(5)
    steps.heeded(steps.look())
    hands.pass_by(CHECK_AFTER)
    assert steps.look() == 0


def test_sleep_is_no_step(hands: Hands, steps: WallSteps) -> None:
    """A computer that has slept finds its wall clock ahead, which means nothing."""
    hands.step(8 * 3600)
    assert steps.look() == 0
    hands.step(-2)
    assert steps.look() == -2000


def test_drift_is_no_step(hands: Hands, steps: WallSteps) -> None:
    """A wall clock that runs a little slow or fast is never far enough off between two looks."""
    for by in [-0.4] * 10 + [0.4] * 10:
        hands.step(by)
        assert steps.look() == 0


def test_step_that_comes_while_another_is_heeded_is_seen(hands: Hands, steps: WallSteps) -> None:
    """What follows from a step takes its time, in which the clock may be set once more."""
    hands.step(-900)
    assert steps.look() == -900_000
    hands.step(-300)
    steps.heeded(-900_000)
    assert steps.look() == -300_000


def test_step_that_comes_while_it_is_checked_is_seen(hands: Hands, steps: WallSteps) -> None:
    """Nor is one overlooked that comes while it is seen what others have done about the last one."""
    hands.step(-900)
    steps.heeded(steps.look())
    hands.pass_by(CHECK_AFTER)
    assert steps.look() is None
    hands.step(-300)
    steps.heeded(None)
    assert steps.look() == -300_000
