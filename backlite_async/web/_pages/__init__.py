"""The pages, each a module with its routes."""

from __future__ import annotations

from . import (
    _actions,
    _jobs,
    _overview,
    _queues,
    _tasks,
    _workflows,
)

__all__ = ["ROUTES"]

ROUTES = (
    *_actions.ROUTES,
    *_jobs.ROUTES,
    *_overview.ROUTES,
    *_queues.ROUTES,
    *_tasks.ROUTES,
    *_workflows.ROUTES,
)
