"""Task types: what is one, what it is called, and what is said of a class that is none."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import pytest

from backlite_async import BackliteError, InvalidTask, QueueConfig, Task
from backlite_async._task import TaskType, task_type

T = TypeVar("T")

MAIL = QueueConfig("mail")


def refusal(cls: object) -> str:
    """Return what is said of a class that is no task type."""
    with pytest.raises(InvalidTask) as caught:
        task_type(cls)
    assert isinstance(caught.value, BackliteError)
    assert isinstance(caught.value, TypeError)
    return str(caught.value)


class SendEmail(Task):
    config: ClassVar[QueueConfig] = MAIL
    to: str
    subject: str = ""


@dataclasses.dataclass
class Address:
    street: str
    number: int | None = None


# -- what is a task type --------------------------------------------------------------------------


def test_a_subclass_of_task() -> None:
    """A Task with a configuration is a task type of its class's name."""
    kind = task_type(SendEmail)
    assert (kind.cls, kind.config, kind.name, kind.aliases) == (SendEmail, MAIL, "SendEmail", ())
    assert kind.names == ("SendEmail",)


def test_a_task_type_is_looked_at_once() -> None:
    """What is known of a class is kept."""
    assert task_type(SendEmail) is task_type(SendEmail)


def test_class_attributes_are_not_encoded() -> None:
    """The payload has the fields, not the configuration or the names."""

    class Named(Task):
        config: ClassVar[QueueConfig] = MAIL
        task_name: ClassVar[str] = "named"
        aliases: ClassVar[tuple[str, ...]] = ("old",)
        value: int

    assert msgspec.json.encode(Named(1)) == b'{"value":1}'


class Plain(msgspec.Struct):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class Frozen(msgspec.Struct, frozen=True):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class Tagged(Task, tag="tagged"):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class KeywordOnly(Task, kw_only=True):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class AsArray(Task, array_like=True):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class Strict(Task, forbid_unknown_fields=True):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class Renamed(Task, rename="camel"):
    config: ClassVar[QueueConfig] = MAIL
    value: int


class GenericField(Task, Generic[T]):
    config: ClassVar[QueueConfig] = MAIL
    value: T


class WithDataclass(Task):
    config: ClassVar[QueueConfig] = MAIL
    value: Address


class Unannotated(msgspec.Struct):
    config = MAIL
    value: int


class Inherited(Plain):
    more: int = 0


@pytest.mark.parametrize(
    ("cls", "value"),
    [
        (Plain, 1),
        (Frozen, 1),
        (Tagged, 1),
        (KeywordOnly, 1),
        (AsArray, 1),
        (Strict, 1),
        (Renamed, 1),
        (GenericField, [1, "x"]),
        (WithDataclass, Address("Main Street", 3)),
        (Unannotated, 1),
        (Inherited, 1),
    ],
)
def test_every_kind_of_struct_can_be_a_task_type(cls: Any, value: object) -> None:
    """Any Struct with a configuration works, whatever its options, and decodes as it was."""
    kind = task_type(cls)
    assert (kind.name, kind.config) == (cls.__name__, MAIL)
    task = cls(value=value)
    assert kind.decoder.decode(msgspec.json.encode(task)) == task


def test_a_struct_without_fields() -> None:
    """A task that carries no values is one all the same."""

    class Cleanup(Task):
        config: ClassVar[QueueConfig] = MAIL

    assert task_type(Cleanup).decoder.decode(b"{}") == Cleanup()


# -- names ----------------------------------------------------------------------------------------


def test_a_task_name_and_aliases_of_its_own() -> None:
    """A renamed class keeps the old name, or lists it."""

    class SendLetter(Task):
        config: ClassVar[QueueConfig] = MAIL
        task_name: ClassVar[str] = "letter"
        aliases: ClassVar[tuple[str, ...]] = ("SendLetter", "PostLetter")

    kind = task_type(SendLetter)
    assert (kind.name, kind.aliases) == ("letter", ("SendLetter", "PostLetter"))
    assert kind.names == ("letter", "SendLetter", "PostLetter")


def test_aliases_may_be_a_list() -> None:
    """Any sequence of names does."""

    class Listed(Task):
        config: ClassVar[QueueConfig] = MAIL
        aliases = ["One", "Two"]  # type: ignore[assignment]

    assert task_type(Listed).aliases == ("One", "Two")


@pytest.mark.parametrize("value", ["", "x" * 201, None, 5, b"name", ["name"]])
def test_a_wrong_task_name(value: Any) -> None:
    """A name that is no text of 1 to 200 characters is refused, naming class, attribute and value."""

    class Wrong(Task):
        config: ClassVar[QueueConfig] = MAIL
        task_name = value

    message = refusal(Wrong)
    assert "Wrong.task_name" in message
    assert repr(value) in message


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "line\nbreak"])
def test_a_task_name_that_cannot_be_stored_or_shown(value: str) -> None:
    """A name must be printable, as a queue's must, or it fails only in the database."""

    class Unprintable(Task):
        config: ClassVar[QueueConfig] = MAIL
        task_name: ClassVar[str] = value

    assert "Unprintable.task_name" in refusal(Unprintable)


@pytest.mark.parametrize("value", [("",), ("ok", 5), ("x" * 201,), (None,)])
def test_a_wrong_alias(value: Any) -> None:
    """Each alias is held to the same rule."""

    class Wrong(Task):
        config: ClassVar[QueueConfig] = MAIL
        aliases = value

    message = refusal(Wrong)
    assert "Wrong.aliases" in message
    assert repr(value[-1]) in message


