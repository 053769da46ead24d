"""Background jobs inside an asyncio application, kept in SQLite.

`Client` adds and runs jobs; a `Task` subclass with a `QueueConfig` declares them.

The names are in `_public`, which is loaded when the first of them is asked for: pytest loads this package
for its plugin, also where it is not used.
"""

import typing as _typing

if _typing.TYPE_CHECKING:
    from ._public import *  # noqa: F403 - type checkers can tell
    from ._public import __all__ as __all__

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name == "__version__":  # looked up when asked for: it takes longer than all the rest
            from importlib.metadata import version

            return version("backlite_async")
        if name == "__all__" or not name.startswith("_"):
            from . import _public

            if name == "__all__" or name in _public.__all__:
                return globals().setdefault(name, getattr(_public, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        from . import _public

        return sorted({"__all__", *globals(), *_public.__all__})
