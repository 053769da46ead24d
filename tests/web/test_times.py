"""Instants, durations, numbers and sizes as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async.web._times import exact, full, instant, number, share, short, size, span

MOMENT = datetime(2026, 3, 1, 14, 5, 9, 123456, tzinfo=UTC)


def test_instants() -> None:
    assert instant(MOMENT) == "2026-03-01T14:05:09.123Z"
    assert instant(MOMENT.astimezone(timezone(timedelta(hours=2)))) == "2026-03-01T14:05:09.123Z"
    assert full(MOMENT) == "2026-03-01 14:05:09 UTC"
    assert short(MOMENT) == "Mar 1, 14:05"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"), (0, "0 s"), (0.000_004, "4 µs"), (0.0123, "12.3 ms"), (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"),
        (3599.6, "1 h"), (3661, "1 h 1 min"), (86_399.9, "1 d"), (90_000, "1 d 1 h"), (86_400_000, "1,000 d"),
        (-90, "\u22121 min 30 s"), (timedelta(milliseconds=1), "1 ms"),
    ],
)  # fmt: skip
def test_spans(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@settings(max_examples=40)
@given(st.floats(-1e9, 1e9))
def test_a_span_has_two_units_at_most(seconds: float) -> None:
    assert re.fullmatch(r"\u2212?[\d.,]+ (µs|ms|s|min|h|d)( \d+ (s|min|h))?", span(seconds)) or "e" in span(
        seconds
    )


@settings(max_examples=40)
@given(st.floats(0.001, 1e8), st.floats(0.001, 1e8))
def test_longer_spans_do_not_look_shorter(one: float, other: float) -> None:
    units = {"µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86_400}

    def meant(text: str) -> float:
        pairs = re.findall(r"([\d.,]+) (µs|ms|s|min|h|d)", text)
        return sum(float(amount.replace(",", "")) * units[unit] for amount, unit in pairs)

    small, large = sorted((one, other))
    assert meant(span(small)) <= meant(span(large))
    assert meant(span(small)) == pytest.approx(small, rel=0.06)


def test_exact_numbers_and_sizes() -> None:
    assert exact(1.25) == "1.25 s"
    assert exact(timedelta(hours=1)) == "3,600 s"
    assert exact(None) == ""
    assert number(1_234_567) == "1,234,567"
    assert number(10_000, capped=True) == "10,000+"
    assert number(1.23456) == "1.23"
    assert share(1, 3) == "33.3 %"
    assert share(1, 0) == "\u2013"
    assert [size(n) for n in (0, 999, 1000, 1500, 999_499, 999_500, 64_000_000, 5 * 10**12)] == [
        "0 B", "999 B", "1 kB", "1.5 kB", "999 kB", "1 MB", "64 MB", "5e+03 GB",
    ]  # fmt: skip
