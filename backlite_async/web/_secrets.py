"""What is secret: by the name under which it stands, in values and within texts. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

__all__ = ["MASK", "NAMED", "NAMING", "PARTS", "decoded", "hidden_in", "is_secret", "mask"]

MASK = "•••"
"""Stands for what is hidden."""

DEEPEST = 60
"""Levels of a value that are looked into; what lies deeper is hidden."""

LONGEST = 100
"""Characters of a name that stands as a value: an option, a header."""

PARTS = (
    "password passwd passphrase passcode secret token credential authorization cookie bearer mnemonic"
    " apikey privatekey accesskey signingkey encryptionkey masterkey sshkey sharedkey authkey authcode"
    " authheader creditcard debitcard cardnumber sessionid sessionkey connectionstring"
).split()
"""Parts of names, in small letters and without what is no letter."""

WORDS = frozenset("card cvv cvc iban ssn pwd otp totp jwt hmac".split())
"""Words of names."""

ENDS = ("cvv", "cvc", "iban", "ssn", "pwd", "otp", "jwt")
"""Ends of words: no other word has them."""

LAST = frozenset("auth pass pin pw signature".split())
"""Last words of names: before others they mean something else."""

NAMES = frozenset({"session"})
"""Whole names."""

NAMING, NAMED = ("name", "Name", "key", "Key"), ("value", "Value")
"""Fields of an object of which the former name what stands in the latter."""

_OTHERS = re.compile(
    r"(?:max|min|total|num|of|count|used|prompt|completion|input|output|reasoning|cached|remaining)tokens"
    r"|tokens?(?:used|counts?|limits?|budgets?|usage|per|left|remaining|total)|tokeni[sz]|secretar(?:y|ies|iat)"
)
"""What has such a part and is not secret: numbers of tokens, and secretaries."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+")

