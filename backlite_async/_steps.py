"""The nodes of a workflow that is being built, and the handles of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from ._errors import InvalidState, InvalidType, InvalidValue
from ._graph import WorkflowId

__all__ = ["Graph", "IfFailed", "Node", "Step", "known", "known_id", "shown"]

IfFailed: TypeAlias = Literal["cancel", "continue"] | msgspec.Struct
"""What becomes of what depends on a step that fails, or a task that is to run then."""


class Node(msgspec.Struct, array_like=True):
    """A step on its way into a workflow; `task` None: a join. `after`: places before its own.

    A place below zero is `~number` of a step that is there already, in a workflow that is extended.
    """

    task: msgspec.Struct | None
    after: tuple[int, ...]
    if_failed: IfFailed = "cancel"
    name: str | None = None


class Graph:
    """The nodes of one workflow, each after all that it comes after, and what they become.

    What comes after many, and is many, goes through a join: there are at most some edges for every task.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        """What it is called in messages."""
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}
        self.id: WorkflowId | None = None
        """The id of the workflow, once it is known."""
        self.ids: list[str | None] = []
        """The ids of the jobs of its nodes, as far as they are known; None: a join."""
        self.holder: object = None
        """Who saves it, or has."""
        self._seen: set[tuple[int, ...]] = set()
        self._joins: dict[tuple[int, ...], int] = {}

    def add(self, node: Node) -> int:
        """Add a node; return its place."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def cut(self, size: int) -> None:
        """Forget the nodes from a place on."""
        del self.nodes[size:], self.ids[size:]
        self.names = {name: number for name, number in self.names.items() if number < size}
        self._joins = {after: number for after, number in self._joins.items() if number < size}

    def after(self, steps: Sequence[Step]) -> tuple[int, ...]:
        """Return the places that what is put after these comes after.

        What has several ends has one join, for all that comes after it; so have several steps, from the
        second time on.
        """
        ends = (step._ends for step in steps)
        places = tuple(dict.fromkeys(one[0] if len(one) == 1 else self.join(one) for one in ends))
        if len(places) > 1 and places in self._seen:
            return (self.join(places),)
        self._seen.add(places)
        return places

    def join(self, after: tuple[int, ...]) -> int:
        """Return the one node that comes after many; there is one for all who ask."""
        number = self._joins.get(after)
        if number is None:
            number = self._joins[after] = self.add(Node(None, after))
        return number

    def step(self, number: int) -> Step:
        """Return the handle of one node."""
        return Step(self, number, number + 1, (number,))

    def there(self, number: int) -> Step:
        """Return what stands for a step that is there already, in a workflow that is extended."""
        return Step(self, ~number, ~number, (~number,))

    def steps(self, first: int = 0, last: int | None = None) -> tuple[Step, ...]:
        """Return the handles of the steps, which are no joins, between two places."""
        last = len(self.nodes) if last is None else last
        return tuple(self.step(n) for n in range(first, last) if self.nodes[n].task is not None)

    def name(self, ends: tuple[int, ...], name: str) -> tuple[int, ...]:
        """Give a name to the end of a part: to its only last step, or to a join of all."""
        if len(ends) > 1 or self.nodes[ends[0]].name is not None:
            ends = (self.add(Node(None, ends)),)
        self.nodes[ends[0]].name = name
        self.names[name] = ends[0]
        return ends


class Step:
    """The handle of a step, or of a chain or group, in a workflow. Made by `Workflow.add` and its like."""

    __slots__ = ("_ends", "_first", "_graph", "_last")

    def __init__(self, graph: Graph, first: int, last: int, ends: tuple[int, ...]) -> None:
        self._graph = graph
        self._first = first
        self._last = last
        self._ends = ends

    @property
    def id(self) -> str:
        """The id of its job, of a chain that of its last step; known once the workflow is saved.

        Raises `InvalidState` before, and where there is not one last step: look at those of its `steps`.
        """
        graph = self._graph
        steps = [number for number in self._ends if graph.nodes[number].task is not None]
        if len(steps) != 1:
            raise InvalidState(f"{self!r} does not end with one step; look at the ids of its .steps")
        found = graph.ids[steps[0]] if graph.id is not None and steps[0] < len(graph.ids) else None
        if found is None:
            raise InvalidState(f"{self!r} has no id yet: its workflow is not saved")
        return found

    @property
    def name(self) -> str | None:
        """The name that it was given."""
        return self._graph.nodes[self._ends[0]].name if len(self._ends) == 1 else None

    @property
    def workflow(self) -> WorkflowId:
        """The id of its workflow. Raises `InvalidState` before that is saved."""
        return known_id(self._graph, "its workflow")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of a chain or group; of a task, itself."""
        return self._graph.steps(self._first, self._last)

    def __repr__(self) -> str:
        count = sum(node.task is not None for node in self._graph.nodes[self._first : self._last])
        what = f"{count} steps" if count > 1 else f"step {self._first}"
        return f"<{what}>" if self.name is None else f"<{what} {self.name!r}>"


def known(graph: Graph, after: object) -> list[Step]:
    """Return the handles of what something is to come after, or say what is wrong with it."""
    if isinstance(after, str) or not isinstance(after, Iterable):
        after = (after,)
    found: list[Step] = []
    for item in after:
        if isinstance(item, str):
            found.append(graph.step(_named(graph, item)))
        elif not isinstance(item, Step):
            raise InvalidType(
                f"after={shown(item)} is no handle, which add() and extend() return, and no name"
            )
        elif item._graph is not graph:
            raise InvalidValue(f"after={item!r} is a step of another workflow")
        else:
            found.append(item)
    return found


def _named(graph: Graph, name: str) -> int:
    if name not in graph.names:
        there = ", ".join(map(repr, list(graph.names)[:20])) or "none"
        raise InvalidValue(
            f"after={name!r}: there is no step of this name yet, add it first; there are: {there}"
        )
    return graph.names[name]


def known_id(graph: Graph, what: str) -> WorkflowId:
    """Return the id of a workflow, or raise: it has none yet."""
    if graph.id is None:
        raise InvalidState(f"{what} has no id yet: await client.add(...).save() gives it one")
    return WorkflowId(graph.id)


def shown(value: object, most: int = 100) -> str:
    """Return how a value looks, the first part of a long one."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"<{type(value).__name__}, nested too deeply to be shown>"
    return text if len(text) <= most else f"{text[:most]}..."
