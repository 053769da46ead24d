"""What is shown of payloads, results and meta data: laid out, cut, and without what is secret by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .. import _log as log
from ._secrets import MASK, NAMED, NAMING, PARTS, decoded, hidden_in, mask

if TYPE_CHECKING:
    from ._visit import Visit

__all__ = [
    "MASK",
    "MOST",
    "Hidden",
    "Shown",
    "decoded",
    "glance",
    "mask",
    "restored",
    "said",
    "shown",
    "shows_more",
    "values",
]

MOST = 65_536
"""Bytes of a value that are shown, and characters of its text."""

GLANCE = 200
"""Characters of a value in a list."""

_CHUNK = re.compile(r'"(?:[^"\\]|\\.)*("?)|[{}\[\],:]|[^"{}\[\],:\s]+', re.DOTALL)
_SECRET_WORD = re.compile("|".join(r"[\W_]*".join(name) for name in PARTS), re.IGNORECASE)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a value: `text`, laid out; empty where it is `hidden` as a whole, or there is none.

    `cut`: there is more than is shown. `size`: its bytes, or of a larger one, how many were read. `why`: why
    it is hidden.
    """

    text: str = ""
    cut: bool = False
    size: int = 0
    hidden: bool = False
    why: str = ""


class Hidden(Exception):
    """A value is not shown; the message says why."""


def shown(visit: Visit, task: str, raw: bytes | None, *, most: int = MOST) -> Shown:
    """Return what the sender of a request is shown of a value of a task type: JSON, maybe cut off."""
    if raw is None:
        return Shown()
    if not visit.access.payloads:
        return Shown(hidden=True, why="You may not see payloads.")
    cut = len(raw) > most
    try:
        text = _text(visit, task, raw[:most], cut, _laid_out)
    except Hidden as reason:
        return Shown(cut=cut, size=len(raw), hidden=True, why=str(reason))
    longer = len(text) > MOST
    return Shown(text=text[:MOST], cut=cut or longer, size=len(raw))


def glance(visit: Visit, task: str, raw: bytes | None) -> str:
    """Return the first characters of a value on one line, of one that may be cut off after 200 bytes."""
    if raw is None or not visit.access.payloads:
        return ""
    try:
        text = _text(visit, task, raw[:GLANCE], len(raw) >= GLANCE, _on_a_line)
    except Hidden:
        return MASK
    return text if len(text) <= GLANCE else text[: GLANCE - 1] + "…"


def said(visit: Visit, text: str | None) -> str:
    """Return a line that a handler has said, without the values of what is secret by its name."""
    if text is None or not visit.access.payloads:
        return ""
    return hidden_in(text)


def values(visit: Visit, task: str, value: Any) -> Any:
    """Return what of JSON values may be shown; raises `Hidden` where the callback fails."""
    redact = visit.settings.redact
    hidden = mask(value)
    if redact is None:
        return hidden
    try:
        return redact(task, hidden)
    except Exception as error:
        # Neither its message nor a value: either could tell what is to be hidden.
        log.emit(log.PAGE_REDACT_FAILED, task=task, error=type(error).__name__)
        raise Hidden("The function given as redact= has failed; the log says how.") from None


def _text(visit: Visit, task: str, raw: bytes, cut: bool, put: Callable[[Any], str]) -> str:
    """Return the text of a value; of one that was cut off, or is no JSON, as much as is safe."""
    redacts = visit.settings.redact is not None
    if cut and redacts:  # it may decide by what is not there
        raise Hidden("It is too large to be shown: redact= takes whole values.")
    text = raw.decode("utf-8", "replace")
    try:
        value = _beginning(text) if cut else decoded(raw)
    except ValueError:
        if redacts:
            raise Hidden("It is no JSON, which redact= takes.") from None
        return _before_secrets(hidden_in(text))
    seen = values(visit, task, value)
    try:
        return put(seen)
    except Exception:  # what redact= returns may be anything
        raise Hidden("What redact= returns cannot be written as JSON.") from None


