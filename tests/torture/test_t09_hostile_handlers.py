"""T9 in short: some of the zoo; and that its judge notices what must not happen to a specimen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .children import doctored
from .kit import Budget
from .t09_hostile_handlers import Exhibit, judge, run
from .zoo import ZOO, Specimen

SHORT = [
    "system exit",
    "cancelled",
    "group",
    "text exits",
    "text is odd in a thread",
    "stop iteration in a thread",
    "retry after a word",
    "vast text",
    "recurses",
    "cancels itself",
    "leaks a cancellation",
    "swallows a thousand times",
    "outlasts its timeout",
    "never leaves its task group",
    "leaves tasks",
    "changes context variables",
    "breaks task creation for a while",
    "takes all default threads",
    "stops the loop",
    "ignores signals",
    "closes all files",
    "kills itself",
    "reads address zero",
    "forks and uses the client",
    "dies after its transaction",
]


def test_the_process_survives_some_of_the_zoo() -> None:
    """Each specimen's job ends as it should, its neighbours complete, and all workers are alive."""
    row = run(Budget(0), names=SHORT, loops=["asyncio"])
    assert row.failures == []
    assert (row.lost, row.doubles, row.corrupt, row.hangs) == (0, 0, 0, 0)
    assert row.trials == len(SHORT)


def test_no_name_of_the_short_zoo_is_misspelt() -> None:
    """They are all in the zoo, which is larger."""
    assert set(SHORT) < set(ZOO)


@pytest.mark.parametrize(
    ("module", "old", "new", "specimen"),
    [
        (
            "_worker.py",
            "except BaseException as error:  # what",
            "except Exception as error:  # ",
            "system exit",
        ),
        ("_worker.py", "context=self._context.copy()", "context=self._context", "changes context variables"),
    ],
)
def test_a_weaker_library_is_noticed(tmp_path: Path, module: str, old: str, new: str, specimen: str) -> None:
    """A worker that lets something through, and one that gives its context to the next job."""
    library = doctored(tmp_path, module, old, new)
    row = run(Budget(0), names=[specimen], loops=["asyncio"], library=library)
    assert row.failures != []


async def quiet(*_: Any) -> None:
    """Do nothing."""


def exhibit(**changes: Any) -> Exhibit:
    """Return an exhibit of a specimen that has survived, or what differs from that."""
    specimen = Specimen("quiet", quiet, ("failed",))
    jobs = [("0", "hostile", "failed"), *((str(n), "beside", "succeeded") for n in range(1, 6))]
    started = [{"what": "job.started", "job_id": str(n), "queue": "beside"} for n in range(1, 6)]
    good: dict[str, Any] = {"lives": 1, "statuses": [0], "events": started, "jobs": jobs, "whole": True}
    return Exhibit(specimen, "asyncio", **(good | changes))


def test_a_specimen_that_has_survived_is_well() -> None:
    """The judge has nothing against it."""
    assert judge(exhibit()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"whole": False}, "not all workers"),
        ({"lives": 2, "statuses": [1, 0]}, "the process ended"),
        ({"jobs": [("0", "hostile", "succeeded")]}, "its job is"),
        ({"jobs": [("0", "hostile", "failed"), ("1", "beside", "pending")]}, "beside"),
        ({"hangs": 1}, "hung"),
        ({"sound": False}, "corrupt"),
        ({"effects": 1}, "effects"),
        ({"events": [{"what": "job.unwritable", "job_id": "0"}]}, "could not be stored"),
        ({"events": [{"what": "stated", "text": "no leak", "held": False}]}, "no leak"),
        ({"events": [{"what": "job.started", "job_id": "1", "queue": "beside"}] * 2}, "ran 2 times"),
    ],
)
def test_what_must_not_happen_is_noticed(changes: dict[str, Any], what: str) -> None:
    """Each kind of damage has its own complaint."""
    assert any(what in complaint for complaint in judge(exhibit(**changes)))
