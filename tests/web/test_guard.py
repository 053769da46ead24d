"""Who is let in: hosts, sites, senders, and names with passwords."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("jinja2")
pytest.importorskip("starlette")

from backlite_async import Client, InvalidType, InvalidValue
from backlite_async.web import Access, Dashboard, allow_all, basic
from backlite_async.web._guard import Refused, check_host, check_local, check_site

from .support import Browser, World


def scope(method: str = "POST", client: Any = ("127.0.0.1", 1), **headers: str | bytes) -> dict[str, Any]:
    """Return a request with these headers ("_" for "-")."""
    pairs = [
        (name.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers.items()
    ]
    return {"type": "http", "method": method, "headers": pairs, "client": client}


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "a.localhost",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]:8000",
        "10.0.0.7",
    ],
)
def test_names_and_addresses_of_this_machine_are_its_hosts(host: str) -> None:
    check_host(scope(host=host), None)


@pytest.mark.parametrize(
    "host",
    ["example.org", "localhost.example.org", "localhostx", "127.0.0.1.nip.io", "", "[::1", "a@localhost",
     "local host", "0x7f000001", "xn--localhost-", "[localhost]", "127.1"],
)  # fmt: skip
def test_others_are_not(host: str) -> None:
    with pytest.raises(Refused) as refused:
        check_host(scope(host=host), None)
    assert refused.value.status == 400
    assert "allowed_hosts" in refused.value.way_out


def test_no_host_is_foreign() -> None:
    with pytest.raises(Refused):
        check_host(scope(), None)


@pytest.mark.parametrize(
    ("host", "allowed", "right"),
    [
        ("jobs.example.org", ["jobs.example.org"], True),
        ("JOBS.example.org:443", ["Jobs.Example.org"], True),
        ("a.example.org", ["*.example.org"], True),
        ("a.b.example.org", ["*.example.org"], True),
        ("example.org", ["*.example.org"], False),
        ("evilexample.org", ["*.example.org"], False),
        ("anything", ["*"], True),
        ("localhost", ["example.org"], False),
        ("127.0.0.1", ["example.org"], False),
        ("example.org", [], False),
    ],
)
def test_hosts_that_are_named(host: str, allowed: Collection[str], right: bool) -> None:
    if right:
        check_host(scope(host=host), allowed)
    else:
        with pytest.raises(Refused):
            check_host(scope(host=host), allowed)


@settings(max_examples=40)
@given(st.text(max_size=30))
def test_any_host_is_right_or_refused(host: str) -> None:
    with contextlib.suppress(Refused):
        check_host(scope(host=host.encode("utf-8", "replace")), None)


# -- sites ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_whoever_sends_it_may_look(method: str) -> None:
    check_site(scope(method, sec_fetch_site="cross-site", origin="http://evil.example"))


RIGHT: list[dict[str, str]] = [
    {"sec_fetch_site": "same-origin"},
    {"sec_fetch_site": "none"},
    {"origin": "http://localhost"},
    {"origin": "http://LOCALHOST"},
    {},
]


@pytest.mark.parametrize("headers", RIGHT, ids=str)
def test_forms_of_the_page_itself_are_taken(headers: dict[str, str]) -> None:
    check_site(scope(host="localhost", **headers))


WRONG: list[dict[str, str]] = [
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": ""},
    {"sec_fetch_site": "none, same-origin"},
    {"sec_fetch_site": "cross-site", "origin": "http://localhost"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://localhost:81"},
    {"origin": "http://localhost.evil.example"},
    {"origin": "http://x@localhost"},
    {"origin": "http://[::1"},
    {"origin": "localhost"},
]


@pytest.mark.parametrize("headers", WRONG, ids=str)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "BREW"])
def test_those_of_others_are_not(headers: dict[str, str], method: str) -> None:
    with pytest.raises(Refused) as refused:
        check_site(scope(method, host="localhost", **headers))
    assert refused.value.status == 403


def test_no_origin_is_right_where_there_is_no_host() -> None:
    for origin in ("null", "", "http://", "http://x"):
        with pytest.raises(Refused):
            check_site(scope(origin=origin))


# -- this machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::1%lo"])
def test_programs_of_this_machine(address: str) -> None:
    check_local(scope(client=(address, 1)))


@pytest.mark.parametrize(
    "client", [None, ("10.0.0.7", 1), ("", 1), ("localhost", 1), ("testclient", 1), ("::", 1)]
)
def test_programs_of_others(client: Any) -> None:
    with pytest.raises(Refused) as refused:
        check_local(scope(client=client))
    assert "auth=" in refused.value.way_out


@pytest.mark.parametrize("name", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip"])
def test_what_a_proxy_passes_on_is_not_from_this_machine(name: str) -> None:
    with pytest.raises(Refused):
        check_local(scope(**{name: "127.0.0.1"}))


# -- names and passwords ----------------------------------------------------------------------------


def signed(name: str, password: str) -> str:
    """Return the header that signs in."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_who_knows_the_password_is_let_in() -> None:
    check = basic({"ann": "secret", "bob": "pass:word"}, access=Access(write=False))
    assert check(scope(authorization=signed("ann", "secret"))) == Access(write=False, user="ann")
    assert check(scope(authorization=signed("bob", "pass:word"))) == Access(write=False, user="bob")
    assert basic("é", "ü")(scope(authorization=signed("é", "ü"))) == Access(user="é")
    assert check(scope(authorization=signed("ann", "secret").replace("Basic", "BASIC"))) is not None


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !", "Basic YQ", "Basic " + "A" * 10_000, signed("ann", ""),
     signed("ann", "Secret"), signed("", ""), signed("", "secret"), signed("nobody", ""),
     signed("ann", "secret").replace("Basic", "Bearer"), signed("ann", "secret") + "x"],
)  # fmt: skip
def test_who_does_not_is_not(header: str) -> None:
    assert basic("ann", "secret")(scope(authorization=header)) is None
    assert basic("ann", "secret")(scope()) is None


