"""Writes down how soon this machine lets a process go on: `pulse.py FILE SECONDS`, until its input ends.

A beat is a sleep of so many seconds, a little work, and a write that is synced. Each is told by two
doubles: when the sleep was to be over, on the monotonic clock, and when all of it was done.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time

WORK = 5_000
"""Additions: some tenths of a millisecond of a processor that has nothing else to do."""


def main(path: str, nap: float) -> None:
    """Beat until the input ends."""
    beats = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    due = time.monotonic() + nap
    while not poll.poll(1000 * nap):
        sum(range(WORK))
        os.fdatasync(beats)
        done = time.monotonic()
        os.write(beats, struct.pack("dd", due, done))
        due = time.monotonic() + nap


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
