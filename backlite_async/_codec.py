"""Tasks to payloads and back. What would not come back as it went in is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from ._errors import PayloadError
from ._task import TaskType

__all__ = ["decode", "encode", "encode_result"]

_encoder = msgspec.json.Encoder()


def encode(kind: TaskType, task: msgspec.Struct, max_payload: int) -> bytes:
    """Encode a task as JSON, and make sure that it decodes.

    Raises `PayloadError` that names the field for values that JSON cannot carry (also NaN and
    infinities, which would silently become null), that their type does not take back, or that
    make the payload larger than `max_payload` bytes.
    """
    try:
        payload = _encoder.encode(task)
    except Exception as error:  # TypeError, UnicodeEncodeError, RecursionError, a user's enc_hook
        field = _first_field(task, _cannot_encode)
        raise PayloadError(kind.name, f"cannot be encoded{field}: {_text(error)}") from error
    if len(payload) > max_payload:
        raise PayloadError(
            kind.name,
            f"its payload has {len(payload):,} bytes, the limit is {max_payload:,}"
            f" (largest field: {_largest_field(task)!r}); store the data elsewhere and add a reference,"
            " or raise Client(max_payload=...)",
        )
    try:
        try:
            decoded = kind.decoder.decode(payload)
        except Exception as error:
            _refuse_changes(kind, task, None)  # a NaN has become null: better named by what it was
            raise _undecodable(kind, error) from error
        if not _same(decoded, task):
            _refuse_changes(kind, task, decoded)
    except RecursionError as error:
        raise PayloadError(kind.name, "is nested too deeply") from error
    return payload


def encode_result(queue: str, value: object, max_payload: int) -> str:
    """Encode a job's result as JSON, or raise `PayloadError`."""
    try:
        encoded = _encoder.encode(value)
    except Exception as error:  # TypeError, UnicodeEncodeError, RecursionError
        raise PayloadError(queue, f"its result cannot be encoded: {_text(error)}") from error
    if len(encoded) > max_payload:
        raise PayloadError(queue, f"its result has {len(encoded):,} bytes, the limit is {max_payload:,}")
    if b"null" in encoded:  # which a NaN has become
        for path, item, _ in _leaves(value, None, ""):
            if isinstance(item, float) and not isfinite(item):
                raise PayloadError(
                    queue, f"its result cannot be encoded: JSON has no {item!r} - at `${path}`"
                )
    return encoded.decode()


def decode(kind: TaskType, payload: str | bytes) -> Any:
    """Decode a payload into its task type, or raise `PayloadError` with field and reason."""
    try:
        return kind.decoder.decode(payload)
    except Exception as error:  # MsgspecError, UnicodeError, RecursionError, __post_init__
        if isinstance(error, UnicodeEncodeError) and isinstance(payload, str):
            return decode(kind, payload.encode("utf-8", "surrogateescape"))  # what it was before its claim
        raise _undecodable(kind, error) from error


def _same(decoded: object, task: object) -> bool:
    try:
        return bool(decoded == task)
    except Exception:  # a value that cannot be compared, like Decimal("sNaN"), is looked at
        return False


def _undecodable(kind: TaskType, error: Exception) -> PayloadError:
    return PayloadError(kind.name, f"does not decode: {_text(error)}")


def _text(error: BaseException) -> str:
    return f"{error}" if isinstance(error, msgspec.MsgspecError) else f"{type(error).__name__}: {error}"


def _cannot_encode(value: object) -> bool:
    try:
        _encoder.encode(value)
    except Exception:  # whatever it is, it is this field
        return True
    return False


def _first_field(task: msgspec.Struct, test: Any) -> str:
    for field in task.__struct_fields__:
        if test(getattr(task, field, None)):
            return f" - at `$.{field}`"
    return ""


def _largest_field(task: msgspec.Struct) -> str:
    return max(task.__struct_fields__, key=lambda field: len(_encoder.encode(getattr(task, field))))


def _refuse_changes(kind: TaskType, task: object, decoded: object) -> None:
    """Raise where a value would reach the handler as another one without anybody being told.

    Not every difference is one: a tuple in an untyped field comes back as a list, and some types
    have an equality of their own, or none.
    """
    for path, value, back in _leaves(task, decoded, ""):
        if isinstance(value, float) and not isfinite(value):
            raise PayloadError(kind.name, f"JSON has no {value!r} - at `${path}`")
        if isinstance(back, str) and not isinstance(value, str):
            name = type(value).__qualname__
            raise PayloadError(
                kind.name, f"a {name} would come back as text - at `${path}`; declare its type"
            )


def _leaves(value: object, back: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Walk over what has just been encoded, so that it is not cyclic, beside what it decodes to.

    Beyond a difference of shape `back` is None: there is nothing to compare with.
    """
    if isinstance(value, msgspec.Struct) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        names = (
            value.__struct_fields__
            if isinstance(value, msgspec.Struct)
            else [member.name for member in dataclasses.fields(value)]
        )
        for name in names:
            yield from _leaves(getattr(value, name), getattr(back, name, None), f"{path}.{name}")
    elif isinstance(value, Mapping):
        found = back if isinstance(back, Mapping) else {}
        for key, item in value.items():
            yield f"{path}[{key!r}]", key, None
            yield from _leaves(item, found.get(key), f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        items = back if isinstance(back, (list, tuple)) and len(back) == len(value) else [None] * len(value)
        for index, (item, other) in enumerate(zip(value, items, strict=True)):
            yield from _leaves(item, other, f"{path}[{index}]")
    elif isinstance(value, (set, frozenset)):
        for index, item in enumerate(value):
            yield from _leaves(item, None, f"{path}[{index}]")
    else:
        yield path, value, back
