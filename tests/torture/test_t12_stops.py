"""The short form of T12, and proof that it can fail."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import backlite_async

from .kit import Budget, Missing, Row
from .pulse import STEADY, Beats
from .t12_stops import TOTALS, judge, run


def test_stops_at_random_times() -> None:
    """No stop lies, overruns its limit, or leaves something behind; every job runs in the end."""
    try:
        row = run(Budget(seconds=6, least=12, most=16))
    except Missing as error:
        pytest.skip(str(error))
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)


HELD_UP = Beats([(103.0, 105.0)])


@pytest.mark.parametrize(("beats", "told"), [(STEADY, 1), (Beats([(103.0, 103.01)]), 1), (HELD_UP, 0)])
def test_a_stop_that_takes_too_long_is_told(beats: Beats, told: int) -> None:
    """But for a machine that has kept others waiting as well."""
    row = Row("T12", "a report")
    found: dict[str, Any] = dict.fromkeys(TOTALS, 0)
    found |= {"loop": "web", "overrun": 3.6, "late": [["trial 1", 102.0, 105.6]]}
    judge(row, [found | {"drained_in": 0.1, "problems": []}], beats)
    assert row.failures == ["trial 1: ended 3.60 s after its limit"] * told


class Break(NamedTuple):
    """A change to the library, and what is said then."""

    file: str
    old: str
    new: str
    told: str
    stops: int


BREAKS = {
    "a lie": Break(
        "_dispatcher.py",
        "return in_time and not self._uncertain and",
        "return True or",
        "stop says True",
        16,
    ),
    "a claim that is forgotten": Break(
        "_feed.py",
        "            if self._stop.asked or handler is None or job.queue in paused:\n",
        "            if self._stop.asked: continue\n            if handler is None:\n",
        "claimed, and not running",
        14,
    ),
    "a thread that stays": Break(
        "_dispatcher.py",
        "            leases = self._leases.stop()\n            if not await",
        "            leases = self._stop._asked\n            if not await",
        "left behind: backlite leases",
        4,
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_library_is_noticed(tmp_path: Path, name: str) -> None:
    """A copy of the library that breaks a promise makes the row fail, and it says which promise."""
    broken = BREAKS[name]
    copy = tmp_path / "backlite_async"
    shutil.copytree(Path(backlite_async.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / broken.file).read_text()
    assert text.count(broken.old) == 1
    (copy / broken.file).write_text(text.replace(broken.old, broken.new))
    try:
        row = run(Budget(seconds=6, most=broken.stops), library=tmp_path)
    except Missing as error:
        pytest.skip(str(error))
    assert any(broken.told in failure for failure in row.failures), row.failures
