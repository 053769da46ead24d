"""Follows all links of all pages, and sends what no browser would."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from .support import HERE, HOST, Document, Form

# isort: split
import httpx

App = Callable[..., Any]

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser sends with a form of the page itself."""


class Walk:
    """Follows all links of all pages, asset by asset, and counts what it has seen.

    `most`: how many addresses of a shape it follows, such as /jobs/{id}; `limit`: how many pages in all;
    `also`: what may be answered beside 200.
    """

    def __init__(
        self, app: App, mount: str, *, most: int = 1, limit: int = 1000, also: int = 200, **transport: Any
    ) -> None:
        self.mount = mount.rstrip("/")
        self.transport = httpx.ASGITransport(app=app, client=HERE, **transport)
        self.most, self.limit, self.expected = most, limit, (200, also)
        self.shapes: Counter[str] = Counter()
        self.pages: dict[str, Document] = {}
        self.assets: set[str] = set()
        self.forms: dict[str, tuple[str, Form]] = {}

    async def all(self) -> Walk:
        """Go everywhere from the overview on."""
        async with httpx.AsyncClient(transport=self.transport, base_url=HOST) as client:
            todo = [self.mount + "/"]
            for address in todo:
                todo += await self._visit(client, address)
        return self

    async def _visit(self, client: httpx.AsyncClient, address: str) -> list[str]:
        path = urlsplit(address).path
        assert (path + "/").startswith(self.mount + "/"), f"{address} leads out of {self.mount}"
        if address in self.pages or address in self.assets or not self._wanted(address):
            return []
        answer = await client.get(address)
        assert answer.status_code in self.expected, (address, answer.status_code, answer.text[:3000])
        if not answer.headers["content-type"].startswith("text/html"):
            self.assets.add(address)
            return []
        page = self.pages[address] = Document(answer.text)
        for form in page.forms():
            action = urljoin(address, form.action or address)
            assert action.startswith(self.mount + "/"), (address, action)
            if form.method == "post":
                self.forms.setdefault(re.sub(r"[^/]*\d[^/]*", "*", action), (address, form))
            for name, value in form.fields:
                assert name != "back" or value.startswith(self.mount + "/"), (address, value)
        found = [one.get("href") or one.get("src") or "" for one in page.walk()]
        return [urljoin(address, one).partition("#")[0] for one in found if one and not one.startswith("#")]

    def _wanted(self, address: str) -> bool:
        parts = urlsplit(address)
        names = re.findall(r"(\w+)=", parts.query)
        path = parts.path.removeprefix(self.mount)
        shape = re.sub(r"[^/]*[\d~][^/]*", "*", path) + "?" + ",".join(sorted(names))
        if path.startswith("/static/"):
            return True
        if len(self.pages) >= self.limit:
            return False
        self.shapes[shape] += 1
        return self.shapes[shape] <= self.most


async def raw(
    app: Any,
    method: str = "GET",
    path: str = "/",
    *,
    query: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = ((b"host", b"localhost"),),
    body: bytes | Iterator[bytes] = b"",
    **scope: Any,
) -> tuple[int, dict[str, str], bytes]:
    """Send what no client library would send; return status, headers and body."""
    chunks = iter([body]) if isinstance(body, bytes) else body
    sent: list[Any] = []

    async def receive() -> Any:
        chunk = next(chunks, None)
        if chunk is None:
            return {"type": "http.disconnect"} if scope.get("cut") else {"type": "http.request", "body": b""}
        return {"type": "http.request", "body": chunk, "more_body": not isinstance(body, bytes)}

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {
        "type": "http", "method": method, "path": path, "query_string": query, "headers": [*headers],
        "client": HERE, "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app({**whole, **scope}, receive, send)
    told = {key.decode(): value.decode("latin-1") for key, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])
