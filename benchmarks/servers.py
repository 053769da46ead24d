"""Redis and PostgreSQL for the peers that need them: given by environment variables, or started for the run.

- `BENCHMARKS_REDIS`: the URL of an empty Redis database, which is emptied before each measurement.
- `BENCHMARKS_POSTGRES`: the URL of a PostgreSQL in which databases may be created, one a measurement.

Without them, temporary servers are started if `redis-server`, and `initdb` and `postgres`, are found.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from .peers import PEERS, Peer

__all__ = ["Servers"]

PATIENCE = 30.0
"""Seconds that a server may take to answer."""

ELSEWHERE = "/usr/lib/postgresql/*/bin"


class Servers:
    """The servers of one run, and why a peer cannot be measured."""

    def __init__(self, folder: Path, *, wanted: bool, redis_sync: str = "everysec") -> None:
        self._folder = folder
        self._wanted = wanted
        self._redis_sync = redis_sync
        self._urls: dict[str, str] = {}
        self._stack = ExitStack()
        self.reasons: dict[str, str] = {}

    def __enter__(self) -> Self:
        for peer in PEERS:
            if reason := self._obstacle(peer):
                self.reasons[peer.name] = reason
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def usable(self) -> list[Peer]:
        """Return the peers that can be measured."""
        sync = "as it is set there" if "BENCHMARKS_REDIS" in os.environ else self._redis_sync
        return [
            replace(peer, durability=peer.durability.format(redis=sync))
            for peer in PEERS
            if peer.name not in self.reasons
        ]

    @contextmanager
    def place(self, side: str) -> Iterator[dict[str, str]]:
        """Yield the URLs of what a peer needs, empty for the occasion."""
        server = next((peer.server for peer in PEERS if peer.name == side), "")
        if server == "redis":
            url = self._urls[server]
            _redis(url).flushdb()
            try:
                yield {"redis": url}
            finally:
                _redis(url).flushdb()
        elif server == "postgres":
            with _database(self._urls[server]) as url:
                yield {"postgres": url}
        else:
            yield {}

    def _obstacle(self, peer: Peer) -> str:
        """Return why a peer cannot be measured; start its server if that is the first to need it."""
        if peer.server and not self._wanted:
            return "needs --servers"
        if peer.version is None:
            return "not installed"
        if peer.server and peer.server not in self._urls:
            try:
                self._urls[peer.server] = self._reach(peer.server)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                return str(error)
        return ""

    def _reach(self, server: str) -> str:
        given = os.environ.get(f"BENCHMARKS_{server.upper()}")
        if server == "redis":
            url = given or self._stack.enter_context(_own_redis(self._folder / "redis", self._redis_sync))
            _answers(lambda: _redis(url).ping(), "Redis")
            if size := _redis(url).dbsize():
                raise RuntimeError(f"the Redis database that was given holds {size} keys; give an empty one")
            return url
        url = given or self._stack.enter_context(_own_postgres(self._folder / "postgres"))
        _answers(lambda: _postgres(url).close(), "PostgreSQL")
        return url


@contextmanager
def _own_redis(folder: Path, sync: str) -> Iterator[str]:
    """Run a Redis that appends what it is told to a file; by its advice that is synced each second."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("no redis-server here, and BENCHMARKS_REDIS is not set")
    folder.mkdir()
    port = _free_port()
    options = {
        "port": str(port), "bind": "127.0.0.1", "dir": str(folder), "save": "",
        "appendonly": "yes", "appendfsync": sync, "auto-aof-rewrite-percentage": "0",
    }  # fmt: skip
    command = [program, *(part for name, value in options.items() for part in (f"--{name}", value))]
    with _running(command, signal.SIGTERM):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _own_postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL with its default settings; as another user where this one is root."""
    initdb, postgres = _postgres_program("initdb"), _postgres_program("postgres")
    user: dict[str, Any] = {}
    with ExitStack() as stack:
        if os.geteuid() == 0:  # and elsewhere, for that user may not be let into this folder
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
            entry = _other_user()
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        data = str(folder / "data")
        subprocess.run(
            [initdb, "-D", data, "-U", "benchmarks", "-A", "trust", "-E", "UTF8", "--no-locale"],
            check=True, capture_output=True, cwd="/", **user,
        )  # fmt: skip
        port = _free_port()
        command = [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
        stack.enter_context(_running(command, signal.SIGINT, cwd="/", **user))
        yield f"postgresql://benchmarks@127.0.0.1:{port}/postgres"


@contextmanager
def _running(command: list[str], ending: signal.Signals, **options: Any) -> Iterator[None]:
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        try:
            yield
        finally:
            process.send_signal(ending)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _postgres_program(name: str) -> str:
    found = shutil.which(name)
    for path in sorted(Path("/").glob(f"{ELSEWHERE[1:]}/{name}"), reverse=True):
        found = found or str(path)
    if found is None:
        raise RuntimeError(f"no {name} here, and BENCHMARKS_POSTGRES is not set")
    return found


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("PostgreSQL does not run as root, and there is neither postgres nor nobody")


def _answers(ask: Any, name: str) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            ask()
        except Exception as error:  # of whichever library
            if time.monotonic() > end:
                raise RuntimeError(f"{name} does not answer: {error}") from error
            time.sleep(0.1)
        else:
            return


@contextmanager
def _database(url: str) -> Iterator[str]:
    """Create a database for one measurement."""
    name = f"benchmarks_{secrets.token_hex(6)}"
    with _postgres(url) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield f"{url.rpartition('/')[0]}/{name}"
    finally:
        with _postgres(url) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _redis(url: str) -> Any:
    import redis

    return redis.Redis.from_url(url)


def _postgres(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, autocommit=True)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
