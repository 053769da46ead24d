"""Fields of a form, made of a task type's JSON schema, and what was typed into them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

__all__ = ["WHOLE", "Field", "Option", "fields_of", "kept", "place_of", "values_of", "why_no_json"]

Input = Literal["text", "number", "checkbox", "select", "date", "datetime-local", "textarea", "json"]

NOTHING = "\u2013"

REFERENCE = "#/$defs/"

WHOLE = ""
"""The name of the one field of a form for a type whose fields no schema names."""

LONG = 200
"""Texts that may be longer are typed into several lines."""

DEEPEST = 20

NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?")

TO_THE_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)
"""An instant as browsers give it, without a zone."""

HINTS = {
    "iso-date-time": "A date and a time, such as 2026-03-01T14:05:00 or 2026-03-01T14:05:00Z.",
    "iso-time": "A time, such as 14:05:00 or 14:05:00Z.",
    "time": "A time with its zone, such as 14:05:00Z.",
    "partial-time": "A time, such as 14:05:00.",
    "duration": "A duration, such as PT90S or P1DT2H.",
    "uuid": "A UUID.",
    "decimal": "A decimal number.",
}
"""What texts of a certain format look like, where browsers have no input for them."""


class Option(NamedTuple):
    """A choice: what is sent, and what stands there."""

    value: str
    label: str


class Field(NamedTuple):
    """An input of a form, for one field of a task.

    `kind`: "json" is a text of several lines that must be JSON. `value`: what stands in it at first; of a
    checkbox "true" or "". `optional`: whether it may be left out; `default`: whether the schema tells what
    it is then. `format`: that of an instant. `attributes`: limits, as HTML names them.
    """

    name: str
    kind: Input
    shown: str
    required: bool
    value: str = ""
    optional: bool = False
    default: bool = False
    hint: str = ""
    format: str = ""
    options: Sequence[Option] = ()
    attributes: Mapping[str, str] = {}


def fields_of(schema: Mapping[str, Any] | None) -> list[Field]:
    """Return the fields of a task type; one for all of them where the schema does not name them."""
    try:
        top = _resolved(schema or {}, schema or {})
        members = top["properties"]
        required = frozenset(top.get("required", ()))
        return [_field(str(name), member, schema or {}, name in required) for name, member in members.items()]
    except (KeyError, TypeError, AttributeError, ValueError):  # no schema, or none that msgspec has written
        hint = "All fields of the task, as a JSON object."
        return [Field(WHOLE, "json", "object", True, "{}", hint=hint)]


def _resolved(member: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references; what is said beside one counts more."""
    for _ in range(DEEPEST):
        if "$ref" not in member:
            return member
        target = schema["$defs"][member["$ref"].removeprefix(REFERENCE)]
        member = {**target, **{name: value for name, value in member.items() if name != "$ref"}}
    raise ValueError("references without end")


def _field(name: str, member: Mapping[str, Any], schema: Mapping[str, Any], required: bool) -> Field:
    options = member.get("anyOf", [member])
    kinds = [_resolved(option, schema) for option in options]
    nullable = any(_type(kind) == "null" for kind in kinds)
    kinds = [kind for kind in kinds if _type(kind) != "null"] or [{}]
    made = _input(kinds, nullable=nullable or not required)
    shown = " or ".join(dict.fromkeys(_shown(kind) for kind in kinds)) + (" or null" if nullable else "")
    said = [*(_text(one.get("description")) for one in (member, *kinds)), made.hint]
    field = made._replace(
        name=name,
        shown=shown,
        required=required and not nullable and made.kind != "checkbox",
        optional=not required,
        default="default" in member,
        hint=" ".join(dict.fromkeys(text.strip() for text in said if text.strip())),
    )
    return field._replace(value=_typed(field, member["default"])) if "default" in member else field


def _input(kinds: Sequence[Mapping[str, Any]], *, nullable: bool) -> Field:
    """Return an input for values of one of these kinds, without its name."""
    if all("enum" in kind or "const" in kind for kind in kinds):
        return _select([value for kind in kinds for value in kind.get("enum", [kind.get("const")])], nullable)
    if len(kinds) > 1:
        plain = all(_type(kind) in ("string", "number", "integer", "boolean") for kind in kinds)
        return _empty("text") if plain else _empty("json", hint="As JSON.")
    [kind] = kinds
    match _type(kind):
        case "boolean":
            return _select([True, False], nullable=True) if nullable and _null(kind) else _empty("checkbox")
        case "integer" | "number":
            return _empty("number", attributes=_limits(kind))
        case "string":
            return _string(kind)
        case _:
            return _empty("json", hint="As JSON.")


def _null(kind: Mapping[str, Any]) -> bool:
    """Say whether a bool must be chosen among three: true, false, and nothing."""
    return not isinstance(kind.get("default"), bool)


