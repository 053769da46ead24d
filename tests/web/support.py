"""What tests of the page need: a world with jobs, a browser without a screen, and a reader of HTML."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

import anyio
import pytest

from backlite_async import Client, JobContext, QueueConfig, Retention, Task, testing

REASON = "the page's dependencies are not installed: pip install backlite_async[web] httpx"
for _module in ("jinja2", "starlette", "httpx"):
    pytest.importorskip(_module, reason=REASON)

if TYPE_CHECKING:
    import httpx

    from backlite_async.web import Dashboard
else:
    httpx = pytest.importorskip("httpx", reason=REASON)
    Dashboard = pytest.importorskip("backlite_async.web", reason=REASON).Dashboard

HOST = "http://localhost"
HERE = ("127.0.0.1", 50_000)
"""Where requests come from: this machine."""


START = datetime(2030, 3, 1, 12, 0, 30, tzinfo=UTC)
"""When worlds begin: a Friday, amid a minute."""


# -- a world --------------------------------------------------------------------------------------


class Mail(Task):
    """Send an e-mail.

    To whoever it is addressed to.
    """

    config: ClassVar[QueueConfig] = QueueConfig(
        "mail", max_attempts=1, retention=Retention(payload="always"), backoff=60.0
    )
    to: str
    subject: str = "hello"


class Hold(Task):
    """Run until the test lets it end."""

    config: ClassVar[QueueConfig] = QueueConfig("hold", retention=Retention(payload="always"))
    number: int = 0


class World:
    """A started client, its clock that stands still, and the page on it."""

    def __init__(self, client: Client, page: Browser) -> None:
        self.client, self.page = client, page
        assert isinstance(client.clock, testing.ManualClock)
        self.clock = client.clock
        self._begun: dict[int, anyio.Event] = {}
        self._let_go = anyio.Event()
        self._holding = 0
        client.register(Mail, self._mail)
        client.register(Hold, self._hold)

    async def _mail(self, task: Mail, job: JobContext) -> str:
        job.log.info("opened", box=task.to)
        if "trouble" in task.to:
            raise ValueError(f"no such box: {task.to}")
        return task.to

    async def _hold(self, task: Hold, job: JobContext) -> None:
        self._holding += 1
        self.begun(task.number).set()
        try:
            await self._let_go.wait()
        finally:
            self._holding -= 1

    def begun(self, number: int = 0) -> anyio.Event:
        """Return what is set once a `Hold` of this number runs."""
        return self._begun.setdefault(number, anyio.Event())

    def let_go(self) -> None:
        """Let every `Hold` end."""
        self._let_go.set()

    async def ran(self, *tasks: Task) -> list[str]:
        """Add tasks and run all there is to run, or, while a `Hold` runs, just these; return their ids."""
        ids = list(await self.client.add(*tasks).save())
        if not self._holding:
            await testing.run_until_idle(self.client, raise_errors=False, advance=False)
        with anyio.fail_after(10):
            for job_id in ids:
                await self.client.wait(job_id)
        return ids

    async def running(self, number: int = 0) -> str:
        """Add a `Hold`; return its id once it runs."""
        [job_id] = await self.client.add(Hold(number)).save()
        with anyio.fail_after(10):
            await self.begun(number).wait()
        return job_id

    async def fill(self) -> dict[str, list[str]]:
        """Add jobs of every state; return their ids by it."""
        client, ids = self.client, {}
        ids["succeeded"] = await self.ran(*[Mail(f"u{number}@example.org") for number in range(3)])
        ids["failed"] = await self.ran(Mail("trouble@example.org"), Mail("trouble@example.com"))
        ids["scheduled"] = list(await client.add(Mail("later@example.org")).wait(3600).save())
        ids["cancelled"] = list(await client.add(Mail("never@example.org")).wait(60).save())
        await client.cancel(ids["cancelled"][0])
        ids["running"] = [await self.running()]
        return ids


@asynccontextmanager
async def world_of(
    database: str, *, client: dict[str, Any] | None = None, **page: Any
) -> AsyncIterator[World]:
    """Yield a world on a database; `client`: options of it, `page`: those of `Dashboard` and `Browser`."""
    made = testing.client(database, **({"clock": testing.ManualClock(START)} | (client or {})))
    async with made, Browser(made, **page) as browser:
        world = World(made, browser)
        try:
            yield world
        finally:
            world.let_go()


# -- a browser ------------------------------------------------------------------------------------


class Browser(httpx.AsyncClient):
    """Asks a `Dashboard` as a browser on this machine would; it follows nothing by itself.

    `root_path`: where the dashboard is mounted; `address`: where requests come from; `headers`: with each.
    """

    def __init__(
        self,
        client: Client,
        *,
        root_path: str = "",
        address: tuple[str, int] | None = HERE,
        headers: Mapping[str, str] | None = None,
        host: str = HOST,
        **options: Any,
    ) -> None:
        self.dashboard = Dashboard(client, **options)
        transport = httpx.ASGITransport(
            app=self.dashboard,
            root_path=root_path,
            client=address,  # type: ignore[arg-type]
        )
        super().__init__(transport=transport, base_url=host, headers=headers)

    async def see(self, path: str, *, status: int = 200, **parameters: Any) -> Document:
        """Return what a page shows."""
        response = await self.get(path, params=parameters or None)
        return read(response, status=status)

    async def submit(self, form: Form, press: str | None = None, **changed: Any) -> httpx.Response:
        """Send a form, with some fields changed, by the button of this label; return the answer."""
        pairs = form.pairs(press, changed)
        headers = {"Sec-Fetch-Site": "same-origin"}
        if form.method == "get":
            return await self.get(f"{form.path}?{urlencode(pairs)}", headers=headers)
        data: dict[str, list[str]] = {}
        for name, value in pairs:
            data.setdefault(name, []).append(value)
        return await self.post(form.action, data=data, headers=headers)

    async def do(self, form: Form, press: str | None = None, **changed: Any) -> Document:
        """Send a form that does something; return the page that says so."""
        answer = await self.submit(form, press, **changed)
        assert answer.status_code == 303, (answer.status_code, answer.text)
        return await self.see(answer.headers["location"])


def read(response: httpx.Response, *, status: int = 200) -> Document:
    """Return what a response shows, which must be HTML of this status."""
    assert response.status_code == status, (response.status_code, response.text[:4000])
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return Document(response.text)


# -- HTML -----------------------------------------------------------------------------------------

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


class Element:
    """An element with what is in it: elements and texts."""

    def __init__(self, tag: str, attributes: Mapping[str, str], parent: Element | None = None) -> None:
        self.tag, self.attributes, self.parent = tag, dict(attributes), parent
        self.children: list[Element | str] = []

    def __repr__(self) -> str:
        said = "".join(f" {name}={value!r}" for name, value in self.attributes.items())
        return f"<{self.tag}{said}>{self.text[:200]}"

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        """Return an attribute."""
        return self.attributes.get(name)

    @property
    def classes(self) -> set[str]:
        """The element's classes."""
        return set(self.attributes.get("class", "").split())

    @property
    def text(self) -> str:
        """All text in it, with each run of blanks made one."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()
                if child.tag in BLOCKS:
                    yield " "

    def walk(self) -> Iterator[Element]:
        """Yield every element in it, in the order of the page."""
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.walk()

    def all(
        self,
        tag: str | None = None,
        *,
        id: str | None = None,  # noqa: A002 - as in HTML
        cls: str | None = None,
        text: str | None = None,
        **attributes: str,
    ) -> list[Element]:
        """Return the elements in it of a tag, id, class, whole text and attributes ("_" for "-")."""
        asked = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            element
            for element in self.walk()
            if (tag is None or element.tag == tag)
            and (id is None or element.get("id") == id)
            and (cls is None or cls in element.classes)
            and (text is None or element.text == text)
            and all(element.get(name) == value for name, value in asked.items())
        ]

    def find(self, tag: str | None = None, **asked: Any) -> Element:
        """Return the first such element; it must be there."""
        found = self.all(tag, **asked)
        assert found, f"no {tag or 'element'} {asked} in {self.outline()}"
        return found[0]

    def has(self, tag: str | None = None, **asked: Any) -> bool:
        """Return whether there is such an element."""
        return bool(self.all(tag, **asked))

    def outline(self) -> str:
        """Return what is in it, for messages."""
        return self.text[:3000]

    def rows(self) -> list[list[str]]:
        """Return the texts of the cells of a table's body, row by row."""
        body = self.find("tbody")
        return [[cell.text for cell in row.walk() if cell.tag in ("td", "th")] for row in body.all("tr")]

    def row(self, text: str) -> Element:
        """Return the first row of a table in whose text this stands."""
        found = [row for row in self.all("tr") if text in row.text]
        assert found, f"no row with {text!r} in {self.outline()}"
        return found[0]

    @property
    def links(self) -> dict[str, str]:
        """Where links go, by their texts."""
        return {link.text: link["href"] for link in self.all("a") if "href" in link.attributes}

    def forms(self) -> list[Form]:
        """Return the forms in it."""
        return [Form(element) for element in self.all("form")]

    def form(self, press: str | None = None, *, action: str | None = None) -> Form:
        """Return the first form with a button of this label, or this path of its action."""
        for form in self.forms():
            labels = [label for label, _ in form.buttons]
            if (press is None or press in labels) and (action is None or form.path == action):
                return form
        offered = [(form.path, [label for label, _ in form.buttons]) for form in self.forms()]
        raise AssertionError(f"no form {press or ''} {action or ''} among {offered}")


