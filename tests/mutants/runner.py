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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .mutant import ROOT, Mutant, copy_package

__all__ = ["EVERYTHING", "Baseline", "Outcome", "Verdict", "judge", "judge_all", "measure"]

Outcome = Literal["killed", "hangs", "survived", "broken"]

EVERYTHING = "tests/test_*.py tests/stores tests/web tests/cli tests/telemetry tests/simulation"
"""What a mutant has to survive that its own tests have not noticed."""

LIMIT = 600.0
"""Seconds for tests that have not been measured."""

SESSION = Path(__file__).parent / "session.py"

FAILED = 1
"""The exit status of pytest when a test has failed."""


@dataclass
class Baseline:
    """How the tests do without any defect: how long each takes, and which fail anyway."""

    seconds: dict[str, float] = field(default_factory=dict)
    failing: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    least: float = 30.0

    def limit(self, tests: str) -> float:
        """Return the seconds after which a mutant hangs in these tests."""
        parts = tuple(_parts(tests))
        return self.least + 5 * sum(took for name, took in self.seconds.items() if name.startswith(parts))


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
    seconds: dict[str, float]
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
    with (folder / "said.txt").open("w+", errors="replace") as said:  # tests print anything
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
        seconds: dict[str, float] = {}
        for line in lines:
            if line.startswith("took "):
                _, took, name = line.split(" ", 2)
                seconds[name] = seconds.get(name, 0.0) + float(took)
        return _Session(status, list(dict.fromkeys(failed)), "again" in lines, seconds, said.read()[-2000:])


def _parts(tests: str) -> list[str]:
    """Return the files, folders and tests of a selection, with patterns made into names."""
    found: list[str] = []
    for part in shlex.split(tests):
        if part.startswith(("tests/", "/")):
            paths = sorted(ROOT.glob(part)) if "*" in part else []
            found += [str(path.relative_to(ROOT)) for path in paths] or [part]
    return found


def _arguments(tests: str) -> list[str]:
    """Return the arguments for pytest: whole paths, and its options."""
    options = [part for part in shlex.split(tests) if not part.startswith(("tests/", "/"))]
    return [*(str(ROOT / part) for part in _parts(tests)), *options]


@contextlib.contextmanager
def _copy(mutant: Mutant | None = None) -> Iterator[Path]:
    """Make a copy of the library, which other users can read: some tests run programs as one."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        os.chmod(name, 0o755)
        yield copy_package(Path(name), mutant)


def measure(selections: Iterable[str], *, jobs: int = 1, limit: float = LIMIT) -> Baseline:
    """Run the tests of these selections without any defect, each once."""
    parts = sorted({part for tests in selections for part in _parts(tests)})
    needed = [part for part in parts if not any(_lies_in(part, other) for other in parts)]
    shares = [share for share in (needed[number::jobs] for number in range(jobs)) if share]
    found = Baseline()
    with ThreadPoolExecutor(jobs) as pool:
        for share, session in zip(
            shares, pool.map(lambda share: _measured(share, limit), shares), strict=True
        ):
            found.seconds |= session.seconds
            found.failing += session.failed
            if session.status is None:
                found.troubles.append(f"no end within {limit:g} s: {' '.join(share)}")
            elif session.status not in (0, FAILED) or (session.status == FAILED and not session.failed):
                found.troubles.append(f"cannot be run: {' '.join(share)}: {session.said}")
    return found


def _lies_in(part: str, other: str) -> bool:
    return part != other and part.startswith((other + "::", other.rstrip("/") + "/"))


def _measured(parts: Sequence[str], limit: float) -> _Session:
    with _copy() as folder:
        return _pytest(folder, _arguments(" ".join(parts)), limit)


def judge(mutant: Mutant, tests: str, baseline: Baseline) -> Verdict:
    """Run a selection of tests against a mutant.

    What has failed is run again alone, and if it passes then, with the others: a test that fails
    now and then does not count as having noticed.
    """
    began = time.monotonic()
    arguments = [*_arguments(tests), "-x", *(f"--deselect={test}" for test in baseline.failing)]
    limit = baseline.limit(tests)
    with _copy(mutant) as folder:
        session = _pytest(folder, arguments, limit)
        if session.failed and session.status is not None and not session.again:
            session = _pytest(folder, arguments, limit)
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
    """Measure the tests without any defect, then judge; yield the measure, and the verdicts as they come.

    `tests`: instead of those that each mutant names.
    """
    named = {mutant.name: tests or mutant.tests for mutant in mutants}
    baseline = measure(named.values(), jobs=jobs)
    yield baseline
    if not baseline.troubles:
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(lambda mutant: judge(mutant, named[mutant.name], baseline), mutants)
