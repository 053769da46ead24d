"""Instants, durations, sizes and numbers as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["brief", "exact", "full", "instant", "number", "share", "short", "size", "span"]


NONE, MINUS = "\u2013", "\u2212"


def instant(value: datetime) -> str:
    """Return an instant for `<time datetime=...>`: ISO 8601 in UTC, to the millisecond."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def full(value: datetime) -> str:
    """Return an instant in full, such as "2026-03-01 14:05:09 UTC"."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(value: datetime) -> str:
    """Return an instant without seconds and zone."""
    return value.astimezone(UTC).strftime("%b %-d, %H:%M")


def span(value: timedelta | float | None) -> str:
    """Return a duration in two units at most, such as "3 min 5 s"; of None a dash."""
    if value is None:
        return NONE
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    sign, seconds = (MINUS, -seconds) if seconds < 0 else ("", seconds)
    if seconds < 0.001:
        return f"{sign}{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if seconds < 1:
        return f"{sign}{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{sign}1 s"
    if seconds < 9.95:
        return f"{sign}{seconds:.1f} s"
    whole = round(seconds)
    for unit, length, lesser, less in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // less
            return f"{sign}{whole // length:,} {unit}" + (f" {rest} {lesser}" if rest else "")
    return f"{sign}{whole} s"


def exact(value: timedelta | float | None) -> str:
    """Return a duration in seconds, to the microsecond."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    return f"{seconds:,.6f}".rstrip("0").rstrip(".") + " s"


def number(value: float, *, capped: bool = False) -> str:
    """Return a number with thousands set apart; "+" where there are more."""
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
    return text + "+" * capped


def share(part: float, whole: float) -> str:
    """Return a part of a whole in percent."""
    return f"{100 * part / whole:.3g} %" if whole else NONE


def size(count: int) -> str:
    """Return a number of bytes, such as "1.5 kB"."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5 or unit == "GB":
            return f"{value:.3g} {unit}"
    raise AssertionError("unreachable")


def brief(job_id: str) -> str:
    """Return an id, of a long one the end, by which those that were made one after the other differ."""
    return job_id if len(job_id) <= 14 else "…" + job_id[-12:]
