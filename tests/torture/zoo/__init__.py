"""The zoo of T9: handlers that do what no handler should."""

from __future__ import annotations

from . import cancelling, processes, raising, tasks, transacting  # noqa: F401 - they fill the zoo
from .base import ZOO, Beside, Hostile, Specimen, Stage, Timed

__all__ = ["ZOO", "Beside", "Hostile", "Specimen", "Stage", "Timed"]
