"""Task types: what a class must have to be one."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import msgspec

from ._config import QueueConfig
from ._errors import InvalidTask
from ._formats import json_schema

__all__ = ["LETTER_FIELDS", "SchemaTask", "Task", "TaskType", "task_type"]


class Task(msgspec.Struct):
    """The base of task types: a Struct with a class attribute `config: ClassVar[QueueConfig]`.

    Any other `msgspec.Struct` with such an attribute is a task type too. The class attribute
    `task_name` (default: the class's name) is what jobs are stored under; after a rename, keep
    the old name there, or list it in `aliases`. Fields must survive JSON; give new fields a
    default, or jobs that were added before will not decode.
    """

    config: ClassVar[QueueConfig]
    task_name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]]


class SchemaTask(Task):
    """The base of types that were made of a stored schema: a stand-in, which nobody is to take note of."""


class TaskType:
    """What the library needs to know of a task type."""

    __slots__ = ("aliases", "cls", "config", "decoder", "letter", "name")

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self.cls = cls
        self.config = _config(cls)
        self.name = _text(cls, "task_name", _attribute(cls, "task_name", cls.__name__))
        aliases = _attribute(cls, "aliases", ())
        if not isinstance(aliases, (tuple, list)):
            raise InvalidTask(f"{cls.__qualname__}.aliases must be a tuple of names, not {aliases!r}")
        self.aliases = tuple(_text(cls, "aliases", alias) for alias in aliases)
        try:
            self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(cls)
        except Exception as error:  # unsupported field types, unresolved names
            raise InvalidTask(f"{cls.__qualname__} cannot be decoded from JSON: {error}") from error
        self.letter = None if self.config.dead_letter is None else _letter(self)

    @property
    def description(self) -> str:
        """The docstring of the class, which is none of its bases'."""
        return inspect.cleandoc(self.cls.__dict__.get("__doc__") or "")

    @property
    def title(self) -> str:
        """The first line of the description, or else the name."""
        return self.description.partition("\n")[0].strip() or self.name

    def schema(self) -> str | None:
        """Return the JSON schema as JSON; None where a field's type has none."""
        try:
            return msgspec.json.encode(json_schema(self.cls)).decode()
        except Exception:  # TypeError, of custom types
            return None

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases, each once."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))


_ANNOTATIONS = {
    "config": "ClassVar[QueueConfig]",
    "task_name": "ClassVar[str]",
    "aliases": "ClassVar[tuple[str, ...]]",
}
_known: WeakKeyDictionary[type, TaskType] = WeakKeyDictionary()


def task_type(cls: object) -> TaskType:
    """Return what is known of a task type, or raise `InvalidTask` that says what it lacks."""
    try:
        return _known[cls]  # type: ignore[index]
    except (KeyError, TypeError):
        pass
    if not isinstance(cls, type) or not issubclass(cls, msgspec.Struct):
        raise InvalidTask(f"{cls!r} is no task type: it must be a subclass of Task (or msgspec.Struct)")
    found = _known[cls] = TaskType(cls)
    return found


def _config(cls: type[msgspec.Struct]) -> QueueConfig:
    name = cls.__qualname__
    config = _attribute(cls, "config", None)
    if config is None:
        raise InvalidTask(
            f"{name} has no queue; add config: ClassVar[QueueConfig] = QueueConfig(...) to the class"
        )
    if not isinstance(config, QueueConfig):
        raise InvalidTask(f"{name}.config must be a QueueConfig, not {config!r}")
    return config


LETTER_FIELDS = (
    "job_id", "queue", "task", "payload", "error", "attempts", "crashes", "created_at", "failed_at", "key",
    "meta", "tags", "parent",
)  # fmt: skip
"""What a dead letter can be told of the job that has failed, by the names of its fields."""


def _letter(kind: TaskType) -> TaskType:
    """Return the task type that failed jobs are redirected to, or say what it lacks."""
    _refuse_circles(kind)
    letter = task_type(kind.config.dead_letter)
    what = f"dead_letter={letter.cls.__qualname__} of queue {kind.config.name!r}"
    for field in msgspec.structs.fields(letter.cls):
        if field.required and field.name not in LETTER_FIELDS:
            known = ", ".join(LETTER_FIELDS)
            raise InvalidTask(
                f"{what} has a field {field.name!r} without a default; it is told only: {known}"
            )
    return letter


def _refuse_circles(kind: TaskType) -> None:
    """Raise if dead letters of dead letters come back to a queue: they would go round for ever."""
    queues, config = [kind.config.name], kind.config
    while config.dead_letter is not None:
        config = _config(config.dead_letter)
        if config.name in queues:
            way = " -> ".join((*queues, config.name))
            raise InvalidTask(
                f"dead_letter of queue {queues[-1]!r}: dead letters must not come back to a queue ({way})"
            )
        queues.append(config.name)


def _attribute(cls: type[msgspec.Struct], name: str, default: object) -> object:
    """Return a class attribute that must not be a field of the payload."""
    if name in cls.__struct_fields__:
        raise InvalidTask(
            f"{cls.__qualname__}.{name} is a field of the payload; annotate it as"
            f" {name}: {_ANNOTATIONS[name]}, or give the field another name"
        )
    return getattr(cls, name, default)


def _text(cls: type, attribute: str, value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 200:
        raise InvalidTask(
            f"{cls.__qualname__}.{attribute} must be a name of 1 to 200 printable characters, not {value!r}"
        )
    return value
