"""Lists of jobs."""

from __future__ import annotations

from .support import World


async def test_smoke(world: World) -> None:
    ids = await world.fill()
    seen = await world.page.see("/jobs")
    print(seen.text)
    assert False
