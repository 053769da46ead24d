"""Whatever is in the database, and whatever is sent: nothing is unescaped, breaks, or is changed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote, urljoin, urlsplit

import anyio
import anyio.lowlevel
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backlite_async import Client, JobContext, QueueConfig, Retention, Task, Workflow, group, testing

from .support import Browser, Document, Element, Mail, World, world_of
from .walking import SAME_SITE, Walk, raw

# isort: split
from backlite_async.web import Access, allow_all
from backlite_async.web._forms import Fields
from backlite_async.web._pages import ROUTES
from backlite_async.web._slugs import slug

SCRIPT = "\"'><script>x()</script><img src=x onerror=x()>{{7*7}}</title></textarea>&lt;"
"""What becomes elements and attributes wherever it is not escaped, in texts, attributes or templates."""

HARMLESS = "\u00e4" * len(SCRIPT)

SECRET = "s3cr3t-of-the-payload"

Text = Callable[[str], str]


def nasty(place: str) -> str:
    """Return what attacks, beginning with where it stands."""
    return place + SCRIPT


def harmless(place: str) -> str:
    """Return as much text that does not."""
    return place + HARMLESS


def evil_type(text: Text) -> type[Task]:
    """Return a task type whose every name is such a text."""
    doc = f"{text('title')}\n\n{text('description')}"
    fields = [
        ("value", Annotated[str, msgspec.Meta(description=text("hint"), title=text("t"))], text("default")),
        ("choice", Literal[text("choice"), text("other")], text("choice")),
        ("long", Annotated[str, msgspec.Meta(max_length=5_000)], text("long")),
        ("number", Annotated[int, msgspec.Meta(ge=1, description=text("n"))], 3),
        ("named", list[str], msgspec.field(name=text("name").replace('"', ""), default_factory=list)),
        ("fail", bool, False),
    ]
    config = QueueConfig(text("queue"), max_attempts=1, retention=Retention(payload="always"))
    space = {"config": config, "task_name": text("task"), "__doc__": doc}
    return msgspec.defstruct("Evil", fields, bases=(Task,), namespace=space, kw_only=True)  # type: ignore[return-value]


class Odd(Exception):
    """An error whose name is as odd as its message."""


async def filled(world: World, text: Text) -> None:
    """Put such texts wherever a job, queue, schedule, workflow or step can have one."""
    client, begun = world.client, anyio.Event()
    kind = evil_type(text)
    failure = type(text("Error"), (Odd,), {})

    async def run(task: Any, job: JobContext) -> Any:
        job.log.info(text("line"), field=text("field"))
        await job.progress(0.5, text("progress"))
        if job.id == text("held"):
            begun.set()
            await world._let_go.wait()
        if task.fail:
            raise failure(text("error") + "\n" + text("second line"))
        return {text("result"): [text("value")]}

    client.register(kind, run)
    one = kind(value=text("value"))
    bad = kind(value=text("bad"), fail=True)

    def tagged(*tasks: Any) -> Any:
        return client.add(*tasks).tags(text("tag")).key(text("key")).meta({text("meta"): text("said")})

    await tagged(one).id(text("own")).save()
    await tagged(bad).id(text("failed")).unique(text("unique")).save()
    await tagged(kind(value=text("later"))).id(text("later")).wait(3600).save()
    flow = Workflow(
        text("flow"), if_failed=kind(value=text("fallback")), on_failure=kind(value=text("callback"))
    )
    first = flow.add(one, name=text("step"))
    second = flow.add(group(bad, one), after=[first], name=text("both"))
    flow.add(one, after=[second], name=text("last"))
    await tagged(flow).save()
    await testing.run_until_idle(client, raise_errors=False, advance=False)
    await tagged(one).id(text("held")).save()
    with anyio.fail_after(10):
        await begun.wait()
        world.clock.advance(1)
        while (held := await client.jobs.get(text("held"))) is None or held.progress is None:
            await anyio.lowlevel.checkpoint()
    await client.schedule(text("schedule"), one, cron="0 3 * * *")
    await client.pause(text("queue"))


@contextlib.asynccontextmanager
async def evil_world(text: Text, **page: Any) -> AsyncIterator[World]:
    """Yield a world full of such texts, and the page on it."""
    options: dict[str, Any] = {"title": text("title"), "auth": lambda scope: Access(user=text("user"))}
    async with world_of(":memory:", allowed_hosts=["*"], **options | page) as world:
        await filled(world, text)
        yield world


# -- nothing unescaped -------------------------------------------------------------------------------


def outline(page: Element) -> list[tuple[str, tuple[str, ...]]]:
    """Return the elements of a page with the names of their attributes."""
    return [(element.tag, tuple(element.attributes)) for element in page.walk()]


KNOWN_SCHEMES = ("", "http", "https", "data")


def expect_inert(page: Document, address: str) -> None:
    """Fail if there is anything on a page that does something."""
    for element in page.walk():
        assert element.tag not in ("iframe", "object", "embed", "base", "style", "foreignobject"), address
        if element.tag == "script":
            assert not element.text
            assert "/static/" in element["src"]
        if element.tag == "img":
            assert "/static/" in element["src"]
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (address, element)
            assert name != "style", (address, element)
            if name in ("href", "src", "action", "formaction"):
                assert urlsplit(value).scheme == "", (address, element)
                assert urlsplit(value).netloc == "", (address, element)


async def everything(text: Text) -> list[tuple[str, Document]]:
    """Return all pages of a world of such texts, with those that answer to forms."""
    async with evil_world(text) as world:
        walk = await Walk(world.page.dashboard, "/", most=6).all()
        pages = list(walk.pages.items())
        for address, form in walk.forms.values():
            answer = await world.page.post(
                urljoin(address, form.action), data=dict(form.fields), headers=SAME_SITE
            )
            if answer.status_code != 303:
                pages.append((f"POST {form.action}", Document(answer.text)))
            if form.action.endswith(("/new", "/edit")):
                typed = {name: text("typed") for name, _ in form.fields}
                answer = await world.page.post(urljoin(address, form.action), data=typed, headers=SAME_SITE)
                pages.append((f"POST {form.action}", Document(answer.text)))
        odd = quote(text("x"))
        more = ["/nothing/" + odd, "/jobs/" + slug(text("x")), "/jobs?state=" + odd]
        more += [f"/jobs?queue={odd}&done={odd}&n={odd}"]
        return pages + [(path, Document((await world.page.get(path)).text)) for path in more]


PLACES = (
    "queue task own failed tag key meta error line progress result flow step schedule user title description"
    " hint default long typed choice said Error value"
).split()
"""Some of the places of which nothing says that they are shown, if they are not."""


async def test_nothing_is_unescaped() -> None:
    """Pages full of scripts have the elements and attributes that pages full of one letter have."""
    evil, plain = await everything(nasty), await everything(harmless)
    seen = "".join(page.html for _, page in evil)
    for place in PLACES:
        assert re.search(rf"{place}\\?&#34;&#39;&gt;&lt;script&gt;", seen), f"nothing shows {place} as it is"
    assert len(evil) > 25
    assert len(evil) == len(plain)
    for (address, page), (other, same) in zip(evil, plain, strict=True):
        expect_inert(page, address)
        assert outline(page) == outline(same), (address, other)
        assert "49" not in page.find("h1").text


# -- nothing changed ----------------------------------------------------------------------------------

BREATH = ("owner", "lease", "beat", "seen", "'sealed'")
"""Parts of what changes while a client breathes: names of tables, and of a row."""


def dump(file: str) -> list[str]:
    """Return all that is in a database, but for signs of life."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        lines = list(connection.iterdump())
    return [line for line in lines if not any(part in line[:120] for part in BREATH)]


