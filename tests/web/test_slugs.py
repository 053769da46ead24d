"""Ids and names in paths: whatever they are, they come back as they were."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async.web._slugs import slug, unslug


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=200))
def test_every_name_comes_back(name: str) -> None:
    coded = slug(name)
    assert unslug(unquote(quote(coded))) == name
    assert coded.isascii()
    assert not set(coded) & set("/\\?#%&;:@ \"'<>+")
    assert coded not in (".", "..")


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=30))
def test_different_names_are_different_slugs(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


@pytest.mark.parametrize("name", ["mail", "a-b_c.d", "01a20596-d246-7184-b202-bc8ab8131838", "-", "_x"])
def test_plain_names_stay(name: str) -> None:
    assert slug(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "~", "~mail", "a b", "a/b", "é", "a%2f", "\x00"])
def test_others_do_not(name: str) -> None:
    assert slug(name).startswith("~")
    assert unslug(slug(name)) == name


@pytest.mark.parametrize(
    "text", ["~A", "~=", "~====", "~é", "~\udc80", "~_w", "~7aCA", "~AA\n", "~A A", "~AA=", "~+/"]
)
def test_what_is_no_slug_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unslug(text)


def test_names_that_are_no_utf8_are_none_of_ours() -> None:
    """A lone surrogate has a slug, which leads nowhere."""
    with pytest.raises(ValueError, match=r"."):
        unslug(slug("\udc80"))
