"""Ids and names as one segment of a path, whatever is in them. Pure."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["slug", "unslug"]

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def slug(name: str) -> str:
    """Return a name as it is, or where it has characters that paths do not take well, "~" and its base64."""
    if _PLAIN.fullmatch(name):
        return name
    coded = base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).rstrip(b"=")
    return "~" + coded.decode()


def unslug(text: str) -> str:
    """Return what a slug means; a ValueError where it means nothing."""
    if not text.startswith("~"):
        return text
    body = text[1:].encode("ascii", "strict")
    try:
        name = base64.b64decode(body + b"=" * (-len(body) % 4), b"-_", validate=True).decode("utf-8")
    except binascii.Error:
        raise ValueError("no slug") from None
    if slug(name) != text:  # what is there has one address
        raise ValueError("no slug")
    return name