async def peopled(world: World) -> None:
    """Add jobs of every state but running, and a schedule and a workflow."""
    await world.ran(Mail("a@example.org"), Mail("trouble@example.org"))
    await world.client.add(Mail("later@example.org")).id("later").wait(3600).save()
    await world.client.add(group(Mail("b@example.org"), Mail("c@example.org"))).wait(3600).save()
    await world.client.schedule("nightly", Mail("n@example.org"), cron="0 3 * * *")


@pytest.fixture
async def world_file(file: str) -> AsyncIterator[tuple[World, str]]:
    """Such a world in a file, and its path."""
    async with world_of(file, client={"workers": 3, "durability": "normal"}) as world:
        await peopled(world)
        yield world, file


async def addresses(world: World) -> dict[str, str]:
    """Return what stands in paths of routes, as it is in the world."""
    [flow] = await world.client.workflows.list()
    return {
        "{job_id}": "later", "{workflow_id}": flow.id, "{queue}": "mail", "{task}": "Mail",
        "{name}": "nightly", "{owner}": "x", "{owner_id}": "x",
    }  # fmt: skip


def paths(method: str, known: dict[str, str]) -> list[str]:
    """Return the addresses of all routes of a method."""
    found = []
    for route in ROUTES:
        path = route.path
        for name, value in known.items():
            path = path.replace(name, value)
        assert "{" not in path, path
        if route.method == method:
            found.append(path)
    return found


