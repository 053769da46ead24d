"""What is dangerous is named at the start, with what to do."""

from __future__ import annotations

import io
import sqlite3

import pytest

from backlite_async.stores.sqlite.hazards import hazards, is_affected

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv/data rw,relatime shared:9 - nfs4 server:/data rw
31 30 8:2 / /srv/data/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:41 / /srv/with\\040space rw master:3 - cifs //server/share rw
33 22 0:42 / /srv/both rw - ext4 /dev/sdc1 rw
34 22 0:43 / /srv/both rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 37, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_versions_with_the_wal_reset_bug(version: tuple[int, int, int], affected: bool) -> None:
    """All before the repair, but for the branches into which it was taken back."""
    assert is_affected(version) is affected


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/data/app.db", "nfs4"),
        ("/srv/data/local/app.db", None),
        ("/srv/data2/app.db", None),
        ("/srv/with space/app.db", "cifs"),
        ("/srv/both/app.db", "fuse.sshfs"),
        ("/home/app.db", None),
    ],
)
def test_network_file_systems(monkeypatch: pytest.MonkeyPatch, path: str, kind: str | None) -> None:
    """The innermost mount decides, of several on one folder the last."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(MOUNTS))
    found = hazards(path)
    assert bool(found) is (kind is not None)
    if kind is not None:
        assert f"({kind})" in found[0]
        assert "local disk" in found[0]


def test_systems_that_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no list of mounts, or a strange one, nothing is claimed."""

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    monkeypatch.setattr("builtins.open", missing)
    assert hazards("/srv/app.db") == []
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO("strange\n"))
    assert hazards("/srv/app.db") == []
