"""What travels with a job from where it was added to its handler: in its meta data, under one key.

So it is stored, kept and copied as those are, and no store knows of it. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["KEY", "MOST_TEXT", "carried", "encoded", "joined", "only", "parted"]

KEY = "~context"
"""The key of meta data that is not the user's."""

MOST_TEXT = 1000
"""Characters of each value that are carried."""

_BEGIN = f'{{"{KEY}":'
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encoded(trace: dict[str, str], said: dict[str, Any]) -> str | None:
    """Return a trace's context and what was said for log lines as JSON; None: there is nothing to carry.

    Values are texts, numbers, True, False and None; whatever else there is becomes a text.
    """
    context: dict[str, Any] = {**trace}
    if said:
        context["log"] = {name: _plain(value) for name, value in said.items()}
    return _encode(context).decode() if context else None


def joined(meta: str | None, context: str | None) -> str | None:
    """Return meta data with a context."""
    if context is None:
        return meta
    return f"{_BEGIN}{context}}}" if meta is None else f"{_BEGIN}{context},{meta[1:]}"


def parted(meta: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return meta data without the context, and that, or what was stored in its place."""
    if meta is None:
        return {}, {}
    found = _decode(meta)
    context = found.pop(KEY, None) if isinstance(found, dict) else None
    return found, context if isinstance(context, dict) else {}


def carried(meta: str | None) -> dict[str, Any] | None:
    """Return the context in meta data; None: there is none."""
    if meta is None or not meta.startswith(_BEGIN):
        return None
    try:
        return parted(meta)[1]
    except (msgspec.MsgspecError, ValueError, RecursionError):  # somebody has written into the database
        return None


def only(meta: str | None) -> str | None:
    """Return meta data of which nothing is left but the context."""
    context = carried(meta)
    return f"{_BEGIN}{_encode(context).decode()}}}" if context else None


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, float) and value - value == 0:
        return float(value)
    try:
        text = str(value)[:MOST_TEXT]
    except Exception:  # a property of the application's
        return f"<{type(value).__name__}>"
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
