"""Templates, what they may use, and the headers of what is sent."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from starlette.responses import Response

from . import _times
from ._slugs import slug

__all__ = ["Asset", "assets", "environment", "page"]

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of everything that is sent."""

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}


class Asset:
    """A file that never changes under its address, which has a hash of it."""

    def __init__(self, name: str, body: bytes) -> None:
        self.name, self.body = name, body
        self.hash = hashlib.blake2b(body, digest_size=8).hexdigest()
        self.path = f"static/{self.hash}/{name}"
        self.type = TYPES["." + name.rpartition(".")[2]]
        self._packed = gzip.compress(body, mtime=0)

    def response(self, accepted: str | None) -> Response:
        """Return it, compressed where that is among the encodings that are accepted."""
        headers = SECURITY | {
            "Cache-Control": "public, max-age=31536000, immutable",
            "Vary": "Accept-Encoding",
        }
        encodings = [part.partition(";") for part in (accepted or "").lower().split(",")]
        if any(name.strip() == "gzip" and weight.strip() != "q=0" for name, _, weight in encodings):
            headers["Content-Encoding"] = "gzip"
            return Response(self._packed, media_type=self.type, headers=headers)
        return Response(self.body, media_type=self.type, headers=headers)


@cache
def assets() -> dict[str, Asset]:
    """Return the files that pages refer to, by name."""
    found = [
        Asset(file.name, file.read_bytes())
        for file in resources.files("backlite_async.web").joinpath("static").iterdir()
        if "." + file.name.rpartition(".")[2] in TYPES
    ]
    return {asset.name: asset for asset in found}


@cache
def environment() -> jinja2.Environment:
    """Return the environment of the templates: everything is escaped, and nothing may be undefined."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("backlite_async.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in _times.__all__:
        made.filters[name] = getattr(_times, name)
    made.filters["slug"] = slug
    return made


def page(
    template: str, values: dict[str, Any], *, status: int = 200, none_match: str | None = None
) -> Response:
    """Return a page, or that nothing has changed since one that the sender has."""
    body = environment().get_template(template).render(values).encode("utf-8", "replace")
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = SECURITY | {"Cache-Control": "no-store", "ETag": tag, "Vary": "Cookie"}
    if status == 200 and none_match is not None and tag in none_match:
        return Response(status_code=304, headers=headers)
    return Response(body, status, headers, media_type="text/html")
