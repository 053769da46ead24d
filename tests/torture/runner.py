"""Runs the rows of the battery one after the other, and makes one table of what they found."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

from .kit import Budget, Missing, Row

__all__ = [
    "HEADER",
    "PLANS",
    "Entry",
    "Plan",
    "Report",
    "discover",
    "load",
    "plan",
    "run_entry",
    "summary",
    "table",
]

HEADER = ["row", "fault", "trials", "lost", "unexplained doubles", "corrupt", "hangs", "worst recovery"]

FULL_MINUTES = 12.0
"""The length of a battery to which the seconds of the plans belong."""

RUN = re.compile(r"^def run\(", re.MULTILINE)
"""What a row's module has; others of such a name help it."""

QUICK = Budget(3.0, most=40)
"""What a row gets that is only to be seen at work."""


@dataclass(frozen=True)
class Plan:
    """What one row gets in a full battery: its seconds, and the trials it needs for its bars."""

    seconds: float = 20.0
    least: int = 1

    def budget(self, minutes: float, *, quick: bool = False) -> Budget:
        """Return the share of a battery of so many minutes; with `quick`, just enough to see it work."""
        if quick:
            return Budget(QUICK.seconds, least=QUICK.least, most=QUICK.most)
        share = minutes / FULL_MINUTES
        return Budget(self.seconds * share, least=max(1, round(self.least * min(1.0, share))))


PLANS = {
    "T2": Plan(40, least=10_000),
    "T4": Plan(50, least=500),
    "T6": Plan(45, least=500),
    "T9": Plan(25, least=20),
    "T11": Plan(62, least=200),
    "T12": Plan(15, least=50),
    "T13": Plan(15, least=1_000),
    "T19": Plan(15, least=1_000),
}
"""What has been decided here; of other rows, their own `SECONDS` and `LEAST` count, or the default."""


@dataclass
class Entry:
    """A row that can be run: a module with `run(budget) -> Row`.

    It may say how much it needs: `SECONDS` of a full battery, `LEAST` trials for its bars; or
    decide by itself, with `budget(minutes) -> Budget`.
    """

    name: str  # "T3"
    path: Path

    @property
    def aliases(self) -> set[str]:
        """Return how it can be asked for: `T3`, `3`, `t03`, `t03_simulation`, the name of the file."""
        stem = self.path.stem
        return {self.name.lower(), self.name[1:], stem, stem.split("_")[0], self.path.name}


@dataclass
class Report:
    """What became of one row.

    `trouble`: why it did not come to its end. `skipped`: which tool is missing. `left`: it left
    processes running. `missed`: the bars that it missed, or its trouble.
    """

    name: str
    about: str
    row: Row | None = None
    trouble: str | None = None
    skipped: str | None = None
    seconds: float = 0.0
    left: bool = False
    missed: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.trouble is not None:
            self.missed = [self.trouble]
        elif self.row is not None:
            self.missed = list(self.row.failures)

    def cells(self) -> list[str]:
        """Return the row of the table."""
        if self.row is not None:
            return self.row.columns()
        what = f"SKIPPED: {self.skipped}" if self.skipped is not None else f"FAILED: {self.trouble}"
        return [self.name, self.about, what, *["-"] * (len(HEADER) - 3)]


def discover(folder: Path, wanted: Iterable[str] = ()) -> list[Entry]:
    """Return the rows of a folder in their order, or those that are asked for. Raises `LookupError`."""
    paths = [path for path in sorted(folder.glob("t[0-9][0-9]_*.py")) if RUN.search(path.read_text())]
    entries = [Entry(f"T{int(path.stem[1:3])}", path) for path in paths]
    names = [name.lower() for name in wanted]
    known = set().union(*(entry.aliases for entry in entries))
    if unknown := [name for name in names if name not in known]:
        raise LookupError(f"no row {unknown[0]!r}; there are {', '.join(entry.name for entry in entries)}")
    return [entry for entry in entries if not names or entry.aliases & set(names)]


