"""The measure of what is said in seconds: a machine that is late, and one that is not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from .crew import Crew, until
from .pulse import ORDER, STEADY, WORST, Beats, Pulse

BEATS = Beats([(1.0, 1.001), (1.02, 1.2), (1.22, 1.221)])
"""Of a machine that has done nothing for a while."""


@pytest.mark.parametrize(
    ("began", "ended", "delay"),
    [
        (0.0, 0.9, 0.0),
        (0.9, 1.01, 0.001),
        (0.9, 1.1, 0.08),
        (1.1, 1.15, 0.05),
        (1.1, 2.0, 0.1),
        (0.0, 9.0, 0.18),
        (1.3, 2.0, 0.0),
    ],
)
def test_a_delay_counts_where_it_was(began: float, ended: float, delay: float) -> None:
    """The longest, and of it what lies between two instants."""
    assert BEATS.delay(began, ended) == pytest.approx(delay)
    assert STEADY.delay(began, ended) == 0.0


def test_what_the_machine_needs_for_some_turns_is_not_charged() -> None:
    """More than that is, and so is all of it on a machine that keeps nobody waiting."""
    needed = WORST * 0.18 + ORDER * 0.182 / 3
    assert BEATS.charged(1.0, 1.0 + 0.99 * needed) == 0.0
    assert BEATS.charged(1.0, 1.0 + 1.01 * needed) == pytest.approx(1.01 * needed)
    assert BEATS.charged(1.0, 2.1, turns=4) == 0.0
    assert BEATS.charged(1.0, 2.1, turns=3) == pytest.approx(1.1)
    assert STEADY.charged(1.0, 1.5) == Beats([(0.0, 0.0)]).charged(1.0, 1.5) == pytest.approx(0.5)
    assert BEATS.mean() == pytest.approx(0.182 / 3)
    assert STEADY.mean() == 0.0


def test_a_machine_that_stands_still_is_felt(tmp_path: Path) -> None:
    """Here it is the pulse alone that is stopped, which cannot tell the difference."""
    with Pulse(tmp_path) as pulse:
        began = time.monotonic()
        os.kill(pulse.pid, signal.SIGSTOP)
        until(lambda: pulse.beats().delay(began, began + 0.2) > 0.1, 20.0, "a late beat, not done yet")
        os.kill(pulse.pid, signal.SIGCONT)
        ended = time.monotonic()
    assert pulse.beats().delay(began, ended) > 0.1
    assert pulse.beats().charged(began, ended) == 0.0


def test_who_has_ended_can_be_sent_a_signal(tmp_path: Path) -> None:
    """The server waits for its children, so their numbers may be nobody's before it has told."""
    with Crew("t11_roles", tmp_path / "errors") as crew:
        pid = crew.start("once", database=str(tmp_path / "app.db"), ledger=str(tmp_path / "ledger"))
        until(lambda: not Path(f"/proc/{pid}").exists(), 20.0, "its end")
        crew.send([pid], signal.SIGKILL)
        crew.ended([pid], 20.0, "who adds one job")
        assert crew.statuses[pid] == 0