def test_an_alias_without_its_tuple() -> None:
    """A plain string, which would be taken letter by letter, is refused."""

    class Wrong(Task):
        config: ClassVar[QueueConfig] = MAIL
        aliases = "OldName"  # type: ignore[assignment]

    assert refusal(Wrong).endswith("Wrong.aliases must be a tuple of names, not 'OldName'")


@pytest.mark.parametrize("value", [None, 5])
def test_aliases_that_are_no_sequence(value: Any) -> None:
    """Aliases that cannot be walked over are refused like every other declaration mistake."""

    class Wrong(Task):
        config: ClassVar[QueueConfig] = MAIL
        aliases = value

    message = refusal(Wrong)
    assert "Wrong.aliases" in message
    assert repr(value) in message


def test_a_field_called_aliases() -> None:
    """A payload field that hides the class attribute is refused by name, as `config` is."""

    class Person(msgspec.Struct):
        config: ClassVar[QueueConfig] = MAIL
        aliases: list[str]

    assert "Person.aliases" in refusal(Person)


def test_a_field_called_task_name() -> None:
    """The same of `task_name`."""

    class Person(msgspec.Struct):
        config: ClassVar[QueueConfig] = MAIL
        task_name: str

    assert "Person.task_name" in refusal(Person)


# -- what is none ---------------------------------------------------------------------------------


def test_a_class_without_configuration() -> None:
    """The message names the class and the line to add."""

    class NoQueue(Task):
        value: int

    message = refusal(NoQueue)
    assert "NoQueue has no queue" in message
    assert "config: ClassVar[QueueConfig] = QueueConfig(...)" in message


def test_the_base_class_itself() -> None:
    """Task is the base of task types, not one."""
    assert "Task has no queue" in refusal(Task)


def test_a_configuration_that_is_a_field() -> None:
    """Without ClassVar the configuration would be encoded: the message says how to annotate it."""

    class NoClassVar(msgspec.Struct):
        config: QueueConfig = MAIL
        value: int = 0

    message = refusal(NoClassVar)
    assert "NoClassVar.config is a field" in message
    assert "ClassVar[QueueConfig]" in message


@pytest.mark.parametrize("value", ["mail", {"name": "mail"}, QueueConfig, 5])
def test_a_configuration_of_another_type(value: Any) -> None:
    """A configuration is a QueueConfig."""

    class Wrong(Task):
        config = value

    message = refusal(Wrong)
    assert "Wrong.config must be a QueueConfig" in message
    assert repr(value) in message


class NotStruct:
    config: ClassVar[QueueConfig] = MAIL


@pytest.mark.parametrize(
    "value",
    [NotStruct, Address, int, dict, None, 5, "SendEmail", SendEmail("a"), [], {}, GenericField[int]],
    ids=lambda value: f"{value!r:.30}",
)
def test_what_is_no_struct_class(value: object) -> None:
    """Anything but a subclass of msgspec.Struct is refused, also what cannot be hashed."""
    message = refusal(value)
    assert repr(value) in message
    assert "subclass of Task (or msgspec.Struct)" in message


def test_a_field_that_json_cannot_carry() -> None:
    """A field type that cannot be decoded is found at the declaration, with the class's name."""

    class Odd(Task):
        config: ClassVar[QueueConfig] = MAIL
        value: int | str | bytes | bytearray

    message = refusal(Odd)
    assert "Odd cannot be decoded from JSON" in message


def test_a_refused_class_is_refused_again() -> None:
    """A failed look is not remembered as a success."""

    class NoQueue(Task):
        value: int

    assert refusal(NoQueue) == refusal(NoQueue)


def test_two_classes_of_one_name_are_two_task_types() -> None:
    """What is known is known of the class, not of its name."""

    def make() -> type[Task]:
        class Same(Task):
            config: ClassVar[QueueConfig] = MAIL

        return Same

    one, other = make(), make()
    kinds: list[TaskType] = [task_type(one), task_type(other)]
    assert [kind.cls for kind in kinds] == [one, other]


# -- what others are told of it ---------------------------------------------------------------------


class Documented(Task):
    """Send one email.

    With more of it.
    """

    config: ClassVar[QueueConfig] = MAIL
    to: str
    copies: int = 1


class Heir(Documented):
    config: ClassVar[QueueConfig] = MAIL


def test_a_docstring_is_title_and_description() -> None:
    """Its first line is the title; a base's docstring is not the class's own."""
    kind = task_type(Documented)
    assert (kind.title, kind.description) == ("Send one email.", "Send one email.\n\nWith more of it.")
    assert (task_type(Heir).title, task_type(Heir).description) == ("Heir", "")
    assert (task_type(SendEmail).title, task_type(SendEmail).description) == ("SendEmail", "")


@pytest.mark.parametrize(("text", "title"), [("", "Odd"), ("  \n \n", "Odd"), ("\n  A b \n", "A b")])
def test_any_docstring_has_a_title(text: str, title: str) -> None:
    """A blank one has no first line, so the name is the title."""
    cls = types.new_class("Odd", (Task,), exec_body=lambda body: body.update(__doc__=text, config=MAIL))
    assert task_type(cls).title == title


def test_the_schema_is_json() -> None:
    """The fields of a task type, for forms and checks where its code is not."""
    text = task_type(Documented).schema()
    assert text is not None
    schema = msgspec.json.decode(text)
    assert schema["$defs"]["Documented"]["properties"] == {
        "to": {"type": "string"},
        "copies": {"type": "integer", "default": 1},
    }


class Odd:
    pass


class Schemaless(Task):
    config: ClassVar[QueueConfig] = MAIL
    odd: Odd


def test_a_type_that_has_no_schema() -> None:
    """A field of a type that JSON schemas do not know leaves the task type without one, not unusable."""
    assert task_type(Schemaless).schema() is None
