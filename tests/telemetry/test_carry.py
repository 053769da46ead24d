"""What travels with a job does so in its meta data, where nobody sees it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import Client, InvalidState, InvalidType, InvalidValue, QueueConfig, Task
from backlite_async._carry import KEY, MOST_TEXT, carried, encoded, joined, only, parted
from backlite_async._options import MAX_META, encoded_meta

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class Work(Task):
    config = QueueConfig("work")


@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.booleans())
def test_what_is_joined_is_parted(meta: dict[str, Any], traced: bool) -> None:
    """Meta data come back as they were, with a context or without, and so does that."""
    meta.pop(KEY, None)
    context = encoded(TRACE if traced else {}, {"request_id": "r"})
    stored = joined(encoded_meta(meta), context)
    assert parted(stored) == (meta, msgspec.json.decode(context or "{}"))
    assert carried(stored) == parted(stored)[1]
    assert parted(only(stored)) == ({}, parted(stored)[1])


def test_nothing_is_carried_where_there_is_nothing() -> None:
    """Without a context nothing is stored."""
    assert encoded({}, {}) is None
    assert joined(None, None) is None
    assert joined('{"a":1}', None) == '{"a":1}'
    assert (carried(None), only(None), carried('{"a":1}'), only('{"a":1}')) == (None, None, None, None)
    assert parted(None) == ({}, {})


@pytest.mark.parametrize(
    "stored", [f'{{"{KEY}":', f'{{"{KEY}":7}}', f'{{"{KEY}":{{}}}}', f'{{"{KEY}":\udc80']
)
def test_what_somebody_has_written_there_harms_nobody(stored: str) -> None:
    """A context that is none is none."""
    assert not carried(stored)
    assert only(stored) is None


class Strange:
    def __str__(self) -> str:
        raise RuntimeError


def test_values_for_log_lines_become_what_json_can_carry() -> None:
    """Plain values stay as they are, others become texts, long ones are cut."""
    given = {
        "a": 1, "b": True, "c": None, "d": 0.5, "e": "text", "f": 2**70, "g": float("inf"),
        "h": "x" * 5000, "i": Strange(), "j": "\udc80\0", "k": [1],
    }  # fmt: skip
    found = msgspec.json.decode(encoded({}, given) or "")["log"]
    assert found == {
        "a": 1, "b": True, "c": None, "d": 0.5, "e": "text", "f": str(2**70), "g": "inf",
        "h": "x" * MOST_TEXT, "i": "<Strange>", "j": "\\udc80\\0", "k": "[1]",
    }  # fmt: skip


def test_the_key_is_not_the_users() -> None:
    """Meta data with the reserved key are refused."""
    with pytest.raises(InvalidValue, match="the library's own"):
        Client(":memory:").add(Work()).meta({KEY: 1})


async def test_the_limit_of_meta_data_is_the_users_alone(either: str) -> None:
    """Whatever is carried, the user has all of the bytes; neither sees the other's."""
    import structlog

    most = {"k": "x" * (MAX_META - 8)}
    async with Client(either, workers=0, context=["request_id"]) as client:
        with structlog.contextvars.bound_contextvars(request_id="r" * 900):
            [job_id] = await client.add(Work()).meta(most).save()
        job = await client.get(job_id)
    assert job is not None
    assert job.meta == most
    assert job.context == {"log": {"request_id": "r" * 900}}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"context": "request_id"}, InvalidType),
        ({"context": [1]}, InvalidType),
        ({"context": 5}, InvalidType),
        ({"context": ["no name"]}, InvalidValue),
        ({"context": [""]}, InvalidValue),
        ({"tracing": "yes"}, InvalidType),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """At the constructor, with what is right."""
    with pytest.raises(error, match=r"context|tracing"):
        Client(":memory:", **options)


def test_tracing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenTelemetry is asked for and is not there."""
    monkeypatch.setattr("backlite_async._telemetry.API", "opentelemetry_that_is_not_there")
    with pytest.raises(InvalidState, match="backlite_async\\[otel\\]"):
        Client(":memory:", tracing=True)
