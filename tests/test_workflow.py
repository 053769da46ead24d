"""Building workflows: what comes after what, names, handles, pictures, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backlite_async import (
    Chain,
    Group,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    QueueConfig,
    Step,
    Task,
    Workflow,
    chain,
    group,
)
from backlite_async._mermaid import Drawn, drawn
from backlite_async._steps import Graph
from backlite_async._workflow import Part, put


class Do(Task):
    config: ClassVar[QueueConfig] = QueueConfig("do")
    n: int = 0


class Undo(Task):
    config: ClassVar[QueueConfig] = QueueConfig("undo")


class Lonely(msgspec.Struct):
    n: int = 0


a, b, c, d = (Do(n) for n in range(4))


def numbers(graph: Graph) -> list[int | None]:
    """Return which task each node is, None for joins."""
    return [None if node.task is None else node.task.n for node in graph.nodes]  # type: ignore[attr-defined]


def edges(graph: Graph) -> list[tuple[int, int]]:
    """Return which place comes after which."""
    return [(before, place) for place, node in enumerate(graph.nodes) for before in node.after]


def before(graph: Graph) -> dict[int, set[int]]:
    """Return of each task all that come before it, by their numbers, through joins."""
    found: list[set[int]] = []
    for node in graph.nodes:
        mine: set[int] = set()
        for place in node.after:
            task = graph.nodes[place].task
            mine |= found[place] | (set() if task is None else {task.n})  # type: ignore[attr-defined]
        found.append(mine)
    return {number: found[place] for place, number in enumerate(numbers(graph)) if number is not None}


# -- what comes after what ------------------------------------------------------------------------


def test_a_chain_runs_one_after_the_other() -> None:
    """Each after the one before."""
    graph = chain(a, b, c).graph
    assert numbers(graph) == [0, 1, 2]
    assert edges(graph) == [(0, 1), (1, 2)]


def test_a_group_runs_side_by_side() -> None:
    """Nothing after anything; what follows is after all of it, in its order."""
    assert edges(group(a, b).graph) == []
    graph = group(a, b).then(c).graph
    assert numbers(graph) == [0, 1, 2]
    assert graph.nodes[2].after == (0, 1)


def test_many_after_many_go_through_a_join() -> None:
    """Never pairwise."""
    graph = chain(group(a, b), group(c, d)).graph
    assert numbers(graph) == [0, 1, None, 2, 3]
    assert edges(graph) == [(0, 2), (1, 2), (2, 3), (2, 4)]


def test_wide_groups_have_few_edges() -> None:
    """Two of a thousand, one after the other: two thousand edges, not a million."""
    wide = [Do(n) for n in range(1000)]
    assert len(edges(chain(group(*wide), group(*wide)).graph)) == 2000
    workflow = Workflow()
    first = workflow.add(group(*wide))
    for n in range(50):
        workflow.add(Do(n), after=[first])
    assert len(edges(workflow.graph)) == 1050
    workflow = Workflow()
    many = [workflow.add(task) for task in wide]
    for n in range(50):
        workflow.add(Do(n), after=many)
    assert len(edges(workflow.graph)) == 2049
    assert {len(node.after) for node in workflow.graph.nodes[1000:]} == {1000, 1}


def test_parts_are_nested_freely() -> None:
    """Groups of chains of groups."""
    graph = chain(a, group(chain(b, c), d), Do(4)).graph
    assert before(graph) == {0: set(), 1: {0}, 2: {0, 1}, 3: {0}, 4: {0, 1, 2, 3}}


def test_then_is_a_chain() -> None:
    """Flat from a chain, nested from a group; the one that it is called on stays as it is."""
    first = chain(a)
    longer = first.then(b).then(group(c, d)).then(a)
    assert edges(longer.graph) == [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)]
    assert edges(first.graph) == []
    for n in range(1500):
        first = first.then(Do(n))
    assert len(first.graph.nodes) == 1501


def test_then_takes_over_what_is_said_of_the_whole() -> None:
    """Name and callbacks go on; what becomes of dependants stays with the steps of which it was said."""
    for whole in (
        chain(a, b, name="w", if_failed="continue", on_success=a, on_failure=b, on_complete=c),
        group(a, b, name="w", if_failed="continue", on_success=a, on_failure=b, on_complete=c),
    ):
        longer = whole.then(d)
        assert longer.name == "w"
        assert longer.callbacks == {"on_success": a, "on_failure": b, "on_complete": c}
        assert [node.if_failed for node in longer.graph.nodes] == ["continue", "continue", "cancel"]
        assert [node.name for node in longer.graph.nodes] == [None] * 3


def parts(most: int) -> st.SearchStrategy[Any]:
    """Nested lists: ("chain" or "group", parts), None for a task."""
    return st.recursive(
        st.none(),
        lambda inner: st.tuples(st.sampled_from(["chain", "group"]), st.lists(inner, min_size=1, max_size=6)),
        max_leaves=most,
    )


class Naive:
    """What `chain` and `group` mean, edge by edge."""

    def __init__(self) -> None:
        self.size = 0
        self.before: dict[int, set[int]] = {}

    def put(self, shape: Any, after: list[int]) -> tuple[Part, list[int]]:
        """Build a part; return it, and what what follows comes after."""
        if shape is None:
            number, self.size = self.size, self.size + 1
            self.before[number] = set(after).union(*(self.before[one] for one in after))
            return Do(number), [number]
        how, inner = shape
        built: list[Part] = []
        ends: list[int] = []
        for one in inner:
            part, last = self.put(one, after)
            built.append(part)
            ends += last
            if how == "chain":
                after = ends = last
        return (chain if how == "chain" else group)(*built), ends


@settings(max_examples=200)
@given(parts(25))
def test_nested_parts_come_after_what_they_are_said_to(shape: Any) -> None:
    """All that is to come before a task does, and nothing else; with at most two edges a task."""
    naive = Naive()
    part, _ = naive.put(("chain", [shape]), [])
    assert isinstance(part, Chain)
    assert before(part.graph) == naive.before
    assert len(edges(part.graph)) <= 2 * naive.size
    assert sorted(number for number in numbers(part.graph) if number is not None) == [*range(naive.size)]


@settings(max_examples=150)
@given(st.lists(st.tuples(parts(6), st.sets(st.integers(0, 11))), min_size=1, max_size=12))
def test_graphs_come_after_what_they_are_said_to(adds: list[tuple[Any, set[int]]]) -> None:
    """The same step by step, with handles of whole parts."""
    naive, workflow = Naive(), Workflow()
    ends: list[list[int]] = []
    handles: list[Step] = []
    for shape, wanted in adds:
        after = [place for place in sorted(wanted) if place < len(handles)]
        part, last = naive.put(shape, [number for place in after for number in ends[place]])
        handles.append(workflow.add(part, after=[handles[place] for place in after]))
        ends.append(last)
    assert before(workflow.graph) == naive.before
    for node, place in zip(workflow.graph.nodes, range(100_000), strict=False):
        assert all(one < place for one in node.after)


# -- names ----------------------------------------------------------------------------------------


def test_names() -> None:
    """Of a step; of a chain its last one; of a group a join, which is there for that."""
    workflow = Workflow("nightly")
    first = workflow.add(a, name="first")
    pages = workflow.add(group(b, c), after="first", name="pages")
    last = workflow.add(chain(a, d, name="last"), after=["pages", first])
    nodes = workflow.graph.nodes
    assert [node.name for node in nodes] == ["first", None, None, "pages", None, "last"]
    assert (workflow.name, first.name, pages.name, last.name) == ("nightly", "first", "pages", "last")
    assert nodes[3].after == (1, 2)
    assert nodes[4].after == (3, 0)
    assert [step.name for step in workflow.steps] == ["first", None, None, None, "last"]


def test_names_of_parts_inside() -> None:
    """The name of the outermost is that of the workflow; one name more on the same step is a join's."""
    whole = chain(chain(a, name="x"), chain(chain(b, name="y"), name="z"), c, name="whole")
    assert [node.name for node in whole.graph.nodes] == ["x", "y", "z", None]
    assert numbers(whole.graph) == [0, 1, None, 2]
    assert edges(whole.graph) == [(0, 1), (1, 2), (2, 3)]
    named = chain(a, name="x")
    assert [node.name for node in named.graph.nodes] == [None]
    workflow = Workflow()
    assert workflow.add(named).name == "x"
    assert workflow.add(named, name="other").name == "other"


