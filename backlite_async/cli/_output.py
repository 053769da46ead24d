"""Answers on stdout: as tables for people, as JSON for programs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import click
import msgspec

__all__ = [
    "Output",
    "ago",
    "coloured",
    "duration",
    "fitted",
    "instant",
    "is_terminal",
    "no_terminal",
    "plain",
    "rich_table",
    "state",
]

COLOURS = {
    "pending": "cyan",
    "scheduled": "cyan",
    "running": "blue",
    "succeeded": "green",
    "active": "green",
    "alive": "green",
    "failed": "red",
    "dead": "red",
    "cancelled": "yellow",
    "paused": "yellow",
}
STYLED = {click.style(name, fg=colour) for name, colour in COLOURS.items()}


GAP, LEAST = 3, 12
"""Characters between two columns, and those that a column which is cut has at least."""


def is_terminal() -> bool:
    """Return whether a person may be asked: on both sides there is a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def no_terminal() -> bool:
    """Return whether the answer goes elsewhere than to a terminal that can be drawn on."""
    return not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"


def coloured() -> bool:
    """Return whether the answer may have colours."""
    return not no_terminal() and not os.environ.get("NO_COLOR")


# -- JSON --------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Return a value as JSON can say it: instants in ISO 8601 and UTC, durations in seconds."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if value - value == 0 else None
    return str(value)


def _decoded(raw: bytes) -> Any:
    """Return what JSON says; where it is none, or nested too deeply to be said again, its text."""
    try:
        value = msgspec.json.decode(raw)
        msgspec.json.encode([[[[value]]]])  # deeper than what it will stand in
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return raw.decode(errors="replace")
    return value


# -- for people --------------------------------------------------------------------------------------


def duration(value: timedelta | float | None) -> str:
    """Return a length of time, short: 3.2ms, 45s, 2h 5m, 3d 4h."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if 0 < seconds * factor < 999.5:
            return f"{seconds * factor:.3g}{unit}"
    if seconds < 60:
        return f"{seconds:.3g}s" if seconds < 10 else f"{seconds:.0f}s"
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2] if number)


def instant(value: datetime | None) -> str:
    """Return an instant in UTC, to the second."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def ago(value: datetime | None, now: datetime) -> str:
    """Return an instant as it lies to now: "5m ago", "in 2h"."""
    if value is None:
        return "-"
    seconds = (now - value).total_seconds()
    if abs(seconds) < 1:
        return "now"
    length = abs(seconds)
    text = duration(float(round(length) if length < 60 else length // 60 * 60))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def state(text: str) -> str:
    """Return a state's name, in its colour where there are colours."""
    return click.style(text, fg=COLOURS.get(text)) if coloured() and text in COLOURS else text


class Output:
    """Writes what a command has found: data on stdout, everything else on stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def data(self, value: Any) -> None:
        """Write one object as a line of JSON, which is UTF-8 wherever it goes."""
        click.echo(msgspec.json.encode(plain(value)))

    def answer(self, value: Any, text: str) -> None:
        """Write one object, or what it is in words."""
        if self.as_json:
            self.data(value)
        else:
            click.echo(text)

    def table(self, rows: Iterable[Sequence[str]], columns: Sequence[str], drop: Sequence[str] = ()) -> None:
        """Write a table: drawn by rich, where that is installed, on a terminal; else in plain columns.

        A column whose name begins with ">" is one of numbers. `drop`: which are left out where a terminal is
        too narrow for all, the first one first; the last column is cut.
        """
        drawn = [[*map(one_line, row)] for row in rows]
        if no_terminal():
            _plain_table(drawn, columns)
            return
        drawn, names = fitted(drawn, columns, drop, shutil.get_terminal_size().columns)
        if not _rich_table(drawn, names):
            _plain_table(drawn, names)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Write names and values, one below the other."""
        known = [(name, value) for name, value in pairs if value not in ("", "-")]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            first, *others = printable(value).splitlines() or [""]
            click.echo(f"{bold(f'{name:<{width}}')}  {first}")
            for line in others:
                click.echo(f"{'':<{width}}  {line}")

    def heading(self, text: str) -> None:
        """Write what the lines below are, after an empty one."""
        click.echo(f"\n{bold(text)}")

    def text(self, text: str) -> None:
        """Write lines for people."""
        click.echo(printable(text))

    def say(self, text: str) -> None:
        """Tell a person something that is no data."""
        click.echo(text, err=True)


def bold(text: str) -> str:
    """Return text as headings are written."""
    return click.style(text, bold=True) if coloured() else text


def printable(text: str) -> str:
    """Return text without what steers a terminal, but for the states that are coloured here."""
    if text.isprintable() or text in STYLED:
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def one_line(text: str) -> str:
    """Return the first line of a text, as `printable` does."""
    return printable(next(iter(text.splitlines()), ""))


Rows = list[list[str]]


def _widths(rows: Rows, columns: Sequence[str]) -> list[int]:
    names = [name.lstrip(">") for name in columns]
    return [max(len(click.unstyle(cell)) for cell in column) for column in zip(names, *rows, strict=True)]


def fitted(rows: Rows, columns: Sequence[str], drop: Sequence[str], width: int) -> tuple[Rows, Sequence[str]]:
    """Return a table that is not wider than that, as far as it can be: ids are never cut."""
    names, left = [*columns], [*drop]
    while sum(_widths(rows, names)) + GAP * len(names) > width and left:
        dropped = left.pop(0)
        if dropped == names[-1]:  # which may be cut instead, if enough is left of it
            room = width - sum(_widths(rows, names)[:-1]) - GAP * len(names)
            if room >= LEAST:
                return [[*row[:-1], _cut(row[-1], room)] for row in rows], names
        place = names.index(dropped)
        names.pop(place)
        rows = [row[:place] + row[place + 1 :] for row in rows]
    return rows, names


def _cut(cell: str, room: int) -> str:
    return cell if len(click.unstyle(cell)) <= room else f"{cell[: room - 1]}…"


def _plain_table(rows: Rows, columns: Sequence[str]) -> None:
    widths = _widths(rows, columns)
    for row in [[bold(name.lstrip(">").upper()) for name in columns], *rows]:
        cells = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - len(click.unstyle(cell)))
            cells.append(space + cell if column.startswith(">") else cell + space)
        click.echo("  ".join(cells).rstrip())


def _rich_table(rows: Rows, columns: Sequence[str]) -> bool:
    """Draw a table by rich; return whether it is installed."""
    try:
        from rich.console import Console
    except ImportError:
        return False
    Console(no_color=not coloured(), highlight=False).print(rich_table(rows, columns))
    return True


def rich_table(rows: Rows, columns: Sequence[str]) -> Any:
    """Return a table of rich."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        justify: Literal["right", "left"] = "right" if name.startswith(">") else "left"
        table.add_column(name.lstrip(">"), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    return table