def load(entry: Entry) -> ModuleType:
    """Import a row as a module of this package, wherever it lies."""
    name = f"{__package__}.{entry.path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, entry.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def plan(entry: Entry, module: ModuleType) -> Plan:
    """Return what a row needs: as it stands in `PLANS`, else as it says itself, else the default."""
    default = Plan()
    own = Plan(getattr(module, "SECONDS", default.seconds), least=getattr(module, "LEAST", default.least))
    return PLANS.get(entry.name, own)


def run_entry(entry: Entry, minutes: float, *, quick: bool = False, limit: float | None = None) -> Report:
    """Run a row in a process of its own, which is killed with all its children when it hangs.

    `limit`: seconds after which it does; None: more than the whole battery should take.
    """
    began = time.monotonic()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_in_process, args=(entry, minutes, quick, theirs), name=entry.name)
    process.start()
    theirs.close()
    try:
        report = _receive(entry, ours, limit or 300 + 60 * minutes)
        process.join(0 if report.trouble else 10)
    finally:
        left = _kill_group(process.pid)
        process.kill()  # if it was too young for a group of its own
        process.join()
        ours.close()
    report.seconds, report.left = time.monotonic() - began, left
    return report


def _receive(entry: Entry, pipe: Connection, limit: float) -> Report:
    if not pipe.poll(limit):
        return Report(entry.name, entry.path.stem, trouble=f"no end within {limit:g} s; killed")
    try:
        report = pipe.recv()
    except EOFError:
        return Report(entry.name, entry.path.stem, trouble="its process died")
    assert isinstance(report, Report)
    return report


def _kill_group(pid: int | None) -> bool:
    """Kill what a row left running; return whether there was anything."""
    if pid is None:
        return False
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nobody is left, or (macOS) only a zombie
        return False
    return True


def _in_process(entry: Entry, minutes: float, quick: bool, pipe: Connection) -> None:
    os.setsid()
    about = entry.path.stem
    try:
        module = load(entry)
        about = _about(module)
        decide = getattr(module, "budget", None)
        own = None if decide is None or quick else decide(minutes)
        row = module.run(own or plan(entry, module).budget(minutes, quick=quick))
        report = Report(entry.name, about, row)
    except Missing as error:
        report = Report(entry.name, about, skipped=str(error))
    except Exception as error:  # one row that breaks does not end the others
        traceback.print_exc()
        report = Report(entry.name, about, trouble=f"{type(error).__name__}: {error}")
    pipe.send(report)


def _about(module: ModuleType) -> str:
    """Return what a row's module says it is, without its number."""
    first = (module.__doc__ or module.__name__).strip().splitlines()[0]
    return re.sub(r"^T\d+:\s*", "", first).rstrip(".")


def table(reports: Sequence[Report]) -> str:
    """Return a table in Markdown; numbers stand right."""
    rows = [HEADER, *(report.cells() for report in reports)]
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(HEADER))]
    right = [column > 1 for column in range(len(HEADER))]

    def line(row: Sequence[str]) -> str:
        shown = (
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(shown)} |"

    rule = "|".join(
        "-" * (width + 1) + ":" if is_right else "-" * (width + 2)
        for width, is_right in zip(widths, right, strict=True)
    )
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def summary(reports: Sequence[Report], *, allow_missing: bool) -> tuple[str, int]:
    """Return the table, the notes, what was missed; and the exit status."""
    parts = [table(reports)]
    notes = [
        f"{report.name} ({report.seconds:.0f} s): {'; '.join(_notes(report)) or '-'}" for report in reports
    ]
    parts.append("\n".join(notes))
    skipped = [f"{report.name} SKIPPED: {report.skipped}" for report in reports if report.skipped is not None]
    missed = [f"{report.name} missed: {text}" for report in reports for text in report.missed]
    if skipped:
        parts.append("\n".join(skipped))
    parts.append("\n".join(missed) if missed else "No bar was missed.")
    parts.append(f"{len(reports)} rows in {sum(report.seconds for report in reports) / 60:.1f} minutes")
    bad = bool(missed) or not reports or bool(skipped and not allow_missing)
    return "\n\n".join(parts), int(bad)


def _notes(report: Report) -> list[str]:
    notes = list(report.row.notes) if report.row is not None else []
    return [*notes, "it left processes behind, which were killed"] if report.left else notes
