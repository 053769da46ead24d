"""Configuration: right values are taken, wrong ones are refused by name where they are written."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import BackliteError, Backoff, InvalidType, InvalidValue, QueueConfig, Retention, Task
from backlite_async._clock import MAX_SECONDS

NAN, INF = float("nan"), float("inf")
HOUR = timedelta(hours=1)
HUGE = pytest.param(10**400, id="an int that no float can hold")

NO_NUMBERS: list[Any] = [None, "5", b"5", True, 1j, Fraction(1, 2), [1], timedelta]
NO_DURATIONS: list[Any] = [None, "5", b"5", True, 1j, Fraction(1, 2), [1], timedelta]
BAD_DURATIONS: list[Any] = [-1, -0.001, NAN, INF, -INF, MAX_SECONDS + 1, -HOUR, timedelta.max, HUGE]


def refused(error: type[BackliteError], field: str, make: Any, **values: Any) -> str:
    """Check that the declaration raises this error, naming the field and the value."""
    with pytest.raises(error) as caught:
        make(**values)
    assert type(caught.value) is error
    message = str(caught.value)
    (value,) = values.values()
    assert field in message
    assert repr(value) in message
    return message


def queue(**values: Any) -> QueueConfig:
    return QueueConfig(**({"name": "mail"} | values))


# -- Backoff --------------------------------------------------------------------------------------


def test_backoff_defaults() -> None:
    """The documented defaults."""
    backoff = Backoff()
    assert (backoff.base, backoff.factor, backoff.cap, backoff.jitter) == (1.0, 2.0, 3600.0, 0.1)


@given(
    st.floats(0, 1000) | st.timedeltas(timedelta(0), HOUR),
    st.floats(1, 1e308),
    st.floats(3600, MAX_SECONDS) | st.timedeltas(HOUR, timedelta(days=36500)),
    st.floats(0, 1),
)
def test_backoff_keeps_seconds(base: Any, factor: float, cap: Any, jitter: float) -> None:
    """Right values are kept, durations as seconds, all as floats."""
    backoff = Backoff(base=base, factor=factor, cap=cap, jitter=jitter)
    plain = [v.total_seconds() if isinstance(v, timedelta) else v for v in (base, cap)]
    assert [backoff.base, backoff.cap, backoff.factor, backoff.jitter] == [*plain, factor, jitter]
    assert all(type(value) is float for value in msgspec.structs.astuple(backoff))


@pytest.mark.parametrize("field", ["base", "cap"])
@pytest.mark.parametrize("value", NO_DURATIONS)
def test_backoff_durations_of_a_wrong_type(field: str, value: object) -> None:
    """A base or cap that is no duration is a TypeError naming it."""
    refused(InvalidType, f"Backoff.{field}", Backoff, **{field: value})


@pytest.mark.parametrize("field", ["base", "cap"])
@pytest.mark.parametrize("value", BAD_DURATIONS)
def test_backoff_durations_that_cannot_be(field: str, value: object) -> None:
    """A negative, endless or absurd base or cap is a ValueError naming it."""
    refused(InvalidValue, f"Backoff.{field}", Backoff, **{field: value})


@pytest.mark.parametrize("field", ["factor", "jitter"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, HOUR])
def test_backoff_numbers_of_a_wrong_type(field: str, value: object) -> None:
    """A factor or jitter that is no number is a TypeError naming it."""
    refused(InvalidType, f"Backoff.{field}", Backoff, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("factor", value) for value in (0, 0.999, -2, NAN, INF, -INF)),
        *(("jitter", value) for value in (-0.1, 1.1, 2, NAN, INF, -INF)),
        pytest.param("factor", 10**400, id="a factor that no float can hold"),
        pytest.param("jitter", 10**400, id="a jitter that no float can hold"),
    ],
)
def test_backoff_numbers_that_cannot_be(field: str, value: object) -> None:
    """A factor below 1 and a jitter outside of 0 to 1 are ValueErrors naming them."""
    message = refused(InvalidValue, f"Backoff.{field}", Backoff, **{field: value})
    assert "must" in message


def test_backoff_cap_below_base() -> None:
    """A cap below the base is refused, naming both; equal is fine."""
    with pytest.raises(InvalidValue, match=r"Backoff\.cap=5\.0 must be at least base=6\.0"):
        Backoff(base=6, cap=5)
    assert Backoff(base=5, cap=5).cap == 5
    with pytest.raises(InvalidValue, match=r"Backoff\.cap=3600\.0 must be at least base=7200\.0"):
        Backoff(base=7200)


def test_backoff_does_not_change() -> None:
    """A backoff is frozen and equal by value."""
    backoff = Backoff(base=2)
    with pytest.raises(AttributeError):
        backoff.base = 3  # type: ignore[misc]
    assert backoff == Backoff(base=timedelta(seconds=2))
    assert hash(backoff) == hash(Backoff(base=2.0))


# -- Retention ------------------------------------------------------------------------------------


def test_retention_defaults() -> None:
    """By default a retention keeps everything for ever, without payloads."""
    retention = Retention()
    assert (retention.duration, retention.only_failed, retention.payload) == (None, False, "never")


@pytest.mark.parametrize(("given", "kept"), [(None, None), (0, 0.0), (5, 5.0), (HOUR, 3600.0)])
def test_retention_keeps_seconds(given: Any, kept: float | None) -> None:
    """A duration is kept as seconds, None as for ever."""
    assert Retention(duration=given).duration == kept


@pytest.mark.parametrize("value", [value for value in NO_DURATIONS if value is not None])
def test_retention_duration_of_a_wrong_type(value: object) -> None:
    """A duration of another type is a TypeError naming it."""
    refused(InvalidType, "Retention.duration", Retention, duration=value)


@pytest.mark.parametrize("value", BAD_DURATIONS)
def test_retention_duration_that_cannot_be(value: object) -> None:
    """A negative, endless or absurd duration is a ValueError naming it."""
    refused(InvalidValue, "Retention.duration", Retention, duration=value)


@pytest.mark.parametrize("value", [None, 0, 1, "yes", "only_failed", []])
def test_retention_only_failed_is_a_bool(value: object) -> None:
    """Truth is True or False."""
    refused(InvalidType, "Retention.only_failed", Retention, only_failed=value)


@pytest.mark.parametrize("value", [None, True, False, "Failed", "success", "", [], 1])
def test_retention_payload_is_one_of_three_words(value: object) -> None:
    """Another word is refused, and the message lists the right ones."""
    message = refused(InvalidValue, "Retention.payload", Retention, payload=value)
    assert all(f'"{word}"' in message for word in ("never", "failed", "always"))


def test_retention_does_not_change() -> None:
    """A retention is frozen and equal by value."""
    retention = Retention(duration=5)
    with pytest.raises(AttributeError):
        retention.duration = None  # type: ignore[misc]
    assert retention == Retention(duration=timedelta(seconds=5))


# -- QueueConfig ----------------------------------------------------------------------------------


def test_queue_defaults() -> None:
    """The documented defaults: 3 attempts, 3 crashes, growing waits, no limit, nothing kept."""
    config = QueueConfig("mail")
    assert config.name == "mail"
    assert (config.max_attempts, config.max_crashes) == (3, 3)
    assert config.backoff == Backoff()
    assert config.timeout is None
    assert config.retention is None


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=200),
    st.integers(1, 1_000_000),
    st.integers(1, 1_000_000),
    st.none() | st.floats(1e-6, MAX_SECONDS),
)
def test_queue_keeps_right_values(name: str, attempts: int, crashes: int, timeout: float | None) -> None:
    """Right values are kept as they are."""
    config = QueueConfig(name, max_attempts=attempts, max_crashes=crashes, timeout=timeout)
    assert (config.name, config.max_attempts, config.max_crashes) == (name, attempts, crashes)
    assert config.timeout == timeout


@pytest.mark.parametrize("value", [None, 5, b"mail", True, ("mail",)])
def test_queue_name_of_a_wrong_type(value: object) -> None:
    """A name that is no text is a TypeError naming it."""
    refused(InvalidType, "name", queue, name=value)


@pytest.mark.parametrize("value", ["", " ", "\t", "a\nb", "a\0b", "\ud800", "\u200b", "x" * 201])
def test_queue_name_that_cannot_be(value: str) -> None:
    """A name without visible characters, with control characters, or too long, is a ValueError."""
    refused(InvalidValue, "name", queue, name=value)


@pytest.mark.parametrize("field", ["max_attempts", "max_crashes"])
@pytest.mark.parametrize("value", [None, 1.0, 2.5, "3", True, False, [3]])
def test_queue_counts_of_a_wrong_type(field: str, value: object) -> None:
    """A count that is no whole number, also True, is a TypeError naming it."""
    refused(InvalidType, field, queue, **{field: value})


@pytest.mark.parametrize("field", ["max_attempts", "max_crashes"])
@pytest.mark.parametrize("value", [0, -1, 1_000_001, 10**30])
def test_queue_counts_that_cannot_be(field: str, value: int) -> None:
    """A count below 1 or absurdly large is a ValueError naming it."""
    refused(InvalidValue, field, queue, **{field: value})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (5, Backoff.constant(5)),
        (2.5, Backoff.constant(2.5)),
        (0, Backoff.constant(0)),
        (HOUR * 2, Backoff.constant(7200)),
        (Backoff(base=5.0), Backoff(base=5.0)),
    ],
)
def test_queue_backoff(given: Any, kept: Backoff) -> None:
    """A Backoff is kept; a plain number or timedelta means a constant wait, also beyond an hour."""
    assert QueueConfig("mail", backoff=given).backoff == kept


def test_a_constant_backoff_has_no_jitter_and_no_growth() -> None:
    """Constant means constant."""
    backoff = Backoff.constant(HOUR * 2)
    assert (backoff.base, backoff.factor, backoff.jitter) == (7200.0, 1.0, 0.0)
    assert isinstance(backoff.cap, float)
    assert backoff.cap >= 7200


@pytest.mark.parametrize("value", [*NO_DURATIONS, Backoff, Retention()])
def test_queue_backoff_of_a_wrong_type(value: object) -> None:
    """What is neither a Backoff nor a duration is a TypeError naming it."""
    refused(InvalidType, "backoff", queue, backoff=value)


@pytest.mark.parametrize("value", BAD_DURATIONS)
def test_queue_backoff_that_cannot_be(value: object) -> None:
    """A constant wait that is no possible duration is a ValueError naming it."""
    refused(InvalidValue, "backoff", queue, backoff=value)


@pytest.mark.parametrize("value", [value for value in NO_DURATIONS if value is not None])
def test_queue_timeout_of_a_wrong_type(value: object) -> None:
    """A timeout that is no duration is a TypeError naming it."""
    refused(InvalidType, "timeout", queue, timeout=value)


@pytest.mark.parametrize("value", [0, 0.0, timedelta(0), *BAD_DURATIONS])
def test_queue_timeout_that_cannot_be(value: object) -> None:
    """A timeout that leaves no time, or is no possible duration, is a ValueError naming it."""
    refused(InvalidValue, "timeout", queue, timeout=value)


def test_queue_timeout_zero_says_what_means_no_limit() -> None:
    """Who writes 0 for "no limit" is told to write None."""
    with pytest.raises(InvalidValue, match="None means no limit"):
        QueueConfig("mail", timeout=0)


def test_queue_timeout_as_timedelta() -> None:
    """A timeout is kept as seconds."""
    assert QueueConfig("mail", timeout=HOUR).timeout == 3600.0


@pytest.mark.parametrize("value", [5, HOUR, "failed", True, Retention, {}])
def test_queue_retention_of_a_wrong_type(value: object) -> None:
    """A retention is a Retention or None, nothing that looks like one."""
    refused(InvalidType, "retention", queue, retention=value)


@pytest.mark.parametrize(
    "field", ["name", "max_attempts", "max_crashes", "backoff", "timeout", "retention", "other"]
)
def test_queue_does_not_change(field: str) -> None:
    """Assigning to a configuration is refused, and leaves it as it was."""
    config = QueueConfig("mail", timeout=5)
    before = repr(config)
    with pytest.raises(AttributeError, match=f"{field}=7"):
        setattr(config, field, 7)
    assert repr(config) == before


def test_queue_is_shared_by_identity() -> None:
    """Two configurations are different queues' even if they say the same."""
    assert QueueConfig("mail") != QueueConfig("mail")


