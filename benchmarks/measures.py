"""Everything there is to measure: which program, of which system, beside what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .workload import CALLERS, SMALL, Sizes

__all__ = ["RESTS", "Measure", "Preparation", "Stage", "backlogs", "stages"]

LIBRARY, RAW = "library", "sqlite3"
RESTS = (0.002, 0.05)
"""Seconds of idleness before each try of the latency: caches and processor still awake, and not."""

PEER_SECONDS = 4.0
"""How long a peer may drain."""

FLOWS = {
    "chain-not": "one_by_one",
    "chain": "chain_of_steps",
    "group-not": "separate",
    "group": "wide_group",
}
"""Measures of workflows, each after what it is put beside."""

AT_ONCE = 3
"""Idle processes of each system, all at the same time: a minute is long."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One program of one system, run in a process of its own, once a round."""

    key: str
    side: str
    program: str
    arguments: dict[str, Any] = field(default_factory=dict)
    prepared: str | None = None


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A place that is filled once and kept through the rounds."""

    name: str
    side: str
    program: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Measures that alternate in rounds."""

    title: str
    measures: list[Measure]
    preparations: list[Preparation] = field(default_factory=list)
    rounds: int | None = None
    together: bool = False

    def only(self, keys: Collection[str], peer_keys: Collection[str] = ()) -> Stage:
        """Return what of it has these keys (or, of a peer, those), with the preparations it needs."""
        measures = [
            measure
            for measure in self.measures
            if measure.key in (keys if measure.side in (LIBRARY, RAW) else peer_keys)
        ]
        needed = {measure.prepared for measure in measures}
        preparations = [one for one in self.preparations if one.name in needed]
        return replace(self, measures=measures, preparations=preparations)


def stages(sizes: Sizes, rounds: int, embedded: Sequence[str], served: Sequence[str]) -> list[Stage]:
    """Return what to measure of the library, of raw sqlite3, and of these peers."""
    return [
        Stage(title="side by side", measures=list(_side_by_side(sizes, [*embedded, *served]))),
        _growth(sizes, rounds, embedded),
        _shapes(sizes, rounds),
        Stage(
            title="idle",
            measures=[
                _of(side, "idle", "idle", seconds=sizes.idle_seconds)
                for side in [LIBRARY, *embedded, *served]
                for _ in range(AT_ONCE if side == LIBRARY or side in embedded else 1)
            ],
            rounds=1,
            together=True,
        ),
        Stage(title="memory", measures=[_special("memory", "memory", count=sizes.memory)], rounds=1),
    ]


