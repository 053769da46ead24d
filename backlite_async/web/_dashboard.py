"""The ASGI application: checks who asks for what, finds the page, and answers whatever goes wrong."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from typing import cast

from starlette.responses import Response

from .. import (
    BackliteError,
    Client,
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUnusable,
    InvalidState,
    InvalidType,
    InvalidValue,
    JobNotFound,
    PayloadError,
    ScheduleNotFound,
)
from .. import _log as log
from .._failure import describe, short_traceback
from ._access import Access, Auth, Scope
from ._forms import BadRequest, Receive
from ._guard import Refused, check_host, check_local, check_site, header
from ._pages import ROUTES
from ._render import SECURITY, assets
from ._settings import Redact, checked
from ._slugs import unslug
from ._source import Source
from ._visit import NotFound, Route, Send, Visit

__all__ = ["Dashboard"]

LONGEST_PATH = 2_000


class NotReady(Exception):
    """There is nothing to read from yet."""


class Dashboard:
    """The page of a client's database, as an ASGI application: `app.mount("/jobs", Dashboard(client))`.

    - `auth`: who may see and do what: `basic(...)`, `allow_all()`, or a function (or coroutine function) of
      the ASGI scope that returns an `Access`, or None. None: programs on this machine only.
    - `base_path`: the path under which it is reached, where the framework does not tell (Litestar, or a
      proxy that takes it off); None: what `root_path` says.
    - `read_only`: nothing can be changed, whoever asks.
    - `redact`: a function of a task type's name and a payload, result or meta data as JSON values, which
      returns what may be shown. What is called password, token and the like is hidden in any case.
    - `title`: what stands on every page.
    - `allowed_hosts`: host names that it answers to; "*.example.org" is any below that, "*" any. None:
      names of this machine, and addresses; with `basic(...)`, any.
    - `page_size`: rows of a list.

    It needs no start and no lifespan: it reads through the client once that is started, and until then
    opens the database at the first request, for as long as somebody looks.
    """

    def __init__(
        self,
        client: Client,
        *,
        auth: Auth | None = None,
        base_path: str | None = None,
        read_only: bool = False,
        redact: Redact | None = None,
        title: str | None = None,
        allowed_hosts: Collection[str] | None = None,
        page_size: int = 25,
    ) -> None:
        if not isinstance(client, Client):
            raise InvalidType(f"Dashboard() takes a Client, not {client!r}")
        self._settings = checked(
            auth=auth,
            base_path=base_path,
            read_only=read_only,
            redact=redact,
            title=title,
            allowed_hosts=allowed_hosts,
            page_size=page_size,
        )
        self._source = Source(client)
        self._routes = [(_pattern(route.path), route) for route in ROUTES]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the lifespan too, where it is served alone."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            response = await self._respond(scope, receive)
            if scope["method"] == "HEAD":
                response.body = b""
            await response(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            over = message["type"] == "lifespan.shutdown"
            if over:
                await self._source.close()  # before it is said: then the loop may end
            await send({"type": message["type"] + ".complete"})
            if over:
                return

    # -- one request -------------------------------------------------------------------------------

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        root, path = self._places(scope)
        nobody = Access(read=False, write=False, payloads=False)
        settings = self._settings
        visit = None
        try:
            if len(path) > LONGEST_PATH:
                raise NotFound("There is no page of such a long address.")
            if (asset := self._asset(scope, path)) is not None and scope["method"] in ("GET", "HEAD"):
                return asset
            visit = Visit(scope, receive, settings=settings, access=nobody, root=root, path=path)
            check_host(scope, settings.allowed_hosts)
            check_site(scope)
            visit.access = access = await self._access(scope)
            if not access.read:
                raise Refused(403, "You may not see this page.", "Ask whoever runs it.")
            return await self._answer(visit, scope["method"])
        except Exception as error:
            if visit is None:
                empty = {**scope, "query_string": b""}
                visit = Visit(empty, receive, settings=settings, access=nobody, root=root, path=path)
            return self._explain(visit, error)

    def _places(self, scope: Scope) -> tuple[str, str]:
        """Return the path under which we are, and the one below it that is asked for."""
        above = str(scope.get("root_path") or "").rstrip("/")
        path = str(scope["path"])
        if above and (path == above or path.startswith(above + "/")):
            path = path[len(above) :]
        root = above if self._settings.base_path is None else self._settings.base_path
        if not root.isprintable() or "\\" in root or root.startswith("//"):
            root = ""
        return root, "/" + path.strip("/")

    def _asset(self, scope: Scope, path: str) -> Response | None:
        """Return a file of ours: it holds nothing that is anybody's."""
        if not path.startswith("/static/"):
            return None
        asset = assets().get(path.rpartition("/")[2])
        if asset is None or path != "/" + asset.path:
            raise NotFound("There is no such file.")
        return asset.response(header(scope, b"accept-encoding"))

    async def _access(self, scope: Scope) -> Access:
        auth = self._settings.auth
        if auth is None:
            check_local(scope)
            return Access()
        granted = auth(scope)
        if inspect.isawaitable(granted):
            granted = await granted
        if granted is None:
            asks = hasattr(auth, "challenge")
            raise Refused(401 if asks else 403, "You may not see this page.", "Sign in, and come again.")
        if not isinstance(granted, Access):
            raise TypeError(f"auth= returned {type(granted)!r}; it must return an Access or None")
        return granted

    async def _answer(self, visit: Visit, method: str) -> Response:
        method = "GET" if method == "HEAD" else method
        methods = set()
        for pattern, route in self._routes:
            if (match := pattern.fullmatch(visit.path)) is None:
                continue
            methods.add(route.method)
            if route.method != method:
                continue
            try:
                visit.params = {name: unslug(text) for name, text in match.groupdict().items()}
            except ValueError:
                continue
            self._check_need(visit, route)
            try:
                visit.client = await self._source.client()
            except InvalidState as error:
                raise NotReady(str(error)) from error
            try:
                return await route.answer(visit)
            except DatabaseReplaced:
                self._source.lost(visit.client)
                raise
            finally:
                self._source.left(visit.client)
        if methods and method not in methods:
            raise Refused(
                405,
                f"{method[:20]} is not for this page.",
                "Go back to where you were.",
                {"Allow": ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))},
            )
        raise NotFound("There is no such page.")

    def _check_need(self, visit: Visit, route: Route) -> None:
        if route.need == "write" and not visit.can_write:
            if self._settings.read_only:
                raise Refused(403, "This page is read-only, so nothing was done.", "Use the command line.")
            raise Refused(403, "You may look, but not change anything.", "Ask whoever runs it.")
        if route.need == "payloads" and not visit.access.payloads:
            raise Refused(403, "You may not see payloads.", "Ask whoever runs it.")

    # -- what went wrong ---------------------------------------------------------------------------

    def _explain(self, visit: Visit, error: Exception) -> Response:
        """Return a page that says what is wrong, and what can be done; of surprises it says little."""
        if isinstance(error, Refused):
            response = self._problem(visit, error.status, error.reason, error.way_out)
            response.headers.update(error.headers)
            challenge = getattr(self._settings.auth, "challenge", None)
            if error.status == 401 and challenge is not None:
                response.headers["WWW-Authenticate"] = challenge
            return response
        if isinstance(error, NotFound):
            return self._problem(visit, 404, str(error), "")
        if isinstance(error, (JobNotFound, ScheduleNotFound)):
            return self._problem(visit, 404, str(error), "")
        if isinstance(error, (BadRequest, InvalidValue, InvalidType, PayloadError)):
            return self._problem(visit, 400, _sentence(str(error)), "Go back, and put it right.")
        if isinstance(error, (DatabaseBusy, DatabaseUnavailable)):
            return self._problem(
                visit, 503, "The database cannot be used just now.", "Try again in a moment."
            )
        if isinstance(error, (DatabaseUnusable, NotReady)):
            return self._problem(visit, 503, str(error), "")
        if isinstance(error, BackliteError):
            return self._problem(visit, 409, str(error), "")
        log.emit(
            log.PAGE_FAILED,
            path=visit.path,
            error=describe(error),
            traceback=short_traceback(error),
        )
        return self._problem(
            visit, 500, "This page has failed.", "What happened is in the log of its process: page.failed."
        )

    def _problem(self, visit: Visit, status: int, reason: str, way_out: str) -> Response:
        try:
            return visit.render("problem.html", status=status, code=status, reason=reason, way_out=way_out)
        except Exception:  # whatever is wrong with the page itself, this can be said
            text = f"{status}: {reason} {way_out}\n"
            return Response(text.encode("utf-8", "replace"), status, SECURITY, media_type="text/plain")


def _sentence(text: str) -> str:
    """Return what begins in capitals, unless by the name of what is wrong."""
    return text if re.match(r"\w+[=(]", text) else text[:1].upper() + text[1:]


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a route's path: {name} is one segment."""
    parts = cast("Sequence[str]", re.split(r"\{(\w+)\}", path))
    return re.compile(
        "".join(f"(?P<{part}>[^/]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts))
    )
