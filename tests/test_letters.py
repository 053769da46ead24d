"""Dead letters: what is added for a job that has failed for good."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backlite_async import Discard, InvalidTask, JobStatus, QueueConfig, Retention, Task
from backlite_async._clock import from_millis
from backlite_async._codec import decode
from backlite_async._job import ClaimedJob, Complete, More, NewJob, Outcome
from backlite_async._letters import _TOLD, dead_letter
from backlite_async._outcome import Result, cancelled, crashed, decide, give_back, refused, succeeded
from backlite_async._task import LETTER_FIELDS, task_type

NOW = 1_700_000_000_000
DEAD = QueueConfig("dead", max_attempts=7, priority=3)


class Everything(Task):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    queue: str
    task: str
    payload: Any
    error: str
    attempts: int
    crashes: int
    created_at: datetime
    failed_at: datetime
    key: str | None
    meta: dict[str, Any]
    tags: list[str]
    parent: str | None
    note: str = "mine"


class Short(Task):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    attempts: int
    crashes: int
    error: str


MAIL = QueueConfig("mail", dead_letter=Short, max_crashes=3, backoff=1)


def claimed(payload: str = '{"to": "ann"}', **values: Any) -> ClaimedJob:
    fields: dict[str, Any] = {
        "id": "j1", "queue": "mail", "task": "SendEmail", "attempt": 3, "max_attempts": 3, "crashes": 1,
        "fence": 42, "created_at": NOW - 9000, "scheduled_at": NOW - 5000,
    }  # fmt: skip
    return ClaimedJob(payload=payload, **(fields | values))


def letter(cls: type[msgspec.Struct], job: ClaimedJob, error: str = "no") -> NewJob:
    """Return the dead letter of a job, which there is."""
    made, reason = dead_letter(task_type(cls), job, error, NOW)
    assert made is not None, reason
    assert reason == ""
    return made


def told(cls: type[msgspec.Struct], job: ClaimedJob, error: str = "no") -> Any:
    """Return what the handler of a dead letter gets."""
    return decode(task_type(cls), letter(cls, job, error).payload)


# -- what it is and what it is told ----------------------------------------------------------------


def test_a_letter_is_told_what_its_fields_are_named_after() -> None:
    """Each known field has the fact of its name, the others their defaults."""
    job = claimed(key="k", meta='{"by":"eve"}', tags='["a","b"]', parent="p")
    assert told(Everything, job, "ValueError: no") == Everything(
        job_id="j1",
        queue="mail",
        task="SendEmail",
        payload={"to": "ann"},
        error="ValueError: no",
        attempts=3,
        crashes=1,
        created_at=from_millis(NOW - 9000),
        failed_at=from_millis(NOW),
        key="k",
        meta={"by": "eve"},
        tags=["a", "b"],
        parent="p",
    )


def test_a_letter_is_told_what_a_job_has_not() -> None:
    """Without key, meta data, tags and parent these are None or empty."""
    found = told(Everything, claimed())
    assert (found.key, found.meta, found.tags, found.parent) == (None, {}, [], None)


def test_the_fields_are_those_that_declarations_may_name() -> None:
    """What a declaration accepts is what can be told."""
    assert tuple(_TOLD) == LETTER_FIELDS


def test_a_letter_is_a_job_of_its_own_queue() -> None:
    """It has the attempts and priority of its queue, is due now, and its parent is the job that failed."""
    made = letter(Short, claimed())
    assert made == NewJob(
        id=made.id,
        queue="dead",
        task="Short",
        payload=b'{"job_id":"j1","attempts":3,"crashes":1,"error":"no"}',
        max_attempts=7,
        created_at=NOW,
        due_at=NOW,
        waits_from=NOW,
        priority=3,
        more=More(parent="j1"),
    )


@given(st.text(), st.integers(1, 2**62), st.text(), st.integers(1, 2**62))
def test_the_id_follows_from_the_claim(one: str, fence: int, other: str, other_fence: int) -> None:
    """The same claim has the same id, another one another; it is a UUID of version 8."""
    ids = [letter(Short, claimed(id=name, fence=number)).id for name, number in
           ((one, fence), (one, fence), (other, other_fence))]  # fmt: skip
    found = uuid.UUID(ids[0])
    assert (str(found), found.version, found.variant) == (ids[0], 8, uuid.RFC_4122)
    assert ids[0] == ids[1]
    assert (ids[0] == ids[2]) == ((one, fence) == (other, other_fence))


# -- payloads of any kind --------------------------------------------------------------------------


class OfAny(Task):
    config: ClassVar[QueueConfig] = DEAD
    payload: Any


class OfRaw(Task):
    config: ClassVar[QueueConfig] = DEAD
    payload: msgspec.Raw


@pytest.mark.parametrize(
    "payload",
    [
        *("{}", "[1, 2]", "null", '"text"', "true", "-1.5e3", str(2**80), '{"a":1,"a":2}'),
        '{"a": {"b": [null, "\\u00e9 \\ud83d\\ude00"]}}',
        "0.1234567890123456789012345678901234567890",
    ],
)
def test_a_payload_is_told_as_the_json_it_is(payload: str) -> None:
    """Whatever JSON a job carried, its letter has it, digit for digit."""
    assert bytes(told(OfRaw, claimed(payload)).payload).decode() == payload
    assert told(OfAny, claimed(payload)).payload == msgspec.json.decode(payload)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("", ""),
        ("{", "{"),
        ('{"a": 1} x', '{"a": 1} x'),
        ('"\\ud800"', '"\\ud800"'),
        ("\udcff{}", "?{}"),
        ('{"a": NaN}', '{"a": NaN}'),
        ("[" * 100_000 + "]" * 100_000, "[" * 100_000 + "]" * 100_000),
        ('1}, {"payload": 2', '1}, {"payload": 2'),
    ],
)
def test_what_is_no_json_is_told_as_text(payload: str, text: str) -> None:
    """A job whose payload does not decode has a dead letter all the same, with what it was."""
    assert told(OfAny, claimed(payload)).payload == text


@given(st.text(st.characters(), max_size=20) | st.binary(max_size=20).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")))  # fmt: skip
def test_any_payload_has_a_letter(payload: str) -> None:
    """Nothing that can stand in a payload keeps its dead letter from being made."""
    assert told(Everything, claimed(payload)).error == "no"


# -- Structs of any form ---------------------------------------------------------------------------


class Renamed(Task, rename="camel"):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    failed_at: datetime


class ByHand(Task):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str = msgspec.field(name="error")
    error: str = msgspec.field(name="job_id")


class Tagged(Task, tag="dead", tag_field="kind", forbid_unknown_fields=True):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str


class Row(Task, array_like=True):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    mine: int = 5
    error: str = ""
    more: list[int] = msgspec.field(default_factory=lambda: [1])
    attempts: int = 0


class TaggedRow(Task, array_like=True, tag=7):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    attempts: int


class Terse(Task, omit_defaults=True, kw_only=True):
    config: ClassVar[QueueConfig] = DEAD
    note: str = "mine"
    job_id: str


@pytest.mark.parametrize(
    ("cls", "payload", "task"),
    [
        (Renamed, b'{"jobId":"j1","failedAt":"2023-11-14T22:13:20Z"}', None),
        (ByHand, b'{"error":"j1","job_id":"no"}', ByHand("j1", "no")),
        (Tagged, b'{"kind":"dead","job_id":"j1"}', Tagged("j1")),
        (Row, b'["j1",5,"no",[1],3]', Row("j1", 5, "no", [1], 3)),
        (TaggedRow, b'[7,"j1",3]', TaggedRow("j1", 3)),
        (Terse, b'{"job_id":"j1"}', Terse(job_id="j1")),
    ],
)
def test_a_letter_has_the_form_of_its_type(cls: type[msgspec.Struct], payload: bytes, task: Any) -> None:
    """Renamed fields, tags, Structs as arrays: the letter is what the type's own encoding would be."""
    assert letter(cls, claimed()).payload == payload
    expected = task or Renamed("j1", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    assert told(cls, claimed()) == expected
    assert msgspec.json.decode(msgspec.json.encode(expected)) == msgspec.json.decode(payload)


# -- letters that cannot be made -------------------------------------------------------------------


class Mail(msgspec.Struct):
    to: str


class OfMail(Task):
    config: ClassVar[QueueConfig] = DEAD
    payload: Mail


class Picky(Task):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str

    def __post_init__(self) -> None:
        raise KeyError(self.job_id)


class Moody(Task, array_like=True):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    moods: list[int] = msgspec.field(default_factory=lambda: [1 // 0])


@pytest.mark.parametrize(
    ("cls", "job", "reason"),
    [
        (OfMail, claimed('{"from": "ann"}'), "missing required field `to`"),
        (OfMail, claimed("{"), "Expected `object`, got `str` - at `$.payload`"),
        (Picky, claimed(), "KeyError: 'j1'"),
        (Moody, claimed(), "ZeroDivisionError"),
        (Everything, claimed(meta="{"), "DecodeError: Input data was truncated"),
    ],
)
def test_a_letter_that_cannot_be_made_says_why(
    cls: type[msgspec.Struct], job: ClaimedJob, reason: str
) -> None:
    """What the job has and the letter's type does not take is no error here; the reason is returned."""
    made, why = dead_letter(task_type(cls), job, "no", NOW)
    assert made is None
    assert reason in why


def test_a_letter_of_a_payload_that_fits_its_type() -> None:
    """A letter may name the type of the payload it expects."""
    assert told(OfMail, claimed()).payload == Mail("ann")


def test_the_job_that_has_no_letter_says_so() -> None:
    """The failed job's error has the reason, also that of one that crashed."""
    config = QueueConfig("mail", dead_letter=Picky, max_crashes=1)
    result = Result(finished_at=NOW, error="ValueError: no", type="ValueError")
    for outcome in (decide(claimed(), config, result, 0.5), crashed(claimed(), config, NOW)):
        assert isinstance(outcome, Complete)
        assert outcome.letter is None
        assert outcome.error is not None
        assert outcome.error.startswith(("ValueError: no (", "process died 2 times while the job ran ("))
        assert "(no dead letter could be made: " in outcome.error
        assert outcome.error.endswith("KeyError: 'j1')")


# -- which jobs have one ---------------------------------------------------------------------------


def failed(**values: Any) -> Result:
    fields: dict[str, Any] = {
        "finished_at": NOW,
        "started_at": NOW - 9,
        "duration": 9000,
        "error": "E: no",
        "type": "E",
    }
    return Result(**(fields | values))


def ends(config: QueueConfig) -> Iterator[tuple[str, Outcome, Short | None]]:
    """Yield ways to end, their outcomes, and what the dead letter says then."""
    job, died = claimed(), claimed(crashes=2)
    yield "failed", decide(job, config, failed(), 0.5), Short("j1", 3, 1, "E: no")
    yield (
        "discarded",
        decide(job, config, failed(steer=Discard("no"), error="no"), 0.5),
        Short("j1", 3, 1, "no"),
    )
    yield (
        "undecodable",
        decide(job, config, failed(final=True, started_at=None), 0.5),
        Short("j1", 3, 1, "E: no"),
    )
    yield (
        "crashed",
        crashed(died, config, NOW, lapsed_by=NOW),
        Short("j1", 2, 3, "process died 3 times while the job ran"),
    )
    yield (
        "ended its process",
        decide(died, config, failed(ends_process=True), 0.5),
        Short("j1", 2, 3, "process died 3 times while the job ran"),
    )
    yield (
        "unwritable",
        refused(give_back(job, NOW), job, config, NOW, "too large"),
        Short("j1", 2, 1, "its outcome could not be stored: too large"),
    )
    yield "returned", decide(job, config, Result(finished_at=NOW), 0.5), None
    yield "done in a transaction", succeeded(job, config, Result(finished_at=NOW), "1"), None
    yield "cancelled", decide(job, config, failed(cancelled=True), 0.5), None
    yield "cancelled before", cancelled(job, config, NOW), None
    yield "crashed once", crashed(job, config, NOW), None
    yield "of another's queue", crashed(died, None, NOW), None
    yield "stopped", decide(job, config, failed(stopped=True), 0.5), None
    yield "retried", decide(claimed(attempt=1), config, failed(), 0.5), None


@pytest.mark.parametrize("retention", [None, Retention()])
def test_failed_jobs_have_a_letter_and_no_others(retention: Retention | None) -> None:
    """Whatever way a job fails for good, it has one dead letter, which knows its last counters."""
    config = QueueConfig("mail", dead_letter=Short, max_crashes=3, backoff=1, retention=retention)
    for way, outcome, expected in ends(config):
        made = outcome.letter if isinstance(outcome, Complete) else None
        found = None if made is None else decode(task_type(Short), made.payload)
        assert (way, found) == (way, expected)
        if isinstance(outcome, Complete):
            assert (outcome.status is JobStatus.FAILED) == (expected is not None)
            if expected is not None:
                assert (outcome.attempt, outcome.crashes) == (expected.attempts, expected.crashes)


def test_without_a_dead_letter_there_is_none() -> None:
    """Queues that name none have none."""
    for _, outcome, _ in ends(QueueConfig("mail", max_crashes=3, backoff=1)):
        assert isinstance(outcome, Complete) is hasattr(outcome, "letter")
        assert getattr(outcome, "letter", None) is None


# -- declarations ----------------------------------------------------------------------------------


def task_of(config: QueueConfig) -> type[Task]:
    """Return a task type of a queue."""
    queue = config

    class Mailing(Task):
        config: ClassVar[QueueConfig] = queue

    return Mailing


def test_a_task_type_knows_its_letter() -> None:
    """The letter's type is looked up with the task type's."""
    assert task_type(task_of(MAIL)).letter is task_type(Short)
    assert task_type(task_of(QueueConfig("mail", dead_letter=Row))).letter is task_type(Row)  # has defaults
    assert task_type(Short).letter is None


class Needy(Task):
    config: ClassVar[QueueConfig] = DEAD
    job_id: str
    customer: str


class Homeless(Task):
    job_id: str


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Needy, "dead_letter=Needy of queue 'mail' has a field 'customer' without a default"),
        (Homeless, "Homeless has no queue"),
        (Mail, "Mail has no queue"),
    ],
)
def test_a_dead_letter_that_cannot_be_one(cls: type[msgspec.Struct], said: str) -> None:
    """A letter with a field that nobody tells, or of no queue, is refused with its task type, by name."""
    with pytest.raises(InvalidTask, match=said):
        task_type(task_of(QueueConfig("mail", dead_letter=cls)))


def test_a_letter_to_the_same_queue() -> None:
    """A dead letter that fails must not make another one, also where the queue is declared twice."""
    with pytest.raises(InvalidTask, match=r"must not come back to a queue \(dead -> dead\)"):
        task_type(task_of(QueueConfig("dead", dead_letter=Short)))


def test_letters_that_go_round() -> None:
    """Nor must the dead letter of a dead letter come back."""
    first = task_of(QueueConfig("first"))
    second = task_of(QueueConfig("second", dead_letter=first))
    first.config = QueueConfig("first", dead_letter=second)
    with pytest.raises(InvalidTask, match=r"\(first -> second -> first\)"):
        task_type(first)
    with pytest.raises(InvalidTask, match=r"\(third -> first -> second -> first\)"):
        task_type(task_of(QueueConfig("third", dead_letter=first)))


def test_letters_of_letters() -> None:
    """A dead letter may have one of its own, in a queue of its own."""
    second = task_of(QueueConfig("second", dead_letter=Short))
    kind = task_type(task_of(QueueConfig("first", dead_letter=second)))
    assert kind.letter is not None
    assert kind.letter.letter is task_type(Short)
