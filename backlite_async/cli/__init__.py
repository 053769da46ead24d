"""The command line: `backlite`, which is the same as `python -m backlite_async`.

It is built on click, which `pip install backlite_async[cli]` brings; nothing of it is loaded before `main()`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command (None: that of the process); return its exit status."""
    try:
        import click  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("backlite: the command line needs click: pip install 'backlite_async[cli]'\n")
        return 2
    from ._app import run

    return run(sys.argv[1:] if arguments is None else [*arguments])
