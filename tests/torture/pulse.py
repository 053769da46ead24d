"""How late this machine is, beside what it is to do: the measure for what is said in seconds.

What takes longer than it may is no fault of the library if a process that does next to nothing was
held up, too. So a bar of time holds on a machine that has time, and is as strict there as it says.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["STEADY", "Beats", "Pulse"]

LIMIT = 60.0
"""Seconds after which it does not beat at all."""

NAP = 0.02
"""Seconds between two beats."""

PROGRAM = Path(__file__).parent / "programs" / "pulse.py"

ORDER = 50
"""Turns on a processor, or on the disk, that one process needs, at most, to tell another something."""

START = 250
"""Those that a process needs to start, and to take over from another."""

WORST = 5
"""How many of them may have to wait for as long as the longest of all; the others, as long as most."""


class Beats:
    """Beats of a machine: when each was due, and when it was done."""

    def __init__(self, beats: Sequence[tuple[float, float]] = ()) -> None:
        self._beats = list(beats)
        self._ends = [done for _, done in self._beats]

    def delay(self, began: float, ended: float) -> float:
        """Return the longest delay of a beat between two instants, of what lies between them."""
        return max(self._delays(began, ended), default=0.0)

    def _delays(self, began: float, ended: float) -> list[float]:
        found = []
        for due, done in self._beats[bisect_left(self._ends, began) :]:
            if due >= ended:
                break
            found.append(min(done, ended) - max(due, began))
        return found

    def mean(self) -> float:
        """Return by how much a beat was late."""
        return sum(done - due for due, done in self._beats) / max(1, len(self._beats))

    def charged(self, began: float, ended: float, turns: int = ORDER) -> float:
        """Return how long something took; nothing if the machine needed that for so many turns."""
        took, delays = ended - began, self._delays(began, ended) or [0.0]
        needed = WORST * max(delays) + turns * sum(delays) / len(delays)
        return 0.0 if took <= needed else took


STEADY = Beats()
"""Those of a machine that nobody is ever held up by."""


class Pulse:
    """Feels the pulse of the machine in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pulse"
        self._file.touch()
        self._ended: float | None = None
        command = [sys.executable, "-S", str(PROGRAM), str(self._file), str(NAP)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + LIMIT
        while not self._file.stat().st_size:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the pulse does not beat: {self._process.poll()}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = time.monotonic()
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The process that beats."""
        return self._process.pid

    def beats(self) -> Beats:
        """Return the beats so far; the last one is under way, if it is late."""
        now, content = self._ended or time.monotonic(), self._file.read_bytes()
        beats = [(due, done) for due, done in struct.iter_unpack("dd", content[: len(content) // 16 * 16])]
        if beats and now > beats[-1][1] + NAP:
            beats.append((beats[-1][1] + NAP, now))
        return Beats(beats)
