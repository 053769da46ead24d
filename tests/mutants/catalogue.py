"""All mutants, read from `diffs/`.

A file there has parts, apart by blank lines. `file: PATH` and `tests: ARGUMENTS` hold for the mutants that
follow. A mutant begins with `name: what it breaks`, may have `tests:` of its own and `@@ where to look`,
and then is written like the body of a diff: lines that go, that stay and that come, of the file named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .mutant import Mutant

__all__ = ["FOLDER", "MUTANTS", "parse"]

FOLDER = Path(__file__).parent / "diffs"

TITLE = re.compile(r"([a-z0-9-]+): (.+)")
SETTING = re.compile(r"(file|tests): (.+)")


def parse(text: str) -> Iterator[Mutant]:
    """Return the mutants of a file. Raises `ValueError` where it cannot be understood."""
    settings = {"file": "", "tests": ""}
    for part in re.split(r"\n{2,}", text.strip("\n")):
        lines = [line for line in part.splitlines() if not line.startswith("#")]
        if all(SETTING.fullmatch(line) for line in lines):
            settings |= dict(_setting(line) for line in lines)
        else:
            yield _mutant(lines, dict(settings))


def _setting(line: str) -> tuple[str, str]:
    found = SETTING.fullmatch(line)
    assert found is not None
    return found[1], found[2]


def _mutant(lines: list[str], settings: dict[str, str]) -> Mutant:
    title = TITLE.fullmatch(lines[0])
    if title is None:
        raise ValueError(f"no mutant begins with {lines[0]!r}")
    within = ""
    old, new = "", ""
    for line in lines[1:]:
        if SETTING.fullmatch(line):
            settings |= dict([_setting(line)])
        elif line.startswith("@@ "):
            within = line[3:]
        elif line[:1] in {" ", "-", "+"}:
            old += "" if line[0] == "+" else line[1:] + "\n"
            new += "" if line[0] == "-" else line[1:] + "\n"
        else:
            raise ValueError(f"{title[1]}: {line!r} is no line of a diff")
    return Mutant(title[1], title[2], settings["file"], old, new, settings["tests"], within)


MUTANTS: list[Mutant] = [
    mutant for path in sorted(FOLDER.glob("*.diff")) for mutant in parse(path.read_text())
]
