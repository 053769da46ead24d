"""What can be asked of a store that need not be open: the protocol."""

from __future__ import annotations

from typing import Protocol

from .._inspection import Inspection
from .._job import Hands

__all__ = ["Inspectable"]


class Inspectable(Protocol):
    """Looks at a database, whatever its schema, and what others are told of its owners."""

    async def inspect(self, *, now: int, ended_by: int, late_by: int) -> Inspection:
        """Look, and change nothing: leases that had ended by an instant, jobs that were due by another.

        Whether it is open or not, installed or not, older or newer. Raises `DatabaseUnusable` for what is
        no database, `DatabaseBusy` and `DatabaseUnavailable`.
        """
        ...

    async def versions(self) -> tuple[int, int]:
        """Return the version of the schema, 0 where there is none, and the one that is known here."""
        ...

    async def vacuum(self) -> None:
        """Build the file anew, without what was deleted; nobody else can write meanwhile."""
        ...

    def handles(self, owner: str, hands: Hands) -> None:
        """Let others know which kinds of jobs an owner of ours runs."""
        ...
