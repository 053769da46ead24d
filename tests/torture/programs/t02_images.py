"""Makes crash images of recorded clients, opens each with SQLite, and judges what it holds.

    python -m tests.torture.programs.t02_images ORDER

ORDER is JSON, see `Order`; the answer on standard output is a `Count`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .t02_disk import DATABASE, LOG, MODES, Disk, Event, recorded
from .t02_judge import Facts, Found, find, judge


@dataclass
class Order:
    """What one process is to do. Several share the points of the same records between them."""

    folder: str  # where to put images
    images: int  # the least number
    seconds: float = 0.0  # to go on for, beyond the least number
    records: list[str] = field(default_factory=list)  # folders with a log, app.db and notes
    most: int | None = None
    share: int = 0
    shares: int = 1
    seed: int = 0
    samples: int = 0  # images to keep for others to look at


@dataclass
class Count:
    """What was found."""

    images: int = 0
    points: int = 0
    modes: dict[str, int] = field(default_factory=dict)  # images of each
    wrong: dict[str, int] = field(default_factory=dict)  # images in which something was "lost", ...
    cases: int = 0  # acknowledged saves that were lost, in all images together
    examples: dict[str, str] = field(default_factory=dict)  # one of each
    samples: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)  # of the records, by what they are


class Checker:
    """Checks images until there were enough."""

    def __init__(self, order: Order, records: Sequence[Sequence[Event]]) -> None:
        self.order = order
        self.count = Count()
        self._rng = random.Random(f"{order.seed} {order.share}")
        self._records = records
        self._folder = Path(order.folder)
        self._modes: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._until = time.monotonic() + order.seconds

    def run(self) -> Count:
        """Go through all records, at other points each time."""
        barren = 0
        while self._more() and barren < 3:
            before = self.count.images
            for events in self._records:
                self._pass(events)
            barren = barren + 1 if self.count.images == before else 0
        self.count.modes, self.count.wrong = dict(self._modes), dict(self._wrong)
        self.count.events = dict(tally(self._records))
        return self.count

    def _more(self) -> bool:
        images = self.count.images
        if self.order.most is not None and images >= self.order.most:
            return False
        return images < self.order.images or time.monotonic() < self._until

    def _pass(self, events: Sequence[Event]) -> None:
        """Replay a record from its beginning, and check images at points drawn from our share of it."""
        ours = range(self.order.share, len(events), self.order.shares)
        missing = max(self.order.images - self.count.images, 200)
        wanted = missing // (len(MODES) * len(self._records)) + 1
        points = set(self._rng.sample(ours, min(wanted, len(ours) // 4 + 1)))
        disk, facts, notes = Disk(), Facts(), 0
        for number, event in enumerate(events):
            disk.apply(event)
            if event.what == "note":
                facts.learn(event.words, event.at)
                notes += 1
            if number in points:
                self.count.points += 1
                for mode in ("kept",) if disk.settled else MODES:
                    self._check(disk.drawn(mode, self._rng), mode, facts, event.at, notes)

    def _check(self, image: dict[str, bytearray], mode: str, facts: Facts, at: float, notes: int) -> None:
        known = hash((notes, *((name, bytes(content)) for name, content in sorted(image.items()))))
        if known in self._seen:
            return
        self._seen.add(known)
        _write(image, self._folder)
        found = find(str(self._folder / "app.db"))
        wrong = judge(facts, found, at)
        self.count.images += 1
        self._modes[mode] += 1
        self._wrong.update(wrong.keys())
        self.count.cases += len(wrong.get("lost", ()))
        for what, cases in wrong.items():
            self.count.examples.setdefault(what, f"{mode}: {cases[0]}, and {len(cases) - 1} more")
        share = min(1.0, self.count.images / self.order.images)
        if not wrong and len(self.count.samples) < self.order.samples * share:
            self._keep(image, facts, found)

    def _keep(self, image: dict[str, bytearray], facts: Facts, found: Found) -> None:
        """Keep an image, and what is to become of it, for the library to go on with."""
        folder = self._folder / f"sample-{len(self.count.samples)}"
        folder.mkdir()
        _write(image, folder)
        live, done = found.live.keys() - found.asked, facts.done.keys() | found.asked
        expected = {"live": sorted(live), "done": sorted(done)}
        (folder / "expected").write_text(json.dumps(expected))
        self.count.samples.append(str(folder))


def events_of(record: Path) -> list[Event]:
    """Return what happened to the files of a recorded client."""
    return recorded(record / "log", str(record / "app.db"), str(record / "notes"))


def tally(records: Sequence[Sequence[Event]]) -> Counter[str]:
    """Count events by what they are; a checkpoint begins where writes go on from the log to the database."""
    counts: Counter[str] = Counter()
    for events in records:
        counts.update(event.what for event in events)
        counts["events"] += len(events)
        writes = [event.file for event in events if event.what == "write"]
        counts["checkpoints"] += list(itertools.pairwise(writes)).count((LOG, DATABASE))
    return counts


def _write(image: dict[str, bytearray], folder: Path) -> None:
    for suffix in ("", "-wal", "-journal", "-shm"):
        path = folder / f"app.db{suffix}"
        if suffix in image:
            path.write_bytes(image[suffix])
        else:
            path.unlink(missing_ok=True)


def main() -> None:
    """Do what the order says."""
    order = Order(**json.loads(sys.argv[1]))
    count = Checker(order, [events_of(Path(record)) for record in order.records]).run()
    print(json.dumps(dataclasses.asdict(count)))


if __name__ == "__main__":
    main()
