"""Building workflows: chains and groups of tasks, any graph, and the handles of what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, cast

import msgspec

from ._errors import InvalidState, InvalidTask, InvalidType, InvalidValue
from ._graph import CANCEL, CONTINUE, WorkflowId
from ._mermaid import Drawn, drawn
from ._steps import Graph, IfFailed, Node, Step, known, known_id, shown
from ._task import task_type

__all__ = [
    "WHOLES",
    "Chain",
    "Graph",
    "Group",
    "IfFailed",
    "Node",
    "Part",
    "Step",
    "Workflow",
    "chain",
    "group",
    "names_in",
    "put",
]

MOST_LEVELS = 100
"""How deep chains and groups may be nested."""


class _Whole:
    """What can be added as a workflow: what a chain, a group and a graph have in common."""

    name: str | None
    on_success: msgspec.Struct | None
    on_failure: msgspec.Struct | None
    on_complete: msgspec.Struct | None

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<{type(self).__name__.lower()}{name}>"

    @property
    def graph(self) -> Graph:
        """Its nodes."""
        raise NotImplementedError

    @property
    def id(self) -> WorkflowId:
        """The id of the workflow. Raises `InvalidState` before it is saved."""
        return known_id(self.graph, f"this {type(self).__name__.lower()}")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The handles of all steps, in the order in which they were given."""
        return self.graph.steps()

    def mermaid(self) -> str:
        """Return the graph as Mermaid text, which many viewers of Markdown show as a picture."""
        nodes = self.graph.nodes
        found = [
            Drawn(number, "step", task_type(type(node.task)).name, node.name, after=node.after)
            if node.task is not None
            else Drawn(number, "join", None, node.name, after=node.after)
            for number, node in enumerate(nodes)
        ]
        fallbacks: dict[int, list[int]] = {}
        for number, node in enumerate(nodes):
            if not isinstance(node.if_failed, str) and node.task is not None:
                fallbacks.setdefault(id(node.if_failed), []).append(number)
        for after in fallbacks.values():
            name = task_type(type(nodes[after[0]].if_failed)).name
            found.append(Drawn(len(found), "fallback", name, after=tuple(after)))
        for which, task in self.callbacks.items():
            found.append(Drawn(len(found), "callback", task_type(type(task)).name, which))
        return drawn(found)

    @property
    def callbacks(self) -> dict[str, msgspec.Struct]:
        """The tasks that run when it has ended, by when they do."""
        found = {
            "on_success": self.on_success, "on_failure": self.on_failure, "on_complete": self.on_complete
        }  # fmt: skip
        return {which: task for which, task in found.items() if task is not None}

    def _call(self, **callbacks: msgspec.Struct | None) -> None:
        for which, task in callbacks.items():
            if task is not None:
                _check_task(task, f"{which}={shown(task)}")
            setattr(self, which, task)


class Parts(_Whole):
    """Tasks, chains and groups, as one part."""

    def __init__(
        self,
        parts: Sequence[Part],
        name: str | None,
        if_failed: IfFailed | None,
        callbacks: dict[str, msgspec.Struct | None],
    ) -> None:
        self.name = None if name is None else checked_name(name)
        self.if_failed = None if if_failed is None else checked_if_failed(if_failed)
        self._call(**callbacks)
        self.parts = tuple(parts)
        self.levels = 1
        self.names: list[str] = []
        """Those of parts inside."""
        self._graph: Graph | None = None
        kind = type(self).__name__.lower()
        if not self.parts:
            raise InvalidValue(f"{kind}() is empty; give it at least one task")
        kinds = set(map(type, self.parts))
        self.nested = not kinds.isdisjoint((Chain, Group))
        for cls in kinds - {Chain, Group}:
            check_part(next(part for part in self.parts if type(part) is cls), kind)
        inner = [part for part in self.parts if isinstance(part, Parts)] if self.nested else []
        self.levels = 1 + max((part.levels for part in inner), default=0)
        self.names = [name for part in inner for name in (*part.names, part.name) if name is not None]
        self._check(kind, inner)

    def _check(self, kind: str, inner: Sequence[Parts]) -> None:
        for part in inner:
            _check_no_callbacks(part)
        _check_names(self.names)
        if self.levels > MOST_LEVELS:
            raise InvalidValue(
                f"{kind}() is nested in more than {MOST_LEVELS} levels; write one chain() of many parts"
            )

    @property
    def graph(self) -> Graph:
        """Its nodes."""
        if self._graph is None:
            self._graph = Graph(_title(self.name))
            _place(self._graph, cast("Chain | Group", self), (), self.if_failed or "cancel")
        return self._graph


class Chain(Parts):
    """Parts that run one after the other. Made by `chain(...)`; like a task, it can be a part of others."""

    def then(self, part: Part) -> Chain:
        """Return a chain of this and another part after it; name and callbacks are those of this."""
        if self.if_failed is None:
            return Chain(
                (*self.parts, part),
                self.name,
                None,
                _callbacks(self.on_success, self.on_failure, self.on_complete),
            )
        return _then(self, part)


