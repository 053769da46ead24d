"""Charts: bars stand where their numbers say, and everything is told in words as well."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import QueueStats

from .support import Document  # which says what is missing where the page cannot be imported

from backlite_async.web._charts import PERIODS, Chart, chart, compact, per_minute, ticks  # isort: skip
from backlite_async.web._render import environment  # isort: skip

HOUR, DAY = PERIODS["hour"], PERIODS["day"]
BEGIN = datetime(2030, 3, 1, 12, tzinfo=UTC)
counts = st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7)), min_size=1, max_size=60)


def made(numbers: Sequence[tuple[int, int]], step: timedelta = HOUR.step) -> list[QueueStats]:
    """Make steps of numbers of jobs that succeeded and failed."""
    return [
        QueueStats(begin=BEGIN + place * step, since=step, succeeded=succeeded, failed=failed)
        for place, (succeeded, failed) in enumerate(numbers)
    ]


@given(st.integers(0, 10**12))
def test_lines_are_few_round_and_high_enough(most: int) -> None:
    lines = ticks(most)
    assert 2 <= len(lines) <= 5
    assert lines[0] == 0
    assert lines[-1] >= most
    assert lines[-2] < max(most, 1), "no line is for nothing"
    assert {after - before for before, after in pairwise(lines)} == {lines[1]}
    assert str(lines[1]).rstrip("0") in ("1", "2", "5")


@given(counts)
def test_bars_stand_on_each_other_inside_the_chart(numbers: list[tuple[int, int]]) -> None:
    drawn = chart(made(numbers), HOUR)
    top = float(drawn.lines[-1].place)
    base = float(drawn.base)
    for bar, (succeeded, failed) in zip(drawn.bars, numbers, strict=True):
        assert [part.kind for part in bar.parts] == ["succeeded"] * (succeeded > 0) + ["failed"] * (
            failed > 0
        )
        floor = base
        for part in bar.parts:
            assert float(part.y) + float(part.height) == pytest.approx(floor, abs=0.05)
            assert float(part.height) >= 2, "what has happened can be seen"
            floor = float(part.y)
        assert floor >= top - 4
        assert 0 <= float(bar.slot) <= float(bar.x)
        assert float(bar.x) + float(drawn.wide) <= float(bar.slot) + float(drawn.slot) + 0.05 <= 100.1


def test_heights_go_with_numbers() -> None:
    drawn = chart(made([(100, 0), (50, 50), (0, 200)]), HOUR)
    heights = [[float(part.height) for part in bar.parts] for bar in drawn.bars]
    unit = heights[0][0] / 100
    assert heights[1] == pytest.approx([50 * unit, 50 * unit], abs=0.02)
    assert heights[2] == pytest.approx([200 * unit], abs=0.02)
    assert [line.text for line in drawn.lines] == ["0", "50", "100", "150", "200"]
    places = [float(line.place) for line in drawn.lines]
    assert places == sorted(places, reverse=True)
    assert places[0] - places[-1] == pytest.approx(200 * unit, abs=0.05)


def test_everything_is_told_in_words() -> None:
    drawn = chart(made([(1200, 3), (0, 0), (7, 0)]), HOUR, "queue mail")
    assert drawn.title == "Jobs that ended in the last hour, queue mail"
    assert drawn.about == ("By the minute: 1,207 succeeded, 3 failed. Most in one minute: 1,203, 12:00 UTC.")
    assert [bar.title for bar in drawn.bars] == [
        "12:00 UTC: 1,200 succeeded, 3 failed",
        "12:01 UTC: nothing ended",
        "12:02 UTC: 7 succeeded, 0 failed",
    ]
    assert [bar.when for bar in drawn.told] == ["12:00 UTC", "12:02 UTC"]
    assert (drawn.succeeded, drawn.failed) == (1207, 3)


def test_hours_are_named_with_their_day() -> None:
    drawn = chart(made([(1, 0)] * 24, DAY.step), DAY)
    assert drawn.bars[13].when == "Mar 2, 01:00 UTC"
    assert drawn.unit == "hour"


def test_where_nothing_ended_that_is_said() -> None:
    drawn = chart(made([(0, 0)] * 60), HOUR)
    assert drawn.about == "Nothing ended in this time."
    assert drawn.told == []
    assert [line.text for line in drawn.lines] == ["0", "1"]
    assert chart([], HOUR).bars == ()


def shown(drawn: Chart) -> Document:
    """Return a chart as it is drawn."""
    macros = environment().get_template("charts.html").make_module({})
    return Document(str(macros.bars(drawn, "chart")))  # type: ignore[attr-defined]


def test_a_chart_is_drawn_with_titles_and_a_table() -> None:
    page = shown(chart(made([(3, 1), (0, 0), (5, 0)]), HOUR, "queue <script>alert(1)</script>"))
    picture = page.find("svg", role="img")
    named = [page.find(id=name).text for name in picture["aria-labelledby"].split()]
    assert named[0] == "Jobs that ended in the last hour, queue <script>alert(1)</script>"
    assert "8 succeeded, 1 failed" in named[1]
    assert not page.has("script"), "names are texts, whatever is in them"
    bars = picture.all("g")
    assert bars[0].find("title").text == "12:00 UTC: 3 succeeded, 1 failed"
    assert [[rect["class"] for rect in bar.all("rect")] for bar in bars] == [
        ["place", "succeeded", "failed"],
        ["place"],
        ["place", "succeeded"],
    ]
    hidden = page.find(cls="hide").find("table")
    assert hidden.rows() == [["12:00 UTC", "3", "1"], ["12:02 UTC", "5", "0"]]
    assert [line["y1"] for line in picture.all("line")] == [
        text["y"] for text in page.find("svg", cls="axis").all("text")
    ]
    assert [text.text for text in picture.all("text")] == ["1 h ago", "45 min", "30 min", "15 min", "now"]
    assert 'style="' not in page.html


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1500, "1.5k"),
        (250_000, "250k"),
        (5 * 10**6, "5M"),
        (10**9, "1G"),
    ],
)
def test_numbers_beside_a_chart_are_short(number: int, text: str) -> None:
    assert compact(number) == text


@pytest.mark.parametrize(
    ("ended", "minutes", "text"),
    [
        (0, 5, ""),
        (6, 5, "1.2/min"),
        (1, 5, "0.2/min"),
        (1, 1440, "0.01/min"),
        (62_500, 5, "12,500/min"),
        (49, 5, "9.8/min"),
    ],
)
def test_throughput_is_by_the_minute(ended: int, minutes: int, text: str) -> None:
    assert per_minute(QueueStats(since=timedelta(minutes=minutes), succeeded=ended)) == text


def test_throughput_stays_the_same_within_a_minute() -> None:
    at = [QueueStats(since=timedelta(minutes=5, seconds=second), succeeded=7) for second in (1, 30, 60)]
    assert {per_minute(stats) for stats in at} == {"1.2/min"}
