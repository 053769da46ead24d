"""All mutants."""

from __future__ import annotations

from .database import MUTANTS as DATABASE
from .mutant import Mutant
from .statements import MUTANTS as STATEMENTS

__all__ = ["MUTANTS"]

MUTANTS: list[Mutant] = [*STATEMENTS, *DATABASE]