class Group(Parts):
    """Parts that run side by side. Made by `group(...)`; like a task, it can be a part of others."""

    def then(self, part: Part) -> Chain:
        """Return a chain of this and another part after it; name and callbacks are those of this."""
        return _then(self, part)


Part: TypeAlias = msgspec.Struct | Chain | Group
"""What a workflow is built of: tasks, chains and groups."""


def chain(
    *parts: Part,
    name: str | None = None,
    if_failed: IfFailed | None = None,
    on_success: msgspec.Struct | None = None,
    on_failure: msgspec.Struct | None = None,
    on_complete: msgspec.Struct | None = None,
) -> Chain:
    """Return tasks, chains and groups that run one after the other: `client.add(chain(a, b, c))`.

    A part runs when all of the one before it has succeeded. If a step fails for good, `if_failed` says what
    becomes of what depends on it: "cancel" (if nothing is said) cancels that, "continue" lets it run all
    the same; with a task, it is cancelled, and this task runs, for each step that has failed. It holds for
    all steps of the chain, but parts that say it for themselves.

    `on_success`, `on_failure` (if a step has failed, or was cancelled), `on_complete`: tasks that run when
    the whole has ended. `name`: that of the workflow; of a part in another one, the name of its end, by
    which handlers find its result: `chain(Charge(...), name="charge")`.
    """
    return Chain(parts, name, if_failed, _callbacks(on_success, on_failure, on_complete))


def group(
    *parts: Part,
    name: str | None = None,
    if_failed: IfFailed | None = None,
    on_success: msgspec.Struct | None = None,
    on_failure: msgspec.Struct | None = None,
    on_complete: msgspec.Struct | None = None,
) -> Group:
    """Return tasks, chains and groups that run side by side: `client.add(group(a, b).then(c))`.

    What comes after it runs when all of its parts have succeeded. The arguments are those of `chain`.
    """
    return Group(parts, name, if_failed, _callbacks(on_success, on_failure, on_complete))


