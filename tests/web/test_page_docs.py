"""What docs/page.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backlite_async import testing
from backlite_async.web import Access, Dashboard

PAGE = Path(__file__).parents[2] / "docs" / "page.md"
if not PAGE.exists():
    pytest.skip("the documentation is not here", allow_module_level=True)


async def test_each_piece_of_code_runs_by_itself() -> None:
    """What it needs is imported there, but for what is the application's."""
    pieces = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(pieces) == 2
    mounted: list[Any] = []
    app = SimpleNamespace(mount=lambda path, page: mounted.append(page))
    names: dict[str, Any] = {}
    for piece in pieces:
        names = {"client": testing.client(":memory:"), "app": app, "password": "word", "user_of": user_of}
        exec(compile(piece, str(PAGE), "exec"), names)
    assert [type(page) for page in mounted] == [Dashboard]
    assert await names["admins"]({"user": None}) is None
    assert await names["admins"]({"user": "ann"}) == Access(user="ann", write=False)


async def user_of(scope: dict[str, Any]) -> Any:
    return scope["user"] and SimpleNamespace(name=scope["user"], is_admin=False)
