"""Payloads of every kind of badness, made from good ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from backlite_async import Task

__all__ = ["CANARY", "GIANTS", "HAND_MADE", "TEXTS", "Inputs"]

CANARY = "c4nary"
"""Part of texts in payloads: it may be found nowhere else."""

HAND_MADE: dict[str, list[dict[str, object]]] = {
    "Plain": [
        {"number": 1, "text": f"{CANARY} é\n", "flag": True, "ratio": -1.5e3, "maybe": f"it's {CANARY}"}
    ],
    "Scalars": [
        {
            "when": "2024-01-01T00:00:00.5Z",
            "day": "2024-02-29",
            "clock": "12:00:00",
            "span": "P1DT2S",
            "money": "1.50",
            "name": "7f0a2c5e-0000-4000-8000-000000000000",
            "raw": "aGk=",
            "colour": "blue",
            "level": 9,
            "letter": 3,
        },
        {"when": "2024-01-01T00:00:00Z", "colour": f"it's {CANARY}"},
        {"when": f"{CANARY}", "letter": f"{CANARY}\n'\""},
    ],
    "Nested": [
        {
            "shapes": [{"type": "Circle", "radius": 1.5}, {"type": "Square", "side": 2, "name": CANARY}],
            "points": {CANARY: [1, 2.5], "b": [3]},
            "keys": {"1": ["x", None], "-2": []},
            "pair": {"left": 1, "right": CANARY},
            "fixed": [7, CANARY],
            "many": [1.0, 2.5],
            "unique": [1, 2, 2],
        },
        {"shapes": [{"type": f"'{CANARY}"}]},
    ],
    "Bounded": [{"percent": 50, "code": "abc", "some": [1, 2]}, {"percent": 1, "code": CANARY}],
    "Strict": [
        {"firstName": CANARY, "colourCode": "red", "anything": [None, True, {CANARY: [CANARY, 1e300]}]},
        {"firstName": "a", "colourCode": f"\"{CANARY}'"},
    ],
    "Checked": [{"low": 1, "high": 2}, {"low": 3, "high": 2}],
}

TOKENS = [
    *(b'" { } [ ] , : null true true1 1.0 1e308 1e999 -0 0 00 NaN Infinity -Infinity // /**/'.split()),
    *(b"99999999999999999999999999 1E+999999999 9999-12-31T23:59:59Z 0000-00-00 24:00:00 P99999999D".split()),
    *(b"\\ud800 \\udc00 \\u0000 \\ \xff \xc3 \xed\xa0\x80 \x00 ' \xef\xbb\xbf [[[[[[[[ -P1Y".split()),
    b'{"a":{"a":',
    b" ",
]

FIXED = [
    b"",
    b" ",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"NaN",
    b'{"a":NaN}',
    b'"text"',
    b"\x00" * 100,
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"{}{}",
    b'{"number":1,"number":2,"text":"a","text":3}',
    b'{"number":1.0,"text":"a"}',
    b'{"number":true,"text":"a"}',
    b'{"number":"1","text":"a"}',
    b'{"number":' + b"9" * 5_000 + b',"text":"a"}',
    b'{"number":1' + b"0" * 400 + b".0e-400" + b',"text":"a"}',
    b'{"number":1,"text":"\\ud800","maybe":"\\udfff\\ud800"}',
    b'{"number":1,"text":"\xed\xa0\x80"}',
]


def _deep(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b'{"firstName":"a","anything":' + opening * depth + b"1" + closing * depth + b"}"


GIANTS: list[tuple[str, Callable[[], bytes]]] = [
    ("Strict", lambda: _deep(b"[", b"]", 900)),
    ("Strict", lambda: _deep(b"[", b"]", 100_000)),
    ("Strict", lambda: _deep(b'{"a":', b"}", 100_000)),
    ("Plain", lambda: b"[" * 3_000_000),
    ("Plain", lambda: b'{"number":' + b"9" * 1_000_000 + b',"text":"a"}'),
    ("Plain", lambda: b'{"number":1,"text":"a","' + b"k" * 5_000_000 + b'":0}'),
    ("Strict", lambda: b'{"firstName":"a","anything":"' + b"\\u0000" * 1_000_000 + b'"}'),
    ("Strict", lambda: b'{"firstName":"a","anything":[' + b"{}," * 1_000_000 + b"0]}"),
    ("Strict", lambda: b'{"firstName":"' + b"x" * 20_000_000 + b'"}'),
    ("Nested", lambda: random.Random(1).randbytes(5_000_000)),
]
"""What is large or deep, made when it is needed."""


TEXTS = [
    *(
        "",
        " ",
        "a",
        "é",
        "\U0001f600",
        "null",
        "true",
        "1",
        "NaN",
        "{}",
        "[]",
        '""',
        '"',
        "'",
        "\\",
        "\\u0000",
    ),
    *(
        "\x00",
        "a\x00b",
        "\n",
        "\x7f",
        "\u2028",
        "\u202e",
        "\ufeff",
        "\ud800",
        "\udfff\ud800",
        "a\ud800",
        "\uffff",
    ),
    *("'; DROP TABLE backlite_jobs; --", "%", "_", "*", "NULL", ":now", "?", "$[0]", "a" * 100, "a" * 200),
    *("a" * 201, "é" * 200, "x" * 100_000, "../../etc/passwd", "e\u0301", "\u00e9", "own-1", "OWN-1"),
]
"""Texts for names, keys, tags and meta data."""


class Inputs:
    """Makes payloads for task types, good ones and bad ones, always the same for the same seed."""

    def __init__(self, types: tuple[type[Task], ...], seed: int, examples: int) -> None:
        self.dice = random.Random(seed)
        self.types = types
        self.good: dict[type[Task], list[Task]] = {
            kind: _examples(kind, seed, examples) if examples else [] for kind in types
        }
        self._seeds = {
            kind: [
                *(json.dumps(made).encode() for made in HAND_MADE[kind.__name__]),
                *(payload for task in self.good[kind] if (payload := _encoded(task))),
            ]
            for kind in types
        }

    def bad(self) -> Iterator[tuple[type[Task], bytes]]:
        """Yield payloads without end, each with the type under which it is to be stored."""
        for kind in self.types:
            yield from ((kind, payload) for payload in FIXED)
            for other in self.types:  # another type's
                yield from ((kind, payload) for payload in self._seeds[other][:20])
        while True:
            kind = self.dice.choice(self.types)
            payload, how = self.dice.choice(self._seeds[kind]), self.dice.random()
            if how < 0.05:
                payload = self.dice.randbytes(self.dice.randrange(300))
            elif how < 0.85:
                payload = self._mutated(payload)
            yield kind, payload

    def texts(self) -> Iterator[str]:
        """Yield texts without end: some of everybody's nightmares, then such as dice make."""
        yield from TEXTS
        while True:
            size = self.dice.choice((1, 2, 5, 30, 199, 201))
            tops = self.dice.choice((0x20, 0x80, 0x250, 0x3000, 0x10FFFF))
            yield "".join(chr(self.dice.randrange(tops + 1)) for _ in range(size))

    def meta(self, text: str) -> Any:
        """Return meta data made of a text: good, odd, or none at all."""
        dice = self.dice
        deep: Any = text
        for _ in range(dice.choice((3, 99, 150, 2000))):
            deep = [deep]
        odd = [
            {text},
            b"raw",
            float("nan"),
            float("inf"),
            10**400,
            2**64,
            -(2**63) - 1,
            (text, 1),
            1e308,
            -0.0,
        ]
        values = [text, None, True, 1.5, [text, {text: text}], {}, {1: text}, {text: dice.choice(odd)}, deep]
        return dice.choice([{text: dice.choice(values)}, {"a": dice.choice(values)}, dice.choice(values)])

    def _mutated(self, payload: bytes) -> bytes:
        dice, data = self.dice, bytearray(payload)
        for _ in range(dice.choice((1, 1, 2, 3, 6))):
            at, how = dice.randrange(len(data) + 1), dice.random()
            if how < 0.3 and at < len(data):
                data[at] = dice.randrange(256)
            elif how < 0.6:
                data[at:at] = dice.choice(TOKENS)
            elif how < 0.8:
                data[at : at + dice.randrange(12)] = dice.choice(TOKENS)
            elif how < 0.9:
                data[at:at] = data[at : at + dice.randrange(30)]
            else:
                del data[at : at + dice.randrange(30)]
        return bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
"""What an untyped field brings back as it was."""

MADE_OTHERWISE: dict[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "Strict": lambda kind: st.builds(kind, anything=JSON),
    "Checked": lambda kind: st.tuples(st.integers(), st.integers()).map(lambda pair: kind(*sorted(pair))),
}
"""What their annotations alone do not tell."""

QUIETLY = settings(
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[hypothesis.Phase.generate],
)


def _examples(kind: type[Task], seed: int, number: int) -> list[Task]:
    """Return tasks that hypothesis makes from the annotations alone."""
    found: list[Task] = []
    values = MADE_OTHERWISE.get(kind.__name__, st.from_type)(kind)

    @hypothesis.seed(seed)
    @settings(QUIETLY, max_examples=number)
    @hypothesis.given(values)
    def collect(task: Task) -> None:
        found.append(task)

    collect()
    return found


def _encoded(task: Task) -> bytes:
    try:
        return msgspec.json.encode(task)
    except (ValueError, TypeError, RecursionError):  # lone surrogates
        return b""
