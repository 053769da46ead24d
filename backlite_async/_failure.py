"""An error as text: what is stored of it and what is logged, never the error itself."""

from __future__ import annotations

import os
import traceback

from ._outcome import Discard

__all__ = ["describe", "short_traceback", "storable"]

ERROR_LIMIT = 16_384
"""Characters of an error's text that are kept."""

FRAMES = 5
"""Frames of a traceback that are logged."""

_PACKAGE = os.path.dirname(__file__)


def describe(error: BaseException) -> str:
    """Return an error as text: its type, its message, its cause; bounded, storable, never raising."""
    if isinstance(error, Discard) and error.reason:
        return storable(error.reason)
    text = _one(error)
    cause = error.__cause__
    if cause is not None:
        text += f" (from {_one(cause)})"
    if isinstance(error, BaseExceptionGroup):
        text += ": " + "; ".join(_one(inner) for inner in error.exceptions[:10])
    return storable(text)


def _one(error: BaseException) -> str:
    name = type(error).__qualname__
    try:
        message = str(error)[:ERROR_LIMIT]
    except BaseException as broken:  # a user's __str__, which may do anything
        message = f"<its message cannot be shown: {type(broken).__qualname__}>"
    return f"{name}: {message}" if message else name


def storable(text: str, limit: int = ERROR_LIMIT) -> str:
    """Return text that any database takes: bounded, without lone surrogates and NUL."""
    text = text[: limit + 1].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def short_traceback(error: BaseException) -> str | None:
    """Return the last few frames of an error's traceback, without those of this library, as text."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    return "".join(traceback.format_list(theirs[-FRAMES:])).rstrip() or None
