"""The pages, each a module with its routes."""

from __future__ import annotations

from . import (
    _actions,
    _jobs,
    _overview,
    _queues,
)

__all__ = ["ROUTES"]

ROUTES = (
    *_actions.ROUTES,
    *_jobs.ROUTES,
    *_overview.ROUTES,
    *_queues.ROUTES,
)
