"""Tasks of plain values: from JSON, or from the text of a form. Pure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import inspect

from ._errors import InvalidType, PayloadError
from ._task import TaskType

__all__ = ["built", "did_you_mean"]

TRUE, FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
WORDS: dict[str, bool] = {}
WORDS |= dict.fromkeys(TRUE, True)
WORDS |= dict.fromkeys(FALSE, False)
"""What says true or false in a form."""

TO_THE_MINUTE = re.compile(r"(\d{4}-\d\d-\d\dT)?\d\d:\d\d")
"""A time as browsers give it, without seconds."""


def built(kind: TaskType, fields: Mapping[str, Any], *, text: bool) -> msgspec.Struct:
    """Return a task of these values, or raise `PayloadError` that names the field that is wrong.

    Values are taken as the codec takes them. `text`: those that are text say what they mean, see `_meant`.
    """
    if not isinstance(fields, Mapping):
        raise InvalidType(f"fields={fields!r} must be a mapping of names to values")
    _refuse_unknown(kind, fields)
    values = _of_text(kind, fields) if text else dict(fields)
    try:
        encoded = msgspec.json.encode(values)
    except Exception as error:  # TypeError, UnicodeEncodeError, RecursionError
        raise PayloadError(kind.name, f"its fields cannot be encoded: {error}") from error
    for path, value in _numbers(values, "$"):
        raise PayloadError(kind.name, f"JSON has no {value!r} - at `{path}`")
    try:
        if kind.cls.__struct_config__.array_like:
            encoded = msgspec.json.encode(_as_array(kind.cls, values))
        task: msgspec.Struct = kind.decoder.decode(encoded)
    except Exception as error:  # MsgspecError, __post_init__
        raise PayloadError(kind.name, f"{error}{_choices(kind, str(error))}") from error
    for path, name, known in _unknown(values, task, "$"):
        raise _unknown_field(kind, path, name, known)
    return task


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a suggestion of what was meant by a name that is not known, or what there is."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    lower = {other.lower(): other for other in known}
    if not close and name.lower() in lower:
        close = [lower[name.lower()]]
    if close:
        return f"; did you mean {' or '.join(repr(other) for other in close)}?"
    listed = ", ".join(repr(other) for other in sorted(known)[:20])
    return f"; there is {listed}{', ...' if len(known) > 20 else ''}" if known else "; there is none"


def _refuse_unknown(kind: TaskType, fields: Mapping[str, Any]) -> None:
    """Raise for a field that the type has not, before anything else: it is why another one is missing."""
    known = _names(kind.cls)
    for name in fields:
        if name not in known:
            raise _unknown_field(kind, "$", str(name), known)


def _unknown_field(kind: TaskType, path: str, name: str, known: Collection[str]) -> PayloadError:
    suggestion = did_you_mean(name, known)
    return PayloadError(kind.name, f"Object contains unknown field `{name}` - at `{path}`{suggestion}")


def _names(cls: type[msgspec.Struct]) -> set[str]:
    """Return the names that an object of a type may have in JSON."""
    tag = cls.__struct_config__.tag_field
    return {*cls.__struct_encode_fields__, *([tag] if tag else [])}


def _as_array(cls: type[msgspec.Struct], values: Mapping[str, Any]) -> list[Any]:
    """Return the values of a type that is encoded as an array."""
    config = cls.__struct_config__
    array: list[Any] = [] if config.tag is None else [config.tag]
    for field in msgspec.structs.fields(cls):
        if field.encode_name in values:
            array.append(values[field.encode_name])
        elif field.required:
            raise msgspec.ValidationError(f"Object missing required field `{field.encode_name}`")
        else:
            array.append(field.default if field.default is not msgspec.NODEFAULT else field.default_factory())
    return array


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    """Find numbers that JSON has not, which would silently become null."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _numbers(inner, f"{path}[{place}]")


def _unknown(given: object, decoded: object, path: str) -> Iterator[tuple[str, str, Collection[str]]]:
    """Find fields that were given and dropped, beside what there is."""
    if isinstance(given, Mapping) and isinstance(decoded, msgspec.Struct):
        known = _names(type(decoded))
        names = dict(zip(decoded.__struct_encode_fields__, decoded.__struct_fields__, strict=True))
        for name, inner in given.items():
            if name not in known:
                yield path, str(name), known
            elif name in names:
                yield from _unknown(inner, getattr(decoded, names[name]), f"{path}.{name}")
    elif isinstance(given, Mapping) and isinstance(decoded, Mapping):
        for name, inner in given.items():
            yield from _unknown(inner, decoded.get(name), f"{path}.{name}")
    elif isinstance(given, (list, tuple)) and isinstance(decoded, (list, tuple)):
        for place, (inner, other) in enumerate(zip(given, decoded, strict=False)):
            yield from _unknown(inner, other, f"{path}[{place}]")


def _choices(kind: TaskType, message: str) -> str:
    """Return what a field may be, where there are few choices and the error does not say so."""
    found = re.search(r"^Invalid (?:enum )?value .* - at `\$\.([^.\[`]+)`$", message)
    field = None if found is None else _fields(kind.cls).get(found[1])
    if field is None:
        return ""
    info = inspect.type_info(field.type)
    choices: list[object] = []
    for option in info.types if isinstance(info, inspect.UnionType) else (info,):
        if isinstance(option, inspect.LiteralType):
            choices += option.values
        elif isinstance(option, inspect.EnumType):
            choices += [member.value for member in option.cls]
    return f"; it must be one of {', '.join(sorted(map(repr, choices)))}" if choices else ""


def _fields(cls: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(cls)}


# -- text of a form -----------------------------------------------------------------------------------


def _of_text(kind: TaskType, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fields mean whose values are text; others are left as they are."""
    known = _fields(kind.cls)
    found = {}
    for name, value in fields.items():
        field = known.get(name)
        if not isinstance(value, str) or field is None:
            found[name] = value
        elif value.strip() or (_fits("", field.type) and not _fits(None, field.type)):
            found[name] = _meant(value, field.type)
        elif field.required:
            found[name] = None if _fits(None, field.type) else value
    return found


def _meant(text: str, kind: Any) -> Any:
    """Return the first of what a text may mean that its type takes; the text itself where it takes none.

    A list or an object as JSON; the text as it is; a number, true, false or null as JSON has it; a word for
    true or false; a number as people write it; a time without seconds.
    """
    for value in _meanings(text, prefers_json=kind is Any):
        if _fits(value, kind):
            return value
    return text


def _meanings(text: str, *, prefers_json: bool) -> Iterator[Any]:
    bare = text.strip()
    parsed = _parsed(bare)
    if prefers_json or isinstance(parsed, (list, dict)):
        yield from () if parsed is msgspec.UNSET else (parsed,)
    yield text
    yield bare
    if parsed is not msgspec.UNSET:
        yield parsed
    if bare.lower() in WORDS:
        yield WORDS[bare.lower()]
    for number in (int, float):
        try:
            found = number(bare)
        except ValueError:
            continue
        if isinstance(found, int) or math.isfinite(found):  # of large ints it cannot be said
            yield found
    if TO_THE_MINUTE.fullmatch(bare):
        yield f"{bare}:00"


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.UNSET


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=kind)
    except Exception:  # whatever it raises, it does not take it
        return False
    return True
