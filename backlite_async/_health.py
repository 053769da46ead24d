"""Whether the database can be used: said once per change, not once per try."""

from __future__ import annotations

from traceback import format_tb

from . import _log as log
from ._errors import BackliteError

__all__ = ["Health"]

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0


class Health:
    """What one part of the client finds out about the database: `doing` names what it tries.

    Parts that share a set of `troubled` ones say together once that there is trouble, and once
    that it is over. What is no trouble with the database is said by each part.
    """

    def __init__(self, doing: str, troubled: set[str]) -> None:
        self._doing = doing
        self._troubled = troubled
        self._pause = 0.0

    @property
    def failing(self) -> bool:
        """Whether the last try failed."""
        return self._pause > 0

    def failed(self, error: BaseException) -> float:
        """Take note of a failure; return the seconds to wait before the next try."""
        expected = isinstance(error, BackliteError)
        if not self.failing and not (expected and self._troubled):
            log.emit(
                log.STORE_FAILING,
                doing=self._doing,
                error=f"{type(error).__name__}: {error}",
                traceback=None if expected else "".join(format_tb(error.__traceback__)).rstrip(),
            )
        self._troubled.add(self._doing)
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        return self._pause

    def succeeded(self) -> None:
        """Take note that the database was used."""
        if self.failing:
            self._pause = 0.0
            self._troubled.discard(self._doing)
            if not self._troubled:
                log.emit(log.STORE_RECOVERED, doing=self._doing)
