"""The overview: what is going on."""

from __future__ import annotations

from starlette.responses import Response

from .._visit import Route, Visit

__all__ = ["ROUTES"]


async def overview(visit: Visit) -> Response:
    """Show counts, figures and processes."""
    queues = await visit.client.queues.list()
    return visit.render("overview.html", queues=queues)


ROUTES = (Route("GET", "/", overview),)
