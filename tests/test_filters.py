"""Filters and cursors: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import BackliteError, InvalidType, InvalidValue, JobStatus, QueueConfig, Task
from backlite_async._clock import from_millis, to_millis
from backlite_async._filters import (
    VERSION,
    Filters,
    checked_id,
    cursor,
    end_of_list,
    neighbour,
    place,
    walks,
    wanted,
)
from backlite_async._query import SortKey, Wanted

INSTANT = datetime(2030, 1, 1, 12, 0, 0, 123_456, UTC)
FLOOR = 1_893_499_200_123
"""Its millisecond."""


class Work(Task):
    config: ClassVar[QueueConfig] = QueueConfig("work")
    task_name: ClassVar[str] = "work-1"


@pytest.mark.parametrize(
    ("filters", "meaning"),
    [
        ({}, {}),
        (dict.fromkeys(Filters.__annotations__), {}),
        ({"queue": "a", "task": "b"}, {"queue": "a", "task": "b"}),
        ({"task": Work}, {"queue": "work", "task": "work-1"}),
        ({"task": Work, "queue": "old"}, {"queue": "old", "task": "work-1"}),
        ({"state": "failed"}, {"states": frozenset({JobStatus.FAILED})}),
        ({"state": JobStatus.FAILED}, {"states": frozenset({JobStatus.FAILED})}),
        ({"state": ["failed", JobStatus.PENDING]}, {"states": frozenset({"failed", "pending"})}),
        ({"tag": "t", "key": "k", "parent": "p"}, {"tag": "t", "key": "k", "parent": "p"}),
        ({"unique": "u", "queue": "q"}, {"unique": "u", "queue": "q"}),
        ({"unique": "u", "task": Work}, {"unique": "u", "queue": "work", "task": "work-1"}),
        ({"added_after": INSTANT}, {"added": (FLOOR + 1, None)}),
        ({"due_before": INSTANT}, {"due": (None, FLOOR)}),
        ({"finished_after": from_millis(5), "finished_before": from_millis(5)}, {"finished": (5, 5)}),
        ({"text": "100%\n_"}, {"text": "100%\n_"}),
    ],
)
def test_what_filters_mean(filters: dict[str, Any], meaning: dict[str, Any]) -> None:
    """Each filter is its field; a task type means its queue too; None is no filter."""
    assert wanted(filters) == Wanted(**meaning)


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)), st.integers(-3, 3))
def test_ranges_include_their_ends_and_nothing_beyond(instant: datetime, millis: int) -> None:
    """A stored millisecond is in the range exactly if its instant is."""
    edge = instant.replace(tzinfo=UTC)
    first = (wanted({"added_after": edge}).added or (None, None))[0]
    last = (wanted({"added_before": edge}).added or (None, None))[1]
    assert first is not None
    assert last is not None
    stored = to_millis(edge) + millis
    assert (stored >= first) == (from_millis(stored) >= edge)
    assert (stored <= last) == (from_millis(stored) <= edge)


@pytest.mark.parametrize(
    ("filters", "error", "said"),
    [
        ({"queu": "a"}, InvalidType, "queu= is no filter of jobs; there are queue, task"),
        ({"queue": 5}, InvalidType, "queue=5 must be a str"),
        ({"queue": ""}, InvalidValue, "queue='' is none that a job can have"),
        ({"tag": "a" * 101}, InvalidValue, "1 to 100 printable"),
        ({"key": "a\nb"}, InvalidValue, r"key='a\nb'"),
        ({"parent": b"x"}, InvalidType, "parent=b'x'"),
        ({"task": 5}, InvalidType, "5 is no task type"),
        ({"task": Work()}, InvalidType, "is no task type"),
        ({"state": "done"}, InvalidValue, "state='done' is none of the states of a job: 'pending'"),
        ({"state": "not_found"}, InvalidValue, "state='not_found'"),
        ({"state": 5}, InvalidType, "state=5"),
        ({"state": [5]}, InvalidType, "state=5"),
        ({"state": {"failed": 1}}, InvalidType, "several of them"),
        ({"state": []}, InvalidValue, "state=[] names none"),
        ({"unique": "u"}, InvalidValue, "give queue=, too"),
        ({"added_after": 5}, InvalidType, "added_after must be a datetime"),
        ({"due_before": datetime(2030, 1, 1)}, InvalidValue, "has no time zone"),
        (
            {"finished_after": INSTANT, "finished_before": INSTANT - timedelta(1)},
            InvalidValue,
            "later than finished_before=",
        ),
        ({"text": 5}, InvalidType, "text=5"),
        ({"text": ""}, InvalidValue, "leave it out"),
        ({"text": "x" * 1001}, InvalidValue, "1,001 characters"),
        ({"text": "\ud800"}, InvalidValue, "surrogates"),
    ],
)
def test_what_is_said_of_filters_that_mean_nothing(
    filters: dict[str, Any], error: type[BackliteError], said: str
) -> None:
    """The thing, the value and the way out."""
    with pytest.raises(error) as caught:
        wanted(filters)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("job_id", "error", "said"),
    [
        (5, InvalidType, "not 5"),
        (["a"], InvalidType, "write retry(*ids)"),
        ("", InvalidValue, "is no job's id"),
        ("\ud800", InvalidValue, "is no job's id"),
    ],
)
def test_what_is_said_of_ids_that_are_none(job_id: object, error: type[BackliteError], said: str) -> None:
    """What cannot be an id is refused where it is written."""
    with pytest.raises(error) as caught:
        checked_id("retry", job_id)
    assert said in str(caught.value)


# -- cursors --------------------------------------------------------------------------------------

numbers = st.integers(-(2**62), 2**62)
texts = st.text(min_size=0, max_size=20)
plain = st.one_of(
    st.tuples(st.sampled_from([0, 1, 4]), numbers, numbers),
    st.tuples(st.just(2), texts, texts, texts, numbers, numbers, numbers),
    st.tuples(st.just(3), texts, texts, numbers, numbers, numbers),
)
PLAIN, TAG, PARENT = Wanted(), Wanted(tag="a", parent="b"), Wanted(parent="b")


@given(plain)
def test_a_cursor_means_its_place(key: SortKey) -> None:
    """What went into a cursor comes out of it, whichever way it is used."""
    text = cursor(key)
    assert place("after", text, PLAIN) == place("before", text, Wanted(queue="x")) == key
    assert text.isascii()
    assert " " not in text


@given(plain, st.data())
def test_a_mangled_cursor_is_refused(key: SortKey, data: st.DataObject) -> None:
    """Cut off anywhere, or with any character changed, it does not silently mean another place."""
    text = cursor(key)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(max_codepoint=300))
    changed = text[:at] + other + text[at + 1 :]
    for wrong in (
        text[:at],
        text[at + 1 :],
        text + "AAAA",
        text + "=",
        *([changed] if other != text[at] else []),
    ):
        with pytest.raises(
            InvalidValue, match=r"^after=.* is no cursor; give \.next or \.previous of a page, unchanged"
        ):
            place("after", wrong, PLAIN)


@pytest.mark.parametrize(
    ("key", "meant", "said"),
    [
        ((5, -5), PLAIN, "a list with tag=, and this one is without tag=, parent= or workflow="),
        ((6, -5), TAG, "a list with parent=, and this one is with tag="),
        ((7, -5), PLAIN, "a list with parent="),
        ((8, 5), TAG, "a list with workflow=, and this one is with tag="),
        ((1, 5, 5), TAG, "a list without tag=, parent= or workflow=, and this one is with tag="),
        ((4, 5, 5), PARENT, "begin without before="),
    ],
)
def test_a_cursor_of_another_kind_of_list_is_refused(key: SortKey, meant: Wanted, said: str) -> None:
    """Lists with a tag, with a parent, and others have orders of their own."""
    with pytest.raises(InvalidValue) as caught:
        place("before", cursor(key), meant)
    assert said in str(caught.value)


def forged(*values: object) -> str:
    body = msgspec.json.encode(values)
    mark = hashlib.blake2s(body, digest_size=4).digest()
    return base64.urlsafe_b64encode(mark + body).decode().rstrip("=")


@pytest.mark.parametrize(
    "values",
    [
        (2,), (2, 0), (2, 0, 5), (2, 0, 5, "5"), (2, 0, 5, 5, 5), (2, 9, 5), (2, 8, "5"), (2, 0, 5, True),
        (2, 0, 5, 5.0), (2, 2, "a", "b", "c", 1, 2), (2, 3, "a", 1, 2, 3), (2, 0, 5, 2**70), (2, "0", 5, 5),
        (2, None), (2, [0], 5, 5), (2, True, 5, 5),
    ],
)  # fmt: skip
def test_a_forged_cursor_is_refused(values: tuple[object, ...]) -> None:
    """Whoever knows how they are made gets no other value past the check than a place in a list."""
    with pytest.raises(InvalidValue, match="is no cursor"):
        place("after", forged(*values), PLAIN)


def test_a_cursor_of_another_version_is_refused() -> None:
    """It says so: the page that holds it is from before an update."""
    assert place("after", forged(VERSION, 0, 5, 5), PLAIN) == (0, 5, 5)
    with pytest.raises(InvalidValue, match="of another version of this library; begin without after="):
        place("after", forged(VERSION - 1, 0, 5, 5), PLAIN)
    with pytest.raises(InvalidType, match=r"after=5 must be a str: \.next or \.previous"):
        place("after", 5, PLAIN)


@given(plain)
def test_nothing_lies_between_neighbours(key: SortKey) -> None:
    """The next place is the least greater one; the end of a list is behind all."""
    assert neighbour(key, -1) < key < neighbour(key, 1)
    assert neighbour(neighbour(key, 1), -1) == key
    if key[0] != 4:
        assert key < end_of_list(PLAIN)
    assert end_of_list(TAG)[0] == 5
    assert end_of_list(PARENT) > (7, -1)


# -- walks ----------------------------------------------------------------------------------------

STATES = {
    "retry": {"pending", "failed", "cancelled"},
    "run_now": {"pending"},
    "reschedule": {"pending"},
    "release": {"running"},
    "copy": {"pending", "running", "succeeded", "failed", "cancelled"},
    "cancel": {"pending", "running"},
    "delete": {"pending", "succeeded", "failed", "cancelled"},
}


@pytest.mark.parametrize("action", STATES)
def test_walks_lead_through_what_an_action_is_for(action: str) -> None:
    """No jobs in other states, none that are added later; what the filters say is heeded."""
    ways = walks(action, Wanted(queue="q", added=(10, 5_000)), 1_000, 2_000)
    met = [state for way in ways for state in way.wanted.states or ()]
    assert set(met) == STATES[action]
    assert all(way.wanted.added == (10, 1_000) for way in ways)
    assert all(way.wanted.queue == "q" for way in ways)
    assert not walks(action, Wanted(added=(1_001, None)), 1_000, 2_000)
    for state in JobStatus:
        ways = walks(action, Wanted(states=frozenset({state})), 1_000, 2_000)
        assert {met for way in ways for met in way.wanted.states or ()} == {state} & STATES[action]


@pytest.mark.parametrize(
    ("action", "meant", "ranges"),
    [
        ("run_now", Wanted(), [(1_001, None)]),
        ("run_now", Wanted(due=(None, 1_500)), [(1_001, 1_500)]),
        ("run_now", Wanted(due=(None, 900)), []),
        ("run_now", Wanted(finished=(None, 900)), []),
        ("reschedule", Wanted(), [(2_001, None), (None, 1_999)]),
        ("reschedule", Wanted(due=(500, 2_500)), [(2_001, 2_500), (500, 1_999)]),
        ("retry", Wanted(due=(500, 2_500)), [(1_001, 2_500)]),
        ("retry", Wanted(finished=(500, 2_500)), [None]),
    ],
)
def test_what_is_put_somewhere_is_not_met_there(
    action: str, meant: Wanted, ranges: list[tuple[int | None, int | None] | None]
) -> None:
    """The instant to which jobs go is left out of the walk, which leads down to it."""
    ways = walks(action, meant, 1_000, 2_000)
    assert [way.wanted.due for way in ways] == ranges
    assert all(way.backwards for way in ways if way.wanted.due)
