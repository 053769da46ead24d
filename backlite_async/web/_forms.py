"""What people send: fields of forms and parameters of URLs, within bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from .. import BackliteError

__all__ = ["BadRequest", "Fields", "read_form"]

LARGEST_FORM = 16 * 1024 * 1024
MOST_FIELDS = 2_000

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class BadRequest(BackliteError, ValueError):
    """What was sent cannot be meant; the message says what, and what would be right."""


class Fields:
    """Fields by name, each with all of its values, in their order."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.pairs: Sequence[tuple[str, str]] = tuple(pairs)

    @classmethod
    def parse(cls, text: str) -> Fields:
        """Make fields of "a=1&b=2"."""
        try:
            return cls(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
        except UnicodeDecodeError:
            raise BadRequest("what was sent is no UTF-8") from None
        except ValueError:
            raise BadRequest(f"there are more than {MOST_FIELDS:,} fields") from None

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a field, without blanks around it; `default` where it is empty."""
        for key, value in reversed(self.pairs):
            if key == name:
                return value.strip() or default
        return default

    def raw(self, name: str) -> str | None:
        """Return the last value of a field as it is."""
        return next((value for key, value in reversed(self.pairs) if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return all values of a field that are not empty, each once."""
        return list(dict.fromkeys(value for key, value in self.pairs if key == name and value))

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        text = self.get(name)
        if not text:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and least <= int(text) <= most):
            raise BadRequest(f"{name}={text[:40]!r} must be a whole number from {least:,} to {most:,}")
        return int(text)

    def choice(self, name: str, known: Sequence[str], default: str) -> str:
        """Return one of what is known."""
        text = self.get(name, default)
        if text not in known:
            raise BadRequest(f"{name}={text[:40]!r} is none of: {', '.join(filter(None, known))}")
        return text

    def mapping(self) -> dict[str, str]:
        """Return the last value of each field."""
        return dict(self.pairs)


def query(values: Mapping[str, object]) -> str:
    """Return parameters of a URL, without those that are None or empty; lists give several."""
    pairs = []
    for name, value in values.items():
        several = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        pairs += [(name, str(one)) for one in several if one is not None and one != ""]
    return "?" + urlencode(pairs) if pairs else ""


async def read_form(receive: Receive, content_type: str) -> Fields:
    """Read the body of a request as a form."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise BadRequest(f"a form is sent as application/x-www-form-urlencoded, not as {kind[:60]!r}")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the form did not arrive in full")
        body += message.get("body", b"")
        if len(body) > LARGEST_FORM:
            raise BadRequest(f"the form is larger than {LARGEST_FORM:,} bytes")
        if not message.get("more_body", False):
            break
    try:
        return Fields.parse(bytes(body).decode("ascii"))
    except UnicodeDecodeError:
        raise BadRequest("the form is not encoded as browsers encode one") from None
