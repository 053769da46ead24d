"""What is sent: fields, numbers within bounds, choices, and bodies of forms."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async.web import _forms
from backlite_async.web._forms import BadRequest, Fields, query, read_form

FORM = "application/x-www-form-urlencoded"


def test_fields_keep_their_order_and_all_values() -> None:
    fields = Fields.parse("a=1&b=%20x%20&a=2&c=&a=2&a=")
    assert fields.pairs == (("a", "1"), ("b", " x "), ("a", "2"), ("c", ""), ("a", "2"), ("a", ""))
    assert fields.get("a", "none") == "none"
    assert fields.get("b") == "x"
    assert fields.raw("b") == " x "
    assert fields.raw("d") is None
    assert fields.all("a") == ["1", "2"]
    assert fields.mapping() == {"a": "", "b": " x ", "c": ""}


@pytest.mark.parametrize("text", ["a=%ff", "a=%ED%A0%80", "&".join(["a=1"] * 2_001)])
def test_what_is_no_form_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        Fields.parse(text)


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("-5", -5), (" 7 ", 7), ("", 3), ("10", 10), ("007", 7)]
)
def test_whole_numbers(text: str, value: int) -> None:
    assert Fields([("n", text)]).whole("n", 3, -5, 10) == value


@pytest.mark.parametrize(
    "text", ["11", "-6", "x", "1.5", "1e1", "--1", "-", "+1", "٣", "1" * 5_000, "0x1", "1_0", "½", "nan"]
)
def test_other_numbers_are_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequest, match=r"n=.* must be a whole number from -5 to 10"):
        Fields([("n", text)]).whole("n", 3, -5, 10)


@settings(max_examples=40)
@given(st.text())
def test_a_number_is_within_bounds_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert 0 <= Fields([("n", text)]).whole("n", 0, 0, 10) <= 10


def test_choices() -> None:
    assert Fields([("s", "b")]).choice("s", ("a", "b"), "a") == "b"
    assert Fields([]).choice("s", ("a", "b"), "a") == "a"
    with pytest.raises(BadRequest, match=r"none of: a, b$"):
        Fields([("s", "c" * 100)]).choice("s", ("", "a", "b"), "a")


def test_queries_leave_out_what_is_empty() -> None:
    assert query({}) == ""
    assert query({"a": None, "b": ""}) == ""
    assert query({"a": "x y&", "b": [1, None, 2], "c": 0}) == "?a=x+y%26&b=1&b=2&c=0"


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=5))
def test_queries_are_read_as_they_were_written(values: dict[str, str]) -> None:
    assert Fields.parse(query(values).removeprefix("?")).mapping() == values


# -- bodies ---------------------------------------------------------------------------------------


def body(*parts: bytes, cut: bool = False) -> Callable[[], Any]:
    """Return what receives a body in these parts."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": cut or place < len(parts) - 1}
        for place, part in enumerate(parts)
    ]
    messages.append({"type": "http.disconnect"})
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


@pytest.mark.parametrize("kind", [FORM, FORM + "; charset=utf-8", FORM.upper(), ""])
async def test_a_body_comes_in_parts(kind: str) -> None:
    fields = await read_form(body(b"a=", b"%C3", b"%A9&b=2"), kind)
    assert fields.mapping() == {"a": "é", "b": "2"}


@pytest.mark.parametrize("parts", [(b"a=\xff",), (b"a=%ff",), (b"a=1&" * 2_001,)])
async def test_bodies_that_are_no_forms_are_refused(parts: Sequence[bytes]) -> None:
    with pytest.raises(BadRequest):
        await read_form(body(*parts), FORM)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/form-data; boundary=x"])
async def test_bodies_of_other_types_are_refused(kind: str) -> None:
    """Those are what a form of another site could send without asking."""
    with pytest.raises(BadRequest, match="is sent as"):
        await read_form(body(b"a=1"), kind)


async def test_a_body_that_ends_early_is_refused() -> None:
    with pytest.raises(BadRequest, match="in full"):
        await read_form(body(b"a=1", cut=True), FORM)


async def test_a_large_body_is_refused_before_it_is_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forms, "LARGEST_FORM", 10)
    assert (await read_form(body(b"a=12345678"), FORM)).get("a") == "12345678"
    receive = body(b"a=12345678", b"9", b"0")
    with pytest.raises(BadRequest, match="larger than 10 bytes"):
        await read_form(receive, FORM)
    assert (await receive())["body"] == b"0"
