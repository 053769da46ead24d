"""Graphs as Mermaid text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Drawn", "drawn"]


class Drawn(NamedTuple):
    """A node to draw. `kind`: "step", "join", "fallback" or "callback"; `state`: what it is coloured by."""

    number: int
    kind: str
    task: str | None
    name: str | None = None
    state: str | None = None
    after: tuple[int, ...] = ()


_SHAPES = {"step": ('["', '"]'), "fallback": ('{{"', '"}}'), "callback": ('(["', '"])')}

_COLOURS = {
    "pending": "fill:#f4f4f4,stroke:#999,color:#222",
    "running": "fill:#d6e8ff,stroke:#2f6fb5,color:#222",
    "succeeded": "fill:#d9f2dc,stroke:#3a8a47,color:#222",
    "failed": "fill:#ffd9d6,stroke:#b5362f,color:#222",
    "cancelled": "fill:#fff1cc,stroke:#a8842c,color:#222",
}

_CODES = str.maketrans(
    {
        "&": "#amp;",
        "<": "#lt;",
        ">": "#gt;",
        '"': "#quot;",
        "#": "#35;",
        "`": "#96;",
        "\\": "#92;",
        "%": "#37;",
    }
)
"""What would not be shown as it is inside a label."""


def drawn(nodes: Iterable[Drawn]) -> str:
    """Return a flowchart of nodes, from above: steps with their names and tasks, joins as dots."""
    lines, edges, states = ["flowchart TD"], [], set()
    for node in nodes:
        shown = f"    n{node.number}{_shape(node)}"
        if node.state in _COLOURS:
            states.add(node.state)
            shown += f":::{node.state}"
        lines.append(shown)
        arrow = "-. failed .->" if node.kind == "fallback" else "-->"
        edges += [f"    n{before} {arrow} n{node.number}" for before in node.after]
    colours = [f"    classDef {state} {colour}" for state, colour in _COLOURS.items() if state in states]
    return "\n".join([*lines, *edges, *colours]) + "\n"


def _shape(node: Drawn) -> str:
    if node.kind == "join":
        return f'(("{_text(node.name or " ")}"))'
    begin, end = _SHAPES[node.kind]
    texts = dict.fromkeys(_text(text) for text in (node.name, node.task) if text)
    return begin + "<br/>".join(texts) + end


def _text(text: str) -> str:
    return text.translate(_CODES)
