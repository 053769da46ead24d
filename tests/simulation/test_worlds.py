"""Random worlds: at least a thousand seeds, each ends with everything done, and no promise broken.

`python -m tests.simulation --seed N` shows the history of a seed that failed. The environment
variable BACKLITE_SEEDS sets how many are run, BACKLITE_FIRST_SEED where they begin.
"""

from __future__ import annotations

import os

import pytest

from .storm import simulate

FIRST = int(os.environ.get("BACKLITE_FIRST_SEED", "0"))
COUNT = int(os.environ.get("BACKLITE_SEEDS", "1000"))
CHUNK = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, CHUNK))
def test_every_promise_holds_in_every_world(first: int) -> None:
    """Whatever the order, the faults, the clock and the handlers: every job ends, and as it should."""
    failed = []
    for seed in range(first, min(first + CHUNK, FIRST + COUNT)):
        _, found = simulate(seed)
        if found:
            failed += [f"python -m tests.simulation --seed {seed}", *(f"    {line}" for line in found[:5])]
    assert not failed, "\n".join(["these seeds fail:", *failed])


@pytest.mark.parametrize("seed", [1, 7, 23, 42])
def test_a_seed_has_one_history(seed: int) -> None:
    """The same seed gives the same history, so that a failure can be looked at again."""
    first, second = simulate(seed)[0], simulate(seed)[0]
    assert len(first) > 20
    assert first == second
