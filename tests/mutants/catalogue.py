"""All mutants."""

from __future__ import annotations

from .database import MUTANTS as DATABASE
from .engine import MUTANTS as ENGINE
from .mutant import Mutant
from .processes import MUTANTS as PROCESSES
from .rules import MUTANTS as RULES
from .statements import MUTANTS as STATEMENTS

__all__ = ["MUTANTS"]

MUTANTS: list[Mutant] = [*RULES, *STATEMENTS, *DATABASE, *ENGINE, *PROCESSES]
