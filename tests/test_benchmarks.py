"""The benchmarks measure what they say, compare within a round, and hide neither failures nor missed bars."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # at the end: an installed wheel comes first

from benchmarks import imports, programs, raw, servers, special
from benchmarks.check import judged, loosened, passed
from benchmarks.figures import Bar, Figure, Reference, contests, figures
from benchmarks.filling import clone
from benchmarks.measures import LIBRARY, RAW, Measure, Stage, backlogs, stages
from benchmarks.peers import PEERS, Peer
from benchmarks.plots import growth_plot, latency_plot
from benchmarks.report import as_json, check_table, contest_table, figure_table, notes
from benchmarks.run import Results, Runner
from benchmarks.workload import QUICK, Sizes

NAMES = [peer.name for peer in PEERS]
TINY: Sizes = replace(QUICK, rounds=1, million=100_000)

FIGURE = Figure(
    title="add",
    unit="jobs/s",
    key="add",
    name="rate",
    reference=Reference(side=RAW, key="commits", name="rate", label="one row a commit"),
    bar=Bar(limit=0.5, at_least=True, ratio=True),
)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """A fresh folder, as measurements are told of it."""
    return {"folder": str(tmp_path), "redis": "", "postgres": ""}


def results(ours: list[float], theirs: list[float]) -> Results:
    found = Results()
    for value in ours:
        found.record(Measure(key="add", side=LIBRARY, program=""), {"rate": value})
    for value in theirs:
        found.record(Measure(key="commits", side=RAW, program=""), {"rate": value})
    return found


# -- what is measured ------------------------------------------------------------------------------------


def everything() -> list[Stage]:
    return stages(TINY, 1, NAMES[:2], NAMES[2:])


def test_every_figure_is_measured() -> None:
    """What a figure shows, or is put beside, some measure of that system gives."""
    there = {(measure.side, measure.key) for stage in everything() for measure in stage.measures}
    for figure in figures(TINY):
        assert (LIBRARY, figure.key) in there
        if figure.reference:
            assert (figure.reference.side, figure.reference.key) in there
    for contest in contests(TINY):
        assert (LIBRARY, contest.key) in there
        assert any((name, contest.key) in there for name in NAMES)


def test_every_measure_can_be_run() -> None:
    """Its program exists, and its place is prepared by one that exists too."""
    for stage in everything():
        found = [measure.program for measure in stage.measures]
        found += [preparation.program for preparation in stage.preparations]
        for program in found:
            module, _, name = program.partition(":")
            assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), name))
        wanted = {measure.prepared for measure in stage.measures} - {None}
        assert wanted == {preparation.name for preparation in stage.preparations}


def test_a_stage_leaves_out_what_no_figure_needs() -> None:
    """And does not prepare places for it."""
    [growth] = [stage for stage in everything() if stage.title == "growth"]
    small = growth.only({f"backlog-{backlogs(TINY)[0]}"})
    assert [measure.side for measure in small.measures] == [LIBRARY]
    assert not small.preparations


@pytest.mark.parametrize("program", [raw.add_one, raw.add_hundreds, raw.bulk, raw.cycle])
def test_plain_sqlite_gives_a_rate(program: object, place: dict[str, str]) -> None:
    """With the library's own tables."""
    assert callable(program)
    assert program(place, count=200)["rate"] > 0


def test_plain_sqlite_gives_a_latency(place: dict[str, str]) -> None:
    """Of a hop to a thread and a commit."""
    found = raw.hop(place, tries=5, rest=0.001)
    assert 0 < found["p50"] <= found["p99"]


async def test_the_library_gives_rates(place: dict[str, str]) -> None:
    """Adding by some callers, in bulk; running with few workers."""
    assert (await programs.add("library", place, callers=5, each=4))["rate"] > 0
    assert (await programs.bulk("library", place, count=50))["rate"] > 0
    assert (await programs.drain("library", place, workers=3, count=70))["rate"] > 0


