"""What is secret by its name is shown to nobody, whatever it is in and however much of it was read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async.web import Access
from backlite_async.web._redact import MOST, glance, restored, said, shown
from backlite_async.web._secrets import LAST, MASK, NAMES, PARTS, WORDS, is_secret, mask
from backlite_async.web._visit import Visit


def visit(redact: Callable[[str, Any], Any] | None = None, *, payloads: bool = True) -> Visit:
    settings = SimpleNamespace(redact=redact)
    return cast("Visit", SimpleNamespace(access=Access(payloads=payloads), settings=settings))


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "name",
    "password PASSWORD userPassword passwd client_secret accessToken api_key ApiKey x-api-key Authorization"
    " Set-Cookie credentials private_key privateKey credit_card CVV iban SSN passphrase".split(),
)
def test_secret_names_in_any_form(name: str) -> None:
    text = shown(visit(), "T", raw({"a": [{"b": {name: {"x": "hunter2"}}}]})).text
    assert "hunter2" not in text
    assert name in text
    assert MASK in text


def table() -> dict[str, list[str]]:
    """Return what docs/page.md says of names, by the first words of its rows."""
    page = Path(__file__).parents[2] / "docs" / "page.md"
    if not page.exists():
        pytest.skip("the documentation is not here")
    rows = page.read_text().partition("| hidden | is |")[2].partition("## ")[0].splitlines()
    cells = [row.split("|") for row in rows if row.startswith("| ")]
    return {first.strip(): re.findall("`([^`]+)`", second) for _, first, second, _ in cells}


def forms(name: str) -> list[str]:
    """Return a name in the forms in which it is written."""
    words = name.split("_")
    capital = [word.capitalize() for word in words]
    return [name, name.upper(), "-".join(words), words[0] + "".join(capital[1:]), "-".join(["X", *capital])]


def test_what_the_documentation_says_of_names() -> None:
    """Its table and the code know the same names."""
    rows = table()
    assert [name.replace("_", "") for name in rows["what has in its name"]] == PARTS
    assert set(rows["what has it as a word in its name"]) == WORDS
    assert set(rows["what has it as the last word of its name"]) == LAST
    assert set(rows["what is named just so"]) == NAMES
    for name in rows["what has in its name"]:
        assert all(map(is_secret, [*forms(name), name + "s", f"old_{name}_2", name.replace("_", "")])), name
    for name in rows["what has it as a word in its name"]:
        assert all(map(is_secret, [*forms(name), name + "s", f"old_{name}_2", f"{name}Hash"])), name
    for name in rows["what has it as the last word of its name"]:
        assert all(map(is_secret, [*forms(name), f"db_{name}", f"db{name.capitalize()}", f"{name}_2"])), name
    not_secret = [name for name in rows["not"] if name not in ("true", "false", "null")]
    for name in not_secret:
        assert not any(map(is_secret, forms(name))), name
    assert len(not_secret) == 10


@pytest.mark.parametrize(
    "name",
    "authority unauthorized bypass compass pin_board pinned opinion spinning cardinality scorecard wildcard"
    " businessName class_n processN sessions_held training_session passenger passed signature_required"
    " private key keys primary_key sort_key prompt_tokens completionTokens total_tokens number_of_tokens"
    " token_limit tokenized numTokens secretariat auth_method ibn hash to".split(),
)
def test_names_that_tell_of_no_secret(name: str) -> None:
    value = {name: "shown", "list": [name, "shown"], "text": f"{name}=shown"}
    assert mask(value) == value


@pytest.mark.parametrize(
    "name",
    "dbPassword DB_PASS userIban JSESSIONID oauth2_token AWS_SECRET_ACCESS_KEY stripeSignature myPwd"
    " id_tokens refreshtoken PGPASSWORD".split(),
)
def test_names_that_do(name: str) -> None:
    assert mask({name: "hunter2"}) == {name: MASK}
    assert mask({name: 2222}) == {name: MASK}
    assert mask({name: True, name * 40: None}) == {name: True, name * 40: None}


@pytest.mark.parametrize(
    "value",
    [
        ["run", "--password", "hunter2", "--to", "shown"],
        ["run", "-token", "hunter2", "shown"],
        ["--password=hunter2", "shown"],
        ["Basic", "mysql --password hunter2 -h shown"],
        [["Authorization", "Basic hunter2"], ["Accept", "shown"]],
        [{"name": "API_KEY", "value": "hunter2"}, {"name": "HOME", "value": "shown"}],
        [{"Key": "client-secret", "Value": ["hunter2"]}, "shown"],
        "https://ann:hunter2@host/shown",
        "see postgres://hunter2:x@host/shown and more",
        "https://hunter2hunter2hunter2@host/shown",
        "https://ann:hu@nter2@host/shown hunt",
        "https://host/?shown=1&access_token=hunter2#top=shown",
        "https://host/shown#id_token=hunter2&state=1",
        "GET /shown?sig=1;token=hunter2",
        '{"a": [{"password": "hunter2"}], "b": "shown"}',
        ' [{"text": "{\\"token\\": \\"hunter2\\"}", "b": "shown"}]',
        'shown: {"password": "hunter2"}',
        'shown {\\"token\\": \\"hunter2\\"}',
        'shown, token: {\n  "x": "hunter2"\n}',
        "shown=1 private_key: -----BEGIN KEY-----\nhunter2",
        "shown\nCookie: a=1; b=hunter2\nAccept: shown",
        "cookie=a=1; b=hunter2 shown=1",
        "shown api key: hunter2",
        "shown with Bearer hunter2.hunter2",
        "PGPASSWORD=hunter2 SHOWN=shown",
        "shown args=\"['run', '--password', 'hunter2', '--to', 'shown']\"",
        "args=['--user', '--token', \"hunter2's\", '-p']; shown",
        "shown headers=\"[('Accept', 'shown'), ('X-Token', 'hunter2'), ['Cookie', 'hunter2']]\"",
        "shown [{'name': 'API_KEY', 'value': 'hunter2'}, {'name': 'HOME', 'value': 'shown'}]",
    ],
)
def test_secrets_within_lists_and_texts(value: Any) -> None:
    """It does not matter how deep, or whether the end is missing."""
    seen = json.dumps(mask({"deep": [value]}), ensure_ascii=False)
    assert "hunter" not in seen
    assert "shown" in seen
    assert MASK in seen
    body = raw({"deep": [value], "end": "x" * 50})
    for at in range(len(body) - 1):
        assert "hunter" not in shown(visit(), "T", body, most=at).text, at


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@host/repo.git at https://medium.com/@ann, http://localhost:8000/?page=2&sort=key",
        "Dear ann, the meeting is at 10:30: pinned=board",
        "[INFO] {not: json}",
        '{"a":  1, "b": "x=1"}',
        "bearer of good news, bearer certificates",
        "a -- b --to x --token",
        "refreshed the token cache, 5 tokens used",
        "fields=['token', 'name'], of [('token', 'name', 'more')], ['--to', 'token', '--token', '--x']",
        "",
    ],
)
def test_texts_without_secrets(text: str) -> None:
    assert mask([text, {"to": text}]) == [text, {"to": text}]


def test_everything_else_is_shown_as_it_is() -> None:
    value = {"to": "ä@b", "n": 1, "f": 0.5, "list": [1, None, True, {"k": []}], "tokens?": None}
    assert json.loads(shown(visit(), "T", raw(value)).text) == value
    assert "ä@b" in shown(visit(), "T", raw(value)).text


def test_nothing_there() -> None:
    nothing = shown(visit(), "T", None)
    assert (nothing.text, nothing.cut, nothing.size, nothing.hidden) == ("", False, 0, False)


def test_without_the_role_nothing_can_be_told() -> None:
    one, other = (shown(visit(payloads=False), "T", raw(value)) for value in ({"a": 1}, ["b"] * 100))
    assert one == other
    assert one.hidden
    assert glance(visit(payloads=False), "T", b'{"a": 1}') == ""


def test_size_and_cut() -> None:
    small = shown(visit(), "T", b'{"a":1}')
    assert (small.cut, small.size) == (False, 7)
    large = shown(visit(), "T", raw({"body": "x" * 70_000})[: MOST + 1])
    assert large.cut
    assert len(large.text) <= MOST
    assert large.text.startswith('{\n  "body": "xxx')
    assert shown(visit(), "T", b'{"a":1,"b":2}', most=7).cut, "also where the rest is short"
    wide = shown(visit(), "T", raw([[]] * 15_000))
    assert wide.cut, "laid out it is longer than what is shown"
    assert len(wide.text) == MOST


@given(st.integers(0, 500), st.booleans())
def test_wherever_it_is_cut_no_secret_is_shown(at: int, ascii_only: bool) -> None:
    value = {
        "to": 'a\\"b\\\\ü€😀',
        "n": [1, 2.5, {"password": "hunter2", "x": None}],
        "token": {"deep": ["hunter2", "hunter2"]},
        "headers": [{"Value": "hunter2", "Name": "X-Token"}, {"x": {}, "value": ["hunter2"], "key": "pwd"}],
        "more": {"iban": 77777777, "last": "the end"},
    }
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    text = shown(visit(), "T", body, most=min(at, len(body) - 1)).text
    assert "hunter" not in text
    assert "777" not in text
    if at > 150 and text:
        json.loads(text)


def test_a_value_that_is_named_before_the_cut_is_shown() -> None:
    body = raw([{"value": 5}, {"name": "colour", "value": {"value": "red"}}, "the end"])
    assert json.loads(shown(visit(), "T", body, most=len(body) - 2).text)[:2] == json.loads(body)[:2]
    cut = body.index(b"red") + 2
    seen = json.loads(shown(visit(), "T", body, most=cut).text)
    assert seen == [{"value": 5}, {"name": "colour", "value": {"value": "•••"}}]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
), st.data())  # fmt: skip
def test_the_beginning_of_anything_is_shown_as_json(value: Any, data: st.DataObject) -> None:
    body = raw([value, "end"])
    at = data.draw(st.integers(1, len(body) - 1))
    json.loads(shown(visit(), "T", body, most=at).text)


def test_what_is_no_json_is_shown_up_to_its_first_secret() -> None:
    assert shown(visit(), "T", b"\xff\xfe plain <b>").text == "\ufffd\ufffd plain <b>"
    text = shown(visit(), "T", b'{to: "ann", Pass-Word = hunter2').text
    assert "ann" in text
    assert "hunter2" not in text
    assert "hunter2" not in shown(visit(), "T", b"the password hunter2").text


def test_huge_nesting() -> None:
    for body in (
        b"[" * 60_000,
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ):
        for cut in (len(body), len(body) // 2):
            seen = shown(visit(), "T", body, most=cut)
            assert not seen.hidden
            assert seen.text
    assert "hunter2" not in shown(visit(), "T", b"[" * 200 + b'"hunter2"' + b"]" * 200).text, (
        "so deep is unseen"
    )
    assert "hunter2" not in shown(visit(), "T", b"[" * 30_000 + b'{"token": "hunter2').text


def test_the_callback_comes_after_the_names() -> None:
    asked: list[tuple[str, Any]] = []

    def redact(task: str, value: Any) -> Any:
        asked.append((task, value))
        return {**value, "salary": "?"}

    text = shown(visit(redact), "Pay", raw({"salary": 5, "password": "x"})).text
    assert json.loads(text) == {"salary": "?", "password": MASK}
    assert asked == [("Pay", {"salary": 5, "password": MASK})]
    assert glance(visit(redact), "Pay", raw({"salary": 5})) == '{"salary": "?"}'


def test_a_callback_that_fails_hides_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def redact(task: str, value: Any) -> Any:
        raise RuntimeError("hunter2 is in " + str(value))

    seen = shown(visit(redact), "T", raw({"a": "hunter2"}))
    assert (seen.hidden, seen.text) == (True, "")
    assert glance(visit(redact), "T", raw({"a": "hunter2"})) == MASK
    assert "RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_callback_is_never_given_a_part() -> None:
    """It might hide the value because of something that is not in the part."""
    seen = shown(visit(lambda task, value: value), "T", raw({"a": "x" * 100, "private": True}), most=50)
    assert (seen.hidden, seen.text, seen.cut) == (True, "", True)
    assert glance(visit(lambda task, value: value), "T", raw(["x" * 300])[:200]) == MASK
    assert shown(visit(lambda task, value: value), "T", b"no json").hidden


@pytest.mark.parametrize("odd", [{1, 2}, object(), {("a", 1): 2}, float("inf"), "text", None])
def test_a_callback_may_return_anything(odd: Any) -> None:
    seen = shown(visit(lambda task, value: odd), "T", b"{}")
    assert seen.hidden or seen.text


def test_a_glance_is_one_short_line() -> None:
    assert glance(visit(), "T", b'{"a":\n1,"secret":"s"}') == '{"a": 1, "secret": "•••"}'
    assert glance(visit(), "T", None) == ""
    long = glance(visit(), "T", raw({"text": "y" * 400})[:200])
    assert len(long) <= 200
    assert long.startswith('{"text": "yyy')


def test_what_comes_back_as_it_was_seen_is_the_original() -> None:
    original = {"to": "a", "password": "hunter2", "inner": [{"token": "t1", "n": 1}, {"token": "t2", "n": 2}]}
    seen = mask(original)
    assert restored(seen, seen, original) == original
    edited = json.loads(json.dumps(seen))
    edited["to"] = "b"
    edited["inner"][1]["n"] = 3
    wanted = json.loads(json.dumps(original))
    wanted["to"], wanted["inner"][1]["n"] = "b", 3
    assert restored(edited, seen, original) == wanted
    edited["password"] = "new"
    assert restored(edited, seen, original)["password"] == "new"


def test_what_the_callback_left_out_is_kept() -> None:
    assert restored({"a": 2}, {"a": 1}, {"a": 1, "unseen": 9}) == {"a": 2, "unseen": 9}
    assert restored({}, {"a": 1}, {"a": 1, "unseen": 9}) == {"unseen": 9}
    assert restored("seen", "seen", {"a": 1}) == {"a": 1}
    assert restored(True, 1, 1) is True


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("opened box=a", "opened box=a"),
        ("in token=hunter2 n=1", "in token=••• n=1"),
        ("in API-Key: hunter2", "in API-Key: •••"),
        ("in user_password='hunter2 x=2' n=1", "in user_password=••• n=1"),
        ('in {"secret": "hunter\\"2", "n": 1}', 'in {"secret": •••, "n": 1}'),
        ("Authorization=Bearer hunter2 n=1", "Authorization=••• n=1"),
        ("refreshed the token cache", "refreshed the token cache"),
        ("a=1 token=hunter2\nnext=2", "a=1 token=•••\nnext=2"),
        ("GET /a?token=hunter2&next=2", "GET /a?token=•••&next=2"),
        ("token=hunter2 n=1 password=hunter3 m=2", "token=••• n=1 password=••• m=2"),
        ("ran args=\"['-pw', 'hunt\\\\'er\\\"2', 'x']\" n=1", "ran args=\"['-pw', •••, 'x']\" n=1"),
    ],
)
def test_lines(line: str, expected: str) -> None:
    assert said(visit(), line) == expected
    assert said(visit(payloads=False), line) == ""
    assert said(visit(), None) == ""


@pytest.mark.parametrize(
    "part",
    [
        "token",
        "p_",
        "token=",
        "t o ",
        " ",
        "a",
        "'",
        '\\"',
        "token ",
        "token=' ",
        "://",
        "://a:",
        "a@",
        "bearer ",
        "bearer a1",
        "--a ",
        "--token x ",
        "api ",
        "&token=",
        "[",
        "{",
        '{"a":"',
        "n: ",
        "token: [\n",
        ";",
        "a.-",
        "aB",
        "\\",
        "'--token',",
        "[['token', 'a",
        "'name': 'token', 'value': '",
    ],
)
def test_no_text_takes_long(part: str) -> None:
    """The work grows with the text, and not with its square."""
    begun = time.process_time()
    for _ in range(20):
        said(visit(), (part * 2000)[:2000] + "!")
    shown(visit(), "T", (part * MOST)[:MOST].encode() + b"!")
    shown(visit(), "T", (part * MOST)[:MOST].encode())
    shown(visit(), "T", raw([(part * MOST)[: MOST - 10]]))
    shown(visit(), "T", raw({(part * 30)[:9] + str(number): part for number in range(3000)}))
    assert time.process_time() - begun < 2