EVERYTHING = {"all": "1", "confirmed": "1", "id": "later", "action": "delete", "f.to": "x@example.org"}
"""A form that would do something, whatever it is sent to."""

FOREIGN: Sequence[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "SAME-ORIGIN "},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:81"},
    {"Origin": "http://evil@localhost"},
    {"Origin": "http://[localhost"},
    {"Origin": "http://evil.example", "Referer": "http://localhost/"},
]


async def test_what_other_sites_send_does_nothing(world_file: tuple[World, str]) -> None:
    world, file = world_file
    before = dump(file)
    for path in paths("POST", await addresses(world)):
        for headers in FOREIGN:
            answer = await world.page.post(path, data=EVERYTHING, headers=headers)
            assert answer.status_code == 403, (path, headers, answer.status_code)
            assert "another site" in answer.text
    assert dump(file) == before


async def test_the_same_forms_do_something_when_they_are_the_pages_own(world_file: tuple[World, str]) -> None:
    """Else the test above would say nothing."""
    world, file = world_file
    for path in paths("POST", await addresses(world)):
        before = dump(file)
        answer = await world.page.post(path, data=EVERYTHING | {"action": "run_now"}, headers=SAME_SITE)
        assert answer.status_code in (303, 200, 400, 404, 409), (path, answer.status_code, answer.text)
        if answer.status_code == 303 and "n=0" not in answer.headers["location"]:
            assert dump(file) != before, path


HOSTS = [
    "evil.example",
    "",
    "localhost.evil.example",
    "evil@localhost",
    "127.0.0.1.evil.example",
    "[::1",
    "localhost\x00",
    "x" * 3000,
]


async def test_foreign_hosts_are_told_nothing(world_file: tuple[World, str]) -> None:
    world, file = world_file
    before, known = dump(file), await addresses(world)
    for method in ("GET", "POST"):
        for path in paths(method, known):
            for host in HOSTS:
                headers = [(b"host", host.encode())]
                status, _, body = await raw(world.page.dashboard, method, path, headers=headers)
                assert status == 400, (path, host, status)
                assert b"example.org" not in body
                assert b"nightly" not in body.replace(path.encode(), b"")
    assert dump(file) == before


@pytest.mark.parametrize(
    "options",
    [
        {"read_only": True},
        {"auth": allow_all(Access(write=False))},
        {"auth": allow_all(Access(read=False))},
        {"auth": lambda scope: None},
    ],
    ids=str,
)
async def test_who_may_not_write_changes_nothing(
    world_file: tuple[World, str], options: dict[str, Any]
) -> None:
    world, file = world_file
    before, known = dump(file), await addresses(world)
    async with Browser(world.client, **options) as page:
        for path in paths("POST", known):
            answer = await page.post(path, data=EVERYTHING, headers=SAME_SITE)
            assert answer.status_code == 403, (path, answer.status_code)
        walk = await Walk(page.dashboard, "/").all() if "auth" not in options or _reads(options) else None
        assert walk is None or not [form for _, form in walk.forms.values() if form.buttons]
    assert dump(file) == before


