"""What charts and tables of figures are drawn from: places and texts, made of numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import ceil

import msgspec

from .. import QueueStats
from ._times import number, short

__all__ = ["PERIODS", "Bar", "Chart", "Mark", "Period", "chart", "per_minute", "ticks"]

TOP, BASE, HEIGHT = 8.0, 176.0, 198
"""Where bars end and begin, and how high a chart is, in pixels."""

LEAST = 2.0
"""How high the smallest number is drawn, so that it can be seen."""

SHARE = 0.72
"""How much of its place a bar takes."""


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """A time that is shown, in steps that are counted. `last`: of it, without the step that is not over."""

    name: str
    title: str
    step: timedelta
    steps: int
    unit: str
    marks: tuple[str, ...]

    @property
    def last(self) -> timedelta:
        """What to ask the service for."""
        return self.step * (self.steps - 1)


PERIODS = {
    "hour": Period(
        name="hour",
        title="the last hour",
        step=timedelta(minutes=1),
        steps=60,
        unit="minute",
        marks=("1 h ago", "45 min", "30 min", "15 min", "now"),
    ),
    "day": Period(
        name="day",
        title="the last day",
        step=timedelta(hours=1),
        steps=24,
        unit="hour",
        marks=("24 h ago", "18 h", "12 h", "6 h", "now"),
    ),
}


class Part(msgspec.Struct, frozen=True):
    """A part of a bar: what it stands for, and where it is drawn."""

    kind: str
    y: str
    height: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn of one step. `slot`: where its place begins; widths and x in percent."""

    when: str
    slot: str
    x: str
    title: str
    parts: tuple[Part, ...]
    succeeded: int
    failed: int


class Mark(msgspec.Struct, frozen=True):
    """A text beside or under a chart, and where; `anchor`: which end of it is there."""

    place: str
    text: str
    anchor: str = "middle"


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart of jobs that ended, in bars. `slot`, `wide`: of each bar, in percent."""

    title: str
    about: str
    unit: str
    height: int
    base: str
    slot: str
    wide: str
    bars: tuple[Bar, ...]
    lines: tuple[Mark, ...]
    marks: tuple[Mark, ...]
    succeeded: int
    failed: int

    @property
    def told(self) -> Sequence[Bar]:
        """The bars in which something ended."""
        return [bar for bar in self.bars if bar.parts]


def chart(series: Sequence[QueueStats], period: Period, of: str = "all queues") -> Chart:
    """Return what to draw of the steps of a period, the oldest first."""
    slot = 100 / max(len(series), 1)
    levels = ticks(max((step.succeeded + step.failed for step in series), default=0))
    scale = (BASE - TOP) / levels[-1]
    gap = slot * (1 - SHARE) / 2
    bars = tuple(_bar(step, period, place * slot, gap, scale) for place, step in enumerate(series))
    anchors = ["start", *["middle"] * (len(period.marks) - 2), "end"]
    places = [100 * place / (len(period.marks) - 1) for place in range(len(period.marks))]
    return Chart(
        title=f"Jobs that ended in {period.title}, {of}",
        about=_about(bars, period),
        unit=period.unit,
        height=HEIGHT,
        base=_short(BASE),
        slot=_short(slot),
        wide=_short(slot * SHARE),
        bars=bars,
        lines=tuple(Mark(_short(BASE - level * scale), compact(level)) for level in levels),
        marks=tuple(map(Mark, map(_short, places), period.marks, anchors)),
        succeeded=sum(step.succeeded for step in series),
        failed=sum(step.failed for step in series),
    )


def _bar(step: QueueStats, period: Period, begin: float, gap: float, scale: float) -> Bar:
    parts, y = [], BASE
    for kind, count in (("succeeded", step.succeeded), ("failed", step.failed)):
        if count:
            height = max(count * scale, LEAST)
            y -= height
            parts.append(Part(kind, _short(y), _short(height)))
    when = _when(step.begin, period)
    said = f"{number(step.succeeded)} succeeded, {number(step.failed)} failed" if parts else "nothing ended"
    return Bar(
        when=when,
        slot=_short(begin),
        x=_short(begin + gap),
        title=f"{when}: {said}",
        parts=tuple(parts),
        succeeded=step.succeeded,
        failed=step.failed,
    )


def _when(begin: datetime | None, period: Period) -> str:
    if begin is None:
        return "?"
    at = begin.astimezone(UTC)
    return (short(at) if period.step >= timedelta(hours=1) else f"{at:%H:%M}") + " UTC"


def _about(bars: Sequence[Bar], period: Period) -> str:
    """Say what a chart shows to who does not see it."""
    succeeded, failed = sum(bar.succeeded for bar in bars), sum(bar.failed for bar in bars)
    if not succeeded + failed:
        return "Nothing ended in this time."
    most = max(bars, key=lambda bar: bar.succeeded + bar.failed)
    return (
        f"By the {period.unit}: {number(succeeded)} succeeded, {number(failed)} failed. Most in one"
        f" {period.unit}: {number(most.succeeded + most.failed)}, {most.when}."
    )


def ticks(most: int) -> list[int]:
    """Return round numbers from 0 to at least the largest of what is drawn: for lines across a chart."""
    unit = 1
    while True:
        for step in (unit, 2 * unit, 5 * unit):
            if most <= 4 * step:
                return [step * level for level in range(max(ceil(most / step), 1) + 1)]
        unit *= 10


def compact(count: int) -> str:
    """Return a number in few characters, such as "1.2k"."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def per_minute(stats: QueueStats) -> str:
    """Return how many jobs ended in a minute; nothing where none did.

    The minute that is not over counts as a whole one, so that it stays the same while nothing happens.
    """
    if not stats.ended:
        return ""
    rate = stats.ended / max(ceil(stats.since / timedelta(minutes=1)), 1)
    return f"{number(round(rate)) if rate >= 9.95 else f'{max(rate, 0.01):.2g}'}/min"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
