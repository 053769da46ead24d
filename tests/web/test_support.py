"""What the other tests of the page are written with says what is there."""

from __future__ import annotations

import pytest

from .support import Browser, Document, World


def test_what_is_not_nested_is_an_error() -> None:
    for html in ("<p><b>x</p></b>", "<div>", "</div>", "<i id=a></i><i id=a></i>", "<i class=a class=b></i>"):
        with pytest.raises(AssertionError):
            Document(html)


def test_a_form_sends_what_a_browser_would() -> None:
    document = Document(
        "<form method=post action='/x?y=1'><input name=a value=1><input type=checkbox name=b checked>"
        "<input type=checkbox name=c><input name=d disabled value=1><textarea name=e>\nx &lt; y</textarea>"
        "<select name=f><option value=1>one</option><option selected>two</option></select>"
        "<button name=g value=h>Go</button><button type=button name=i>No</button></form>"
    )
    form = document.form("Go")
    assert (form.method, form.action, form.path) == ("post", "/x?y=1", "/x")
    fields = [("a", "1"), ("b", "on"), ("e", "x < y"), ("f", "two")]
    assert form.fields == fields
    assert form.pairs("Go", {"a": None, "k": [1, 2]}) == [*fields[1:], ("k", "1"), ("k", "2"), ("g", "h")]
    with pytest.raises(AssertionError, match="no form"):
        document.form("No")


async def test_a_world_has_jobs_of_every_state(world: World, page: Browser) -> None:
    ids = await world.fill()
    for state, jobs in ids.items():
        for job_id in jobs:
            assert await world.client.status(job_id) == {"scheduled": "pending"}.get(state, state)
    assert (await page.see("/")).find("h1").text == "Overview"
