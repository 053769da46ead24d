"""Where the library's log goes: to stderr, unless the application says otherwise."""

from __future__ import annotations

import logging
import sys

import structlog

__all__ = ["log_to_stderr"]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Write log lines to stderr, if nobody has configured logging yet."""
    if structlog.is_configured():
        return
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )  # which does nothing where there are handlers
