"""Drawings of graphs: nothing lies on anything else, lines go forward, and the same graph looks the same."""

from __future__ import annotations

import re
import time
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async.web import _layout
from backlite_async.web._layout import Drawing, Spot, layout


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Spot, ...]:
    """Graphs without cycles, with numbers that are not their places."""
    count = draw(st.integers(0, 24))
    first = draw(st.integers(0, 5))
    spots = []
    for place in range(count):
        earlier = st.integers(0, place - 1) if place else st.nothing()
        after = draw(st.lists(earlier, max_size=4, unique=True)) if place else []
        spots.append(Spot(first + place, tuple(first + one for one in after), draw(st.booleans())))
    return tuple(spots)


def points(path: str) -> list[float]:
    """Return the numbers in a path."""
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


@settings(max_examples=25)
@given(graphs())
def test_nothing_lies_on_anything_else(spots: tuple[Spot, ...]) -> None:
    drawing = layout(spots)
    assert drawing.boxes.keys() == {spot.number for spot in spots}
    for one, other in combinations(drawing.boxes.values(), 2):
        beside = one.x + one.width < other.x or other.x + other.width < one.x
        assert beside or one.y + one.height < other.y or other.y + other.height < one.y


@settings(max_examples=25)
@given(graphs())
def test_lines_run_forward_from_edge_to_edge(spots: tuple[Spot, ...]) -> None:
    drawing = layout(spots)
    pairs = {(before, spot.number) for spot in spots for before in spot.after}
    assert {(line.before, line.number) for line in drawing.lines} == pairs
    for line in drawing.lines:
        before, after = drawing.boxes[line.before], drawing.boxes[line.number]
        numbers = points(line.path)
        xs = numbers[::2]
        assert xs == sorted(xs)
        assert numbers[:2] == pytest.approx([before.x + before.width, before.y + before.height / 2], abs=0.2)
        assert numbers[-2:] == pytest.approx([after.x, after.y + after.height / 2], abs=0.2)
        assert before.x + before.width < after.x


@settings(max_examples=25)
@given(graphs())
def test_all_lies_inside(spots: tuple[Spot, ...]) -> None:
    drawing = layout(spots)
    for box in drawing.boxes.values():
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= drawing.width
        assert box.y + box.height <= drawing.height


@settings(max_examples=25)
@given(graphs())
def test_the_same_graph_gives_the_same_drawing(spots: tuple[Spot, ...]) -> None:
    first = layout(spots)
    layout.cache_clear()
    assert layout(spots) == first


def test_a_chain_is_a_straight_line() -> None:
    drawing = layout((Spot(0), Spot(1, (0,)), Spot(2, (1,))))
    assert len({box.y for box in drawing.boxes.values()}) == 1
    assert all("C" not in line.path for line in drawing.lines)


def test_what_stands_alone_in_its_layer_is_in_the_middle_of_what_it_joins() -> None:
    drawing = layout((Spot(0), Spot(1), Spot(2), Spot(3, (0, 1, 2), dot=True), Spot(4, (3,))))
    assert middle(drawing, 1) == middle(drawing, 3) == middle(drawing, 4)


def test_what_comes_after_one_is_level_with_it() -> None:
    drawing = layout((Spot(0), Spot(1), Spot(2), Spot(3, (2,)), Spot(4, (3,))))
    assert middle(drawing, 2) == middle(drawing, 3) == middle(drawing, 4)


def middle(drawing: Drawing, number: int) -> float:
    """Return the height of the middle of a node."""
    box = drawing.boxes[number]
    return box.y + box.height / 2


def test_lines_do_not_cross_where_they_need_not() -> None:
    """Two chains, each one's nodes behind the other's in the order of their numbers."""
    spots = (Spot(0), Spot(1), Spot(2, (1,)), Spot(3, (0,)), Spot(4, (2,)), Spot(5, (3,)))
    drawing = layout(spots)
    assert middle(drawing, 0) == middle(drawing, 3) == middle(drawing, 5)
    assert middle(drawing, 1) == middle(drawing, 2) == middle(drawing, 4)


def test_sweeps_take_crossings_away() -> None:
    """A ladder whose rungs are told upside down."""
    spots = (
        *(Spot(number) for number in range(6)),
        *(Spot(6 + number, (5 - number, (7 - number) % 6)) for number in range(6)),
        *(Spot(12 + number, (6 + (number * 5) % 6,)) for number in range(6)),
    )
    edges = [(before, spot.number) for spot in spots for before in spot.after]
    graph = _layout._Graph([0] * 6 + [1] * 6 + [2] * 6, edges)
    told = [list(range(6)), list(range(6, 12)), list(range(12, 18))]
    assert graph.crossings(graph.ordered()) < graph.crossings(told) / 3


def test_a_long_line_passes_between_the_nodes() -> None:
    drawing = layout((Spot(0), Spot(1, (0,)), Spot(2, (1,)), Spot(3, (0, 2))))
    [line] = [line for line in drawing.lines if (line.before, line.number) == (0, 3)]
    for number in (1, 2):
        box = drawing.boxes[number]
        at = [y for x, y in zip(points(line.path)[::2], points(line.path)[1::2], strict=True) if x == box.x]
        assert at
        assert all(not box.y <= y <= box.y + box.height for y in at)


def test_unknown_nodes_and_cycles_do_no_harm() -> None:
    drawing = layout((Spot(1, (9, 1)), Spot(2, (3,)), Spot(3, (2,))))
    assert len(drawing.boxes) == 3
    assert drawing.lines == []
    assert layout(()) == Drawing({}, [], 8.0, 8.0)


@pytest.mark.parametrize(
    "spots",
    [
        tuple(Spot(number, (number - 1,) if number else ()) for number in range(300)),
        (Spot(0), *(Spot(n, (0,)) for n in range(1, 299)), Spot(299, tuple(range(1, 299)))),
        tuple(
            Spot(number, tuple({number * 7 % number, number * 13 % number}) if number else ())
            for number in range(300)
        ),
        tuple(Spot(number, tuple(range(number))) for number in range(45)),
    ],
    ids=["chain", "group", "long", "all"],
)
def test_it_is_quick(spots: tuple[Spot, ...]) -> None:
    """Bounded by what a page may take; a tenth of it is usual."""
    layout.cache_clear()
    begin = time.process_time()
    layout(spots)
    assert time.process_time() - begin < 0.5