BLOCKS = frozenset(
    "a address article aside br button caption dd details div dl dt fieldset figcaption figure footer form h1"
    " h2 h3 h4 header hr label legend li main nav ol option p pre section summary table tbody td text th"
    " thead title tr ul".split()
)


class Form:
    """A form with its fields as they are."""

    def __init__(self, element: Element) -> None:
        self.element = element
        self.action = element.get("action") or ""
        self.path = self.action.partition("?")[0]
        self.method = (element.get("method") or "get").lower()
        self.fields = list(self._fields())
        self.buttons: list[tuple[str, tuple[str, str] | None]] = []
        for button in element.all("button"):
            if button.get("type") in (None, "submit"):
                name = button.get("name")
                sends = (name, button.get("value") or "") if name else None
                self.buttons.append((button.text or button.get("aria-label") or "", sends))

    def _fields(self) -> Iterator[tuple[str, str]]:
        for field in self.element.walk():
            name, kind = field.get("name"), field.get("type") or "text"
            if not name or "disabled" in field.attributes:
                continue
            if field.tag == "input" and kind not in ("submit", "button", "checkbox", "radio"):
                yield name, field.get("value") or ""
            elif field.tag == "input" and kind in ("checkbox", "radio") and "checked" in field.attributes:
                yield name, field.get("value") or "on"
            elif field.tag == "textarea":
                yield name, "".join(field._texts()).removeprefix("\n")
            elif field.tag == "select":
                options = field.all("option")
                chosen = [one for one in options if "selected" in one.attributes]
                for option in chosen or options[: "multiple" not in field.attributes]:
                    value = option.get("value")
                    yield name, option.text if value is None else value

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def pairs(self, press: str | None, changed: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return what is sent: its fields, those that are changed (None: without), and its button."""
        pairs = [(name, value) for name, value in self.fields if name not in changed]
        for name, value in changed.items():
            several = value if isinstance(value, (list, tuple)) else [value]
            pairs += [(name, str(one)) for one in several if one is not None]
        if press is not None:
            sends = dict(self.buttons)
            assert press in sends, f"no button {press!r} among {list(sends)}"
            if (pair := sends[press]) is not None:
                pairs.append(pair)
        return pairs


class Document(Element):
    """A page: its elements. What is not nested as it should be is an error, so are two elements of one id."""

    def __init__(self, html: str) -> None:
        super().__init__("#document", {})
        self.html = html
        _Reader(self).read(html)
        ids = [element["id"] for element in self.walk() if "id" in element.attributes]
        assert len(ids) == len(set(ids)), f"ids that are there twice: {sorted(ids)}"

    @property
    def title(self) -> str:
        """The title of its window."""
        return self.find("head").find("title").text

    @property
    def main(self) -> Element:
        """What is on it, besides what is on each page."""
        return self.find("main")

    @property
    def notice(self) -> str | None:
        """What it says was done."""
        found = self.all("p", cls="notice")
        return found[0].text if found else None

    def live(self) -> Sequence[str]:
        """Return the ids of what is kept up to date."""
        return [element["id"] for element in self.walk() if "data-live" in element.attributes]


class _Reader(HTMLParser):
    def __init__(self, document: Document) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = [document]

    def read(self, html: str) -> None:
        self.feed(html)
        self.close()
        assert len(self._open) == 1, f"never closed: {self._open[1:]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attributes that are there twice: {tag} {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs}, self._open[-1])
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> at {self.getpos()} closes {self._open[-1]!r}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)
