"""T18 in short: every fault once; and the judge of what the programs saw."""

from __future__ import annotations

from typing import Any

import pytest

from . import t18_file_gone
from .kit import Budget, Row


def test_a_database_that_is_taken_away_is_noticed() -> None:
    """Nothing is acknowledged or started afterwards, the client says why, and a fork does no harm."""
    row = t18_file_gone.run(Budget(0.0, most=11))
    assert row.failures == []
    assert (row.lost, row.corrupt, row.hangs) == (0, 0, 0)
    assert row.trials == 11


def test_every_fault_comes_at_every_moment() -> None:
    """The long form has all combinations, the first eleven all faults."""
    assert len(set(t18_file_gone.CASES)) == 44
    assert len({fault for fault, _ in t18_file_gone.CASES[:11]}) == 11


NOTICED: dict[str, Any] = {
    "saves": [["refused", "DatabaseReplaced: was deleted"]] * 3,
    "concurrent": 0,
    "said": [["store.lost", 0.002, "was deleted"]],
    "started": 0,
    "stopped": "False",
    "stop": 0.1,
    "stopped_at": 10.0,
    "child": None,
}
FORKED: dict[str, Any] = {
    **NOTICED,
    "saves": [["returned", "a"]],
    "said": [],
    "stopped": "True",
    "child": ["refused: this process is a fork"],
    "intact": True,
    "found": ["a"],
    "visits": 1,
}


def judged(fault: str, moment: str, facts: dict[str, Any]) -> list[str]:
    return t18_file_gone.judge(Row("T18", ""), fault, moment, facts)


def test_what_should_be_passes() -> None:
    """Nothing is found where nothing is wrong."""
    assert judged("deleted", "idle", NOTICED) == []
    assert judged("fork", "idle", FORKED) == []
    assert judged("moved", "adds only", {**NOTICED, "said": []}) == []
    under_way = {"saves": [["returned", "a"], *NOTICED["saves"]], "concurrent": 3, "started": 2}
    assert judged("moved", "adding", {**NOTICED, **under_way}) == []


@pytest.mark.parametrize(
    ("fault", "change", "found"),
    [
        ("deleted", {"saves": [["returned", "a"], ["refused", "gone"]]}, "1 saves were acknowledged"),
        ("deleted", {"saves": []}, "no save was refused"),
        ("deleted", {"saves": [["broke", "KeyError"], ["refused", "gone"]]}, "a save broke: KeyError"),
        ("deleted", {"started": 1}, "1 handlers were started"),
        ("deleted", {"said": []}, "said to be lost 0 times"),
        ("deleted", {"said": NOTICED["said"] * 2}, "said to be lost 2 times"),
        ("deleted", {"stopped": "never"}, "the stop took"),
        ("deleted", {"hang": "did not end"}, "did not end"),
        ("fork", {"child": ["returned"]}, "in the child: returned"),
        ("fork", {"child": ["refused: another event loop"]}, "in the child"),
        ("fork", {"found": []}, "1 acknowledged jobs are not in the file"),
        ("fork", {"saves": [["refused", "what"]]}, "in the parent: what"),
        ("fork", {"intact": False}, "the file is damaged"),
        ("fork", {"visits": 0}, "what another process has written is gone"),
    ],
)
def test_what_should_not_be_is_noticed(fault: str, change: dict[str, Any], found: str) -> None:
    """Each thing that may go wrong leaves a line of its own."""
    facts = {**(FORKED if fault == "fork" else NOTICED), **change}
    assert any(found in failure for failure in judged(fault, "idle", facts))
