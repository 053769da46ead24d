"""One request, with all that a page needs to answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from .. import Client, __version__
from .. import _log as log
from ._access import Access, Scope
from ._forms import BadRequest, Fields, Receive, query, read_form
from ._guard import header
from ._render import SECURITY, assets, page
from ._settings import Settings
from ._slugs import slug

__all__ = ["NOTICE", "NotFound", "Route", "Visit"]

NOTICE = ("done", "n", "of")
"""Parameters of a page that say what was done just now."""

THEMES = ("light", "dark")


class NotFound(Exception):
    """There is no such thing; the message says which, and why it may be gone."""


class Visit:
    """A request: who sent it, what for, and how to answer.

    `client`: open, for all that is asked and done. `params`: what stands in the path; `query`: what stands
    behind it. Pages do not look at the scope.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        settings: Settings,
        access: Access,
        root: str,
        path: str,
    ) -> None:
        self._scope, self._receive = scope, receive
        self.settings, self.access = settings, access
        self.root, self.path = root, path
        self.query = Fields.parse(scope.get("query_string", b"").decode("ascii", "replace"))
        self.params: Mapping[str, str] = {}
        self.client: Client

    # -- where things are --------------------------------------------------------------------------

    def link(self, *segments: str, **parameters: object) -> str:
        """Return the address of a page: `link("jobs", job_id, tab="errors")`; segments may hold anything."""
        path = "/".join(quote(slug(segment)) for segment in segments)
        return f"{self.root}/{path}{query(parameters)}"

    def asset(self, name: str) -> str:
        """Return the address of a file of the page's own."""
        return f"{self.root}/{assets()[name].path}"

    def here(self, **changed: object) -> str:
        """Return the address of this page with some parameters changed; None takes one away."""
        kept: dict[str, object] = {}
        for name, value in self.query.pairs:
            if name not in changed and name not in NOTICE:
                kept.setdefault(name, [])
                kept[name].append(value)  # type: ignore[attr-defined]
        return self.root + quote(self.path) + query(kept | changed)

    @property
    def back(self) -> str:
        """Where to go after something was done: a page of ours that the form names, else the overview."""
        return self.root + "/"

    def checked_back(self, target: str | None) -> str:
        """Return an address of ours that was sent as one to go back to; else that of the overview."""
        home = self.root + "/"
        odd = target is None or not target.isprintable() or "\\" in target or not target.isascii()
        if target is None or odd or not target.startswith(home) or target.startswith("//"):
            return home
        try:
            Fields.parse(target.partition("#")[0].partition("?")[2])
        except BadRequest:  # which would be said after what was asked for was done
            return home
        return target

    # -- what was sent -----------------------------------------------------------------------------

    async def form(self) -> Fields:
        """Read the form that was sent; once a request."""
        return await read_form(self._receive, header(self._scope, b"content-type") or "")

    @property
    def now(self) -> datetime:
        """The time, by the client's clock."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.client.clock.now())

    @property
    def can_write(self) -> bool:
        """Whether the sender may change something."""
        return self.access.write and not self.settings.read_only

    @property
    def theme(self) -> str | None:
        """The theme that was chosen; None: that of the system."""
        for part in (header(self._scope, b"cookie") or "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == "backlite-theme" and value in THEMES:
                return value
        return None

    def said(self, text: str | None) -> str:
        """Return what a handler has said, as far as the sender may see it."""
        from ._redact import said

        return said(self, text)

    # -- answers -----------------------------------------------------------------------------------

    def render(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page; templates know `visit`, besides what is given."""
        none_match = header(self._scope, b"if-none-match")
        return page(
            template, {"visit": self, "version": __version__, **values}, status=status, none_match=none_match
        )

    def redirect(self, target: str) -> Response:
        """Have the browser load a page of ours by GET."""
        headers = SECURITY | {"Location": target, "Cache-Control": "no-store"}
        return Response(status_code=303, headers=headers)

    def done(self, target: str, what: str, number: int, of: int | None = None) -> Response:
        """Have the browser load a page of ours that says what was done to how many, of how many if not all.

        For the words see `notice` in ui.html.
        """
        before, _, fragment = target.partition("#")
        path, _, rest = before.partition("?")
        pairs = [(name, value) for name, value in Fields.parse(rest).pairs if name not in NOTICE]
        parameters: dict[str, Any] = {}
        rest_of = [("of", str(of))] if of is not None and of > number else []
        for name, value in [*pairs, ("done", what), ("n", str(number)), *rest_of]:
            parameters.setdefault(name, []).append(value)
        return self.redirect(path + query(parameters) + ("#" + fragment if fragment else ""))

    def audit(self, action: str, **fields: object) -> None:
        """Log that somebody does something; before it is done."""
        sender = (self._scope.get("client") or ("",))[0]
        log.emit(log.PAGE_ACTION, action=action, user=self.access.user, sender=sender, **fields)


Need = Literal["read", "write", "payloads"]


class Route(NamedTuple):
    """A page: its path, as "/jobs/{job_id}", the method, what answers, and what one must be allowed."""

    method: Literal["GET", "POST"]
    path: str
    answer: Callable[[Visit], Awaitable[Response]]
    need: Need = "read"


Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
