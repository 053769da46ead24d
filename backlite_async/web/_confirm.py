"""The question whether something is meant, before it is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from starlette.responses import Response

from ._visit import Visit

__all__ = ["Item", "confirm"]


class Item(NamedTuple):
    """One of those that something is done to: a link to it, its name, and its state."""

    href: str
    name: str
    state: str = ""


def confirm(
    visit: Visit,
    *,
    title: str,
    label: str,
    action: str,
    fields: Sequence[tuple[str, str]],
    back: str,
    text: Sequence[str] = (),
    warning: str = "",
    items: Sequence[Item] = (),
    more: bool = False,
    danger: bool = False,
    possible: bool = True,
) -> Response:
    """Ask whether something is meant; nothing is changed.

    `title`: the question; `text`: sentences below; `warning`: what cannot be undone. `items`: the first of
    those that it is done to, `more`: there are more. The button, `label`, sends `fields`, `back` and
    `confirmed=1` to `action`. `danger`: it is red; `possible`: there is one at all.
    """
    return visit.render(
        "confirm.html",
        question=title,
        label=label,
        action=action,
        fields=[pair for pair in fields if pair[0] not in ("back", "confirmed")],
        back=visit.checked_back(back),
        text=text,
        warning=warning,
        items=items,
        more=more,
        danger=danger,
        possible=possible,
    )
