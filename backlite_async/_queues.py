"""What can be asked of queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._job import Queue

if TYPE_CHECKING:
    from ._client import Client

__all__ = ["Queues"]


class Queues:
    """The queues of a client's database: `client.queues`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list(self) -> Sequence[Queue]:
        """Return how the queues are doing that have live jobs or are paused, by name.

        `oldest_due` shows jobs that starve: by others of higher priority, a limit, a pause, or for
        want of a handler.
        """
        return await self._client.open_store().queues(now=self._client.clock.now())