@pytest.mark.parametrize("users", [{"": "x"}, {"a": ""}, {"a:b": "x"}, {}])
def test_passwords_that_are_none_are_refused(users: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        basic(users)


@pytest.mark.parametrize("users", [{"a": 1}, {1: "a"}, ["a"]])
def test_what_is_no_password_is_refused(users: Any) -> None:
    with pytest.raises(InvalidType):
        basic(users)


# -- all together -----------------------------------------------------------------------------------


async def test_without_auth_only_this_machine_sees_anything(world: World) -> None:
    async with Browser(world.client, address=("10.0.0.7", 1)) as page:
        for path in ("/", "/jobs", "/tasks", "/nothing"):
            seen = await page.see(path, status=403)
            assert "auth=" in seen.text
            assert "mail" not in seen.main.text
            assert not seen.has("nav")
        assert (await page.get("/static/x/style.css")).status_code == 404


async def test_a_password_is_asked_for(world: World) -> None:
    async with Browser(world.client, auth=basic("ann", "secret"), address=("10.0.0.7", 1)) as page:
        answer = await page.get("/")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        answer = await page.get("/", auth=("ann", "secret"))
        assert answer.status_code == 200
        assert "ann" in answer.text
        assert (await page.get("/", auth=("ann", "other"))).status_code == 401


async def test_any_function_says_who_may(world: World) -> None:
    asked = []

    async def who(scope: Any) -> Access | None:
        asked.append(scope["path"])
        return Access(user="x") if scope["path"] == "/jobs" else None

    async with Browser(world.client, auth=who) as page:
        await page.see("/jobs")
        await page.see("/tasks", status=403)
    assert asked == ["/jobs", "/tasks"]


async def test_who_may_not_read_sees_nothing(world: World) -> None:
    async with Browser(world.client, auth=allow_all(Access(read=False))) as page:
        for path in ("/", "/jobs", "/tasks"):
            seen = await page.see(path, status=403)
            assert "mail" not in seen.main.text
            assert not seen.has("nav")


async def test_nobody_is_asked_about_what_is_refused_anyway(world: World) -> None:
    """A foreign host, or another site's page, does not even learn how long a password takes."""
    asked: list[object] = []
    async with Browser(world.client, auth=asked.append, allowed_hosts=["localhost"]) as page:
        assert (await page.get("/", headers={"host": "evil.example"})).status_code == 400
        assert (await page.post("/jobs/act", headers={"sec-fetch-site": "cross-site"})).status_code == 403
        assert asked == []
        await page.see("/", status=403)
        assert len(asked) == 1


async def test_a_function_that_fails_lets_nobody_in(world: World) -> None:
    def broken(scope: Any) -> Access:
        raise RuntimeError("the secret of the function")

    for auth in (broken, lambda scope: True, lambda scope: "ann"):
        async with Browser(world.client, auth=auth) as page:
            seen = await page.see("/jobs", status=500)
            assert "secret of the function" not in seen.html
            assert not seen.has("nav")


async def test_everything_has_the_headers_that_keep_others_out(world: World) -> None:
    async with Browser(world.client) as page:
        icon = (await page.see("/")).find("img")["src"]
        for path in ("/", "/nothing", icon, "/jobs?state=x"):
            headers = (await page.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] == (
                "public, max-age=31536000, immutable" if path == icon else "no-store"
            )


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(InvalidType):
        Dashboard("app.db")  # type: ignore[arg-type]
    Dashboard(Client(":memory:"), auth=allow_all())