def test_queue_repr_shows_everything() -> None:
    """The repr reads like the declaration."""
    shown = repr(QueueConfig("mail", max_attempts=5, retention=Retention(duration=60)))
    assert shown.startswith("QueueConfig('mail', max_attempts=5, max_crashes=3, backoff=Backoff(")
    assert "retention=Retention(duration=60.0, only_failed=False, payload='never')" in shown
    assert shown.endswith("concurrency_per_key=None, rate=None, dead_letter=None)")


class Failed(Task):
    config: ClassVar[QueueConfig] = QueueConfig("failed")
    job_id: str


def test_queue_dead_letter() -> None:
    """A dead letter is any Struct class; whether it is a task type is seen where the queue is used."""
    assert QueueConfig("mail").dead_letter is None
    assert QueueConfig("mail", dead_letter=Failed).dead_letter is Failed
    assert QueueConfig("mail", dead_letter=msgspec.Struct).dead_letter is msgspec.Struct


@pytest.mark.parametrize("value", [5, "Failed", True, Failed("a"), int, QueueConfig("other"), [Failed]])
def test_queue_dead_letter_of_a_wrong_type(value: object) -> None:
    """What is no Struct class is a TypeError naming it; so is a task in place of its type."""
    refused(InvalidType, "dead_letter", queue, dead_letter=value)


def test_queue_options_are_keywords() -> None:
    """Only the name is positional, so that options can be added."""
    with pytest.raises(TypeError):
        QueueConfig("mail", 5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_atempts"):
        QueueConfig("mail", max_atempts=5)  # type: ignore[call-arg]
