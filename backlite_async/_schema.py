"""Types made of a JSON schema as msgspec writes it: tasks where their code is not. Pure."""

from __future__ import annotations

import copy
import datetime
import decimal
import keyword
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ForwardRef, Literal, Union

import msgspec

from ._config import QueueConfig
from ._errors import InvalidValue
from ._formats import LOCAL_DATE_TIME, SOME_DATE_TIME, SOME_TIME
from ._task import SchemaTask, TaskType, task_type

__all__ = ["made_up"]

FORMATS: dict[str, Any] = {
    "date-time": Annotated[datetime.datetime, msgspec.Meta(tz=True)],
    LOCAL_DATE_TIME: Annotated[datetime.datetime, msgspec.Meta(tz=False)],
    SOME_DATE_TIME: datetime.datetime,
    SOME_TIME: datetime.time,
    "time": Annotated[datetime.time, msgspec.Meta(tz=True)],
    "partial-time": Annotated[datetime.time, msgspec.Meta(tz=False)],
    "date": datetime.date,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "byte": bytes,
}
"""What a format of text stands for. Others say nothing of how it is encoded."""

NUMBERS = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
}
TEXTS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}
ARRAYS = {"minItems": "min_length", "maxItems": "max_length"}
OBJECTS = {"minProperties": "min_length", "maxProperties": "max_length"}

REFERENCE = "#/$defs/"


def made_up(name: str, schema: Mapping[str, Any], config: QueueConfig, description: str = "") -> TaskType:
    """Return a task type of this name whose tasks are encoded as those are that the schema was made of.

    Raises `InvalidValue` where the schema cannot be followed. A field whose default no schema tells
    is left out if it is not given; those of an object that is encoded as an array have no names: `item_0`.
    """
    namespace = {"config": config, "task_name": name, "__doc__": description or None}
    try:
        return task_type(_Maker(schema).whole(name, namespace))
    except Exception as error:  # whatever msgspec says of a type that it cannot make
        raise InvalidValue(
            f"the stored schema of task {name!r} cannot be followed ({type(error).__name__}: {error}); make"
            " the task where its type is imported"
        ) from error


