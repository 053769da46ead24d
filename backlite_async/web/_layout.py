"""Where the nodes of a graph are drawn, in layers from left to right, and how lines run between them. Pure.

After Sugiyama, Tagawa and Toda (1981): longest-path layers, dummies where a line passes a layer, barycentre
sweeps that keep the order with the fewest crossings, and places that are the nearest to those of the
neighbours (least squares that keep order and distance, by pooling adjacent violators).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Box", "Drawing", "Line", "Spot", "layout"]

WIDTH, HEIGHT = 212.0, 54.0
DOT = 12.0
GAP_X, GAP_Y = 52.0, 16.0
MARGIN = 8.0

MOST_DUMMIES = 1_200
"""Beyond these, the longest lines run straight over what is in their way."""

SWEEPS = 6
NUDGES = 6

Layers = list[list[int]]
Neighbours = Sequence[Sequence[int]]


class Spot(NamedTuple):
    """A node to place: its number, the numbers of those before it, and whether it is drawn as a dot."""

    number: int
    after: tuple[int, ...] = ()
    dot: bool = False


class Box(NamedTuple):
    """Where a node is: its upper left corner, and its size."""

    number: int
    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """A line from one node to another; `path`: the data of an SVG path."""

    before: int
    number: int
    path: str


class Drawing(NamedTuple):
    """Boxes by the numbers of their nodes, lines, and the size of the whole."""

    boxes: Mapping[int, Box]
    lines: Sequence[Line]
    width: float
    height: float


@lru_cache(maxsize=32)
def layout(spots: tuple[Spot, ...]) -> Drawing:
    """Place nodes; the same nodes give the same drawing. What comes after unknown nodes does not mind."""
    places = {spot.number: place for place, spot in enumerate(spots)}
    edges = _edges(spots, places)
    levels = _levels(len(spots), edges)
    graph = _Graph(levels, edges)
    order = graph.ordered()
    tops = graph.tops(order, [DOT if spot.dot else HEIGHT for spot in spots])
    return _drawing(spots, edges, graph, order, tops)


def _edges(spots: Sequence[Spot], places: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return pairs of places, each once."""
    pairs = (
        (places[before], place)
        for place, spot in enumerate(spots)
        for before in spot.after
        if before in places and before != spot.number
    )
    return list(dict.fromkeys(pairs))