def test_a_name_is_given_once() -> None:
    """In a workflow; a second one changes nothing."""
    with pytest.raises(InvalidValue, match="there is a step 'x' already"):
        chain(chain(a, name="x"), group(chain(b, name="x")))
    workflow = Workflow()
    workflow.add(a, name="x")
    wide = workflow.add(group(a, b))
    for part, name in ((b, "x"), (chain(b, name="x"), None), (group(chain(a, name="y")), "y")):
        with pytest.raises(InvalidValue, match="already"):
            workflow.add(part, after=wide, name=name)
    assert len(workflow.graph.nodes) == 3


# -- handles --------------------------------------------------------------------------------------


def test_handles_before_the_save() -> None:
    """They know no ids."""
    whole = group(a, b).then(c)
    assert len(whole.steps) == 3
    asks: list[Callable[[], str]] = [
        lambda: whole.id,
        lambda: whole.steps[0].id,
        lambda: whole.steps[0].workflow,
    ]
    for ask in asks:
        with pytest.raises(InvalidState, match="save"):
            ask()


def test_handles_of_parts() -> None:
    """They lead to all steps inside, in their order, and not to joins; each can be come after."""
    workflow = Workflow()
    part = workflow.add(chain(group(a, b), group(c, d)), name="part")
    assert repr(part) == "<4 steps 'part'>"
    assert [repr(step) for step in part.steps] == ["<step 0>", "<step 1>", "<step 3>", "<step 4>"]
    with pytest.raises(InvalidState, match="does not end with one step"):
        _ = part.id
    workflow.add(a, after=part.steps[0])
    assert workflow.graph.nodes[-1].after == (0,)


