"""The pages, each a module with its routes."""

from __future__ import annotations

from . import _actions, _edit, _job, _jobs, _overview

__all__ = ["ROUTES"]

ROUTES = (*_overview.ROUTES, *_jobs.ROUTES, *_actions.ROUTES, *_job.ROUTES, *_edit.ROUTES)
