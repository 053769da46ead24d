"""What whoever mounts the page has said, checked where it is said."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import msgspec

from .. import InvalidType, InvalidValue
from ._access import Auth, Basic, allow_all, basic

__all__ = ["Redact", "Settings", "checked"]

Redact = Callable[[str, Any], Any]
"""Takes the name of a task type and a payload, result or meta data as JSON values; returns what to show."""

MOST_ROWS = 200


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `Dashboard`."""

    auth: Auth | None
    base_path: str | None
    read_only: bool
    redact: Redact | None
    title: str
    allowed_hosts: tuple[str, ...] | None
    page_size: int


def checked(
    *,
    auth: object,
    base_path: object,
    read_only: object,
    redact: object,
    title: object,
    allowed_hosts: object,
    page_size: object,
) -> Settings:
    """Return settings, or say what is wrong with the first that cannot be meant."""
    if auth is not None and not callable(auth):
        raise InvalidType(
            f"auth={auth!r} must be basic(name, password), allow_all(), or a function of the ASGI scope"
        )
    if auth is basic or auth is allow_all:
        raise InvalidType(
            f"auth={auth!r} is not called: write auth=basic(name, password), or auth=allow_all()"
        )
    if redact is not None and not callable(redact):
        raise InvalidType(f"redact={redact!r} must be a function of a task type's name and a value")
    if title is not None and not isinstance(title, str):
        raise InvalidType(f"title={title!r} must be a str")
    if isinstance(page_size, bool) or not isinstance(page_size, int):
        raise InvalidType(f"page_size={page_size!r} must be a whole number")
    if not 1 <= page_size <= MOST_ROWS:
        raise InvalidValue(f"page_size={page_size} must lie between 1 and {MOST_ROWS}")
    return Settings(
        auth=cast("Auth | None", auth),
        base_path=_path(base_path),
        read_only=bool(read_only),
        redact=redact,
        title=title or "Backlite",
        allowed_hosts=_hosts(allowed_hosts, auth),
        page_size=page_size,
    )


def _path(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidType(f"base_path={value!r} must be a str, such as '/jobs'")
    if value not in ("", "/") and (not value.startswith("/") or "//" in value or not value.isprintable()):
        raise InvalidValue(f"base_path={value!r} must begin with one '/', as '/jobs' does")
    return value.rstrip("/")


def _hosts(value: object, auth: object) -> tuple[str, ...] | None:
    """Return the hosts that are allowed; None: this machine's names and addresses.

    With `basic` any: a foreign page that has its name point here has nobody's password. What a function
    of the application goes by is not known: it may be an address, which a foreign page has as well.
    """
    if value is None:
        return ("*",) if isinstance(auth, Basic) else None
    if isinstance(value, str) or not isinstance(value, Collection):
        raise InvalidType(f"allowed_hosts={value!r} must be a list of host names")
    for host in value:
        if not isinstance(host, str):
            raise InvalidType(f"allowed_hosts has {host!r}; host names are str")
        if not host or "/" in host or " " in host:
            raise InvalidValue(f"allowed_hosts has {host!r}; write a name without scheme, port and path")
    return tuple(value)
