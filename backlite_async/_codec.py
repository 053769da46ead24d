"""Tasks to payloads and back. What would not come back as it went in is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from ._errors import PayloadError
from ._task import TaskType

__all__ = ["decode", "encode"]

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
    decoded = decode(kind, payload)
    if decoded != task:
        for path, number in _numbers(task):
            if not isfinite(number):
                raise PayloadError(kind.name, f"JSON has no {number!r} - at `${path}`")
    return payload


def decode(kind: TaskType, payload: bytes) -> Any:
    """Decode a payload into its task type, or raise `PayloadError` with field and reason."""
    try:
        return kind.decoder.decode(payload)
    except Exception as error:  # MsgspecError, UnicodeDecodeError, RecursionError, __post_init__
        raise PayloadError(kind.name, f"does not decode: {_text(error)}") from error


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


def _numbers(value: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Walk over every float in what has just been encoded, so that it is neither cyclic nor deep."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _numbers(getattr(value, field), f"{path}.{field}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for member in dataclasses.fields(value):
            yield from _numbers(getattr(value, member.name), f"{path}.{member.name}")
