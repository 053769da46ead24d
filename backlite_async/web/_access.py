"""Who may see and do what."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from .. import InvalidType, InvalidValue

__all__ = ["Access", "Auth", "Basic", "Scope", "allow_all", "basic"]

Scope = MutableMapping[str, Any]


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may do: see the page, change something, see payloads, results, meta data and log lines.

    `user`: a name for the log of what was done.
    """

    read: bool = True
    write: bool = True
    payloads: bool = True
    user: str | None = None


Auth = Callable[[Scope], Awaitable[Access | None] | Access | None]
"""Says what the sender of a request may do, from its ASGI scope; None: nothing."""


class Basic:
    """HTTP basic authentication; see `basic`."""

    challenge = 'Basic realm="Backlite", charset="UTF-8"'

    def __init__(self, users: Mapping[str, str], access: Access) -> None:
        self._users = {name.encode(): password.encode() for name, password in users.items()}
        self._access = access

    def __call__(self, scope: Scope) -> Access | None:
        """Return what the sender may do, if name and password are right."""
        name, password = _credentials(scope)
        known = self._users.get(name, b"")
        right = hmac.compare_digest(password, known)  # whether the name is known takes no less time
        if not right or name not in self._users:
            return None
        return msgspec.structs.replace(self._access, user=name.decode(errors="replace"))


def _credentials(scope: Scope) -> tuple[bytes, bytes]:
    for key, value in scope.get("headers", ()):
        if key == b"authorization" and value[:6].lower() == b"basic ":
            try:
                name, _, password = base64.b64decode(value[6:].strip(), validate=True).partition(b":")
            except (binascii.Error, ValueError):
                break
            return name, password
    return b"", b""


def basic(
    users: Mapping[str, str] | str, password: str | None = None, *, access: Access | None = None
) -> Basic:
    """Let in who knows a name and its password, sent by HTTP basic authentication; use it over HTTPS.

    `basic("ann", "secret")` or `basic({"ann": "secret", "bob": "other"})`. `access`: what they may do; by
    default everything. Raises `InvalidValue` for an empty name or password.
    """
    if isinstance(users, str):
        users = {users: password or ""}
    if not isinstance(users, Mapping):
        raise InvalidType(f"basic() takes a name and a password, or a dict of them, not {type(users)!r}")
    if not users:
        raise InvalidValue("basic() was given nobody; give it names, each with a password")
    for name, word in users.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise InvalidType("basic() takes names and passwords, which are str")
        if not name or ":" in name or not word:
            raise InvalidValue(f"basic() was given the name {name!r}; a name has no colon, and a password")
    return Basic(users, access or Access())


def allow_all(access: Access | None = None) -> Auth:
    """Let everybody in who can reach the page, for where something in front of it decides who can."""
    granted = access or Access()

    def allow(scope: Scope) -> Access | None:
        return granted

    return allow
