"""What others are told of a queue: how it keeps, its limits, its task types."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from backlite_async import QueueConfig, Rate, Retention, Task
from backlite_async._declare import declaration
from backlite_async._job import DeclaredTask
from backlite_async._task import task_type


class Lost(Task):
    config: ClassVar[QueueConfig] = QueueConfig("lost")
    task_name: ClassVar[str] = "lost-mail"
    job_id: str


def limits(**values: Any) -> dict[str, Any]:
    """Return what is declared of a queue's limits."""
    queue = QueueConfig("mail", **values)

    class Mailing(Task):
        config: ClassVar[QueueConfig] = queue

    found: dict[str, Any] = msgspec.json.decode(declaration([task_type(Mailing)]).limits)
    return found


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, {}),
        ({"concurrency": 2, "global_concurrency": 3}, {"concurrency": 2, "global_concurrency": 3}),
        ({"concurrency_per_key": 1}, {"concurrency_per_key": 1}),
        ({"rate": Rate(5, per=60)}, {"rate": {"count": 5, "per": 60.0}}),
        ({"timeout": 5, "max_attempts": 9}, {"timeout": 5.0, "max_attempts": 9}),
        ({"dead_letter": Lost}, {"dead_letter": "lost-mail"}),
    ],
)
def test_limits_are_shown_as_declared(values: dict[str, Any], shown: dict[str, Any]) -> None:
    """Those that are set, in seconds, and a dead letter by the name that its jobs have."""
    assert limits(**values) == {"max_attempts": 3} | shown


class Bill(Task):
    """Bill a customer."""

    config: ClassVar[QueueConfig] = QueueConfig(
        "bills", concurrency_per_key=2, retention=Retention(duration=60, payload="failed")
    )


class Remind(Task):
    config: ClassVar[QueueConfig] = Bill.config


def test_a_declaration_names_all_task_types_of_its_queue() -> None:
    """With their titles, descriptions and schemas, beside what stores need of the queue."""
    kinds = [task_type(Bill), task_type(Remind)]
    found = declaration(kinds)
    assert (found.queue, found.keeps, found.keep_for, found.keep_payload, found.turns) == (
        "bills", True, 60_000, True, 2,
    )  # fmt: skip
    assert found.tasks == (
        DeclaredTask("Bill", "Bill a customer.", "Bill a customer.", kinds[0].schema()),
        DeclaredTask("Remind", "Remind", "", kinds[1].schema()),
    )


@pytest.mark.parametrize(
    ("retention", "keeps"),
    [
        (None, (False, None, False)),
        (Retention(), (True, None, False)),
        (Retention(only_failed=True, payload="always", duration=1), (True, 1000, True)),
    ],
)
def test_a_declaration_tells_how_cancelled_jobs_are_kept(retention: Retention | None, keeps: Any) -> None:
    """As the queue's retention has it for jobs that have not succeeded."""
    queue = QueueConfig("mail", retention=retention)

    class Mailing(Task):
        config: ClassVar[QueueConfig] = queue

    found = declaration([task_type(Mailing)])
    assert (found.keeps, found.keep_for, found.keep_payload) == keeps
