"""What can be asked of the processes that have a database open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._job import OwnerInfo

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Owners"]


class Owners:
    """The started clients of a database, in all processes: `client.owners`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> Sequence[OwnerInfo]:
        """Return the started clients that are known, by id; also dead ones whose jobs are not released."""
        return await self._client.open_store().owners(now=self._client.clock.now())