_NAMED = re.compile(
    r"""(?<![\w.-])(?:
      (?P<option>--[\w.-]++)[ ](?=[^\s=:-])
    | (?P<name>(?:(?:access|api|card|credit|debit|encryption|private|session|signing|ssh)[ ])?[\w.-]++)
      \\*["']?\s?[=:]\s?
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""In a text: what may be the name of something that stands behind it. Never looks at anything twice."""

_VALUE = re.compile(
    r"""
      "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*'
    | (?:[\[{|>]|-----BEGIN)(?s:.*)
    | (?<=:).* | (?<=:\s).* | .*?(?=(?<!;)\s[\w.-]{1,40}=|$)
    """,
    re.MULTILINE | re.VERBOSE,
)
"""What stands behind a name: what is quoted, all that begins on several lines, the rest of a line behind
a colon, else what there is up to the next name."""

_OF_OPTION = re.compile(r""""[^"]*"|'[^']*'|\S*""")
_OF_URL = re.compile(r"""[^&;#\s"'<>]*""")

_BESIDE = re.compile(
    r"""
      \\{0,3}["'](?P<option>--?[\w.-]{1,100}+)\\{0,3}["'],[ ]?
    | [\[(,][ ]?[\[(]\\{0,3}["'](?P<first>[\w.-]{1,100}+)\\{0,3}["'],[ ]?
    | \\{0,3}["'](?:name|key)\\{0,3}["']:[ ]?\\{0,3}["'](?P<name>[\w.-]{1,100}+)\\{0,3}["'],
      [ ]?\\{0,3}["']value\\{0,3}["']:[ ]?
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""In a text, of values as Python writes them: an option, the first of a pair, the name of what follows."""

_QUOTED = re.compile(r"""(?P<quote>\\{0,3}["'])(?:(?!(?P=quote))(?:\\++.|.))*+(?:(?P=quote)|\Z)""", re.DOTALL)

_USER = re.compile(r"""(?<=://)[^\s/?#"'<>]+(?=@)|(?<=://)[^\s/?#"'<>]+…\Z""")
"""In a URL: who asks; also what may be that, where the text was cut off."""

_BEARER = re.compile(r"\b(bearer )(?:(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]+…\Z)", re.IGNORECASE)

USER = 20
"""Characters of a user in a URL without a password; a longer one is a token."""


def is_secret(name: str) -> bool:
    """Return whether a name says that what it names is secret."""
    return _known(name) if len(name) <= LONGEST else _tells(name)


def _tells(name: str) -> bool:
    words = _WORD.findall(_HUMP.sub(" ", name).lower())
    letters = "".join(words)
    rest = _OTHERS.sub("", letters)
    if any(part in rest for part in PARTS) or letters in NAMES:
        return True
    if any(word in WORDS or word.removesuffix("s") in WORDS or word.endswith(ENDS) for word in words):
        return True
    last = words[-1] if words else ""
    return last in LAST or last.removesuffix("s") in LAST or letters.removesuffix("s") in WORDS


_known = lru_cache(4096)(_tells)


def mask(value: Any, depth: int = 0) -> Any:
    """Return JSON values without those that are secret by the name under which they stand."""
    if isinstance(value, str):
        return hidden_in(value, depth)
    if isinstance(value, dict):
        return MASK if depth >= DEEPEST else _of_object(value, depth)
    if isinstance(value, list):
        return MASK if depth >= DEEPEST else list(_of_list(value, depth))
    return value


def _of_object(value: dict[str, Any], depth: int) -> dict[str, Any]:
    """Mask by the names of an object; also by one that is a value, as in {"name": ..., "value": ...}."""
    named = any(_says(value.get(field)) for field in NAMING)
    return {
        key: MASK if _has(inner) and (is_secret(key) or (named and key in NAMED)) else mask(inner, depth + 1)
        for key, inner in value.items()
    }


def _of_list(value: list[Any], depth: int) -> Iterator[Any]:
    """Mask what follows an option, ["--password", ...], and the second of pairs, [["Cookie", ...]]."""
    before: Any = None
    for inner in value:
        option = isinstance(before, str) and before.startswith("-") and _says(before)
        if option and isinstance(inner, str) and not inner.startswith("--"):
            yield MASK
        elif isinstance(inner, list) and len(inner) == 2 and _says(inner[0]) and _has(inner[1]):
            yield [inner[0], MASK]
        else:
            yield mask(inner, depth + 1)
        before = inner


def _says(name: object) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST and "=" not in name and is_secret(name)


def _has(value: object) -> bool:
    """Return whether a value can be a secret: nothing, true and false are none."""
    return value is not None and not isinstance(value, bool)


def hidden_in(text: str, depth: int = 0) -> str:
    """Return a text without what is secret in it: in JSON, in a URL, or behind a name."""
    if text.lstrip()[:1] in ("{", "[") and depth < DEEPEST:
        try:
            value = decoded(text.encode("utf-8", "surrogatepass"))
        except ValueError:
            pass
        else:
            seen = mask(value, depth + 1)
            return text if seen == value else json.dumps(seen, ensure_ascii=False)
    if "://" in text:
        text = _USER.sub(_without_user, text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    if "'" in text or '"' in text:
        text = _without_beside(text)
    return _without_named(text) if ":" in text or "=" in text or "--" in text else text


def _without_user(found: re.Match[str]) -> str:
    token = ":" in found[0] or found[0][-1] == "…" or len(found[0]) >= USER
    return MASK if token else found[0]


def _without_beside(text: str) -> str:
    parts, at, begin = [], 0, 0
    while found := _BESIDE.search(text, begin):
        begin = found.end()
        option, first, name = found.group("option", "first", "name")
        value = _QUOTED.match(text, begin) if is_secret(option or first or name) else None
        if value is None or (option and value[0].lstrip("\\")[1:].startswith("--")):
            continue
        if first and text[value.end() : value.end() + 1] not in ("", "]", ")", "…"):
            continue  # no pair
        parts += [text[at:begin], MASK]
        at = begin = value.end()
    return "".join([*parts, text[at:]])


def _without_named(text: str) -> str:
    parts, at, begin = [], 0, 0
    while found := _NAMED.search(text, begin):
        begin = found.end()
        option, name = found.group("option", "name")
        if not is_secret(option or name):
            continue
        in_url = text[max(found.start() - 1, 0)] in "?&;#"
        value = (_OF_OPTION if option else _OF_URL if in_url else _VALUE).match(text, begin)
        if value is not None and value[0]:
            parts += [text[at:begin], MASK]
            at = begin = value.end()
    return "".join([*parts, text[at:]])


def decoded(raw: bytes) -> Any:
    """Return JSON as values; a ValueError where it is none, or too deep."""
    try:
        return json.loads(raw.decode())
    except RecursionError:
        raise ValueError("too deep") from None
