"""Arguments of the page: right ones are taken, wrong ones are named."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async import Client, InvalidType, InvalidValue
from backlite_async.web import Access, Dashboard, allow_all, basic

from .support import Browser, World


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("auth", "ann", InvalidType),
        ("auth", basic, InvalidType),
        ("auth", allow_all, InvalidType),
        ("redact", {"a": 1}, InvalidType),
        ("title", 3, InvalidType),
        ("page_size", "25", InvalidType),
        ("page_size", True, InvalidType),
        ("page_size", 0, InvalidValue),
        ("page_size", 201, InvalidValue),
        ("base_path", 3, InvalidType),
        ("base_path", "jobs", InvalidValue),
        ("base_path", "//evil.example", InvalidValue),
        ("base_path", "/a//b", InvalidValue),
        ("base_path", "/a\nb", InvalidValue),
        ("allowed_hosts", "example.org", InvalidType),
        ("allowed_hosts", 3, InvalidType),
        ("allowed_hosts", [3], InvalidType),
        ("allowed_hosts", ["https://example.org"], InvalidValue),
        ("allowed_hosts", [""], InvalidValue),
        ("allowed_hosts", ["example.org/jobs"], InvalidValue),
    ],
)
def test_what_cannot_be_meant_is_named(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        Dashboard(Client(":memory:"), **{name: value})


def hosts(**options: Any) -> tuple[str, ...] | None:
    """Return the hosts that a page of these options answers to."""
    return Dashboard(Client(":memory:"), **options)._settings.allowed_hosts


def test_hosts_are_this_machines_unless_it_asks_for_a_password() -> None:
    assert hosts() is None
    assert hosts(auth=allow_all()) is None
    assert hosts(auth=basic("a", "b")) == ("*",)
    assert hosts(auth=lambda scope: Access()) is None, "who knows what it goes by"
    assert hosts(auth=basic("a", "b"), allowed_hosts=["x"]) == ("x",)


@pytest.mark.parametrize(("path", "root"), [("", ""), ("/", ""), ("/jobs", "/jobs"), ("/a/b/", "/a/b")])
def test_base_paths(path: str, root: str) -> None:
    assert Dashboard(Client(":memory:"), base_path=path)._settings.base_path == root


async def test_the_title_stands_on_every_page(world: World) -> None:
    async with Browser(world.client, title="Jobs of <us>") as page:
        for path, status in (("/", 200), ("/tasks", 200), ("/nothing", 404)):
            seen = await page.see(path, status=status)
            assert seen.title.endswith("Jobs of <us>")
            assert seen.find("a", cls="brand").text == "Jobs of <us>"


@pytest.mark.parametrize(
    ("cookie", "theme"),
    [
        ("backlite-theme=dark", "dark"),
        ("a=b; backlite-theme=light", "light"),
        ("backlite-theme=x onload=y", None),
        ("theme=dark", None),
    ],
)
async def test_a_theme_is_one_of_two(world: World, cookie: str, theme: str | None) -> None:
    answer = await world.page.get("/", headers={"cookie": cookie})
    assert (f'data-theme="{theme}"' in answer.text) is (theme is not None)
    assert ("data-theme" in answer.text) is (theme is not None)


async def test_read_only_is_said(world: World) -> None:
    async with Browser(world.client, read_only=True) as page:
        assert (await page.see("/")).find("div", cls="foot").find("p", cls="tag").text == "read-only"
