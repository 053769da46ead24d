"""The JSON schema of a type, which also tells times from other text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["LOCAL_DATE_TIME", "SOME_DATE_TIME", "SOME_TIME", "json_schema"]

LOCAL_DATE_TIME, SOME_DATE_TIME, SOME_TIME = "local-date-time", "iso-date-time", "iso-time"
"""Formats that JSON Schema has no words for: without a zone; with one or without."""

FIELDS = (inspect.StructType, inspect.TypedDictType, inspect.DataclassType, inspect.NamedTupleType)


def json_schema(cls: type) -> dict[str, Any]:
    """Return the schema that msgspec makes, with a format where it has none for a datetime or a time."""
    schema = msgspec.json.schema(cls)
    _Teller(schema.get("$defs", {})).tell(inspect.type_info(cls), schema)
    return schema


class _Teller:
    """Walks over a type beside its schema."""

    def __init__(self, defs: dict[str, Any]) -> None:
        self._defs = defs
        self._told: set[str] = set()

    def tell(self, info: inspect.Type, schema: dict[str, Any]) -> None:
        """Complete the schema of a type."""
        while isinstance(info, inspect.Metadata):
            info = info.type
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in self._told:  # else it is recursive
                self._told.add(name)
                self.tell(info, self._defs[name])
        elif isinstance(info, inspect.DateTimeType | inspect.TimeType):
            said = _format(info)
            if said is not None:
                schema.setdefault("format", said)
        else:
            for inner, part in _parts(info, schema):
                self.tell(inner, part)


def _format(info: inspect.DateTimeType | inspect.TimeType) -> str | None:
    """Return the format that msgspec does not tell."""
    if isinstance(info, inspect.TimeType):
        return SOME_TIME if info.tz is None else None
    return {None: SOME_DATE_TIME, False: LOCAL_DATE_TIME, True: None}[info.tz]


def _parts(info: inspect.Type, schema: dict[str, Any]) -> Iterator[tuple[inspect.Type, dict[str, Any]]]:
    """Return what a type is made of, each with its schema."""
    if isinstance(info, inspect.UnionType):
        yield from zip(_as_told(info.types), _options(schema), strict=True)
    elif isinstance(info, inspect.TupleType):
        yield from zip(info.item_types, schema.get("prefixItems", ()), strict=True)
    elif isinstance(info, inspect.CollectionType) and "items" in schema:
        yield info.item_type, schema["items"]
    elif isinstance(info, inspect.DictType) and "additionalProperties" in schema:
        yield info.value_type, schema["additionalProperties"]
    elif isinstance(info, FIELDS) and "properties" in schema:
        for field in info.fields:
            yield field.type, schema["properties"][field.encode_name]
    elif isinstance(info, FIELDS):
        members = schema["prefixItems"]
        tagged = len(members) - len(info.fields)
        yield from ((field.type, members[tagged + place]) for place, field in enumerate(info.fields))


def _as_told(types: Sequence[inspect.Type]) -> list[inspect.Type]:
    """Return the types of a union in the order of its schema: objects come after others, null last."""

    def place(info: inspect.Type) -> int:
        while isinstance(info, inspect.Metadata):
            info = info.type
        if isinstance(info, inspect.NoneType):
            return 2
        return int(isinstance(info, inspect.StructType) and not info.array_like)

    return sorted(types, key=place)


def _options(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the options of a union, those of objects that are told apart by their tags as well."""
    for option in schema["anyOf"]:
        if "anyOf" in option:
            yield from _options(option)
        else:
            yield option
