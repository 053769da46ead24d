"""What the library raises: one root, attributes that survive copies, messages that say what to do."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from backlite_async import _errors
from backlite_async._errors import (
    AlreadyExists,
    AlreadyRegistered,
    BackliteError,
    DatabaseBusy,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUnusable,
    InvalidState,
    InvalidTask,
    InvalidType,
    InvalidValue,
    JobNotFound,
    LeaseLost,
    PayloadError,
    ResultNotFound,
    ScheduleNotFound,
    TaskNotFound,
    TransactionTimeout,
)

EXAMPLES: list[BackliteError] = [
    BackliteError("something"),
    InvalidValue("timeout=-1 must not be negative"),
    InvalidType("timeout='x' must be a number"),
    InvalidTask("X is no task type"),
    InvalidState("not started"),
    AlreadyRegistered("has a handler already"),
    AlreadyExists("018f-id", "unique key 'invoice-7'"),
    JobNotFound("018f-id", "it was deleted"),
    ScheduleNotFound("nightly"),
    TaskNotFound("SendMail", "; did you mean 'SendEmail'?"),
    ResultNotFound("018f-id", "it has failed"),
    PayloadError("SendEmail", "Expected `str`, got `int` - at `$.to`"),
    DatabaseUnusable("/tmp/app.db", "is a folder"),
    DatabaseReplaced("/tmp/app.db", "was deleted"),
    DatabaseUnavailable("disk full"),
    DatabaseBusy("stayed locked"),
    LeaseLost("018f-id", 7),
    TransactionTimeout("018f-id", 5.0),
]

each_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def classes() -> list[type]:
    return [
        item
        for item in vars(_errors).values()
        if inspect.isclass(item) and item.__module__ == _errors.__name__
    ]


def test_examples_cover_every_class() -> None:
    """Every class of the module is tested below, and every one is in its `__all__`."""
    assert {type(error) for error in EXAMPLES} == set(classes())
    assert sorted(_errors.__all__) == sorted(cls.__name__ for cls in classes())


@each_error
def test_one_root(error: BackliteError) -> None:
    """Everything that the library raises can be caught by one class, which is an Exception."""
    assert isinstance(error, BackliteError)
    assert isinstance(error, Exception)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (InvalidValue, ValueError),
        (InvalidType, TypeError),
        (InvalidTask, TypeError),
        (InvalidTask, InvalidType),
        (InvalidState, RuntimeError),
        (AlreadyRegistered, ValueError),
        (AlreadyExists, ValueError),
        (JobNotFound, LookupError),
        (ScheduleNotFound, LookupError),
        (ResultNotFound, LookupError),
        (PayloadError, ValueError),
        (DatabaseBusy, DatabaseUnavailable),
    ],
)
def test_programmers_mistakes_are_builtin_errors_too(
    cls: type[BackliteError], builtin: type[Exception]
) -> None:
    """A mistake is what Python users expect to catch: TypeError, ValueError, RuntimeError."""
    assert issubclass(cls, builtin)


@each_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_type_attributes_and_message(error: BackliteError, protocol: int) -> None:
    """An error that crosses a process border is the same error."""
    other = pickle.loads(pickle.dumps(error, protocol))
    assert type(other) is type(error)
    assert vars(other) == vars(error)
    assert (str(other), other.args) == (str(error), error.args)


@each_error
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_keep_type_attributes_and_message(error: BackliteError, duplicate: object) -> None:
    """A copied error is the same error."""
    assert callable(duplicate)
    other = duplicate(error)
    assert type(other) is type(error)
    assert vars(other) == vars(error)
    assert (str(other), other.args) == (str(error), error.args)


@each_error
def test_arguments_are_kept_as_attributes(error: BackliteError) -> None:
    """A class with a constructor of its own keeps each argument under its name."""
    if "__init__" in vars(type(error)):
        names = list(inspect.signature(type(error)).parameters)
        assert tuple(getattr(error, name) for name in names) == error.args


@each_error
def test_the_message_is_one_line_and_contains_every_argument(error: BackliteError) -> None:
    """Nothing that the raiser said gets lost in the message."""
    message = str(error)
    assert message
    assert "\n" not in message
    for argument in error.args:
        assert str(argument) in message


def test_messages() -> None:
    """The messages read as sentences that name the thing first."""
    assert str(PayloadError("SendEmail", "is too large")) == "task SendEmail: is too large"
    assert str(LeaseLost("j1", 7)) == "job j1: claim 7 has lost its lease"
    assert str(DatabaseUnusable("a.db", "is a folder")) == "database 'a.db': is a folder"
    assert str(DatabaseBusy("stayed locked")) == "stayed locked"
