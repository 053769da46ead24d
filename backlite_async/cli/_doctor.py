"""`backlite doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio

from .. import Client
from ._base import Settings, command, existing, without_client

__all__ = ["doctor"]


@command(None, "doctor", "backlite doctor --db app.db", "backlite doctor --json | jq -r .code")
@without_client
def doctor(settings: Settings) -> int:
    """Look for what is wrong with a database, and say what to do about it.

    It finds an SQLite with known defects, a database that is not in WAL mode or lies on a network file
    system, a schema that is missing, older or newer, queues without a handler anywhere, leases of dead
    owners, due jobs that nobody claims, and a WAL file beyond its limit. The exit status is 1 then.
    """
    findings = asyncio.run(Client(existing(settings.path), workers=0, install=False).doctor())
    out = settings.out
    for found in findings:
        if settings.json:
            out.data(found)
        else:
            subject = f" ({found.subject})" if found.subject else ""
            out.text(f"{found.code}{subject}")
            out.text(f"  {found.message}")
            out.text(f"  {found.remedy}")
    if not findings:
        out.say("nothing is wrong")
    return 1 if findings else 0