# -- if_failed ------------------------------------------------------------------------------------


def test_what_becomes_of_dependants() -> None:
    """The innermost that says something counts; "cancel" if nobody does."""
    whole = chain(a, group(b, chain(c, if_failed="cancel")), chain(d, if_failed=Undo()), if_failed="continue")
    assert [node.if_failed for node in whole.graph.nodes] == ["continue", "continue", "cancel", Undo()]
    assert [node.if_failed for node in chain(a).graph.nodes] == ["cancel"]
    workflow = Workflow(if_failed="continue")
    workflow.add(a)
    workflow.add(b, if_failed="cancel")
    workflow.add(chain(c, if_failed=Undo()))
    workflow.add(chain(c, if_failed=Undo()), if_failed="continue")
    found = [node.if_failed for node in workflow.graph.nodes]
    assert found == ["continue", "cancel", Undo(), "continue"]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [chain, group])
def test_wrong_parts(make: Any) -> None:
    """They are refused where they are given."""
    with pytest.raises(InvalidValue, match="empty"):
        make()
    with pytest.raises(InvalidTask, match="Do is a class; give an instance of it"):
        make(a, Do)
    with pytest.raises(InvalidTask, match="'text' is no task, but a str"):
        make("text")
    with pytest.raises(InvalidTask, match=r"one by one: (chain|group)\(\*parts\)"):
        make([a, b])
    with pytest.raises(InvalidTask, match="Lonely has no queue"):
        make(Lonely())
    with pytest.raises(InvalidTask, match="a Workflow is no part of others"):
        make(Workflow())
    with pytest.raises(InvalidTask, match="is a class"):
        make(a).then(Do)
    with pytest.raises(InvalidTask, match=r"on_failure=.* is a class"):
        make(a, on_failure=Undo)
    with pytest.raises(InvalidTask, match="is no task, but a int"):
        make(a, on_complete=5)
    with pytest.raises(
        InvalidTask, match=r"on_success=<chain 'ab'> must be one task; its handler can add a workflow"
    ):
        make(a, on_success=chain(a, b, name="ab"))
    with pytest.raises(InvalidTask, match=r"if_failed=<group> must be one task"):
        make(a, if_failed=group(a, b))


@pytest.mark.parametrize("make", [chain, group, lambda *_, **said: Workflow(**said)])
def test_wrong_words(make: Any) -> None:
    """They are refused where they are said."""
    for wrong, error in (("skip", InvalidValue), (5, InvalidType), (Undo, InvalidType)):
        with pytest.raises(error, match='must be "cancel"'):
            make(a, if_failed=wrong)
    for wrong, error in (
        ("", InvalidValue),
        ("a\n", InvalidValue),
        ("x" * 201, InvalidValue),
        (5, InvalidType),
    ):
        with pytest.raises(error, match="name="):
            make(a, name=wrong)


def test_callbacks_of_a_part_inside() -> None:
    """They are said of the whole alone."""
    for inner in (chain(a, on_success=b), group(a, on_complete=b), chain(a, on_failure=b)):
        for make in (lambda part: chain(part, c), lambda part: group(c, part), Workflow().add):
            with pytest.raises(InvalidValue, match="is said of a whole workflow"):
                make(inner)