async def test_the_library_gives_latencies(place: dict[str, str]) -> None:
    """Idle, and under a steady load."""
    idle = await programs.idle_latency("library", place, tries=5, rest=0.001, seconds=5.0)
    assert 0 < idle["after"] <= idle["p50"] <= idle["p99"]
    busy = await programs.load_latency("library", place, rate=200, seconds=0.2)
    assert 0 < busy["p50"] <= busy["p99"] < math.inf


async def test_the_library_tells_what_it_costs_to_be_there(place: dict[str, str]) -> None:
    """Blocking, memory, start, and idleness."""
    assert (await special.bulk_block(place, count=100))["block"] >= 0
    assert (await special.bulk_memory(place, count=100))["each"] >= 0
    assert (await special.start(place))["start"] > 0
    assert 0 <= (await programs.idle("library", place, seconds=0.05))["cpu"] < 100


async def test_memory_is_looked_at_twice(place: dict[str, str]) -> None:
    """After a tenth of the jobs, and after all."""
    found = await special.memory(place, count=400)
    assert found["tenth"] > 0
    assert found["all"] > 0


@pytest.mark.parametrize("system", ["library", "library, delayed in front", "library, many queues"])
def test_a_backlog_waits(system: str, place: dict[str, str]) -> None:
    """So many jobs, of which a drain takes some."""
    programs.fill(system, place, count=500)
    found = asyncio.run(programs.drain(system, place, workers=5, count=100, beside=None))
    assert found["rate"] > 0
    assert asyncio.run(special.costs(place, count=3))["status"] > 0


def test_what_has_expired_is_removed(place: dict[str, str]) -> None:
    """Among others that are kept."""
    special.fill_completed(place, count=50)
    assert asyncio.run(special.expire(place, expired=100))["rate"] > 0


def test_a_clone_is_like_its_model(tmp_path: Path) -> None:
    """But for what varies; the row's own number is left to SQLite."""
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("CREATE TABLE some (seq INTEGER PRIMARY KEY, kind TEXT, size INTEGER, empty TEXT)")
        connection.execute("INSERT INTO some (kind, size) VALUES ('a', 1)")
        connection.commit()
        clone(tmp_path / "some.db", "some", 2, lambda row, number: row | {"size": number + 7})
        found = connection.execute("SELECT * FROM some ORDER BY seq").fetchall()
    assert found == [(1, "a", 1, None), (2, "a", 7, None), (3, "a", 8, None)]


def test_import_is_compared_with_the_dependencies(place: dict[str, str]) -> None:
    """In fresh processes."""
    found = imports.measure(place, times=1)
    assert found["library"] > 0
    assert found["ratio"] == pytest.approx(found["library"] / found["dependencies"])


# -- how it is run ---------------------------------------------------------------------------------------


def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    """And what comes after it is measured all the same."""
    said: list[str] = []
    runner = Runner(tmp_path, 1, servers.Servers(tmp_path, wanted=False), said.append)
    broken = Measure(key="broken", side="huey", program="raw:add_one", arguments={"count": "many"})
    fine = Measure(key="import", side=LIBRARY, program="imports:measure", arguments={"times": 1})
    runner.run(Stage(title="some", measures=[broken, fine]))
    assert "TypeError" in runner.results.failures["huey: broken"]
    assert len(runner.results.of(LIBRARY, "import", "ratio")) == 1


def test_a_peer_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, in the notes below the table."""
    nobody = Peer(name="no-such-queue", durability="none")
    served = Peer(name="pytest", server="redis", durability="none")
    monkeypatch.setattr(servers, "PEERS", [nobody, served])
    with servers.Servers(tmp_path, wanted=False) as found:
        assert found.usable() == []
    assert found.reasons == {"no-such-queue": "not installed", "pytest": "needs --servers"}
    assert "no-such-queue: not measured, not installed" in notes(Results(), [], found.reasons, "bench")


def test_a_server_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that need it are not measured, for that reason."""
    monkeypatch.setattr(servers, "PEERS", [Peer(name="pytest", server="redis", durability="none")])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BENCHMARKS_REDIS", raising=False)
    with servers.Servers(tmp_path, wanted=True) as found:
        assert "no redis-server here" in found.reasons["pytest"]