def _laid_out(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _on_a_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _before_secrets(text: str) -> str:
    """Return a text that has no names we could go by, up to the first word that tells of a secret."""
    found = _SECRET_WORD.search(text)
    return text if found is None else text[: found.end()] + " " + MASK


# -- what was cut off -------------------------------------------------------------------------------


def _beginning(text: str) -> Any:
    """Return what there is of JSON that was cut off, without values whose names may stand behind the cut."""
    value = last = decoded(completed(text).encode("utf-8", "surrogatepass"))
    while isinstance(last, (dict, list)) and last:
        if isinstance(last, list):
            last = last[-1]
            continue
        if not any(field in last and not str(last[field]).endswith("…") for field in NAMING):
            last.update({field: MASK for field in NAMED if field in last})
        last = next(reversed(last.values()))
    return value


def completed(text: str) -> str:
    """Return JSON whose end was cut off and all that is open closed."""
    text = text.rstrip("\ufffd")
    opened: list[str] = []
    whole, before = 0, ""  # up to where it is whole; since then nothing was opened or closed
    for found in _CHUNK.finditer(text):
        chunk = found[0]
        in_object = bool(opened) and opened[-1] == "}"
        key = chunk[0] == '"' and in_object and before in ("{", ",")
        if chunk in "{[":
            opened.append("}" if chunk == "{" else "]")
        elif chunk in "}]" and opened:
            opened.pop()
        last = found.end() == len(text)
        if chunk[0] == '"' and not found[1]:
            if not key:
                return text[: found.start()] + _closed(chunk) + "".join(reversed(opened))
        elif not key and chunk not in ",:" and not (last and chunk[0] not in '"{}[]'):
            whole = found.end()
        before = chunk
    return text[:whole] + "".join(reversed(opened))


def _closed(string: str) -> str:
    """Return the beginning of a string as a string: without half an escape at its end."""
    half = re.search(r"(?<!\\)(?:\\\\)*(\\u[0-9a-fA-F]{0,3})$", string)
    return (string if half is None else string[: half.start(1)]) + '…"'


# -- back again -------------------------------------------------------------------------------------


def restored(edited: Any, seen: Any, original: Any) -> Any:
    """Return what was edited, with the original where it is as it was seen, and what was not to be seen."""
    if isinstance(edited, dict) and isinstance(seen, dict) and isinstance(original, dict):
        put = {
            key: restored(value, seen[key], original[key]) if key in seen and key in original else value
            for key, value in edited.items()
        }
        unseen = {key: value for key, value in original.items() if key not in seen and key not in edited}
        return put | unseen
    if (
        isinstance(edited, list)
        and isinstance(seen, list)
        and isinstance(original, list)
        and len(edited) == len(seen) == len(original)
    ):
        moved = _moved(edited, seen, original)
        return [
            one if json.dumps(one) in moved else restored(one, before, whole)
            for one, before, whole in zip(edited, seen, original, strict=True)
        ]
    return original if _same(edited, seen) else edited


def _same(edited: Any, seen: Any) -> bool:
    return type(edited) is type(seen) and bool(edited == seen)


def _moved(edited: list[Any], seen: list[Any], original: list[Any]) -> set[str]:
    """Return, as JSON, what of a list was seen in part and is no longer where it was.

    Where it stands now, what is hidden in it would be taken from what stood there.
    """
    gone = {
        json.dumps(before)
        for one, before, whole in zip(edited, seen, original, strict=True)
        if before not in (one, whole)
    }
    return gone & {json.dumps(one) for one, before in zip(edited, seen, strict=True) if one != before}


def shows_more(again: Any, edited: Any, seen: Any, original: Any) -> bool:
    """Return whether of an edited value something is shown that was hidden, and left as it was.

    `again`: what is shown of it then. So it is where what told that it is hidden was edited: a name beside.
    """
    if isinstance(seen, dict) and isinstance(original, dict) and isinstance(edited, dict):
        fields = again if isinstance(again, dict) else {}
        left = [key for key in fields if key in edited and key in seen and key in original]
        unseen = any(key in original and key not in seen and key not in edited for key in fields)
        return unseen or any(shows_more(fields[key], edited[key], seen[key], original[key]) for key in left)
    lists = isinstance(seen, list) and isinstance(original, list) and isinstance(edited, list)
    if lists and isinstance(again, list) and len(again) == len(edited) == len(seen) == len(original):
        return any(shows_more(*four) for four in zip(again, edited, seen, original, strict=True))
    return seen != original and _same(edited, seen) and again not in (seen, MASK)
