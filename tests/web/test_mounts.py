"""Where the page is mounted: every link, asset and form stays below that, whatever is around it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit

import anyio
import anyio.lowlevel
import pytest

from backlite_async import Client, DatabaseBusy, QueueConfig, Retention, Task, chain

from ..torture.pulse import Pulse
from .support import HERE, HOST, Browser, Mail, World, world_of
from .walking import SAME_SITE, App, Walk, raw

# isort: split
import httpx

from backlite_async.web import Dashboard, _source

Scope = MutableMapping[str, Any]


class Odd(Task):
    """What has odd names."""

    config: ClassVar[QueueConfig] = QueueConfig("a/b & c?", retention=Retention(payload="always"))
    task_name: ClassVar[str] = "task/../100%"
    text: str = "x"


@pytest.fixture
async def full() -> AsyncIterator[World]:
    """A world with something on every page, under odd names too."""
    async with world_of(":memory:") as world:
        client = world.client
        client.register(Odd, _odd)
        await world.fill()
        await client.add(chain(Mail("a"), Odd(), name="flow")).save()
        await client.schedule("at/night?", Odd(), cron="0 3 * * *")
        await client.add(Odd()).id("jobs/1 ?#%2f").wait(60).tags("a&b").save()
        yield world


async def _odd(task: Odd) -> None:
    return None


def expect_pages(walk: Walk) -> set[str]:
    """Fail unless it has seen each kind of page; return the paths of all."""
    paths = {urlsplit(address).path.removeprefix(walk.mount) for address in walk.pages}
    for name in ("/", "/jobs", "/queues", "/schedules", "/workflows", "/tasks"):
        assert name in paths, (name, sorted(paths))
    assert {address.rpartition("/")[2] for address in walk.assets} == {"icon.svg", "page.js", "style.css"}
    return paths


def expect_all(walk: Walk) -> None:
    """Fail unless it has seen all that there is."""
    paths = expect_pages(walk)
    assert any(path.startswith("/jobs/") for path in paths)
    assert any(path.startswith("/queues/") for path in paths)
    assert any(path.startswith("/schedules/") for path in paths)
    assert any(path.startswith("/workflows/") for path in paths)
    assert any(path.endswith("/new") for path in paths)
    assert len(walk.forms) > 3


# -- frameworks ------------------------------------------------------------------------------------


def under_starlette(page: App, mount: str) -> App:
    """Mount it in Starlette."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount(mount, app=page)])


def under_fastapi(page: App, mount: str) -> App:
    """Mount it in FastAPI."""
    app = pytest.importorskip("fastapi").FastAPI()
    app.mount(mount, page)
    return app  # type: ignore[no-any-return]


def under_litestar(page: App, mount: str) -> App:
    """Mount it in Litestar, which tells nothing of it."""
    litestar = pytest.importorskip("litestar")

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await page(scope, receive, send)

    serve.__annotations__ = {
        "scope": "litestar.types.Scope", "receive": "litestar.types.Receive", "send": "litestar.types.Send",
        "return": None,
    }  # fmt: skip
    serve.__globals__["litestar"] = litestar
    pytest.importorskip("litestar.types")
    handler = litestar.asgi(mount, is_mount=True, copy_scope=True)(serve)
    return litestar.Litestar(route_handlers=[handler], openapi_config=None, logging_config=None)  # type: ignore[no-any-return]


def under_quart(page: App, mount: str) -> App:
    """Mount it beside Quart, as its documentation does."""
    quart = pytest.importorskip("quart")
    dispatcher = pytest.importorskip("hypercorn.middleware").DispatcherMiddleware
    return dispatcher({mount: page, "/": quart.Quart("app")})  # type: ignore[no-any-return]


FRAMEWORKS = [under_starlette, under_fastapi, under_litestar, under_quart]


