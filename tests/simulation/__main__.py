"""Run seeds: `python -m tests.simulation --seed 17` shows the history of one."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

import msgspec

from .clock import EPOCH
from .history import Event, Logged
from .storm import simulate
from .year import watch


def line(event: Event) -> str:
    """Return an event as a line of text."""
    fields = msgspec.structs.asdict(event)
    if isinstance(event, Logged):
        fields = {"event": event.event, **event.fields}
    rest = " ".join(
        f"{name}={value}"
        for name, value in fields.items()
        if name not in ("at", "wall") and value is not None
    )
    return f"{event.at:14.6f} {event.wall - EPOCH:10d}  {type(event).__name__:12} {rest}"


def live_through(seeds: range, schedules: int) -> int:
    """Run years of schedules; return 1 if anything is wrong in any of them."""
    failed = False
    for seed in seeds:
        began = time.perf_counter()
        year = watch(seed, begin=datetime(2025, 6, 1, tzinfo=UTC), days=365, schedules=schedules)
        print(f"seed {seed}, {time.perf_counter() - began:.1f} s: {year}", flush=True)
        failed |= bool(year.wrong)
    return int(failed)


def main() -> int:
    """Return 1 if any seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed and show its history")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--count", type=int, default=1000, help="how many")
    parser.add_argument("--years", type=int, help="run so many years of schedules instead")
    parser.add_argument("--schedules", type=int, default=100, help="how many in a year")
    options = parser.parse_args()
    if options.years is not None:
        return live_through(range(options.first, options.first + options.years), options.schedules)
    if options.seed is not None:
        events, found = simulate(options.seed)
        print(*map(line, events), *found, sep="\n")
        return bool(found)
    began, failed = time.perf_counter(), 0
    for seed in range(options.first, options.first + options.count):
        _, found = simulate(seed)
        if found:
            failed += 1
            print(f"seed {seed}:", *found[:4], sep="\n    ", flush=True)
    took = time.perf_counter() - began
    print(f"{options.count} seeds, {failed} failed, {took:.1f} s, {options.count / took:.1f} seeds/s")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
