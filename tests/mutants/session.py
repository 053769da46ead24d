"""Runs pytest for a copy of the library: `python -P session.py COPY REPORT ARGUMENT ...`.

Writes to the file REPORT which tests failed and how long each took, a line each, as they end: a session
that hangs has told about them. With -x, the first that failed is run once more, and a last line says
whether it failed `again`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

OPTIONS = ["-q", "--tb=line", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


class Recorder:
    """Takes down which tests fail."""

    def __init__(self, report: Path) -> None:
        self.report = report
        self.failed: list[str] = []
        self.current = ""

    def pytest_collectstart(self) -> None:
        """Do not look for the smallest failing example, which takes long: one is enough."""
        from hypothesis import Phase, settings  # not before pytest, which would warn

        settings.register_profile(
            "mutants", settings(), phases=[Phase.explicit, Phase.generate], database=None
        )
        settings.load_profile("mutants")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keep the name of the test that begins."""
        self.current = nodeid

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note a test from which an interrupt has escaped."""
        if self.current and excinfo.type is KeyboardInterrupt:
            self.note(self.current)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long a test took, and whether it failed, or its fixtures did."""
        self.write(f"took {report.duration:.3f} {report.nodeid}")
        if report.failed:
            self.note(report.nodeid)

    def note(self, nodeid: str) -> None:
        """Take down a test that failed."""
        self.failed.append(nodeid)
        self.write(f"failed {nodeid}")

    def write(self, line: str) -> None:
        """Add a line to the report."""
        with self.report.open("a") as file:
            file.write(line + "\n")


def main() -> int:
    copy, report, *arguments = sys.argv[1:]
    found = importlib.util.find_spec("backlite_async")
    if found is None or found.origin is None or not found.origin.startswith(copy):
        print(f"the library under test would be {found}")
        return 99
    first = Recorder(Path(report))
    status = pytest.main([*OPTIONS, *arguments], plugins=[first])
    if "-x" in arguments and first.failed:
        [option] = [word for word in arguments if word.startswith("--rootdir=")]
        root = option.removeprefix("--rootdir=")
        second = Recorder(Path(report))
        pytest.main([*OPTIONS, option, f"{root}/{first.failed[0]}"], plugins=[second])
        second.write("again" if second.failed else "not again")
    return status


if __name__ == "__main__":
    sys.exit(main())
