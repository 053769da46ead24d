"""The figures: what of the measured is shown, beside what, and where it must lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from .measures import LIBRARY, RAW, RESTS, backlogs
from .run import Results
from .workload import QUEUES, SMALL, Sizes

__all__ = ["Bar", "Contest", "Figure", "Reference", "contests", "figures"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a figure is put beside: a value of a measure in the same round."""

    side: str
    key: str
    name: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Where a figure, or its ratio to the reference, must lie."""

    limit: float
    at_least: bool
    ratio: bool

    def met(self, value: float) -> bool:
        """Return whether it lies there."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{'x' if self.ratio else ''}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table of the library alone."""

    title: str
    unit: str
    key: str
    name: str
    reference: Reference | None = None
    bar: Bar | None = None

    def values(self, results: Results) -> list[float]:
        """Return the library's value of each round."""
        return results.of(LIBRARY, self.key, self.name)

    def reference_values(self, results: Results) -> list[float]:
        """Return the reference's value of each round."""
        found = self.reference
        return results.of(found.side, found.key, found.name) if found else []

    def ratios(self, results: Results) -> list[float]:
        """Return the ratio of each round: neighbours in time are fair to each other."""
        pairs = zip(self.values(results), self.reference_values(results), strict=False)
        return [ours / theirs for ours, theirs in pairs if theirs]

    def best(self, results: Results) -> float | None:
        """Return the best ratio of all rounds."""
        choose = max if self.bar is None or self.bar.at_least else min
        return choose(self.ratios(results), default=None)

    def met(self, results: Results) -> bool | None:
        """Return whether the median meets the bar; None if there is no bar or no value."""
        if self.bar is None:
            return None
        found = self.ratios(results) if self.bar.ratio else self.values(results)
        return self.bar.met(median(found)) if found else None


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One line of the table of peers: a value that they all have."""

    title: str
    unit: str
    key: str
    name: str
    more_is_better: bool
    note: str = ""

    def best(self, results: Results, peers: list[str]) -> float | None:
        """Return the best median of the peers."""
        found = [value for peer in peers if (value := results.middle(peer, self.key, self.name)) is not None]
        return (max if self.more_is_better else min)(found, default=None)

    def lead(self, results: Results, peers: list[str]) -> float | None:
        """Return how many times better the library is than the best peer."""
        ours, best = results.middle(LIBRARY, self.key, self.name), self.best(results, peers)
        if not ours or not best:
            return None
        return ours / best if self.more_is_better else best / ours


def figures(sizes: Sizes) -> list[Figure]:
    """Return the lines of the library's table, in their order."""
    return [
        *_adding(sizes),
        *_draining(sizes),
        *_following(sizes),
        *_latencies(),
        *_growing(sizes),
        *_resting(sizes),
    ]


def contests(sizes: Sizes) -> list[Contest]:
    """Return the lines of the table of peers."""
    hop = "bound by the hop to the database thread"
    big = backlogs(sizes)[-1]
    rates = [
        _race("add, one caller", "add-1", hop),
        _race("add, 100 callers", "add-100"),
        _race("add in bulk", "bulk"),
        _race("drain, 100 workers", "drain-100"),
        _race("drain, 10 workers", "drain-10"),
        _race(f"drain beside {big:,} that wait", f"backlog-{big}"),
    ]
    waits = [
        Contest(title=f"{title}, {name}", key=key, name=name, unit="ms", more_is_better=False)
        for key, title in LATENCIES.items()
        for name in ("p50", "p99")
    ]
    cpu = Contest(title="idle, of a core", key="idle", name="cpu", unit="%", more_is_better=False)
    return [*rates, *waits, cpu]


LATENCIES = {
    f"idle-{RESTS[-1] * 1_000:g}": f"latency, idle for {RESTS[-1] * 1_000:g} ms",
    "load-500": "latency at 500 jobs/s",
    "load-2000": "latency at 2,000 jobs/s",
}


def _adding(sizes: Sizes) -> Iterator[Figure]:
    commits = _raw("commits", "one row a commit")
    many = f"add {sizes.bulk:,} in one operation"
    yield _rate("add, one caller", "add-1", commits, 0.5)
    yield _rate("add, 100 callers", "add-100", commits, 10)
    yield _rate("add, 100 callers", "add-100", _raw("hundreds", "executemany, 100 rows a commit"), 0.3)
    yield _rate(many, "bulk", _raw("bulk", "one executemany"), 0.6)
    yield Figure(title=f"{many}, loop blocked", unit="ms", key="bulk-block", name="block", bar=_at_most(20))
    yield Figure(
        title=f"{many}, peak memory",
        unit="B/job",
        key="bulk-memory",
        name="each",
        reference=_own("bulk-memory-tenth", "each", f"adding {sizes.bulk // 10:,}"),
        bar=_ratio_at_most(1.2),
    )