@pytest.mark.parametrize("mount", ["/", "/jobs", "/a/b/jobs"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_all_stays_below_the_mount(
    full: World, framework: Callable[[App, str], App], mount: str
) -> None:
    if framework is under_quart and mount == "/":
        mount = "/jobs/"  # the root is Quart's own
    told = {"base_path": mount} if framework is under_litestar else {}
    page = Dashboard(full.client, **told)  # type: ignore[arg-type]
    whole = (framework, mount) in ((under_starlette, "/a/b/jobs"), (under_litestar, "/jobs"))
    walk = await Walk(framework(page, mount), mount, limit=1000 if whole else 12).all()
    expect_all(walk) if whole else expect_pages(walk)


@pytest.mark.parametrize("page", ["alone", "mounted"])
async def test_behind_a_proxy_that_strips_a_prefix_and_a_server_that_knows(full: World, page: str) -> None:
    """As uvicorn --root-path does: it puts the prefix in front of the path again."""
    app = Dashboard(full.client)
    inner = app if page == "alone" else under_starlette(app, "/jobs")
    mount = "/prefix" if page == "alone" else "/prefix/jobs"

    async def server(scope: Scope, receive: Any, send: Any) -> None:
        stripped = scope["path"].removeprefix("/prefix")
        await inner({**scope, "root_path": "/prefix", "path": "/prefix" + stripped}, receive, send)

    expect_pages(await Walk(server, mount, limit=12).all())


async def test_behind_a_proxy_that_strips_a_prefix_and_a_server_that_does_not_know(full: World) -> None:
    app = Dashboard(full.client, base_path="/prefix/jobs")

    async def server(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["path"].startswith("/prefix/jobs")
        path = scope["path"].removeprefix("/prefix/jobs")
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    expect_all(await Walk(server, "/prefix/jobs").all())


@pytest.mark.parametrize(
    ("root", "path", "places"),
    [
        ("/q", "/q/queues", ("/q", "/queues")),
        ("/q", "/queues", ("/q", "/queues")),
        ("/q", "/q", ("/q", "/")),
        ("", "/queues/", ("", "/queues")),
        ("//evil.example", "/queues", ("", "/queues")),
        ("/a b%?", "/a b%?/queues", ("/a%20b%25%3F", "/queues")),
    ],
)
def test_a_longer_name_is_not_below_a_shorter(root: str, path: str, places: tuple[str, str]) -> None:
    """Some servers take the mount off the path, and some do not."""
    page = Dashboard(Client(":memory:"))
    assert page._places({"root_path": root, "path": path}) == places


@pytest.mark.parametrize("options", [{"root_path": "/jöbs ünd €"}, {"base_path": "/jöbs%20ünd%20€"}])
async def test_a_mount_may_have_any_name(file: str, options: dict[str, Any]) -> None:
    """What is done there is done, and said."""
    async with Client(file, workers=0) as client, Browser(client, **options) as page:
        [job_id] = await client.add(Mail("x@example.org")).wait(60).save()
        form = (await page.see(f"/jobs/{job_id}")).form("Run now")
        assert form.action == quote("/jöbs ünd €/jobs/act")
        answer = await page.post("/jobs/act", data=dict(form.fields))
        assert answer.status_code == 303
        assert answer.headers["location"] == quote(f"/jöbs ünd €/jobs/{job_id}") + "?done=run_now&n=1"


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_forms_come_back_below_the_mount(full: World, framework: Callable[[App, str], App]) -> None:
    told = {"base_path": "/a/b"} if framework is under_litestar else {}
    app = framework(Dashboard(full.client, **told), "/a/b")  # type: ignore[arg-type]
    walk = await Walk(app, "/a/b", most=1).all()
    transport = httpx.ASGITransport(app=app, client=HERE)
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        seen = Counter[int]()
        for address, form in walk.forms.values():
            data = dict(form.fields)
            answer = await client.post(urljoin(address, form.action), data=data, headers=SAME_SITE)
            seen[answer.status_code] += 1
            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/a/b/")
                assert (await client.get(answer.headers["location"])).status_code in (200, 404)
        assert set(seen) <= {200, 303, 400, 409}
        assert seen[303] >= 1


# -- several, and clients that are not started -------------------------------------------------------


async def test_several_pages_in_one_application(tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    first, second = Client(str(tmp_path / "a.db"), workers=0), Client(str(tmp_path / "b.db"), workers=0)
    async with first, second:
        await first.add(Mail("first@example.org")).save()
        await second.add(Mail("second@example.org")).save()
        pages = [
            Mount("/one", app=Dashboard(first, title="One")),
            Mount("/two", app=Dashboard(second, title="Two")),
        ]
        transport = httpx.ASGITransport(app=Starlette(routes=pages), client=HERE)
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
            seen = [(await client.get(f"/{which}/jobs")).text for which in ("one", "two")]
    assert "/one/jobs/" in seen[0]
    assert "One" in seen[0]
    assert "/two/" not in seen[0]
    assert "/two/jobs/" in seen[1]


async def made(file: str) -> str:
    """Make a database with one job; return its id."""
    async with Client(file, workers=0) as client:
        [job_id] = await client.add(Mail("x@example.org")).save()
    return job_id


def opened(page: Browser) -> Client | None:
    """Return the client that the page has opened for itself."""
    own = page.dashboard._source._own
    return None if own is None else own.client


async def test_a_client_that_nobody_has_started(file: str) -> None:
    """It is opened at the first request, and closed when nobody has looked for a while."""
    job_id = await made(file)
    client = Client(file)
    async with Browser(client) as page:
        source = page.dashboard._source
        assert opened(page) is None
        assert job_id in (await page.see("/jobs")).html
        own = opened(page)
        assert own is not None
        assert own.is_open_here
        await page.see("/")
        assert opened(page) is own
        source._close_soon()  # what the timer calls
        await asyncio.wait(source._closing)
        assert not own.is_open
        assert job_id in (await page.see("/jobs")).html
        await source.close()
    assert not client.is_open


async def test_it_is_closed_when_nobody_has_looked_for_a_while(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(file)
    monkeypatch.setattr(_source, "IDLE", 0.0)
    async with Browser(Client(file)) as page:
        await page.see("/jobs")
        with anyio.fail_after(10):
            while (own := opened(page)) is not None or page.dashboard._source._closing:
                await anyio.lowlevel.checkpoint()
    assert own is None


async def test_it_is_not_closed_while_a_request_takes_long(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when the application's client has started meanwhile."""
    job_id = await made(file)
    monkeypatch.setattr(_source, "IDLE", 0.0)
    client = Client(file, workers=0)
    async with Browser(client) as page:
        source = page.dashboard._source
        own = await source.client()
        await page.see("/jobs")
        await anyio.lowlevel.checkpoint()
        async with client:
            await page.see("/jobs")
            assert await own.jobs.get(job_id) is not None
            source.left(own)
            assert opened(page) is None  # at once: there is another to look through
            await source.close()
            assert not own.is_open


async def test_a_new_look_begins_before_it_is_closed(file: str) -> None:
    """Then it stays open, however long that takes."""
    await made(file)
    async with Browser(Client(file)) as page:
        source = page.dashboard._source
        await page.see("/jobs")
        timer = source._timer
        assert timer is not None
        own = await source.client()
        assert timer.cancelled()
        source.left(own)
        await source.close()
        assert not own.is_open


async def test_requests_at_once_open_it_once(file: str) -> None:
    await made(file)
    opened = []
    client = Client(file)
    observer = client.observer
    client.observer = lambda: opened.append(observer()) or opened[-1]  # type: ignore[func-returns-value,method-assign]
    async with Browser(client) as page:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(page.see, "/jobs")
        await page.dashboard._source.close()
    assert len(opened) == 1


async def test_a_file_that_was_replaced_is_opened_anew(tmp_path: Path, file: str) -> None:
    """A backup is put in its place while somebody looks: nobody can stop and start the page's own client."""
    await made(file)
    backup = tmp_path / "backup.db"
    job_id = await made(str(backup))
    async with Browser(Client(file)) as page:
        assert job_id not in (await page.see("/jobs")).html
        backup.replace(file)
        assert "replaced" in (await page.see("/jobs", status=503)).text
        assert job_id in (await page.see("/jobs")).html
        await page.dashboard._source.close()


async def test_a_client_that_starts_later_is_used_from_then_on(file: str) -> None:
    await made(file)
    client = Client(file, workers=0)
    async with Browser(client) as page:
        await page.see("/jobs")
        own = opened(page)
        assert own is not None
        async with client:
            assert await page.dashboard._source.client() is client
            await page.see("/jobs")
            assert opened(page) is None
            await page.dashboard._source.close()
            assert not own.is_open
        await page.see("/jobs")
        assert opened(page) is not None
        await page.dashboard._source.close()


async def test_the_clients_loop_may_be_another(file: str) -> None:
    """The application runs its client in a thread of its own."""
    started, stop = threading.Event(), threading.Event()
    client = Client(file, workers=0)

    async def application() -> None:
        async with client:
            await client.add(Mail("x@example.org")).save()
            started.set()
            await anyio.to_thread.run_sync(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(application(),))
    thread.start()
    try:
        assert await anyio.to_thread.run_sync(started.wait, 10)
        async with Browser(client) as page:
            assert (await page.see("/jobs")).find("tbody").all("tr")
            await page.dashboard._source.close()
    finally:
        stop.set()
        thread.join(10)


def test_one_page_in_several_loops_after_each_other(file: str) -> None:
    asyncio.run(made(file))
    client = Client(file)
    page = Browser(client)

    async def look() -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(3):  # which wait for each other
                    group.start_soon(page.see, "/jobs")
            await page.dashboard._source.close()

    asyncio.run(look())
    asyncio.run(look())


PROGRAM = """
import asyncio, sys, httpx
from backlite_async import Client
from backlite_async.web import Dashboard, _source

async def main():
    app = Dashboard(Client(sys.argv[1]))
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/jobs")).status_code == 200

asyncio.run(main())
import time
print(time.monotonic())
"""


def test_a_process_without_lifespan_ends_at_once(file: str, tmp_path: Path) -> None:
    asyncio.run(made(file))
    with Pulse(tmp_path) as pulse:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM + "sys.stdout.flush()", file],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        now = time.monotonic()
    assert ended.returncode == 0, ended.stderr
    assert pulse.beats().charged(float(ended.stdout), now) < 2
    assert "Traceback" not in ended.stderr


# -- databases that cannot be read -------------------------------------------------------------------


async def refused(client: Client, *said: str) -> None:
    """Fail unless every page says why there is nothing, and what to do."""
    async with Browser(client) as page:
        for path in ("/", "/jobs", "/tasks", "/workflows/x"):
            seen = await page.see(path, status=503)
            for word in said:
                assert word in seen.text, seen.text
            assert "Traceback" not in seen.html
            assert "SELECT" not in seen.html
        await page.dashboard._source.close()


async def test_a_store_in_memory_that_is_not_started() -> None:
    await refused(Client(":memory:"), "start it")


async def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "nothing.db"
    await refused(Client(str(file)), "install")
    await refused(Client(str(tmp_path / "no" / "where.db")), "no")


async def test_a_database_without_a_schema(tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "other.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    await refused(Client(str(file)), "install")


async def test_a_database_of_a_newer_schema(file: str) -> None:
    import sqlite3

    await made(file)
    connection = sqlite3.connect(file)
    [(name,)] = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%schema%'"
    ).fetchall()[:1]
    connection.execute(f"UPDATE {name} SET version = version + 1000")
    connection.commit()
    connection.close()
    await refused(Client(file), "newer")


async def test_what_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "text.db"
    file.write_text("this is no database" * 1000)
    await refused(Client(str(file)), "database")


async def test_a_database_that_is_busy(page: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is over in a moment: no failure of the page, and said without its details."""

    async def busy() -> Client:
        raise DatabaseBusy("/srv/app.db is locked")

    monkeypatch.setattr(page.dashboard._source, "client", busy)
    seen = await page.see("/jobs", status=503)
    assert "in a moment" in seen.text
    assert "/srv" not in seen.html


# -- methods, and the lifespan -------------------------------------------------------------------------


async def test_head_is_get_without_a_body(page: Browser) -> None:
    for path in ("/tasks", "/workflows", "/nothing"):
        _, _, body = await raw(page.dashboard, "HEAD", path)
        assert body == b""
        head, get = await page.head(path), await page.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["etag"] == get.headers["etag"]
        assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_other_methods_are_not_for_pages(page: Browser, method: str) -> None:
    assert (await page.request(method, "/")).status_code == 405
    assert (await page.request(method, "/jobs", headers=SAME_SITE)).status_code == 405
    assert (await page.request(method, "/nothing")).status_code == 404
    answer = await page.post("/tasks", headers=SAME_SITE)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


async def test_the_lifespan_alone(file: str) -> None:
    """Served alone: what it has opened is closed before the server's shutdown is complete."""
    await made(file)
    app = Dashboard(Client(file))
    transport = httpx.ASGITransport(app=app, client=HERE)
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        if len(incoming) == 1:
            async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
                assert (await client.get("/jobs")).status_code == 200
            own.append(app._source._own and app._source._own.client)
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])
        assert not own or not own[0].is_open

    own: list[Any] = []
    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(own) == 1


async def test_a_websocket_is_closed(page: Browser) -> None:
    sent = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await page.dashboard({"type": "websocket", "path": "/"}, receive, send)
    assert sent == ["websocket.close"]
