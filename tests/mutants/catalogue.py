"""All mutants."""

from __future__ import annotations

from .mutant import Mutant
from .store import MUTANTS as STORE

__all__ = ["MUTANTS"]

MUTANTS: list[Mutant] = [*STORE]