def _draining(sizes: Sizes) -> Iterator[Figure]:
    hundred = _own("drain-100", "rate", "100 workers")
    cycle = _raw("cycle", "claim and delete by hundreds")
    yield _rate(f"drain {sizes.drain:,}, 100 workers", "drain-100", cycle, 0.4)
    yield _rate(f"drain {sizes.drain:,}, 10 workers", "drain-10", hundred, 0.8)
    yield _rate("drain, completed jobs retained", "drain-kept", _own("drain-100", "rate", "without"), 0.6)


def _following(sizes: Sizes) -> Iterator[Figure]:
    single = _own("chain-not", "rate", "add one, wait for its end")
    yield _rate(f"chain of {sizes.singles:,} steps", "chain", single, 2 / 3)
    separate = _own("group-not", "rate", "a bulk add and drain")
    yield _rate(f"group of {sizes.wide:,} and one after all", "group", separate, 2 / 3)


def _latencies() -> Iterator[Figure]:
    for rest in RESTS:
        key = f"idle-{rest * 1_000:g}"
        for name, limit in (("p50", 1.0), ("p99", 3.0)):
            reference = Reference(side=RAW, key=key, name=name, label=f"a hop and a commit, {name}")
            title = f"latency, idle for {rest * 1_000:g} ms, {name}"
            yield _latency(title, key, name, reference, limit)
    for key, title in LATENCIES.items():
        for name in ("p50", "p99") if key.startswith("load") else ():
            reference = Reference(side=RAW, key="commits", name=name, label=f"one commit, {name}")
            bar = 3.0 if (key, name) == ("load-500", "p99") else None
            yield _latency(f"{title}, {name}", key, name, reference, bar)


def _latency(title: str, key: str, name: str, reference: Reference, limit: float | None) -> Figure:
    bar = None if limit is None else _at_most(limit)
    return Figure(title=title, unit="ms", key=key, name=name, reference=reference, bar=bar)


def _growing(sizes: Sizes) -> Iterator[Figure]:
    million, small = f"{sizes.million:,}", f"beside {SMALL:,}"
    growth = _own(f"backlog-{SMALL}", "rate", small)
    shape = _own("shape-small", "rate", small)
    yield _rate(f"drain beside {million} that wait", f"backlog-{sizes.million}", growth, 0.9)
    yield _rate(f"drain beside {million}, a tenth in front and not due", "shape-delayed", shape, 0.9)
    yield _rate(f"drain beside {million} in {QUEUES} queues", "shape-queues", shape, 0.9)
    yield _rate(f"drain with {million} completed kept", "shape-completed", shape, 0.9)
    for name in ("add", "status"):
        few = _own("costs-1k", name, "in a small database")
        for key, what in (("million", "waiting"), ("completed", "completed")):
            title = f"one {name} beside {million} {what}"
            yield Figure(title=title, unit="ms", key=f"costs-{key}", name=name, reference=few)
    few = _own("expire-1k", "rate", f"of {SMALL:,}")
    yield _rate(f"expire some of {million} completed", "expire-million", few, None)


def _resting(sizes: Sizes) -> Iterator[Figure]:
    yield Figure(
        title=f"idle for {sizes.idle_seconds:g} s",
        unit="% of a core",
        key="idle",
        name="cpu",
        bar=_at_most(0.1),
    )
    yield Figure(title="idle, wake-ups of a thread", unit="/min", key="idle", name="wakes")
    yield Figure(
        title="import",
        unit="ms",
        key="import",
        name="library",
        reference=_own("import", "dependencies", "the four dependencies"),
        bar=_ratio_at_most(1.3),
    )
    yield Figure(title="start on a database that is there", unit="ms", key="start", name="start")
    yield Figure(
        title=f"memory after {sizes.memory:,} jobs",
        unit="MiB",
        key="memory",
        name="all",
        reference=_own("memory", "tenth", "after a tenth of them"),
        bar=_ratio_at_most(1.1),
    )


def _rate(title: str, key: str, reference: Reference, least: float | None) -> Figure:
    bar = None if least is None else Bar(limit=least, at_least=True, ratio=True)
    return Figure(title=title, unit="jobs/s", key=key, name="rate", reference=reference, bar=bar)


def _race(title: str, key: str, note: str = "") -> Contest:
    return Contest(title=title, unit="jobs/s", key=key, name="rate", more_is_better=True, note=note)


def _raw(key: str, label: str) -> Reference:
    return Reference(side=RAW, key=key, name="rate", label=label)


def _own(key: str, name: str, label: str) -> Reference:
    return Reference(side=LIBRARY, key=key, name=name, label=label)


def _at_most(limit: float) -> Bar:
    return Bar(limit=limit, at_least=False, ratio=False)


def _ratio_at_most(limit: float) -> Bar:
    return Bar(limit=limit, at_least=False, ratio=True)
