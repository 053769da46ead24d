"""Mutants of what lies between processes: owner files, doorbells, locks, copies, hazards."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MUTANTS"]

TAKEOVER = "tests/test_takeover.py tests/stores"
PROCESSES = "tests/test_takeover.py tests/test_processes.py tests/stores"


def owners(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the owner files."""
    return Mutant(name, breaks, "stores/sqlite/owners.py", old, new, TAKEOVER)


def presence(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of an owner's presence."""
    return Mutant(name, breaks, "stores/sqlite/presence.py", old, new, TAKEOVER)


def doorbell(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the doorbell."""
    return Mutant(name, breaks, "stores/sqlite/doorbell.py", old, new, TAKEOVER)


def locks(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the turns."""
    return Mutant(name, breaks, "stores/sqlite/locks.py", old, new, PROCESSES)


def copies(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the backup."""
    return Mutant(name, breaks, "stores/sqlite/backup.py", old, new, TAKEOVER)


def hazards(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the hazards."""
    return Mutant(name, breaks, "stores/sqlite/hazards.py", old, new, TAKEOVER)


OWNERS = [
    owners(
        "owner-not-locked",
        "a live process is taken for dead",
        "            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n            os.rename",
        "            os.rename",
    ),
    owners(
        "slot-not-crossed-out",
        "a job that is done counts as started",
        "            self._map[slot * SLOT] = 0\n",
        "",
    ),
    owners(
        "slot-not-free-again",
        "after many jobs none is written down",
        "            self._free.append(slot)\n",
        "",
    ),
    owners(
        "slot-without-fence",
        "a later claim of a job inherits its start",
        'f"{fence} {job_id}"',
        'f"{job_id}"',
    ),
    owners(
        "owner-file-stays",
        "a process that ended well looks dead",
        "        if not keep:\n            with suppress(FileNotFoundError):\n                os.unlink(self._path)\n",
        "",
    ),
    owners(
        "owner-file-goes",
        "claims that are left wait for their lease",
        "        if not keep:\n            with suppress(FileNotFoundError):\n",
        "        if True:\n            with suppress(FileNotFoundError):\n",
    ),
    owners(
        "dead-file-stays",
        "a dead owner is released again and again",
        "        for name in (socket_name(self.id), self.id + SUFFIX):\n",
        "        for name in ():\n",
    ),
    owners(
        "buries-twice",
        "two clients of a process release one owner",
        "None if owner in self._shared.burying else self._lock(owner + SUFFIX)",
        "self._lock(owner + SUFFIX)",
    ),
    owners(
        "never-leaves",
        "an owner whose release failed is never released",
        "            self._shared.burying.discard(self.id)\n",
        "",
    ),
    owners(
        "own-files-opened",
        "looking at one's own file drops its lock",
        "if owner != name and owner not in self._shared.owners:\n                found.append(owner)",
        "if owner != name:\n                found.append(owner)",
    ),
    owners(
        "nobody-lives",
        "jobs of a process that hangs are taken at the end of their lease",
        '                return float(json.loads(os.pread(file, SLOT, 0).rstrip(b"\\0"))["beat"])\n',
        "                return None\n",
    ),
    owners(
        "removed-file-locked",
        "an owner is buried by two processes",
        "            if os.stat(path).st_ino == os.fstat(file).st_ino:\n",
        "            if True:\n",
    ),
    owners("unborn-stay", "files of processes that died early stay", "            self._sweep()\n", ""),
    owners(
        "unborn-own-swept",
        "a client's start removes the file of another's",
        "if owner != name and owner not in self._shared.owners:\n                file = self._lock(name)",
        "if owner != name:\n                file = self._lock(name)",
    ),
]

PRESENCE = [
    presence(
        "everybody-leads",
        "every process does the upkeep",
        "                os.close(file)\n                return False\n",
        "                return True\n",
    ),
    presence(
        "nobody-leads-again",
        "the upkeep ends with the first leader",
        "        leading, self._leading = self._leading, None\n        if leading is not None:\n",
        "        leading, self._leading = self._leading, None\n        if False:\n",
    ),
    presence(
        "departure-not-told",
        "another client of the process finds left claims late",
        "        if keep:\n            for tell",
        "        if False:\n            for tell",
    ),
    presence(
        "newcomers-not-met",
        "who came later is not rung",
        "        self.connect()\n        return self._others.dead()\n",
        "        return self._others.dead()\n",
    ),
]

DOORBELL = [
    doorbell(
        "bell-not-rung",
        "other processes' jobs wait for the next look",
        '                peer.send(b"!")\n',
        "                pass\n",
    ),
    doorbell(
        "callers-not-rung",
        "who came first does not hear who came later",
        "for peer in [*self._peers.values(), *self._callers]:\n            with suppress(OSError):  # it has",
        "for peer in self._peers.values():\n            with suppress(OSError):  # it has",
    ),
    doorbell(
        "ring-not-heard",
        "other processes' jobs wait for the next look",
        "                self._rung()\n                return\n",
        "                return\n",
    ),
    doorbell(
        "death-not-heard",
        "a crash is noticed by the lease only",
        "            self._loop.call_later(delay, self._gone)\n",
        "            pass\n",
    ),
    doorbell(
        "death-spins",
        "a reader of a closed socket spins",
        "        self._loop.remove_reader(peer)\n        peer.close()\n        self._callers.discard(peer)\n",
        "        self._callers.discard(peer)\n",
    ),
    doorbell(
        "last-ring-lost",
        "what a process committed as it died waits",
        "            self._loop.call_later(delay, self._gone)\n        self._rung()\n",
        "            self._loop.call_later(delay, self._gone)\n",
    ),
    doorbell(
        "long-paths",
        "a database in a deep folder has no doorbell",
        "    if len(os.fsencode(path)) <= LONGEST_PATH:\n",
        "    if True:\n",
    ),
    doorbell(
        "descriptors-spin",
        "without descriptors the listener spins",
        "                self._loop.remove_reader(self._listener)\n                self._loop.call_later(ACCEPT_PAUSE, self._listen)\n                return\n",
        "                return\n",
    ),
]

LOCKS = [
    locks(
        "turn-not-given-back",
        "the first writer keeps its turn",
        "            if held and self._files:\n                fcntl.flock(self._files[1], fcntl.LOCK_UN)\n",
        "            pass\n",
    ),
    locks(
        "queue-not-left",
        "the first to wait keeps the queue",
        "        finally:\n            fcntl.flock(queue, fcntl.LOCK_UN)\n",
        "        finally:\n            pass\n",
    ),
    locks(
        "no-queue",
        "who has just written overtakes who waits",
        "        if not _wait(queue, deadline, QUEUE_STEP, give_up):\n            return False\n",
        "",
    ),
    locks(
        "turn-for-ever",
        "a stopped process keeps all others from writing",
        "if time.monotonic() >= deadline or give_up.wait(step):",
        "if give_up.wait(step):",
    ),
    locks(
        "turn-though-abandoned",
        "a stop waits for its turn",
        "if time.monotonic() >= deadline or give_up.wait(step):",
        "if time.monotonic() >= deadline or time.sleep(step):",
    ),
    locks(
        "stopped-holder-trusted",
        "each write waits a second for a stopped process",
        "self._distrusted = not held",
        "self._distrusted = False",
    ),
    locks(
        "locks-inherited", "a forked child makes a dead process look alive", "    _inherited.add(thing)\n", ""
    ),
    locks(
        "side-files-readable",
        "side files are open to everybody",
        'stat.S_IMODE(os.stat(folder.removesuffix("-backlite")).st_mode) & 0o666',
        "0o666",
    ),
    locks(
        "file-shared-by-path",
        "two paths of one file have two locks",
        "    found = os.stat(path)\n    with _files_lock:",
        "    found = os.stat_result((0, hash(path), 0, *[0] * 7))\n    with _files_lock:",
    ),
]

COPIES = [
    copies(
        "copy-keeps-claims",
        "jobs of a copy wait for leases of processes that do not know it",
        '            copy.execute(statements()["free_claims"])\n',
        "",
    ),
    copies(
        "copy-over-something",
        "a backup replaces a file",
        "    if os.path.lexists(target):\n",
        "    if False:\n",
    ),
    copies(
        "unfinished-copies-stay",
        "a failed backup leaves its file",
        "            with suppress(FileNotFoundError):\n                os.unlink(name)\n",
        "            pass\n",
    ),
    copies(
        "copy-goes-on",
        "a cancelled backup goes on",
        "        if cancelled.is_set():\n            raise _Cancelled\n",
        "        pass\n",
    ),
    copies(
        "copy-readable",
        "a copy is open to those who may not read the database",
        "os.O_EXCL, mode))",
        "os.O_EXCL, 0o666))",
    ),
]

HAZARDS = [
    hazards(
        "network-not-told",
        "a network file system is not warned of",
        "    if kind in NETWORK_FILE_SYSTEMS:\n",
        "    if False:\n",
    ),
    hazards(
        "first-mount-wins",
        "the wrong file system is looked at",
        "if inside and len(point) >= len(best):",
        "if inside and not best:",
    ),
    hazards(
        "repaired-is-affected",
        "a repaired SQLite is warned of",
        "return not any(version[:2] == fixed[:2] and version >= fixed for fixed in FIXED)",
        "return True",
    ),
    hazards(
        "newer-is-affected",
        "a newer SQLite is warned of",
        "    if version >= FIXED[-1]:\n        return False\n",
        "",
    ),
]

MUTANTS = [*OWNERS, *PRESENCE, *DOORBELL, *LOCKS, *COPIES, *HAZARDS]