def _reads(options: dict[str, Any]) -> bool:
    granted = options["auth"]({})
    return granted is not None and bool(granted.read)


async def test_who_may_not_see_payloads_sees_none() -> None:
    """Nor results, meta data, log lines, or what a search in them finds."""
    async with world_of(":memory:") as world:
        client = world.client

        async def run(task: Any, job: JobContext) -> str:
            job.log.info("read", what=SECRET)
            return SECRET

        kind = msgspec.defstruct(
            "Hide",
            [("word", str)],
            bases=(Task,),
            namespace={"config": QueueConfig("hide", retention=Retention(payload="always"))},
        )
        client.register(kind, run)
        await client.add(kind(SECRET)).meta({"word": SECRET}).save()
        await testing.run_until_idle(client)
        [later] = await client.add(kind(SECRET)).wait(60).meta({"word": SECRET}).save()
        await client.add(group(kind(SECRET), kind(SECRET))).wait(60).save()
        await client.schedule("hidden", kind(SECRET), cron="0 3 * * *")
        walk = await Walk(world.page.dashboard, "/", most=6).all()
        assert [page for page in walk.pages.values() if SECRET in page.html]
        async with Browser(client, auth=allow_all(Access(payloads=False))) as page:
            walk = await Walk(page.dashboard, "/", most=6).all()
            assert not [address for address, seen in walk.pages.items() if SECRET in seen.html]
            for path in (f"/jobs/{later}/edit", "/tasks/hide/Hide/new"):
                assert SECRET not in (await page.get(path)).text
            found = (await page.get(f"/jobs?text={SECRET}")).text
            assert str(later) not in found
            for form in (EVERYTHING | {"text": SECRET, "confirmed": "", "action": "delete"},):
                answer = await page.post("/jobs/act", data=form, headers=SAME_SITE)
                assert answer.status_code in (400, 403)


# -- odd requests -------------------------------------------------------------------------------------


PATHS = [
    "", "//", "///", "/./", "/../", "/jobs/..", "/jobs/../jobs", "/../../etc/passwd",
    "/static/../_dashboard.py", "/static/", "/static", "/static/x/style.css", "/static//style.css",
    "/static/0000000000000000/page.js", "//evil.example/", "//evil.example/jobs", "/\\evil.example",
    "\\", "/jobs\\", "/jobs/a\\b", "/jobs//", "/jobs//x", "/jobs/\x00", "/jobs/%00", "/jobs/%2e%2e",
    "/jobs/%2f", "/jobs/\n", "/jobs/\r\nSet-Cookie: x=1", "/jobs/ ", "/jobs/\u202e", "/jobs/工作",
    "/jobs/\udc80", "/jobs/~\udc80", "/jobs/~", "/jobs/~~", "/jobs/~A", "/jobs/~====", "/jobs/~_w",
    "/jobs/~7aCA", "/jobs/~AAAA/edit", "/jobs/" + "x" * 1_900, "/jobs/" + "x" * 100_000,
    "/" + "a/" * 900, "/workflows/~", "/workflows/\udc80/retry", "/queues/~AA", "/tasks/~AA/~AA/new",
    "/tasks//new", "/schedules/~AA", "/jobs/;a=b", "/jobs/?", "/jobs/#", "/jobs/*", "/jobs/'--",
    '/jobs/"', "/jobs/act", "jobs",
]  # fmt: skip


ROOTS = ["", "/jobs", "/a/b", "//evil", "/\u00e9\n", "/a\\b"]


async def test_odd_paths() -> None:
    """They are found not to be there, or are pages; none leads away."""
    async with world_of(":memory:") as world:
        for root in ROOTS:
            for path in PATHS:
                for method in ("GET", "POST"):
                    answer = await raw(world.page.dashboard, method, root + path, root_path=root)
                    expect_no_way_out(path, *answer)


def expect_no_way_out(path: str, status: int, headers: dict[str, str], body: bytes) -> None:
    """Fail if an answer leads anywhere else."""
    assert status in (200, 303, 400, 403, 404, 405), (path, status)
    location = headers.get("location", "/")
    assert location.startswith("/"), (path, location)
    assert not location.startswith(("//", "/\\")), (path, location)
    if status == 200 and headers["content-type"].startswith("text/html"):
        expect_inert(Document(body.decode()), path)
    assert "set-cookie" not in headers


