"""Runs the tests against copies of the library, each with one defect, several at a time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .mutant import ROOT, Mutant, copy_package

__all__ = ["EVERYTHING", "Baseline", "Outcome", "Verdict", "judge", "judge_all", "measure"]

Outcome = Literal["killed", "hangs", "survived", "broken"]

EVERYTHING = "tests/test_*.py tests/stores tests/simulation"
"""What a mutant has to survive that its own tests have not noticed."""

LIMIT = 600.0
"""Seconds for tests that have not been measured."""

SESSION = Path(__file__).parent / "session.py"

FAILED = 1
"""The exit status of pytest when a test has failed."""


@dataclass
class Baseline:
    """How the tests of a selection do without any defect: how long they take, and which fail anyway."""

    tests: str
    seconds: float = 0.0
    failing: list[str] = field(default_factory=list)
    trouble: str = ""
    slowest: float | None = None

    @property
    def limit(self) -> float:
        """Return the seconds after which a mutant of these tests hangs."""
        return 30.0 + 5 * self.seconds if self.slowest is None else self.slowest


@dataclass
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    outcome: Outcome
    by: str = ""
    seconds: float = 0.0


@dataclass
class _Session:
    """What became of a run of pytest: its exit status (None: it hangs), what failed, and what it said.

    `again`: the first that failed did so once more, alone.
    """

    status: int | None
    failed: list[str]
    again: bool
    said: str


def _pytest(folder: Path, arguments: Sequence[str], limit: float) -> _Session:
    """Run tests against the copy in a folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BACKLITE_SEEDS": "300",
        "TMPDIR": str(folder),
    }
    report = folder / "failed.txt"
    report.unlink(missing_ok=True)
    # In that folder, and with -P: else programs that tests start would find the checkout before the copy.
    command = [sys.executable, "-P", str(SESSION), str(folder), str(report), f"--rootdir={ROOT}", *arguments]
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        lines = report.read_text().splitlines() if report.exists() else []
        failed = [line.removeprefix("failed ") for line in lines if line.startswith("failed ")]
        return _Session(status, list(dict.fromkeys(failed)), "again" in lines, said.read()[-2000:])


def _files(tests: str) -> list[str]:
    """Return the arguments for pytest: whole paths, with patterns made into names."""
    found: list[str] = []
    for part in shlex.split(tests):
        if not part.startswith("tests/"):
            found.append(part)
        elif "*" in part:
            found += sorted(map(str, ROOT.glob(part)))
        else:
            found.append(str(ROOT / part))
    return found


@contextlib.contextmanager
def _copy(mutant: Mutant | None = None) -> Iterator[Path]:
    """Make a copy of the library, which other users can read: some tests run programs as one."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        os.chmod(name, 0o755)
        yield copy_package(Path(name), mutant)


def measure(tests: str, *, limit: float = LIMIT) -> Baseline:
    """Run a selection of tests without any defect."""
    with _copy() as folder:
        began = time.monotonic()
        session = _pytest(folder, _files(tests), limit)
    found = Baseline(tests, time.monotonic() - began, session.failed)
    if session.status is None:
        found.trouble = f"no end within {limit:g} s"
    elif session.status not in (0, FAILED) or (session.status == FAILED and not session.failed):
        found.trouble = session.said
    return found


def judge(mutant: Mutant, tests: str, baseline: Baseline) -> Verdict:
    """Run a selection of tests against a mutant.

    What has failed is run again alone, and if it passes then, with the others: a test that fails
    now and then does not count as having noticed.
    """
    began = time.monotonic()
    arguments = [*_files(tests), "-x", *(f"--deselect={test}" for test in baseline.failing)]
    with _copy(mutant) as folder:
        session = _pytest(folder, arguments, baseline.limit)
        if session.failed and session.status is not None and not session.again:
            session = _pytest(folder, arguments, baseline.limit)
    verdict = Verdict(mutant, "broken", session.said)
    if session.failed:  # also where it hangs afterwards
        verdict = Verdict(mutant, "killed", session.failed[0])
    elif session.status is None:
        verdict = Verdict(mutant, "hangs", tests)
    elif session.status == 0:
        verdict = Verdict(mutant, "survived")
    verdict.seconds = time.monotonic() - began
    return verdict


def judge_all(
    mutants: Sequence[Mutant], *, jobs: int, tests: str | None = None
) -> Iterator[Baseline | Verdict]:
    """Measure the tests without any defect, then judge; yield the measures, and the verdicts as they come.

    `tests`: instead of those that each mutant names.
    """
    named = {mutant.name: tests or mutant.tests for mutant in mutants}
    selections = list(dict.fromkeys(named.values()))
    with ThreadPoolExecutor(jobs) as pool:
        baselines = dict(zip(selections, pool.map(measure, selections), strict=True))
        yield from baselines.values()
        usable = [mutant for mutant in mutants if not baselines[named[mutant.name]].trouble]
        yield from pool.map(
            lambda mutant: judge(mutant, named[mutant.name], baselines[named[mutant.name]]), usable
        )
