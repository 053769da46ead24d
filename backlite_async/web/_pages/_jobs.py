"""Lists of jobs."""

from __future__ import annotations

from starlette.responses import Response

from .._visit import Route, Visit

__all__ = ["ROUTES"]


async def jobs(visit: Visit) -> Response:
    """Show the jobs that match."""
    page = await visit.client.jobs.list(limit=visit.settings.page_size)
    return visit.render("jobs.html", page=page)


ROUTES = (Route("GET", "/jobs", jobs),)
