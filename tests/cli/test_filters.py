"""Lengths of time and instants, as people write them."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from backlite_async.cli._filters import parsed_duration, parsed_instant
from backlite_async.cli._output import ago, duration, fitted, plain, printable

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("2h30m", 9000), ("1.5h", 5400)],
        *[("250ms", 0.25), ("7d", 604800), ("1w", 604800), ("0", 0)],
    ],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    """A number is seconds; units may follow each other."""
    assert parsed_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "1x", "-5m", "2 h", "5m2", "1e9", "٣", "inf", "9" * 400])
def test_no_lengths_of_time(text: str) -> None:
    """Anything else is none."""
    assert parsed_duration(text) is None


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("now", NOW),
        ("2h", NOW - timedelta(hours=2)),
        ("+2h", NOW + timedelta(hours=2)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T12:00", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31 12:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_instants(text: str, instant: datetime) -> None:
    """ISO 8601, in UTC where it does not say; or counted from now, back or forward."""
    assert parsed_instant(text, NOW) == instant


@pytest.mark.skipif(sys.platform == "win32", reason="its time zone cannot be set")
def test_an_instant_without_offset_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the computer stands."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "America/New_York")
        time.tzset()
        assert parsed_instant("2030-01-31T12:00", NOW) == datetime(2030, 1, 31, 12, tzinfo=UTC)
    time.tzset()


@pytest.mark.parametrize("text", ["", "soon", "2030-02-30", "+", "++1h", "999999w", "+999999w", "25:00"])
def test_no_instants(text: str) -> None:
    """Anything else is none, nor what lies beyond the calendar."""
    assert parsed_instant(text, NOW) is None


def test_what_is_to_come_is_not_counted_back() -> None:
    """Where only the future makes sense, a bare length of time is no instant."""
    assert parsed_instant("2h", NOW, relative=False) is None
    assert parsed_instant("+2h", NOW, relative=False) == NOW + timedelta(hours=2)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0s"), (0.0000005, "0.5µs"), (0.0032, "3.2ms"), (0.9999, "1s"), (4.56, "4.56s"), (59.4, "59s")],
        *[(59.6, "60s"), (61, "1m 1s"), (7200, "2h"), (7500, "2h 5m"), (90061, "1d 1h"), (-5, "-5s")],
        (None, "-"),
    ],
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text


def test_instants_for_people() -> None:
    """As they lie to now."""
    assert ago(NOW - timedelta(minutes=5, seconds=9), NOW) == "5m ago"
    assert ago(NOW - timedelta(seconds=9.4), NOW) == "9s ago"
    assert ago(NOW + timedelta(hours=2), NOW) == "in 2h"
    assert ago(NOW, NOW) == "now"
    assert ago(None, NOW) == "-"


def test_values_for_programs() -> None:
    """What JSON has not is said in what it has."""
    assert plain({1: NOW, "t": timedelta(minutes=1), "b": b'{"a":1}', "x": b"\xff"}) == {
        "1": "2030-06-01T12:00:00.000Z",
        "t": 60.0,
        "b": {"a": 1},
        "x": "\ufffd",
    }
    assert plain((float("nan"), True, None)) == [None, True, None]
    assert plain(NOW.astimezone(timezone(timedelta(hours=-7)))) == "2030-06-01T12:00:00.000Z"


ROWS = [["0198c2f0", "failed", "3", "an error that is long"], ["0198c2f1", "pending", "12", "{}"]]
COLUMNS = ("id", "state", ">n", "what")


@pytest.mark.parametrize(
    ("width", "columns", "cut"),
    [
        (100, COLUMNS, "an error that is long"),
        (45, COLUMNS, "an error that i…"),
        (40, ("id", "state", ">n"), None),
        (26, ("id", "state", ">n"), None),
        (25, ("id", "state"), None),
        (5, ("id", "state"), None),
    ],
)
def test_tables_fit_into_narrow_terminals(width: int, columns: tuple[str, ...], cut: str | None) -> None:
    """What matters least is left out, the last column cut before that; ids never are."""
    rows, names = fitted(ROWS, COLUMNS, ("what", ">n"), width)
    assert tuple(names) == columns
    assert [row[0] for row in rows] == ["0198c2f0", "0198c2f1"]
    assert all(len(row) == len(names) for row in rows)
    if cut is not None:
        assert rows[0][-1] == cut


def test_nothing_steers_a_terminal() -> None:
    """Escape sequences and signs that turn text around are replaced."""
    assert printable("a\x1b[2Jb\x9bc\u202ed\ne") == "a\ufffd[2Jb\ufffdc\ufffdd\ne"
