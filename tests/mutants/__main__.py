"""Have the tests notice each defect of the catalogue: `python -m tests.mutants [NAME or FILE ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .catalogue import MUTANTS
from .mutant import PACKAGE, Mutant, Stale
from .runner import EVERYTHING, Baseline, Verdict, judge_all


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Return the mutants of these names, or of these files; all, if there are none. Raises `LookupError`."""
    found = [mutant for mutant in MUTANTS if not names or {mutant.name, mutant.file} & set(names)]
    known = {mutant.name for mutant in MUTANTS} | {mutant.file for mutant in MUTANTS}
    if unknown := [name for name in names if name not in known]:
        raise LookupError(f"no mutant {unknown[0]!r}; --list shows their names and files")
    return found


def stale(mutants: Sequence[Mutant]) -> list[str]:
    """Return which mutants do not fit the library's text any more."""
    found = []
    for mutant in mutants:
        try:
            mutant.changed((PACKAGE / mutant.file).read_text())
        except (Stale, OSError) as error:
            found.append(str(error))
    return found


def run(mutants: Sequence[Mutant], *, jobs: int, tests: str | None = None) -> tuple[list[Verdict], list[str]]:
    """Judge mutants, saying what becomes of each; return the verdicts, and what is wrong with the tests."""
    verdicts: list[Verdict] = []
    troubles: list[str] = []
    for found in judge_all(mutants, jobs=jobs, tests=tests):
        if isinstance(found, Verdict):
            verdicts.append(found)
            by = found.by.strip().splitlines()[-1] if found.by.strip() else ""
            print(f"{found.outcome:8} {found.mutant.name} ({found.seconds:.0f} s) {by}", flush=True)
        else:
            troubles += _troubles(found)
    print(*troubles, sep="\n", flush=True)
    return verdicts, troubles


def _troubles(baseline: Baseline) -> list[str]:
    left_out = [f"fails without any mutant, and is left out: {test}" for test in baseline.failing]
    return left_out + baseline.troubles


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if a mutant survives, does not fit, or could not be judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutants, or files of the package")
    parser.add_argument("--list", action="store_true", help="show the catalogue, and stop")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument("--own", action="store_true", help="only the tests that a mutant names, not all")
    options = parser.parse_args(arguments)
    try:
        mutants = chosen(options.names)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:40} {mutant.file}: {mutant.breaks}")
        return 0
    if wrong := stale(mutants):
        print("these mutants are STALE, bring the catalogue up to date:", *wrong, sep="\n    ")
        return 1
    verdicts, troubles = run(mutants, jobs=options.jobs)
    alive = [verdict.mutant for verdict in verdicts if verdict.outcome == "survived"]
    if alive and not options.own:
        print(f"{len(alive)} have survived their own tests; now all tests")
        second, more = run(alive, jobs=options.jobs, tests=EVERYTHING)
        judged = {verdict.mutant.name for verdict in second}
        verdicts = [verdict for verdict in verdicts if verdict.mutant.name not in judged] + second
        troubles += more
    return report(mutants, verdicts, troubles)


def report(mutants: Sequence[Mutant], verdicts: Sequence[Verdict], troubles: Sequence[str]) -> int:
    """Say how many were killed and who was not; return the exit status."""
    killed = [verdict for verdict in verdicts if verdict.outcome in ("killed", "hangs")]
    print(f"\n{len(killed)} of {len(mutants)} mutants killed")
    for verdict in verdicts:
        if verdict.outcome == "survived":
            print(f"SURVIVED {verdict.mutant.name} ({verdict.mutant.file}): {verdict.mutant.breaks}")
        elif verdict.outcome == "broken":
            print(f"BROKEN {verdict.mutant.name}: the tests cannot be run with it: {verdict.by}")
    return int(len(killed) < len(mutants) or bool(troubles))


if __name__ == "__main__":
    sys.exit(main())