def _string(kind: Mapping[str, Any]) -> Field:
    if kind.get("contentEncoding") == "base64":
        return _empty("text", hint="Bytes, as base64.")
    form = kind.get("format", "")
    if form in ("date-time", "local-date-time"):
        hint = "In UTC." if form == "date-time" else "Without a zone."
        return _empty("datetime-local", hint=hint, format=form, attributes={"step": "0.001"})
    if form == "date":
        return _empty("date")
    if form in HINTS:
        return _empty("text", hint=HINTS[form])
    names = {"minLength": "minlength", "maxLength": "maxlength"}
    limits = {names[name]: str(kind[name]) for name in names if name in kind}
    hint = f"Matches {kind['pattern']}" if "pattern" in kind else ""
    return _empty("textarea" if kind.get("maxLength", 0) > LONG else "text", hint=hint, attributes=limits)


def _select(values: Sequence[Any], nullable: bool) -> Field:
    nullable = nullable or None in values
    options = [Option(text := _text_of(value), text) for value in values if value is not None]
    return _empty("select", options=[*([Option("", NOTHING)] if nullable else []), *options])


def _empty(kind: Input, **more: Any) -> Field:
    return Field("", kind, "", False, **more)


def _limits(kind: Mapping[str, Any]) -> dict[str, str]:
    """Return the limits of a number, as HTML names them; those that are excluded only of whole numbers."""
    whole = kind.get("type") == "integer"
    limits = {"step": "1" if whole else "any"}
    for name, beyond, attribute, next_one in (
        ("minimum", "exclusiveMinimum", "min", 1),
        ("maximum", "exclusiveMaximum", "max", -1),
    ):
        if name in kind:
            limits[attribute] = _text_of(kind[name])
        elif beyond in kind:
            limits[attribute] = _text_of(kind[beyond] + next_one if whole else kind[beyond])
    return limits


# -- words ---------------------------------------------------------------------------------------------


def _type(kind: Mapping[str, Any]) -> str:
    return str(kind.get("type", ""))


WORDS = {
    "string": ("text", "texts"),
    "boolean": ("yes or no", "yes or no"),
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "array": ("list", "lists"),
    "object": ("object", "objects"),
}
"""What values are called, one and several."""

FORMATS = {
    "date-time": "date and time",
    "local-date-time": "date and time",
    "iso-date-time": "date and time",
    "iso-time": "time",
    "partial-time": "time",
    "uuid": "UUID",
}
"""What texts of a format are called, where it is not what the format is called."""


def _shown(kind: Mapping[str, Any]) -> str:
    """Return what values of a kind are called."""
    if "enum" in kind or "const" in kind:
        return "choice"
    if _type(kind) == "array" and isinstance(kind.get("items"), Mapping):
        return f"list of {WORDS.get(_type(kind['items']), ('', 'values'))[1]}"
    if _type(kind) == "string" and kind.get("format"):
        return FORMATS.get(str(kind["format"]), str(kind["format"]))
    return WORDS.get(_type(kind), ("any value", ""))[0]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text_of(value: object) -> str:
    """Return what is typed for a value."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _typed(field: Field, value: object) -> str:
    """Return what stands in an input at first."""
    if value is None:
        return ""
    if field.kind == "checkbox":
        return "true" if value else ""
    if field.kind == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if field.format == "date-time":
        return re.sub(r"(Z|[+-]00:00)$", "", str(value))
    return _text_of(value)


# -- what was typed ------------------------------------------------------------------------------------


def kept(fields: Sequence[Field], typed: Mapping[str, str]) -> list[Field]:
    """Return the fields with what was typed into them."""
    return [
        field._replace(
            value="" if field.kind == "checkbox" and typed[field.name] != "true" else typed[field.name]
        )
        if field.name in typed
        else field
        for field in fields
    ]


def values_of(fields: Sequence[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """Return what is meant by what was typed, for `client.tasks.build(..., text=True)`.

    What was left empty is left out, where that means what the field is by itself. A ValueError says what is
    wrong with the one field for all, if that is no JSON object.
    """
    if [field.name for field in fields] == [WHOLE]:
        try:
            found = json.loads(typed.get(WHOLE, ""))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("it must be a JSON object")
        return found
    values: dict[str, Any] = {}
    for field in fields:
        text = typed.get(field.name)
        if text is None:
            continue
        text = text.replace("\r\n", "\n")  # as browsers send what has several lines
        if field.optional and (text == field.value if field.default else not text):
            continue
        values[field.name] = _meant(field, text)
    return values


def _meant(field: Field, text: str) -> Any:
    """Return what a text says by its input alone, else the text: so that errors are about what is meant."""
    if field.kind == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    if field.kind == "number" and (match := NUMBER.fullmatch(text.strip())):
        return float(text) if match[1] or match[2] else int(text)
    if field.format == "date-time" and TO_THE_SECOND.fullmatch(text):
        return text + ("Z" if text.count(":") == 2 else ":00Z")
    return text


def why_no_json(field: Field, text: str) -> str | None:
    """Return why a text is no JSON, where it was to be."""
    if field.kind != "json" or not text.strip():
        return None
    try:
        json.loads(text)
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def place_of(message: str, fields: Sequence[Field]) -> str | None:
    """Return the name of the field that an error is about; None: none of them, or all."""
    found = re.search(r"at `\$\.([^`]*)`", message) or re.search(r"field `([^`]*)`", message)
    if found is None:
        return None
    names = [field.name for field in fields if re.match(re.escape(field.name) + r"(?![^.\[])", found[1])]
    return max(names, key=len, default=None)
