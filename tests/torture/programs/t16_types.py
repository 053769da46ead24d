"""Task types of every shape, and a judge of values that does not rely on who decoded them."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import re
import typing
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union

import msgspec

from backlite_async import QueueConfig, Retention, Task

__all__ = ["CONFIG", "TYPES", "fits"]

CONFIG = QueueConfig("payloads", max_attempts=3, backoff=0, retention=Retention())


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: int
    name: str | None = None


class Point(msgspec.Struct, array_like=True):
    x: int
    y: float = 0.5


@dataclass
class Pair:
    left: int
    right: str = "r"


class Plain(Task):
    config: ClassVar[QueueConfig] = CONFIG
    number: int
    text: str
    flag: bool = False
    ratio: float = 0.5
    maybe: str | None = None


class Scalars(Task):
    config: ClassVar[QueueConfig] = CONFIG
    when: datetime.datetime
    day: datetime.date | None = None
    clock: datetime.time | None = None
    span: datetime.timedelta | None = None
    money: decimal.Decimal | None = None
    name: uuid.UUID | None = None
    raw: bytes = b""
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    letter: Literal["a", "b", 3] = "a"


class Nested(Task):
    config: ClassVar[QueueConfig] = CONFIG
    shapes: list[Circle | Square]
    points: dict[str, Point] = {}
    keys: dict[int, list[str | None]] = {}
    pair: Pair | None = None
    fixed: tuple[int, str] = (0, "")
    many: tuple[float, ...] = ()
    unique: set[int] = set()


class Bounded(Task):
    config: ClassVar[QueueConfig] = CONFIG
    percent: Annotated[int, msgspec.Meta(ge=0, le=100)]
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]*$", max_length=8)] = ""
    some: Annotated[list[int], msgspec.Meta(max_length=3)] = []


class Strict(Task, forbid_unknown_fields=True, rename="camel"):
    config: ClassVar[QueueConfig] = CONFIG
    first_name: str
    colour_code: Colour | None = None
    anything: Any = None


class Checked(Task):
    config: ClassVar[QueueConfig] = CONFIG
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


TYPES: tuple[type[Task], ...] = (Plain, Scalars, Nested, Bounded, Strict, Checked)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type, all the way down."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return fits(value, arguments[0]) and all(_meets(value, rule) for rule in arguments[1:])
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in _CONTAINERS:
        return isinstance(value, origin) and _CONTAINERS[origin](value, arguments)
    if hint is None or hint is type(None):
        return value is None
    if type(value) is not hint:
        return False
    if isinstance(value, msgspec.Struct):
        return _members_fit(value, value.__struct_fields__)
    if is_dataclass(value):
        return _members_fit(value, [member.name for member in fields(value)])
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, str) or _sound(value)


def _members_fit(value: Any, names: typing.Iterable[str]) -> bool:
    hints = typing.get_type_hints(type(value), include_extras=True)
    return all(fits(getattr(value, name), hints[name]) for name in names)


def _sequence(value: Any, arguments: tuple[Any, ...]) -> bool:
    return all(fits(item, arguments[0]) for item in value)


def _tuple(value: Any, arguments: tuple[Any, ...]) -> bool:
    if arguments[-1] is ...:
        return _sequence(value, arguments)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _mapping(value: Any, arguments: tuple[Any, ...]) -> bool:
    return _sequence(value.keys(), arguments) and _sequence(value.values(), arguments[1:])


_CONTAINERS: dict[Any, Callable[[Any, tuple[Any, ...]], bool]] = {
    list: _sequence,
    set: _sequence,
    tuple: _tuple,
    dict: _mapping,
}


def _sound(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _meets(value: Any, rule: msgspec.Meta) -> bool:
    return (
        (rule.ge is None or value >= rule.ge)
        and (rule.le is None or value <= rule.le)
        and (rule.max_length is None or len(value) <= rule.max_length)
        and (rule.pattern is None or re.search(rule.pattern, value) is not None)
    )