async def test_no_file_but_assets_is_sent(page: Browser) -> None:
    for path in (
        "/static/../_dashboard.py",
        "/static/x/../../__init__.py",
        "/static/x/ui.html",
        "/static/..%2fui.html",
        "/style.css",
        "/static/style.css",
    ):
        status, _, _ = await raw(page.dashboard, path=path)
        assert status == 404, path


TARGETS = [
    "//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:x()",
    "/\nx", "/\tx", " //evil.example", "/%0d%0aSet-Cookie:x", "http:evil.example", "//",
    "/jobs\r\nX: y", "/é", "\x00/", "/\x00",
]  # fmt: skip


async def test_nothing_leads_away_after_something_was_done(world: World) -> None:
    for target in TARGETS:
        [job_id] = await world.client.add(Mail("x")).wait(60).save()
        form = {"action": "run_now", "id": job_id, "back": target}
        answer = await world.page.post("/jobs/act", data=form, headers=SAME_SITE)
        assert answer.status_code == 303
        location = answer.headers["location"]
        assert urlsplit(urljoin("http://localhost/x", location)).netloc == "localhost", (target, location)
        assert "\n" not in location
        assert "\r" not in location
        status, headers, body = await raw(
            world.page.dashboard,
            "POST",
            "/jobs/act",
            headers=[(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")],
            body=f"action=delete&id={job_id}&back={quote(target)}".encode(),
        )
        assert status == 200
        expect_inert(Document(body.decode()), target)
        assert "set-cookie" not in headers


VALUES = [
    "", "0", "-1", "9" * 12, "9" * 400, "-" + "9" * 30, "1e999", "NaN", "inf", "0x10", "1.5", "\u0663",
    "\x00", "\udc80", "' OR 1=1 --", "%", "\\", "../..", "[]", "{}", "null", "2026-13-45T99:99",
    "0001-01-01T00:00", "9999-12-31T23:59:59+23:59", "9999-12-31T23:59:59-23:59", "x" * 5_000, "\u202e",
    "a,b,,c", "<b>", "~", "bmV4dA", "eyJhIjoxfQ",
]  # fmt: skip


async def names_sent(world: World) -> set[str]:
    """Return the names of all parameters and inputs that any page has."""
    walk = await Walk(world.page.dashboard, "/", most=3).all()
    names = {"from", "before", "after", "done", "n", "back", "at", "wait", "confirmed"}
    for address, page in walk.pages.items():
        for element in page.walk():
            if element.tag in ("input", "select", "textarea", "button") and element.get("name"):
                names.add(element["name"])
            for part in urlsplit(element.get("href") or "").query.split("&"):
                names.add(part.partition("=")[0])
        names |= {part.partition("=")[0] for part in urlsplit(address).query.split("&")}
    return names - {""}


def encoded(pairs: Sequence[tuple[str, str]]) -> bytes:
    """Return fields as a browser encodes them, also what it never would."""
    return b"&".join(
        quote(name.encode("utf-8", "surrogatepass")).encode()
        + b"=" + quote(value.encode("utf-8", "surrogatepass")).encode()
        for name, value in pairs
    )  # fmt: skip


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Collect the names of the fields that are asked for."""
    asked: set[str] = set()
    with monkeypatch.context() as patch:
        for method in ("get", "raw", "all"):
            real = getattr(Fields, method)

            def spy(self: Fields, name: str, *more: Any, real: Any = real) -> Any:
                asked.add(name)
                return real(self, name, *more)

            patch.setattr(Fields, method, spy)
        yield asked


async def test_absurd_parameters_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter that a page looks at, with each absurd value: none fails."""
    tried = 0
    async with world_of(":memory:") as world:
        await peopled(world)
        app = world.page.dashboard
        for path in paths("GET", await addresses(world)):
            with watched(monkeypatch) as names:
                await raw(app, path=path)
            for value in VALUES:
                every = encoded([(name, value) for name in sorted(names)])
                status, _, _ = await raw(app, path=path, query=every)
                assert status < 500, (path, value)
            for name in sorted(names - {"done", "n"}):
                for value in VALUES:
                    tried += 1
                    status, _, _ = await raw(app, path=path, query=encoded([(name, value)]))
                    assert status < 500, (path, name, value)
    assert tried > 300


async def test_absurd_queries(page: Browser) -> None:
    for query in (
        b"&" * 10_000,
        b"a=1&" * 10_000,
        b"=" * 1000,
        b"%",
        b"%zz=%zz",
        b"a=%ff%fe",
        b"\xff\xfe",
        b"a" * 100_000,
        b"state=failed&state=&state=x",
        b";" * 500,
        b"%00=%00",
        b"state=%ED%A0%80",
    ):
        for path in ("/", "/jobs", "/workflows", "/tasks", "/queues"):
            status, _, _ = await raw(page.dashboard, path=path, query=query)
            assert status in (200, 400), (path, query[:20], status)


FORM = (b"content-type", b"application/x-www-form-urlencoded")


def chunks(count: int, size: int) -> Iterator[bytes]:
    """Yield a body in pieces."""
    yield from (b"a" * size for _ in range(count))


BODIES: list[tuple[str, bytes, Callable[[], bytes | Iterator[bytes]]]] = [
    ("10,000 fields", FORM[1], lambda: b"id=later&" * 10_000),
    ("no UTF-8", FORM[1], lambda: b"id=%ff%fe&action=delete&confirmed=1"),
    ("no ASCII", FORM[1], lambda: b"id=\xff\xfe&action=delete&confirmed=1"),
    ("a surrogate", FORM[1], lambda: b"id=%ED%B2%80&action=delete&confirmed=1"),
    ("20 MB", FORM[1], lambda: chunks(20, 1 << 20)),
    ("20 MB at once", FORM[1], lambda: b"a" * (20 << 20)),
    ("JSON", b"application/json", lambda: b'{"action": "delete", "id": "later", "confirmed": "1"}'),
    ("a file", b"multipart/form-data; boundary=x", lambda: b"--x\r\n\r\n--x--"),
    ("text", b"text/plain", lambda: b"action=delete&id=later&confirmed=1"),
    ("a type without end", b"x" * 5000, lambda: b"action=delete&id=later&confirmed=1"),
]


async def test_absurd_forms_change_nothing(world_file: tuple[World, str]) -> None:
    world, file = world_file
    before = dump(file)
    for path in paths("POST", await addresses(world)):
        for name, kind, content in BODIES:
            if name == "20 MB at once" and path != "/jobs/act":
                continue
            headers = [(b"host", b"localhost"), (b"content-type", kind)]
            status, _, _ = await raw(world.page.dashboard, "POST", path, headers=headers, body=content())
            assert status in (400, 404, 413), (path, name, status)
    assert dump(file) == before


async def test_a_form_that_ends_before_its_end_changes_nothing(world_file: tuple[World, str]) -> None:
    world, file = world_file
    before = dump(file)
    for path in paths("POST", await addresses(world)):
        body = iter([b"action=delete&id=later&confirmed=1&x="])
        status, _, _ = await raw(
            world.page.dashboard, "POST", path, headers=[(b"host", b"localhost"), FORM], body=body, cut=True
        )
        assert status == 400, path
    assert dump(file) == before


MEANT = ({"action": "run_now", "id": "later"}, {"action": "retry", "all": "1", "confirmed": "1"})


async def test_absurd_fields_of_forms() -> None:
    """Every input that there is, in every form, with every absurd value."""
    headers = [(b"host", b"localhost"), FORM]
    async with world_of(":memory:") as world:
        await peopled(world)
        names, known = await names_sent(world), await addresses(world)
        for path in paths("POST", known):
            for value in VALUES:
                for kept in ({}, *(MEANT if path == "/jobs/act" else ())):
                    pairs = [*((name, value) for name in sorted(names - kept.keys())), *kept.items()]
                    status, _, _ = await raw(
                        world.page.dashboard, "POST", path, headers=headers, body=encoded(pairs)
                    )
                    assert status < 500, (path, value)


async def test_odd_headers(page: Browser) -> None:
    host = (b"host", b"localhost")
    for more in (
        (b"cookie", b"backlite-theme=\xff\xfe; backlite-theme=<script>; ;;=;"),
        (b"if-none-match", b'*, W/"\xff' * 900),
        (b"authorization", b"Basic \xff"),
        (b"content-type", b"\xff"),
        (b"content-length", b"-1"),
        (b"accept", b"\x00"),
        (b"sec-fetch-site", b"\xff"),
        (b"origin", b"http://[::1"),
        (b"host", b"evil.example"),
    ):
        for method in ("GET", "POST"):
            status, _, body = await raw(page.dashboard, method, "/jobs", headers=[host, more])
            assert status < 500, (method, more)
            assert b"<script>;" not in body


# -- large rows --------------------------------------------------------------------------------------


def watched_sizes(client: Client) -> list[int]:
    """Return a list that gets the sizes of the payloads that are read."""
    get, listed, sizes = client.jobs.get, client.jobs.list, [0]

    async def spied_get(*args: Any, **options: Any) -> Any:
        job = await get(*args, **options)
        sizes.append(len(job.payload or b"") if job is not None else 0)
        return job

    async def spied_list(*args: Any, **options: Any) -> Any:
        jobs = await listed(*args, **options)
        sizes.extend(len(job.payload or b"") for job in jobs)
        return jobs

    client.jobs.get, client.jobs.list = spied_get, spied_list  # type: ignore[method-assign]
    return sizes


async def test_large_payloads_are_not_slow(file: str) -> None:
    """Lists do not read them, and a job's page shows their beginning."""
    async with Client(file, max_payload=100_000_000, workers=0, durability="normal") as client:
        [job_id] = await client.add(Mail("x" * (64 << 20))).wait(3600).tags("large").save()
        await client.add(Mail("small")).id("small").wait(3600).save()
        read = watched_sizes(client)
        async with Browser(client) as page:
            walk = await Walk(page.dashboard, "/", most=2, also=409).all()
            assert f"/jobs/{job_id}" in walk.pages
            for address in ("/", "/jobs", "/jobs?tag=large", f"/jobs/{job_id}", f"/jobs/{job_id}/edit"):
                begin = time.process_time()
                answer = await page.get(address)
                took = time.process_time() - begin
                assert answer.status_code == (409 if "edit" in address else 200)
                assert len(answer.content) < 200_000, address
                assert took < 0.5, (address, took)
        assert 60_000 < max(read) < 1_000_000


# -- whatever else ------------------------------------------------------------------------------------

texts = (
    st.text(max_size=12)
    | st.sampled_from(VALUES)
    | st.sampled_from(["later", "mail", "Mail", "failed", "delete", "1"])
)


async def test_nothing_that_is_sent_makes_a_page_fail() -> None:
    async with world_of(":memory:") as world:
        await peopled(world)
        await fuzzed(world)


async def fuzzed(world: World) -> None:
    """Send what Hypothesis makes."""
    names = sorted(await names_sent(world))
    known = await addresses(world)
    fields = st.lists(st.tuples(st.sampled_from(names) | st.text(max_size=5), texts), max_size=6)
    routes = st.sampled_from(ROUTES)
    inner = st.fixed_dictionaries({name: texts | st.just(value) for name, value in known.items()})
    tried: list[Any] = []

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(routes, inner, fields, fields, st.sampled_from(["GET", "POST", "HEAD"]) | st.none())
    def collect(route: Any, parts: Any, query: Any, body: Any, method: str | None) -> None:
        path = route.path
        for name, value in parts.items():
            path = path.replace(name, slug(value))
        tried.append((method or route.method, path, query, body))

    collect()
    for method, path, query, body in tried:
        headers = [(b"host", b"localhost"), FORM]
        status, _, _ = await raw(
            world.page.dashboard, method, path, query=encoded(query), headers=headers, body=encoded(body)
        )
        assert status < 500, (method, path, query, body)