class _Maker:
    """Makes types of one schema. Structs know each other by forward references, as they may be recursive."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._defs: Mapping[str, Mapping[str, Any]] = schema.get("$defs", {})
        self._places = {name: f"struct_{place}" for place, name in enumerate(self._defs)}
        self._structs: dict[str, type[msgspec.Struct]] = {}

    def whole(self, name: str, namespace: dict[str, Any]) -> type[msgspec.Struct]:
        """Make the type of the whole schema, which is that of an object, or of one in an array."""
        reference = str(self._schema.get("$ref", "")).removeprefix(REFERENCE)
        top = self._defs[reference] if reference else self._schema
        cls = self._struct(name, top, SchemaTask, namespace)
        if reference:
            self._structs[self._places[reference]] = cls
        for other, schema in self._defs.items():
            if other != reference and _is_struct(schema):
                self._structs[self._places[other]] = self._struct(other, schema)
        for made in {cls, *self._structs.values()}:
            for place, struct in self._structs.items():
                setattr(made, place, struct)  # where msgspec looks for the names in its annotations
        return cls

    def _struct(
        self,
        name: str,
        schema: Mapping[str, Any],
        base: type[msgspec.Struct] | None = None,
        namespace: dict[str, Any] | None = None,
    ) -> type[msgspec.Struct]:
        in_array = schema.get("type") == "array"
        members = _in_array(schema) if in_array else _in_object(schema)
        tag_field, tag = None, None
        if members and members[0][2] and list(members[0][1]) == ["enum"] and len(members[0][1]["enum"]) == 1:
            tag_field, tag = members[0][0], members[0][1]["enum"][0]
            members = members[1:]
        taken = {"config", "task_name", "aliases", *self._places.values()}
        names = [
            encoded if _is_name(encoded) and encoded not in taken else f"field_{place}"
            for place, (encoded, _, _) in enumerate(members)
        ]
        fields = [
            self._field(name, member, required=required)
            for name, (_, member, required) in zip(names, members, strict=True)
        ]
        renamed = {name: encoded for name, (encoded, _, _) in zip(names, members, strict=True)}
        return msgspec.defstruct(
            name,
            fields,
            bases=None if base is None else (base,),
            namespace=namespace,
            tag=tag,
            tag_field=None if in_array else tag_field,
            rename=None if in_array else renamed,
            forbid_unknown_fields=schema.get("additionalProperties") is False or "maxItems" in schema,
            array_like=in_array,
            frozen=base is None,  # to be found in sets
            kw_only=not in_array,
        )

    def _field(self, name: str, schema: Mapping[str, Any], *, required: bool) -> Any:
        """Return a field as `defstruct` takes it. A default is encoded as the real one was."""
        kind = self.of(schema)
        if required:
            return name, kind
        if "default" not in schema:
            return name, Union[kind, msgspec.UnsetType], msgspec.UNSET  # noqa: UP007 - of forward references
        default = schema["default"]
        if isinstance(default, (list, dict)):
            return name, kind, msgspec.field(default_factory=partial(copy.deepcopy, default))
        return name, kind, default

    def of(self, schema: Mapping[str, Any]) -> Any:
        """Return the type of a value."""
        if "$ref" in schema:
            name = schema["$ref"].removeprefix(REFERENCE)
            target = self._defs[name]
            return ForwardRef(self._places[name]) if _is_struct(target) else self.of(target)
        if "anyOf" in schema:
            return Union[tuple(self.of(option) for option in schema["anyOf"])]  # noqa: UP007
        if "enum" in schema or "const" in schema:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            return Literal[tuple(values)]
        kind = schema.get("type")
        if kind is None:
            return Any
        if _is_struct(schema):
            raise ValueError(f"an object without a name: {schema}")
        return getattr(self, f"_{kind}")(schema)

    def _null(self, schema: Mapping[str, Any]) -> Any:
        return None

    def _boolean(self, schema: Mapping[str, Any]) -> Any:
        return bool

    def _integer(self, schema: Mapping[str, Any]) -> Any:
        return _limited(int, schema, NUMBERS)

    def _number(self, schema: Mapping[str, Any]) -> Any:
        return _limited(float, schema, NUMBERS)

    def _string(self, schema: Mapping[str, Any]) -> Any:
        if schema.get("contentEncoding") == "base64":
            return bytes
        known = FORMATS.get(schema.get("format", ""))
        return _limited(str, schema, TEXTS) if known is None else known

    def _array(self, schema: Mapping[str, Any]) -> Any:
        if "prefixItems" in schema:
            return tuple[tuple(self.of(item) for item in schema["prefixItems"])]  # type: ignore[misc]
        item = self.of(schema["items"]) if schema.get("items") else Any
        kind: Any = set[item] if schema.get("uniqueItems") else list[item]  # type: ignore[valid-type]
        return _limited(kind, schema, ARRAYS)

    def _object(self, schema: Mapping[str, Any]) -> Any:
        key = _limited(str, schema.get("propertyNames", {}), TEXTS)
        value = self.of(schema.get("additionalProperties") or {})
        return _limited(dict[key, value], schema, OBJECTS)  # type: ignore[valid-type]


Member = tuple[str, Mapping[str, Any], bool]
"""A field: what it is called in JSON, its schema, and whether it must be given."""


def _in_object(schema: Mapping[str, Any]) -> Sequence[Member]:
    required = schema.get("required", ())
    return [(name, member, name in required) for name, member in schema["properties"].items()]


def _in_array(schema: Mapping[str, Any]) -> Sequence[Member]:
    """Return the fields of an object that is encoded as an array, where none can be left out."""
    least = schema.get("minItems", 0)
    return [
        (f"item_{place}", member, place < least or "default" not in member)
        for place, member in enumerate(schema["prefixItems"])
    ]


def _is_struct(schema: Mapping[str, Any]) -> bool:
    """Return whether it is an object with fields; in arrays these have a title, which tuples have not."""
    return "properties" in schema or ("prefixItems" in schema and "title" in schema)


def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")


def _limited(kind: Any, schema: Mapping[str, Any], limits: Mapping[str, str]) -> Any:
    """Return a type with the limits that its schema has."""
    found = {limit: schema[name] for name, limit in limits.items() if name in schema}
    return Annotated[kind, msgspec.Meta(**found)] if found else kind
