"""What is refused before anything is looked at: foreign hosts, forms, and senders. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from ._access import Scope

__all__ = ["Refused", "check_host", "check_local", "check_site", "header"]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

FORWARDED = frozenset(
    b"cf-connecting-ip forwarded true-client-ip via x-forwarded-for x-forwarded-host x-forwarded-port"
    b" x-forwarded-proto x-forwarded-server x-real-ip".split()
)
"""Headers by which most proxies can be told; one that adds none of them cannot."""


class Refused(Exception):
    """The request is refused; `way_out` says what whoever runs the page can do about it."""

    def __init__(
        self, status: int, reason: str, way_out: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.way_out, self.headers = status, reason, way_out, headers or {}


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of this name."""
    for key, value in scope.get("headers", ()):
        if key == name:
            return bytes(value).decode("latin-1")
    return None


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without its port."""
    if host.startswith("["):
        name, closed, _ = host[1:].partition("]")
        return name.lower() if closed and _is_address(name) else ""
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_host(scope: Scope, allowed: Collection[str] | None) -> None:
    """Raise unless the Host is one of those allowed: "*" is any, "*.example.org" any below that.

    None: names of this machine, and addresses, which no foreign name can be made to point to.
    """
    name = _name_of(header(scope, b"host") or "")
    if allowed is None:
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return
    else:
        for host in allowed:
            pattern = host.lower()
            if pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:])):
                return
    raise Refused(
        400,
        f"This page does not answer to the host name {name[:100]!r}.",
        "Name the hosts that it is reached by: Dashboard(client, allowed_hosts=[...]).",
    )


def check_site(scope: Scope) -> None:
    """Raise if a request that changes something was sent by another site's page."""
    if scope["method"] in SAFE:
        return
    site = header(scope, b"sec-fetch-site")
    if site is not None:
        right = site in ("same-origin", "none")
    else:
        origin = header(scope, b"origin")
        right = origin is None or _place_of(origin) == (header(scope, b"host") or "").lower()
    if not right:
        raise Refused(
            403,
            "This was sent by a page of another site, so nothing was done.",
            "Open this page itself, and do it there.",
        )


def _place_of(origin: str) -> str:
    """Return the host and port of an Origin; "null" and what is none have none."""
    try:
        return urlsplit(origin).netloc.lower() or "null"
    except ValueError:
        return "null"


def check_local(scope: Scope) -> None:
    """Raise unless the request comes from this machine, and was not passed on by a proxy."""
    client = scope.get("client")
    forwarded = any(key in FORWARDED for key, _ in scope.get("headers", ()))
    try:
        local = client is not None and ipaddress.ip_address(client[0].partition("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local or forwarded:
        raise Refused(
            403,
            "Without auth= this page is for programs on its own machine.",
            "Say who may see it: Dashboard(client, auth=basic(name, password)), or a function of yours;"
            " auth=allow_all() if something in front of it decides.",
        )
