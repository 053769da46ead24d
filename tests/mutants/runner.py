"""Runs the tests against copies of the library, each with one defect, several at a time."""

from __future__ import annotations

import os
import re
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

START = """
import sys
import backlite_async
if not backlite_async.__file__.startswith(sys.argv[1]):
    sys.exit(f"the library under test is {backlite_async.__file__}")
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""

OPTIONS = ["-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]

FAILED = 1
"""The exit status of pytest when a test has failed."""


@dataclass
class Baseline:
    """How the tests of a selection do without any defect: how long they take, and which fail anyway."""

    tests: str
    seconds: float = 0.0
    failing: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def limit(self) -> float:
        """Return the seconds after which a mutant of these tests hangs."""
        return 30.0 + 5 * self.seconds


@dataclass
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    outcome: Outcome
    by: str = ""
    seconds: float = 0.0


def _pytest(folder: Path, arguments: Sequence[str], limit: float) -> tuple[int | None, str]:
    """Run tests against the copy in a folder; return pytest's status, None if they hang, and what it says."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BACKLITE_SEEDS": "300",
        "TMPDIR": str(folder),
        "COLUMNS": "200",
    }
    # -P: else the checkout, the current folder, comes before the copy.
    command = [sys.executable, "-P", "-c", START, str(folder), *OPTIONS, f"--rootdir={ROOT}", *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # nobody is left
            pass
        process.wait()
    return process.returncode, said


def _files(tests: str) -> list[str]:
    """Return the arguments for pytest, with patterns of files made into names."""
    found: list[str] = []
    for part in shlex.split(tests):
        matching = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(part)) if "*" in part else []
        found += matching or [part]
    return found


def _failures(said: str) -> list[str]:
    return re.findall(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", said, re.MULTILINE)


def measure(tests: str, *, limit: float = LIMIT) -> Baseline:
    """Run a selection of tests without any defect."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_package(Path(folder))
        began = time.monotonic()
        status, said = _pytest(Path(folder), _files(tests), limit)
    found = Baseline(tests, time.monotonic() - began)
    if status == FAILED:
        found.failing = _failures(said)
    if status is None:
        found.trouble = f"no end within {limit:g} s"
    elif status not in (0, FAILED) or (status == FAILED and not found.failing):
        found.trouble = said[-2000:]
    return found


def judge(mutant: Mutant, tests: str, baseline: Baseline) -> Verdict:
    """Run a selection of tests against a mutant.

    What has failed is run again alone, then with the others: a test that fails now and then does
    not count as having noticed.
    """
    began = time.monotonic()
    everything = [*_files(tests), "-x", *(f"--deselect={test}" for test in baseline.failing)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = copy_package(Path(name), mutant)
        verdict = _run(mutant, folder, everything, baseline.limit)
        if verdict.outcome == "killed" and _run(mutant, folder, [verdict.by], baseline.limit).outcome != "killed":
            verdict = _run(mutant, folder, everything, baseline.limit)
    verdict.seconds = time.monotonic() - began
    return verdict


def _run(mutant: Mutant, folder: Path, arguments: Sequence[str], limit: float) -> Verdict:
    status, said = _pytest(folder, arguments, limit)
    if status is None:
        return Verdict(mutant, "hangs", " ".join(arguments[:3]))
    if status == FAILED and (failed := _failures(said)):
        return Verdict(mutant, "killed", failed[0])
    if status == 0:
        return Verdict(mutant, "survived")
    return Verdict(mutant, "broken", said[-1000:])


def judge_all(mutants: Sequence[Mutant], *, jobs: int, tests: str | None = None) -> Iterator[Baseline | Verdict]:
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
