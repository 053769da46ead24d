"""What is known to be dangerous where a database lies, or about the SQLite in use."""

from __future__ import annotations

import os
import sqlite3

__all__ = ["hazards", "is_affected", "network_file_system"]

NETWORK_FILE_SYSTEMS = frozenset(
    "9p afs beegfs ceph cifs coda fuse.glusterfs fuse.s3fs fuse.sshfs glusterfs gpfs lustre ncpfs nfs nfs4"
    " smb3 smbfs".split()
)

FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The versions in which the WAL-reset bug was repaired: https://sqlite.org/wal.html#walresetbug."""


def is_affected(version: tuple[int, int, int]) -> bool:
    """Return whether a SQLite has the bug by which a checkpoint beside a write may corrupt a database."""
    if version >= FIXED[-1]:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in FIXED)


def hazards(path: str) -> list[str]:
    """Return what to warn of, each with what to do about it."""
    found = []
    if is_affected(sqlite3.sqlite_version_info):
        found.append(
            f"SQLite {sqlite3.sqlite_version} may corrupt a WAL database when two connections write and"
            " checkpoint at the same moment; this library's own connections take turns, other programs'"
            " do not: use SQLite 3.51.3, 3.50.7, 3.44.6 or newer"
        )
    kind = network_file_system(path)
    if kind:
        found.append(
            f"the database lies on a network file system ({kind}), where SQLite's write-ahead log and locks"
            " do not work between hosts: move it to a local disk"
        )
    return found


def network_file_system(path: str) -> str:
    """Return the type of the network file system that a path lies on; nothing if it lies on none."""
    kind = _file_system(os.path.realpath(path))
    return kind if kind in NETWORK_FILE_SYSTEMS else ""


def _file_system(path: str) -> str:
    """Return the type of the file system that holds a path, as far as Linux tells; else nothing."""
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split()
                point = fields[4].replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        return ""
    return kind