class Workflow(_Whole):
    """Any graph of tasks, step by step: `w = Workflow(); a = w.add(A()); w.add(B(), after=[a])`.

    The arguments are those of `chain`. It is added like a task, `await client.add(w).save()`, once.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        if_failed: IfFailed = "cancel",
        on_success: msgspec.Struct | None = None,
        on_failure: msgspec.Struct | None = None,
        on_complete: msgspec.Struct | None = None,
    ) -> None:
        self.name = None if name is None else checked_name(name)
        self.if_failed = checked_if_failed(if_failed)
        self._call(**_callbacks(on_success, on_failure, on_complete))
        self._graph = Graph(_title(self.name))

    @property
    def graph(self) -> Graph:
        """Its nodes."""
        return self._graph

    def add(
        self,
        part: Part,
        *,
        after: Step | str | Iterable[Step | str] = (),
        name: str | None = None,
        if_failed: IfFailed | None = None,
    ) -> Step:
        """Add a task, a chain or a group, and return its handle.

        It runs when all in `after` have succeeded: handles of this workflow, or names. `name`: by which
        handlers and `after` find it, each once in a workflow. `if_failed`, instead of the workflow's, says
        what becomes of what depends on it if it fails, see `chain`. Raises `InvalidValue` (a ValueError)
        for handles of other workflows and for names that are not there yet, so that there are no cycles.
        """
        if self._graph.holder is not None:
            raise InvalidState(
                "this workflow is saved, or may be; a handler of it can add steps: job.extend()"
            )
        steps = known(self._graph, after)
        return put(self._graph, part, steps, name=name, if_failed=if_failed, default=self.if_failed)


WHOLES = frozenset((Chain, Group, Workflow))
"""What can be added beside tasks."""


def put(
    graph: Graph,
    part: Part,
    after: Sequence[Step] = (),
    *,
    name: str | None = None,
    if_failed: IfFailed | None = None,
    default: IfFailed = "cancel",
    call: str = "add",
) -> Step:
    """Add a part to a graph, with what is said of it there, or in itself.

    Raises before anything has changed.
    """
    check_part(part, call)
    name = None if name is None else checked_name(name)
    tolerance = None if if_failed is None else checked_if_failed(if_failed)
    if isinstance(part, Parts):
        _check_no_callbacks(part)
        name = part.name if name is None else name
        tolerance = part.if_failed if tolerance is None else tolerance
    _check_names(names_in(part, name), graph.names)
    first = len(graph.nodes)
    ends = _place(graph, part, graph.after(after), default if tolerance is None else tolerance)
    if name is not None:
        ends = graph.name(ends, name)
    return Step(graph, first, len(graph.nodes), ends)


def names_in(part: Part, name: str | None) -> list[str]:
    """Return the names that a part brings, with the one that it is given."""
    if not isinstance(part, Parts):
        return [] if name is None else [name]
    own = part.name if name is None else name
    return [*part.names, *([] if own is None else [own])]


def _place(graph: Graph, part: Part, after: tuple[int, ...], if_failed: IfFailed) -> tuple[int, ...]:
    """Add nodes; return the places of the last ones, which come before what follows."""
    if isinstance(part, Chain):
        for inner in part.parts:
            after = _place_inner(graph, inner, after, if_failed)
        return after
    if isinstance(part, Group):
        if len(after) > 1 and len(part.parts) > 1:
            after = (graph.join(after),)
        if part.nested:
            return tuple(end for inner in part.parts for end in _place_inner(graph, inner, after, if_failed))
        first = len(graph.nodes)
        graph.nodes += [
            Node(task, after, if_failed) for task in cast("tuple[msgspec.Struct, ...]", part.parts)
        ]
        return tuple(range(first, len(graph.nodes)))
    return (graph.add(Node(part, after, if_failed)),)


def _place_inner(graph: Graph, part: Part, after: tuple[int, ...], if_failed: IfFailed) -> tuple[int, ...]:
    if not isinstance(part, Parts):
        return (graph.add(Node(part, after, if_failed)),)
    ends = _place(graph, part, after, if_failed if part.if_failed is None else part.if_failed)
    return ends if part.name is None else graph.name(ends, part.name)


def _then(first: Chain | Group, part: Part) -> Chain:
    """Return a chain that takes over what was said of the whole."""
    callbacks = _callbacks(first.on_success, first.on_failure, first.on_complete)
    same = type(first)(first.parts, None, first.if_failed, _callbacks(None, None, None))
    return Chain((same, part), first.name, None, callbacks)


def _callbacks(*tasks: msgspec.Struct | None) -> dict[str, msgspec.Struct | None]:
    return dict(zip(("on_success", "on_failure", "on_complete"), tasks, strict=True))


def _title(name: str | None) -> str:
    return "" if name is None else f" of workflow {name!r}"


# -- what is refused ------------------------------------------------------------------------------


def check_part(part: object, where: str) -> None:
    """Raise unless this can be a part of a workflow."""
    if isinstance(part, Parts):
        return
    if isinstance(part, Workflow):
        raise InvalidTask(
            f"{where}(): a Workflow is no part of others; add it to the client, or add its parts"
        )
    if isinstance(part, (list, tuple, set)):
        if where in ("chain", "group"):
            raise InvalidTask(f"{where}({shown(part)}) must be given parts one by one: {where}(*parts)")
        raise InvalidTask(
            f"{where}({shown(part)}) takes one part: a task, a chain(*parts) or a group(*parts)"
        )
    _check_task(part, f"{where}({shown(part)})")


def _check_task(task: object, where: str) -> None:
    if isinstance(task, type):
        raise InvalidTask(f"{where}: {task.__qualname__} is a class; give an instance of it")
    if isinstance(task, _Whole):
        raise InvalidTask(f"{where} must be one task; its handler can add a workflow: client.add(...)")
    if not isinstance(task, msgspec.Struct):
        raise InvalidTask(f"{where}: {shown(task)} is no task, but a {type(task).__qualname__}")
    task_type(type(task))


def _check_names(names: Iterable[str], there: Iterable[str] = ()) -> None:
    known = {*there}
    for name in names:
        if name in known:
            raise InvalidValue(f"there is a step {name!r} already; each has a name of its own, or none")
        known.add(name)


def _check_no_callbacks(part: Parts) -> None:
    for which in part.callbacks:
        raise InvalidValue(
            f"{which} is said of a whole workflow, not of a part of one: give it to the outermost chain(),"
            " group() or Workflow()"
        )


def checked_if_failed(value: object) -> IfFailed:
    """Return what becomes of what depends on a step that fails, or say what it may be."""
    if value == CANCEL:
        return "cancel"
    if value == CONTINUE:
        return "continue"
    if isinstance(value, msgspec.Struct):
        _check_task(value, f"if_failed={shown(value)}")
        return value
    if isinstance(value, _Whole):
        _check_task(value, f"if_failed={shown(value)}")
    error = InvalidValue if isinstance(value, str) else InvalidType
    raise error(
        f'if_failed={shown(value)} must be "cancel" (what depends on a step that has failed), "continue"'
        " (let it run all the same) or a task to run then"
    )


def checked_name(value: object) -> str:
    """Return a name, or say what it may be."""
    if not isinstance(value, str):
        raise InvalidType(f"name={shown(value)} must be a str")
    if not 0 < len(value) <= 200 or not value.isprintable():
        raise InvalidValue(f"name={shown(value)} must have 1 to 200 printable characters")
    return str.__str__(value)  # of a subclass, such as StrEnum, the text alone
