"""Two plots as SVG, for light and dark pages: what a backlog does to the rate, and latencies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from xml.sax.saxutils import escape

from .figures import LATENCIES
from .measures import LIBRARY
from .report import number
from .run import Results

__all__ = ["growth_plot", "latency_plot"]

WIDTH = 720
LINE = 16
"""The height of a line of text."""

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE = f"""
  text {{ font: 13px {FONT}; fill: #1f2937; }}
  .title {{ font-size: 15px; font-weight: 600; }}
  .small {{ font-size: 12px; fill: #6b7280; }}
  .own {{ font-weight: 600; }}
  .page {{ fill: #ffffff; }}
  .grid {{ stroke: #e5e7eb; stroke-width: 1; }}
  .s0 {{ stroke: #1d4ed8; fill: #1d4ed8; }} .s1 {{ stroke: #b45309; fill: #b45309; }}
  .s2 {{ stroke: #047857; fill: #047857; }} .s3 {{ stroke: #7c3aed; fill: #7c3aed; }}
  .line {{ fill: none; stroke-width: 2; }}
  .open {{ fill: #ffffff; stroke-width: 2; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e5e7eb; }} .small {{ fill: #9ca3af; }}
    .page {{ fill: #0d1117; }} .grid {{ stroke: #30363d; }}
    .s0 {{ stroke: #7cb0ff; fill: #7cb0ff; }} .s1 {{ stroke: #f0a94b; fill: #f0a94b; }}
    .s2 {{ stroke: #4cc596; fill: #4cc596; }} .s3 {{ stroke: #b79bff; fill: #b79bff; }}
    .line {{ fill: none; }} .open {{ fill: #0d1117; }}
  }}
"""


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: values from `low` to `high`, which are powers of ten, onto pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value lies; beyond the ends, at the end."""
        part = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def decades(self) -> list[float]:
        """Return the powers of ten on it."""
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def growth_plot(results: Results, peers: Sequence[str], backlogs: Sequence[int]) -> str:
    """Return the rates of a drain by the number of jobs that wait; a whisker from least to most."""
    height = 400
    lines = {
        side: [
            (count, values) for count in backlogs if (values := results.of(side, f"backlog-{count}", "rate"))
        ]
        for side in [LIBRARY, *peers]
    }
    lines = {side: points for side, points in lines.items() if points}
    x = _around(map(float, backlogs), 90, WIDTH - 190)
    y = _around(
        [value for points in lines.values() for _, values in points for value in values], height - 60, 75
    )
    parts = [_text(20, 26, "Drain beside jobs that wait, 100 workers", "title")]
    for value in x.decades():
        parts += [_line(x.at(value), y.start, x.at(value), y.end, "grid")]
        parts += [_text(x.at(value), y.start + 20, _short(value), "small", "middle")]
    for value in y.decades():
        parts += [_line(x.start, y.at(value), x.end, y.at(value), "grid")]
        parts += [_text(x.start - 10, y.at(value) + 4, _short(value), "small", "end")]
    parts.append(_text((x.start + x.end) / 2, height - 16, "jobs that wait (logarithmic)", "small", "middle"))
    parts.append(_text(20, 44, "jobs/s (logarithmic)", "small"))
    labels = _apart([y.at(median(points[-1][1])) for points in lines.values()])
    for index, (side, points) in enumerate(lines.items()):
        spots = [(x.at(count), values) for count, values in points]
        parts += _curve(side, f"s{index % 4}", spots, y, labels[index])
    return _svg(height, parts, "The rate of a drain by the number of jobs that wait")


def _curve(
    side: str, style: str, points: Sequence[tuple[float, Sequence[float]]], y: Scale, label: float
) -> Iterator[str]:
    middles = [(across, y.at(median(values))) for across, values in points]
    yield f'<polyline class="line {style}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in middles)}"/>'
    for (across, values), (_, up) in zip(points, middles, strict=True):
        yield _line(across, y.at(min(values)), across, y.at(max(values)), style)
        yield f'<circle class="{style}" cx="{across:.1f}" cy="{up:.1f}" r="4"/>'
    rate = _short(median(points[-1][1]))
    yield _text(middles[-1][0] + 12, label + 4, f"{_name(side)} {rate}/s", "own" if side == LIBRARY else "")


def _apart(places: Sequence[float]) -> list[float]:
    """Return where labels stand that belong to these places, none upon another."""
    found = list(places)
    order = sorted(range(len(found)), key=found.__getitem__)
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + LINE)
    return found


def _name(side: str) -> str:
    return "backlite_async" if side == LIBRARY else side


def latency_plot(results: Results, peers: Sequence[str]) -> str:
    """Return the latencies of all systems, p50 and p99, idle and under load."""
    sides = [LIBRARY, *peers]
    rows = [(key, side) for key in LATENCIES for side in sides if results.of(side, key, "p50")]
    found = [value for key, side in rows for value in _latency(results, side, key) if math.isfinite(value)]
    x = _around(found, 150, WIDTH - 110)
    top, step, gap = 60, 24, 34
    height = top + step * len(rows) + gap * len(LATENCIES) + 50
    parts = [_text(20, 26, "From save() to the handler's first line", "title")]
    up = float(top)
    for key, title in LATENCIES.items():
        parts.append(_text(20, up + 14, title, "own"))
        up += gap
        for _, side in (row for row in rows if row[0] == key):
            parts += _dumbbell(side, _latency(results, side, key), x, up)
            up += step
    grid = []
    for value in x.decades():
        grid += [_line(x.at(value), top - 10, x.at(value), up, "grid")]
        grid += [_text(x.at(value), up + 18, f"{value:,g}", "small", "middle")]
    legend = "ms (logarithmic); filled: p50, open: p99"
    parts.append(_text((x.start + x.end) / 2, up + 38, legend, "small", "middle"))
    return _svg(height, grid + parts, "Latencies of every system, idle and under load")


def _latency(results: Results, side: str, key: str) -> tuple[float, float]:
    middle, late = results.middle(side, key, "p50"), results.middle(side, key, "p99")
    assert middle is not None
    assert late is not None
    return middle, late


def _dumbbell(side: str, values: tuple[float, float], x: Scale, up: float) -> Iterator[str]:
    style = "s0" if side == LIBRARY else "s1"
    left, right = map(x.at, values)
    yield _text(34, up + 4, _name(side), "own" if side == LIBRARY else "")
    yield _line(left, up, right, up, f"line {style}")
    yield f'<circle class="{style}" cx="{left:.1f}" cy="{up:.1f}" r="5"/>'
    yield f'<circle class="{style} open" cx="{right:.1f}" cy="{up:.1f}" r="5"/>'
    label = " / ".join(map(number, values)) if math.isfinite(values[1]) else "overloaded"
    yield _text(right + 12, up + 4, label, "small")


def _around(values: Sequence[float] | Iterator[float], start: float, end: float) -> Scale:
    """Return an axis of whole decades around the values."""
    known = list(values) or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return Scale(10.0**low, 10.0 ** max(high, low + 1), start, end)


def _short(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:.3g}k" if value >= 1_000 else f"{value:.3g}"


def _text(across: float, up: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{across:.1f}" y="{up:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
        f' width="{WIDTH}" height="{height:.0f}" role="img">\n<title>{escape(title)}</title>\n'
        f'<style>{STYLE}</style>\n<rect class="page" width="100%" height="100%" rx="8"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"