def _levels(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Return the layer of each: one more than the last of those before it. In a cycle: as if it were none."""
    following: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for before, after in edges:
        following[before].append(after)
        waits[after] += 1
    levels = [0] * count
    ready = [place for place in range(count) if not waits[place]]
    for place in ready:
        for after in following[place]:
            levels[after] = max(levels[after], levels[place] + 1)
            waits[after] -= 1
            if not waits[after]:
                ready.append(after)
    edges[:] = [(before, after) for before, after in edges if levels[before] < levels[after]]
    return levels


class _Graph:
    """Nodes and dummies by layer; a line is a chain of those."""

    def __init__(self, levels: list[int], edges: Sequence[tuple[int, int]]) -> None:
        self.levels = list(levels)
        self.nodes = len(levels)
        self.chains: dict[tuple[int, int], list[int]] = {}
        self.before: list[list[int]] = [[] for _ in levels]
        self.after: list[list[int]] = [[] for _ in levels]
        for edge in sorted(edges, key=lambda edge: (levels[edge[1]] - levels[edge[0]], edge)):
            self._chain(edge)

    def _chain(self, edge: tuple[int, int]) -> None:
        first, last = edge
        chain = [first]
        between = range(self.levels[first] + 1, self.levels[last])
        if len(self.levels) - self.nodes + len(between) <= MOST_DUMMIES:
            for level in between:
                chain.append(len(self.levels))
                self.levels.append(level)
                self.before.append([])
                self.after.append([])
            chain.append(last)
            for one, next_one in pairwise(chain):
                self.after[one].append(next_one)
                self.before[next_one].append(one)
        else:
            chain.append(last)
        self.chains[edge] = chain

    # -- order inside the layers -------------------------------------------------------------------

    def ordered(self) -> Layers:
        """Return the layers, each in the order from above that was found to cross the fewest lines."""
        layers: Layers = [[] for _ in range(max(self.levels, default=-1) + 1)]
        for place in self._walk():
            layers[self.levels[place]].append(place)
        best, fewest = [list(layer) for layer in layers], self.crossings(layers)
        for sweep in range(SWEEPS):
            if not fewest:
                break
            self._sweep(layers, down=sweep % 2 == 0)
            if (found := self.crossings(layers)) < fewest:
                best, fewest = [list(layer) for layer in layers], found
        return best

    def _walk(self) -> Iterable[int]:
        """Go into depth from each that nothing is before: so what belongs together stands together."""
        seen = [False] * len(self.levels)
        for start in range(self.nodes):
            stack = [] if self.before[start] else [start]
            while stack:
                place = stack.pop()
                if not seen[place]:
                    seen[place] = True
                    yield place
                    stack += reversed(self.after[place])
        yield from (place for place, was in enumerate(seen) if not was)

    def _sweep(self, layers: Layers, *, down: bool) -> None:
        """Put each layer in the order of the means of its neighbours in the one before it, or behind."""
        neighbours = self.before if down else self.after
        rank = [0.0] * len(self.levels)
        for layer in layers if down else reversed(layers):
            for place, one in enumerate(layer):
                near = neighbours[one]
                rank[one] = sum(rank[other] for other in near) / len(near) if near else float(place)
            layer.sort(key=rank.__getitem__)
            for place, one in enumerate(layer):
                rank[one] = float(place)

    def crossings(self, layers: Layers) -> int:
        """Count the lines that cross."""
        rank = [0] * len(self.levels)
        for layer in layers:
            for place, one in enumerate(layer):
                rank[one] = place
        found = 0
        for layer in layers:
            ends: list[int] = []
            for one in layer:
                near = sorted(rank[other] for other in self.after[one])
                found += sum(len(ends) - bisect_right(ends, end) for end in near)
                for end in near:
                    insort(ends, end)
        return found

    # -- places ------------------------------------------------------------------------------------

    def tops(self, order: Layers, heights: Sequence[float]) -> list[float]:
        """Return how far from above each is: as near to the middle of its neighbours as there is room."""
        height = [*heights, *[0.0] * (len(self.levels) - len(heights))]
        middle = [0.0] * len(self.levels)
        for layer in order:
            offsets = _offsets(layer, height)
            for one, offset in zip(layer, offsets, strict=True):
                middle[one] = offset - offsets[-1] / 2
        for nudge in range(NUDGES):
            near = (self.before, self.after)[nudge % 2]
            for layer in reversed(order) if nudge % 2 else order:
                self._nudge(layer, near, middle, height)
        top = min((place - size / 2 for place, size in zip(middle, height, strict=True)), default=0.0)
        return [place - size / 2 - top for place, size in zip(middle, height, strict=True)]

    def _nudge(self, layer: list[int], near: Neighbours, middle: list[float], height: list[float]) -> None:
        offsets = _offsets(layer, height)
        wished, weights = [], []
        for one, offset in zip(layer, offsets, strict=True):
            others = near[one]
            at = sum(middle[other] for other in others) / len(others) if others else middle[one]
            wished.append(at - offset)
            # long lines are to be straight, and what nothing pulls gives way
            weights.append(4.0 if one >= self.nodes else 1.0 if others else 0.05)
        for one, offset, place in zip(layer, offsets, _rising(wished, weights), strict=True):
            middle[one] = place + offset


def _offsets(layer: Sequence[int], height: Sequence[float]) -> list[float]:
    """Return how far the middles of a layer are from that of the first where they stand close."""
    found = [0.0]
    for above, below in pairwise(layer):
        found.append(found[-1] + (height[above] + height[below]) / 2 + GAP_Y)
    return found[: len(layer)]


def _rising(wished: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return numbers that do not fall, and differ the least from those wished (weighted least squares)."""
    pools: list[tuple[float, float, int]] = []
    for wish, own in zip(wished, weights, strict=True):
        pool = (wish, own, 1)
        while pools and pools[-1][0] >= pool[0]:
            (one, its, its_count), (other, weight, count) = pools.pop(), pool
            pool = ((one * its + other * weight) / (its + weight), its + weight, its_count + count)
        pools.append(pool)
    return [value for value, _, count in pools for _ in range(count)]


# -- the drawing -------------------------------------------------------------------------------------


def _drawing(
    spots: Sequence[Spot],
    edges: Sequence[tuple[int, int]],
    graph: _Graph,
    order: Layers,
    tops: Sequence[float],
) -> Drawing:
    columns = _columns(spots, order)
    boxes = []
    for place, spot in enumerate(spots):
        left, width = columns[graph.levels[place]]
        size = DOT if spot.dot else WIDTH
        tall = DOT if spot.dot else HEIGHT
        boxes.append(Box(spot.number, _r(left + (width - size) / 2), _r(tops[place] + MARGIN), size, tall))
    lines = []
    for edge in edges:
        points: list[tuple[float, float]] = []
        for place in graph.chains[edge]:
            left, width = columns[graph.levels[place]]
            y = tops[place] + MARGIN + (boxes[place].height / 2 if place < len(boxes) else 0)
            points += [(left, y), (left + width, y)]
        before, after = boxes[edge[0]], boxes[edge[1]]
        points[0], points[-1] = (before.x + before.width, points[0][1]), (after.x, points[-1][1])
        lines.append(Line(before.number, after.number, _path(points)))
    return Drawing(
        {box.number: box for box in boxes},
        lines,
        _r(max((left + width for left, width in columns), default=0.0) + MARGIN),
        _r(max((box.y + box.height for box in boxes), default=0.0) + MARGIN),
    )


def _columns(spots: Sequence[Spot], order: Layers) -> list[tuple[float, float]]:
    """Return where each layer begins, and how wide it is."""
    found, left = [], MARGIN
    for layer in order:
        width = max((DOT if spots[one].dot else WIDTH for one in layer if one < len(spots)), default=DOT)
        found.append((left, width))
        left += width + GAP_X
    return found


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return the data of a path that is level at every point: straight over layers, curves between them."""
    (x, y), *rest = points
    parts = [f"M{_r(x)} {_r(y)}"]
    for to_x, to_y in rest:
        if abs(to_y - y) >= 0.05:
            half = _r((x + to_x) / 2)
            parts.append(f"C{half} {_r(y)} {half} {_r(to_y)} {_r(to_x)} {_r(to_y)}")
        elif to_x - x >= 0.05:
            parts.append(f"L{_r(to_x)} {_r(to_y)}")
        x, y = to_x, to_y
    return "".join(parts)


def _r(value: float) -> float:
    return round(value, 1)