# -- what is said of it ----------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that slows down for a round slows both sides."""
    found = results([100.0, 10.0, 90.0], [100.0, 10.0, 100.0])
    assert FIGURE.ratios(found) == [1.0, 1.0, 0.9]
    assert FIGURE.met(found) is True


@pytest.mark.parametrize(("rate", "met", "word"), [(60.0, True, "yes"), (40.0, False, "**no**")])
def test_a_bar_is_met_or_not(rate: float, met: bool, word: str) -> None:
    """And the table says so."""
    found = results([rate], [100.0])
    assert FIGURE.met(found) is met
    assert figure_table([FIGURE], found).splitlines()[-1].split("|")[-2].strip() == word


def test_an_upper_bar() -> None:
    """An absolute one, that a latency must not exceed."""
    figure = replace(FIGURE, bar=Bar(limit=3.0, at_least=False, ratio=False))
    assert figure.met(results([2.0, 3.0, 9.0], [1.0])) is True
    assert figure.met(results([2.0, 3.1, 9.0], [1.0])) is False


def test_a_figure_without_values_has_failed() -> None:
    """It is shown, not left out."""
    row = figure_table([FIGURE], Results()).splitlines()[-1]
    assert "failed" in row
    assert FIGURE.met(Results()) is None


def peers_results() -> Results:
    """Results of every contest, in which one peer is overloaded at one of them."""
    found = Results()
    for stage in everything():
        for place_in_row, measure in enumerate(stage.measures):
            slow = measure.side == NAMES[0] and measure.key == "load-2000"
            values = {"p50": math.inf, "p99": math.inf} if slow else {"p50": 1.0, "p99": 5.0 + place_in_row}
            found.record(measure, values | {"rate": 900.0 + place_in_row, "cpu": 0.1})
    return found


def test_an_overloaded_peer_is_shown_as_such() -> None:
    """In the table; as null in the JSON; and the plots can be read all the same."""
    found, peers = peers_results(), PEERS
    table = contest_table(contests(TINY), found, peers)
    assert "overloaded" in table
    answer = as_json(
        figures(TINY), contests(TINY), found, sizes=TINY, peers=peers, reasons={}, command="bench"
    )
    assert json.loads(json.dumps(answer, allow_nan=False))["setting"]["command"] == "bench"


@pytest.mark.parametrize("peers", [[], NAMES])
def test_the_plots_are_whole(peers: list[str]) -> None:
    """Well-formed, with everybody's name and labelled axes."""
    found = peers_results()
    for plot, unit in (
        (growth_plot(found, peers, backlogs(TINY)), "jobs/s"),
        (latency_plot(found, peers), "ms"),
    ):
        texts = [element.text or "" for element in ElementTree.fromstring(plot).iter() if element.text]
        assert any(unit in text for text in texts)
        assert any("backlite_async" in text for text in texts)
    assert all(any(name in text for text in texts) for name in peers)


# -- the quick look --------------------------------------------------------------------------------------


def test_the_quick_look_judges_ratios_alone() -> None:
    """Never an absolute time; and with half of what is promised."""
    found = judged()
    assert len(found) > 10
    assert all(figure.bar is not None and figure.bar.ratio for figure in found)
    half = loosened(FIGURE)
    assert half is not None
    assert half.bar == Bar(limit=0.25, at_least=True, ratio=True)


def test_the_best_try_counts() -> None:
    """On a busy machine one good try of several is enough; none is not."""
    assert passed(FIGURE, results([10.0, 60.0, 20.0], [100.0, 100.0, 100.0]))
    assert not passed(FIGURE, results([10.0, 40.0, 20.0], [100.0, 100.0, 100.0]))
    assert not passed(FIGURE, Results())
    assert "**no**" in check_table([FIGURE], results([10.0, 40.0], [100.0, 100.0]))
