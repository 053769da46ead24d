"""One defect, and how to make a copy of the library that has it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "Mutant", "Stale", "copy_package"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backlite_async"


class Stale(Exception):
    """A mutant no longer fits the library's text: bring the catalogue up to date."""


@dataclass(frozen=True)
class Mutant:
    """A replacement of whole lines in one file of the package.

    - `breaks`: what it breaks, in a few words.
    - `old`: lines that stand exactly once in the file, or in the function or SQL statement whose first
      line begins with `within`.
    - `tests`: arguments for pytest, those first that are quick to notice.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: str
    within: str = ""

    def changed(self, text: str) -> str:
        """Return the text of the file with the defect in it. Raises `Stale`."""
        begin, end = self._section(text)
        found = len(re.findall("^" + re.escape(self.old), text[begin:end], re.MULTILINE))
        if found != 1:
            where = f" from {self.within!r} on" if self.within else ""
            raise Stale(f"{self.name}: these lines stand {found} times in {self.file}{where}:\n{self.old}")
        if self.old == self.new:
            raise Stale(f"{self.name}: changes nothing")
        at = re.compile("^" + re.escape(self.old), re.MULTILINE).search(text, begin)
        assert at is not None
        return text[: at.start()] + self.new + text[at.end() :]

    def _section(self, text: str) -> tuple[int, int]:
        if not self.within:
            return 0, len(text)
        begins = list(re.finditer(rf"^ *{re.escape(self.within)}(?!\w)", text, re.MULTILINE))
        if len(begins) != 1:
            raise Stale(f"{self.name}: {self.within!r} begins {len(begins)} lines of {self.file}")
        begin, after = begins[0].span()
        python = r"^(?: {4})?(?:async def|def|class)\b"
        pattern = r"^-- (?:name|part): " if self.file.endswith(".sql") else python
        following = re.compile(pattern, re.MULTILINE).search(text, after)
        return begin, following.start() if following else len(text)

    def apply(self, package: Path) -> None:
        """Put the defect into a copy of the package. Raises `Stale`."""
        path = package / self.file
        path.write_text(self.changed(path.read_text()))
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()


def copy_package(folder: Path, mutant: Mutant | None = None) -> Path:
    """Copy the package into a folder, with a defect; return what is to be put on PYTHONPATH."""
    target = folder / PACKAGE.name
    shutil.copytree(PACKAGE, target)  # with what is compiled already
    if mutant is not None:
        mutant.apply(target)
    return folder
