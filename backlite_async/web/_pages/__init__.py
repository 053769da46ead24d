"""The pages, each a module with its routes."""

from __future__ import annotations

from . import _jobs, _overview

__all__ = ["ROUTES"]

ROUTES = (*_overview.ROUTES, *_jobs.ROUTES)