def test_too_many_levels() -> None:
    """They are refused before they are too many for Python."""
    part: Chain | Group = chain(a)
    for _ in range(99):
        part = group(part)
    assert len(part.graph.nodes) == 1
    with pytest.raises(InvalidValue, match="more than 100 levels"):
        group(part)


def test_wrong_afters() -> None:
    """Strangers, names that are not there, and so cycles are a ValueError; nothing is changed by them."""
    workflow, other = Workflow(), Workflow()
    stranger = other.add(a, name="stranger")
    for wrong, error, message in (
        ([stranger], ValueError, "a step of another workflow"),
        (stranger, ValueError, "a step of another workflow"),
        (chain(a).steps, ValueError, "a step of another workflow"),
        ("later", ValueError, "there is no step of this name yet, add it first"),
        (["stranger"], ValueError, "no step of this name"),
        ([a], TypeError, "is no handle"),
        ([chain(a)], TypeError, "is no handle"),
        (5, TypeError, "is no handle"),
        ([0], TypeError, "is no handle"),
        (None, TypeError, "is no handle"),
    ):
        with pytest.raises(error, match=message):
            workflow.add(b, after=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'b': there is no step"):
        workflow.add(a, name="a", after=["b"])
    assert workflow.graph.nodes == []


def test_an_extension_is_taken_back() -> None:
    """Of a running workflow: what failed leaves nothing; numbers that are there are negative."""
    graph = Graph()
    first = put(graph, group(a, b), [graph.there(7)])
    size = len(graph.nodes)
    put(graph, c, [first, graph.there(3)], name="x")
    assert [node.after for node in graph.nodes] == [(~7,), (~7,), (0, 1), (2, ~3)]
    graph.cut(size)
    assert (len(graph.nodes), graph.names) == (2, {})
    put(graph, d, [first], name="x")
    assert [node.after for node in graph.nodes] == [(~7,), (~7,), (0, 1), (2,)]


# -- pictures -------------------------------------------------------------------------------------


def test_mermaid() -> None:
    """Steps by name and task, joins, what runs on a failure, callbacks."""
    whole = chain(group(a, chain(b, name="b")), group(c, d, if_failed=Undo()), on_complete=Undo())
    assert whole.mermaid() == (
        'flowchart TD\n'
        '    n0["Do"]\n'
        '    n1["b<br/>Do"]\n'
        '    n2((" "))\n'
        '    n3["Do"]\n'
        '    n4["Do"]\n'
        '    n5{{"Undo"}}\n'
        '    n6(["on_complete<br/>Undo"])\n'
        "    n0 --> n2\n"
        "    n1 --> n2\n"
        "    n2 --> n3\n"
        "    n2 --> n4\n"
        "    n3 -. failed .-> n5\n"
        "    n4 -. failed .-> n5\n"
    )  # fmt: skip
    workflow = Workflow()
    workflow.add(a)
    assert workflow.mermaid() == 'flowchart TD\n    n0["Do"]\n'


def test_mermaid_states() -> None:
    """Each has its colour, of which only those are said that are there."""
    text = drawn(
        [
            Drawn(0, "step", "Do", state="succeeded"),
            Drawn(1, "step", "Do", "Do", state="failed", after=(0,)),
            Drawn(2, "fallback", "Undo", after=(1,), state="unheard of"),
        ]
    )
    assert '    n0["Do"]:::succeeded\n    n1["Do"]:::failed\n    n2{{"Undo"}}\n' in text
    assert text.count("classDef") == 2


CODES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "96": "`", "92": "\\", "37": "%", "35": "#"}


@given(st.text().filter(str.isprintable))
@example("#amp; # %%{init}")
def test_mermaid_takes_any_name(name: str) -> None:
    """Nothing in it ends a label, or is read as something else; and all of it is shown."""
    text = drawn([Drawn(0, "step", None, name), Drawn(1, "join", None, name, after=(0,))])
    _, step, join, edge = text.splitlines()
    assert step.startswith('    n0["')
    assert step.endswith('"]')
    assert edge == "    n0 --> n1"
    label = step.removeprefix('    n0["').removesuffix('"]')
    assert not {*label} & {'"', "<", ">", "`", "\\", "&", "%"}
    assert re.sub(r"#(\w+);", lambda found: CODES[found[1]], label) == name
    assert join == f'    n1(("{label or " "}"))'
