"""Runs pytest for a copy of the library: `python -P session.py COPY REPORT ARGUMENT ...`.

Writes the ids of the tests that failed to the file REPORT, a line each.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest


class Recorder:
    """Takes down which tests fail, as they do: a session that hangs has told about them."""

    def __init__(self, report: str) -> None:
        self.report = Path(report)

    def pytest_sessionstart(self) -> None:
        """Do not look for the smallest failing example, which takes long: one is enough."""
        from hypothesis import Phase, settings  # not before pytest, which would warn

        settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that failed, or whose fixtures did."""
        if report.failed:
            with self.report.open("a") as file:
                file.write(report.nodeid + "\n")


def main() -> int:
    copy, report, *arguments = sys.argv[1:]
    found = importlib.util.find_spec("backlite_async")
    if found is None or found.origin is None or not found.origin.startswith(copy):
        print(f"the library under test would be {found}")
        return 99
    return pytest.main(arguments, plugins=[Recorder(report)])


if __name__ == "__main__":
    sys.exit(main())
