"""Work in chunks for a program that answers line by line, in as many processes as there are cores."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kit import Budget

__all__ = ["Chunks", "Troubles"]

HANGS = 3
"""Chunks that hang until no more are tried."""


@dataclass
class Troubles:
    """What became of chunks without an answer."""

    hangs: int = 0
    deaths: int = 0
    texts: list[str] = field(default_factory=list)


class _Worker:
    """A process that has one chunk in hand at a time."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._tasks, self.answers = self.process.stdin, self.process.stdout
        self.chunk = range(0)
        self.deadline = 0.0

    def give(self, chunk: range, task: str, patience: float) -> None:
        """Have it do a chunk."""
        self.chunk, self.deadline = chunk, time.monotonic() + patience
        with contextlib.suppress(BrokenPipeError):  # it has died, as its answer will show
            self._tasks.write(task + "\n")
            self._tasks.flush()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self.answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._tasks.close()


@dataclass
class Chunks:
    """Gives ranges of numbers to processes until a budget is used up; replaces what hangs or dies.

    - `size`: numbers in a chunk; `first`: where they begin.
    - `patience`: seconds after which a chunk without an answer hangs.
    - `task`: the line that asks for a chunk.
    """

    program: Path
    size: int
    first: int = 0
    patience: float = 60.0
    processes: int = field(default_factory=lambda: os.cpu_count() or 1)
    task: Callable[[range], str] = lambda chunk: f"{chunk.start} {len(chunk)}"
    _given: int = 0

    def work(self, budget: Budget, answered: Callable[[range, Any], None]) -> Troubles:
        """Do it; `answered` gets each chunk with its answer, a line of JSON."""
        workers: list[_Worker] = []
        troubles = Troubles()
        try:
            for _ in range(self.processes):
                workers.append(_Worker(self.program))
                self._feed(workers[-1], budget, troubles)
            while busy := [worker for worker in workers if worker.chunk]:
                for worker in self._unanswered(busy, troubles, answered):
                    worker.end()
                    workers[workers.index(worker)] = new = _Worker(self.program)
                    self._feed(new, budget, troubles)
                for worker in busy:
                    if not worker.chunk and worker in workers:
                        self._feed(worker, budget, troubles)
        finally:
            for worker in workers:
                worker.end()
        return troubles

    def _feed(self, worker: _Worker, budget: Budget, troubles: Troubles) -> None:
        if troubles.hangs + troubles.deaths >= HANGS or not budget.more(self._given):
            return
        size = self.size if budget.most is None else min(self.size, budget.most - self._given)
        begin = self.first + self._given
        self._given += size
        chunk = range(begin, begin + size)
        worker.give(chunk, self.task(chunk), self.patience)

    def _unanswered(
        self, busy: list[_Worker], troubles: Troubles, answered: Callable[[range, Any], None]
    ) -> list[_Worker]:
        """Wait for an answer, or until the first worker is too late; return who hangs or is dead."""
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            wait = min(worker.deadline for worker in busy) - time.monotonic()
            ready = [key.data for key, _ in selector.select(max(0.0, wait) + 0.01)]
        lost = []
        for worker in busy:
            chunk = worker.chunk
            name = f"{chunk.start} to {chunk.stop - 1}"
            if worker in ready and (answer := worker.answers.readline()):
                worker.chunk = range(0)
                answered(chunk, json.loads(answer))
            elif worker in ready:
                troubles.deaths += 1
                troubles.texts.append(f"{name}: the process died")
                lost.append(worker)
            elif time.monotonic() > worker.deadline:
                troubles.hangs += 1
                troubles.texts.append(f"{name}: no answer within {self.patience:g} s")
                lost.append(worker)
        return lost
