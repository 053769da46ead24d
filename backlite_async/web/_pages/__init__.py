"""The pages, each a module with its routes."""

from __future__ import annotations

from . import (
    _actions,
    _edit,
    _job,
    _jobs,
    _overview,
    _queues,
    _schedules,
    _tasks,
    _workflows,
)

__all__ = ["ROUTES"]

ROUTES = (
    *_actions.ROUTES,
    *_edit.ROUTES,
    *_job.ROUTES,
    *_jobs.ROUTES,
    *_overview.ROUTES,
    *_queues.ROUTES,
    *_schedules.ROUTES,
    *_tasks.ROUTES,
    *_workflows.ROUTES,
)