def backlogs(sizes: Sizes) -> list[int]:
    """Return how many jobs wait, in the measurements of growth."""
    return [SMALL, sizes.million // 10, sizes.million]


def _side_by_side(sizes: Sizes, peers: Sequence[str]) -> Iterator[Measure]:
    alone, hundred = sizes.singles, CALLERS * sizes.per_caller
    sides = [LIBRARY, *peers]
    yield _raw("commits", "add_one", alone)
    for side in sides:
        yield _of(side, "add-1", "add", callers=1, each=alone)
    for side in sides:
        each = sizes.per_caller if side == LIBRARY else max(sizes.per_caller // 5, 10)
        yield _of(side, "add-100", "add", callers=CALLERS, each=each)
    yield _raw("hundreds", "add_hundreds", hundred)
    yield _raw("bulk", "bulk", sizes.bulk)
    for side in sides:
        yield _of(side, "bulk", "bulk", count=sizes.bulk if side == LIBRARY else sizes.peer_bulk)
    yield _special("bulk-block", "bulk_block", count=sizes.bulk)
    yield _special("bulk-memory", "bulk_memory", count=sizes.bulk)
    yield _special("bulk-memory-tenth", "bulk_memory", count=sizes.bulk // 10)
    yield _raw("cycle", "cycle", sizes.drain)
    for workers in (100, 10):
        for side in sides:
            yield _of(side, f"drain-{workers}", "drain", workers=workers, **_drained(side, sizes))
    yield _drain("drain-kept", sizes, system="library, keeping", beside=0)
    for rest in RESTS:
        key, tries = f"idle-{rest * 1_000:g}", sizes.tries
        yield Measure(key=key, side=RAW, program="raw:hop", arguments={"tries": tries, "rest": rest})
        yield _of(LIBRARY, key, "idle_latency", tries=tries, rest=rest, seconds=10.0)
    for side in peers:  # with the longer rest alone: others poll, and do so more often when they are busy
        yield _of(side, key, "idle_latency", tries=sizes.peer_tries, rest=rest, seconds=4.0)
    for rate in (500, 2_000):
        for side in sides:
            yield _of(side, f"load-{rate}", "load_latency", rate=rate, seconds=sizes.load_seconds)
    for key, program in FLOWS.items():
        count = sizes.singles if key.startswith("chain") else sizes.wide
        yield Measure(key=key, side=LIBRARY, program=f"flows:{program}", arguments={"count": count})
    yield _special("start", "start")
    yield Measure(key="import", side=LIBRARY, program="imports:measure", arguments={"times": sizes.imports})


def _growth(sizes: Sizes, rounds: int, peers: Sequence[str]) -> Stage:
    """Drain some of many jobs that wait: the library's rate, and the peers'."""
    preparations, measures = [], []
    for side in [LIBRARY, *peers]:
        for backlog in backlogs(sizes):
            name, key = f"{side} {backlog}", f"backlog-{backlog}"
            drain = {"workers": 100} | _drained(side, sizes)
            if backlog == SMALL:
                measures.append(_of(side, key, "drain", **drain, beside=SMALL))
                continue
            measures.append(_of(side, key, "drain", **drain, beside=None, prepared=name))
            preparations.append(_filled(name, side, backlog + drain["count"] * (rounds + 1)))
    measures += _costs("1k", None, sizes) + _costs("million", f"{LIBRARY} {sizes.million}", sizes)
    return Stage(title="growth", measures=measures, preparations=preparations)


def _shapes(sizes: Sizes, rounds: int) -> Stage:
    """Drain some of a million jobs where others stand in front, or a million have completed."""
    more = sizes.million + sizes.drain * (rounds + 1)
    fills = {
        "delayed": _filled("delayed", "library, delayed in front", more),
        "queues": _filled("queues", "library, many queues", more),
        "completed": _completed("completed", sizes.million),
        "few completed": _completed("few completed", SMALL),
    }
    measures = [
        _drain("shape-small", sizes, system=LIBRARY, beside=SMALL),
        _drain("shape-delayed", sizes, system=LIBRARY, beside=None, prepared="delayed"),
        _drain("shape-queues", sizes, system="library, many queues", beside=None, prepared="queues"),
        _drain("shape-completed", sizes, system=LIBRARY, beside=SMALL, prepared="completed"),
        *_costs("completed", "completed", sizes),
        _special("expire-1k", "expire", expired=sizes.drain // 4, prepared="few completed"),
        _special("expire-million", "expire", expired=sizes.drain // 4, prepared="completed"),
    ]
    return Stage(
        title="much that stands in front or is kept", measures=measures, preparations=[*fills.values()]
    )


def _drained(side: str, sizes: Sizes) -> dict[str, Any]:
    if side == LIBRARY:
        return {"count": sizes.drain}
    return {"count": sizes.peer_drain, "seconds": PEER_SECONDS}


def _of(side: str, key: str, program: str, *, prepared: str | None = None, **arguments: Any) -> Measure:
    arguments = {"system": side} | arguments
    return Measure(key=key, side=side, program=f"programs:{program}", arguments=arguments, prepared=prepared)


def _drain(
    key: str, sizes: Sizes, *, system: str, beside: int | None, prepared: str | None = None
) -> Measure:
    arguments = {"system": system, "workers": 100, "count": sizes.drain, "beside": beside}
    return Measure(key=key, side=LIBRARY, program="programs:drain", arguments=arguments, prepared=prepared)


def _special(key: str, program: str, *, prepared: str | None = None, **arguments: Any) -> Measure:
    return Measure(
        key=key, side=LIBRARY, program=f"special:{program}", arguments=arguments, prepared=prepared
    )


def _raw(key: str, program: str, count: int) -> Measure:
    return Measure(key=key, side=RAW, program=f"raw:{program}", arguments={"count": count})


def _costs(name: str, prepared: str | None, sizes: Sizes) -> list[Measure]:
    return [_special(f"costs-{name}", "costs", count=sizes.singles // 2, prepared=prepared)]


def _filled(name: str, system: str, count: int) -> Preparation:
    arguments = {"system": system, "count": count}
    side = system.partition(",")[0]
    return Preparation(name=name, side=side, program="programs:fill", arguments=arguments)


def _completed(name: str, count: int) -> Preparation:
    return Preparation(name=name, side=LIBRARY, program="special:fill_completed", arguments={"count": count})
