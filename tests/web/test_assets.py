"""The page's own files: small, and never asked for twice."""

from __future__ import annotations

import gzip

import httpx
import pytest

from backlite_async.web._render import assets

MOST = 10_000
"""Bytes that a file may have as it is sent."""


@pytest.mark.parametrize("name", ["style.css", "page.js", "icon.svg"])
@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "br;q=1.0, GZIP;q=0.5"])
async def test_sent_compressed(page: httpx.AsyncClient, name: str, accepted: str) -> None:
    """A browser gets less than ten thousand bytes of each, which stay what they are for ever."""
    address = "/" + assets()[name].path
    async with page.stream("GET", address, headers={"Accept-Encoding": accepted}) as answer:
        body = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == assets()[name].body
    assert len(body) < MOST
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0, identity", "gzippy"])
async def test_sent_as_it_is(page: httpx.AsyncClient, accepted: str) -> None:
    """Who does not take gzip gets none."""
    asset = assets()["style.css"]
    answer = await page.get("/" + asset.path, headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.content == asset.body
