"""The page: an ASGI application that shows the jobs of a client's database, and lets people steer them.

`Dashboard(client)` is mounted under any ASGI framework, or served alone. Needs `backlite_async[web]`.
"""

try:
    import jinja2 as _jinja2  # noqa: F401 - to say what is missing before anything else is imported
    import starlette as _starlette  # noqa: F401
except ModuleNotFoundError as _error:  # pragma: no cover - told by a test in a process of its own
    raise ModuleNotFoundError(
        f"the page needs {_error.name}; pip install 'backlite_async[web]'", name=_error.name
    ) from None

from ._access import Access, Auth, Scope, allow_all, basic
from ._dashboard import Dashboard

__all__ = ["Access", "Auth", "Dashboard", "Scope", "allow_all", "basic"]
