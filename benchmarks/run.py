"""Runs the measures, each in a process of its own, in rounds that go forth and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .measures import Measure, Stage
from .servers import Servers

__all__ = ["Results", "Runner"]

LIMIT = 1_200.0
"""Seconds after which a process that measures is given up."""

ROOT = Path(__file__).parents[1]

Say = Callable[[str], None]


@dataclass
class Results:
    """The values of each round, by measure, system and name; and why some are missing."""

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def record(self, measure: Measure, answer: dict[str, float]) -> None:
        found = self.values.setdefault(measure.key, {}).setdefault(measure.side, {})
        for name, value in answer.items():
            found.setdefault(name, []).append(value)

    def of(self, side: str, key: str, name: str) -> list[float]:
        """Return the values of the rounds; empty if there are none."""
        return self.values.get(key, {}).get(side, {}).get(name, [])

    def middle(self, side: str, key: str, name: str) -> float | None:
        """Return the median of the rounds."""
        values = self.of(side, key, name)
        return median(values) if values else None


class Runner:
    """Runs stages on one disk and keeps the results."""

    def __init__(self, folder: Path, rounds: int, servers: Servers, say: Say) -> None:
        self.results = Results()
        self._folder = folder
        self._rounds = rounds
        self._servers = servers
        self._say = say

    def run(self, stage: Stage) -> None:
        """Prepare what a stage needs, then take its measures."""
        if not stage.measures:
            return
        rounds = min(self._rounds, stage.rounds or self._rounds)
        with ExitStack() as stack:
            places: dict[str, Path] = {}
            for preparation in stage.preparations:
                self._say(f"{stage.title}: preparing {preparation.name}")
                folder = places[preparation.name] = stack.enter_context(self._fresh_folder())
                self._call(preparation.program, preparation.arguments, _place(folder))
            for number in range(rounds):
                self._say(f"{stage.title}: round {number + 1} of {rounds}")
                measures = stage.measures if number % 2 == 0 else stage.measures[::-1]
                if stage.together:
                    with ThreadPoolExecutor(len(measures)) as pool:
                        list(pool.map(self._take, measures))
                    continue
                for measure in measures:
                    self._take(measure, places)

    def _take(self, measure: Measure, places: dict[str, Path] | None = None) -> None:
        name = f"{measure.side}: {measure.key}"
        if name in self.results.failures:
            return
        try:
            if measure.prepared is not None:
                prepared = (places or {})[measure.prepared]
                answer = self._call(measure.program, measure.arguments, _place(prepared))
            else:
                with self._fresh_folder() as folder, self._servers.place(measure.side) as urls:
                    answer = self._call(measure.program, measure.arguments, _place(folder) | urls)
        except subprocess.SubprocessError as error:
            self._say(f"{name}: {_reason(error)}")
            self.results.failures[name] = _reason(error)
        else:
            self.results.record(measure, answer)

    def _call(self, program: str, arguments: dict[str, object], place: dict[str, str]) -> dict[str, float]:
        request = {"program": f"benchmarks.{program}", "arguments": arguments | {"place": place}}
        os.sync()  # what others have left to be written disturbs nobody
        process = subprocess.run(
            [sys.executable, "-m", "benchmarks.child", json.dumps(request)],
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=ROOT,
        )
        answer: dict[str, float] = json.loads(process.stdout)
        return answer

    @contextmanager
    def _fresh_folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="measure-") as folder:
            yield Path(folder)


def _place(folder: Path) -> dict[str, str]:
    return {"folder": str(folder), "redis": "", "postgres": ""}


def _reason(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"did not end within {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in (error.stderr or "").splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"ended with {error.returncode}"
    return str(error)
