"""The key of a task that is to be unique by what it says."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from ._errors import PayloadError
from ._task import TaskType

__all__ = ["fingerprint"]

_encode = msgspec.json.Encoder().encode


def fingerprint(kind: TaskType, task: msgspec.Struct) -> str:
    """Return a hash of a task's type and values: the same for equal tasks, in every process.

    The order of sets, dicts and fields does not matter. What it gives is stored, and compared with
    what later versions give: it must not change.
    """
    try:
        form = _encode([kind.name, _form(task)])
    except RecursionError as error:
        reason = 'is nested too deeply for .unique() without a key; give one: .unique("...")'
        raise PayloadError(kind.name, reason) from error
    return hashlib.blake2b(form, digest_size=16).hexdigest()


def _form(value: object) -> object:
    """Return what a value is in JSON, with everything in its place.

    The encoder's own `order="deterministic"` takes no dict whose keys are not text, and no set of
    what cannot be sorted.
    """
    members = _members(value)
    if members is not None:
        return {
            name: _form(inner) for name, inner in sorted(members, key=_name) if inner is not msgspec.UNSET
        }
    if isinstance(value, Mapping):
        return {key: _form(inner) for key, inner in sorted(value.items(), key=_key)}
    if isinstance(value, (set, frozenset)):
        return sorted((_form(inner) for inner in value), key=_encode)
    if isinstance(value, (list, tuple)):
        return [_form(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # a field of floats takes 1 as well, which is equal
    return value


def _name(member: tuple[str, object]) -> str:
    return member[0]


def _key(item: tuple[Any, object]) -> bytes:
    return _encode({item[0]: None})


def _members(value: object) -> list[tuple[str, object]] | None:
    """Return the fields of an object that is encoded by its fields; None for any other."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        tagged = value.__struct_config__
        tag: list[tuple[str, object]] = [(tagged.tag_field, tagged.tag)] if tagged.tag_field else []
        return tag + [(encoded, getattr(value, name)) for encoded, name in names]
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
    else:
        fields = [field.name for field in getattr(type(value), "__attrs_attrs__", ())]  # attrs
    if not fields:
        return None
    return [(name, getattr(value, name, msgspec.UNSET)) for name in fields]
