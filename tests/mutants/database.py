"""Mutants of the database's file: transactions, group commits, connections, and the SQLite store."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MUTANTS"]

STORES = "tests/stores/test_sqlite.py tests/stores/test_contract.py"
COMMITS = "tests/stores/test_sqlite.py"
CALLERS = "tests/stores/test_transactions.py"
BLOCKS = "tests/test_transaction.py"
CLIENTS = "tests/test_client.py tests/test_worker.py"


def in_database(name: str, breaks: str, old: str, new: str, within: str = "") -> Mutant:
    """Return a mutant of the file and its connections."""
    return Mutant(name, breaks, "stores/sqlite/database.py", old, new, STORES, within)


def in_commits(name: str, breaks: str, old: str, new: str, within: str = "") -> Mutant:
    """Return a mutant of the group commit."""
    return Mutant(name, breaks, "stores/sqlite/commits.py", old, new, COMMITS, within)


def in_store(name: str, breaks: str, old: str, new: str, *, within: str = "", tests: str = STORES) -> Mutant:
    """Return a mutant of the store."""
    return Mutant(name, breaks, "stores/sqlite/store.py", old, new, tests, within)


def in_blocks(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the transactions of handlers."""
    return Mutant(name, breaks, "stores/sqlite/blocks.py", old, new, BLOCKS)


DATABASE = [
    in_database(
        "no-full-sync",
        "power loss loses acknowledged jobs",
        '"PRAGMA synchronous = " + self.synchronous',
        '"PRAGMA synchronous = NORMAL"',
    ),
    in_database(
        "adds-not-durable",
        "power loss loses acknowledged jobs",
        'if durable or self.synchronous != "FULL":',
        'if self.synchronous != "FULL":',
    ),
    in_database(
        "full-sync-not-restored",
        "after a claim nothing is synced",
        'raw.execute("PRAGMA synchronous = FULL")',
        "pass",
    ),
    in_database(
        "begin-deferred",
        "a lock is won too late, and in vain",
        '"BEGIN IMMEDIATE")',
        '"BEGIN")',
        "def _transaction(",
    ),
    in_database(
        "no-rollback", "a failed write stays open", 'raw.execute("ROLLBACK")', "pass", "def _transaction("
    ),
    in_database(
        "no-lock-in-process",
        "a renewal's thread writes into another's transaction",
        "with self.file.lock, self.file.turn(self.abandoned):",
        "with self.file.turn(self.abandoned):",
    ),
    in_database(
        "no-turns",
        "a busy process starves the others",
        "with self.file.lock, self.file.turn(self.abandoned):",
        "with self.file.lock:",
    ),
    in_database(
        "busy-for-ever",
        "a locked database is waited for without end",
        "if time.monotonic() >= deadline or self.abandoned.is_set():",
        "if self.abandoned.is_set():",
    ),
    in_database(
        "busy-at-once",
        "a lock of a moment is an error",
        "if time.monotonic() >= deadline or self.abandoned.is_set():",
        "if True:",
    ),
    in_database(
        "stop-waits-for-locks",
        "a stop waits for a locked database",
        "if time.monotonic() >= deadline or self.abandoned.is_set():",
        "if time.monotonic() >= deadline:",
    ),
    in_database(
        "all-errors-are-busy", "a real error is tried again and again", "if not is_busy(error):", "if False:"
    ),
    in_database("any-journal-mode", "a folder without WAL is taken", 'if mode != "wal":', "if False:"),
    in_database(
        "replaced-file-not-seen",
        "jobs go into a deleted file",
        "        self.check_same_file()\n        if",
        "        if",
    ),
    in_database(
        "replaced-by-another",
        "jobs go into another file",
        "if (found.st_dev, found.st_ino) == self._identity:",
        "if True:",
    ),
    in_database(
        "broken-connection-kept",
        "after an I/O error nothing works",
        "if isinstance(error, sqlite3.Error) and _code(error) == _IO_ERROR:",
        "if False:",
    ),
    in_database(
        "reader-writes", "a query can change the database", 'raw.execute("PRAGMA query_only = ON")', "pass"
    ),
    in_database("readable-for-all", "others may read the jobs", "os.O_EXCL, 0o600", "os.O_EXCL, 0o644"),
    in_database(
        "full-disk-is-fatal", "a full disk looks like a damaged file", "(_IO_ERROR, _FULL)", "(_IO_ERROR,)"
    ),
    in_database(
        "locked-table-is-fatal",
        "a lock in shared cache mode looks like a damaged file",
        "_code(error) in (_BUSY, _LOCKED)",
        "_code(error) in (_BUSY,)",
    ),
]

COMMITTER = [
    in_commits("group-sync-by-all", "an add beside a claim is not synced", "durable=any(", "durable=all("),
    in_commits(
        "cancelled-is-written",
        "a cancelled add is there all the same",
        "if not write.future.cancelled():",
        "if True:",
    ),
    in_commits(
        "all-fail-with-one",
        "one bad add fails those beside it",
        "if len(group) > 1 and not is_busy(error):",
        "if False:",
    ),
    in_commits(
        "busy-one-by-one", "a locked database is waited for once per write", "and not is_busy(error):", ":"
    ),
    in_commits(
        "no-insisting",
        "a cancelled claim is not known",
        "await (_insist(future) if insist else future)",
        "await future",
    ),
    in_commits(
        "cancellation-swallowed",
        "a cancellation during a claim is lost",
        "        asyncio.get_running_loop().call_soon(task.cancel)\n",
        "",
    ),
    in_commits(
        "last-write-first", "writes in the wrong order", "self._waiting.popleft()", "self._waiting.pop()"
    ),
    in_commits("adds-after-close", "an add after the close is lost", "if self._closing:", "if False:"),
    in_commits(
        "close-drops-what-waits",
        "a close loses what was accepted",
        "while self._task is not None and not (self._task.done() and not self._waiting):",
        "while False:",
    ),
    in_commits(
        "look-locks",
        "an idle look at the jobs takes the write lock",
        "if len(group) == 1 and group[0].look is not None:",
        "if False:",
    ),
    in_commits(
        "rings-without-commit",
        "others are woken for what was rolled back",
        "if error is None and self.committed is not None:",
        "if self.committed is not None:",
    ),
    in_commits(
        "cancelled-does-not-ring",
        "a job whose adder was cancelled does not start",
        "        if error is None and self.committed is not None:\n            self.committed()\n        if self.future.done():\n            return\n",
        "        if self.future.done():\n            return\n        if error is None and self.committed is not None:\n            self.committed()\n",
    ),
    in_commits(
        "writer-not-begun-again",
        "writes wait for ever after a cancelled writer",
        "            self._task.add_done_callback(lambda _: self._begin())\n",
        "",
    ),
]

STORE = [
    in_store(
        "add-does-not-ring",
        "a new job waits for the next look",
        "committed=self._ring_all)",
        "committed=None)",
        within="    async def add(",
        tests=CLIENTS,
    ),
    in_store(
        "add-not-synced",
        "power loss loses acknowledged jobs",
        "committed=self._ring_all)",
        "committed=self._ring_all, durable=False)",
        within="    async def add(",
    ),
    in_store(
        "outcome-not-synced",
        "power loss runs a job twice",
        "insist=True)",
        "insist=True, durable=False)",
        within="    async def finish(",
    ),
    in_store(
        "claim-is-synced", "every claim waits for the disk", "durable=False, insist=True)", "insist=True)"
    ),
    in_store(
        "claim-does-not-insist",
        "a cancelled claim is not known",
        "durable=False, insist=True)",
        "durable=False)",
    ),
    in_store(
        "finish-does-not-insist",
        "a cancelled outcome is not known",
        ", insist=True)",
        ")",
        within="    async def finish(",
    ),
    in_store(
        "look-one-late",
        "a job that is due now is not seen",
        "due_at <= now else found",
        "due_at < now else found",
    ),
    in_store(
        "retry-rings-nobody",
        "others find a retry late",
        "if any(not isinstance(outcome, Complete) for outcome in outcomes):",
        "if False:",
    ),
    in_store(
        "owner-file-always-removed",
        "claims that are left wait for their lease",
        "keep = keep or await self._holds_claims()",
        "pass",
    ),
    in_store(
        "late-outcome-commits",
        "a stale block commits",
        "lambda raw: not _finish(raw, outcomes=[outcome])",
        "lambda raw: _finish(raw, outcomes=[outcome]) is not None",
        tests=BLOCKS,
    ),
    in_store(
        "block-rings-nobody",
        "a job added in a block waits",
        "                self._store._ring_all()\n",
        "                pass\n",
        tests=BLOCKS,
    ),
    in_store(
        "transaction-not-watched",
        "a job added in a transaction waits",
        "        self._watch.watch(connection, jobs[-1].id)\n",
        "",
        tests=CALLERS,
    ),
    in_store(
        "any-transaction",
        "a job goes into another database",
        "        await require_transaction(connection, path)\n",
        "",
        tests=CALLERS,
    ),
    in_store("fence-per-empty-claim", "an idle claim writes", "    if not found:\n        return []\n", ""),
    in_store(
        "claim-order-lost",
        "jobs start in the wrong order",
        "    rows.sort(key=lambda row: order[row[0]])\n",
        "",
    ),
    in_store(
        "lapsed-waited-for",
        "a process spins beside a claim that it may not take",
        '        lease_end = _all(raw, "next_lease_end", others)[0][0]\n',
        "",
    ),
    in_store(
        "statement-not-read",
        "a statement keeps its lock",
        "return raw.execute(statements()[name], parameters).fetchall()",
        "return [row for row, _ in zip(raw.execute(statements()[name], parameters), range(10**9))]",
    ),
]

CALLER = [
    Mutant(
        "commit-not-waited-for",
        "a job is looked for before it can be seen",
        "stores/sqlite/callers.py",
        "        await settled(connection)\n",
        "",
        CALLERS,
    ),
    Mutant(
        "long-transaction-forgotten",
        "a commit that is followed by a BEGIN is not noticed",
        "stores/sqlite/callers.py",
        "if not ended and waited >= ROW_LOOK:",
        "if False:",
        CALLERS,
    ),
    Mutant(
        "transactions-polled",
        "an idle store looks at transactions",
        "stores/sqlite/callers.py",
        "while self._open:",
        "while True:",
        CALLERS,
    ),
    Mutant(
        "foreign-file-taken",
        "a job goes into another database",
        "stores/sqlite/connection.py",
        "if _main_files[connection] != os.path.realpath(path):",
        "if False:",
        CALLERS,
    ),
    Mutant(
        "no-transaction-taken",
        "a job is added outside of any transaction",
        "stores/sqlite/connection.py",
        "    if not in_transaction(connection):\n",
        "    if False:\n",
        CALLERS,
    ),
    Mutant(
        "call-cut-off",
        "a cancelled write goes on unseen",
        "stores/sqlite/connection.py",
        "            while not answers:\n                await self._drain()\n",
        "",
        STORES,
    ),
    Mutant(
        "thread-blocks-exit",
        "a store left open keeps the process alive",
        "stores/sqlite/connection.py",
        "made.append(function()), daemon=True)",
        "made.append(function()), daemon=False)",
        STORES,
    ),
]

BLOCK = [
    in_blocks("block-begins-deferred", "a block wins its lock too late", '"BEGIN IMMEDIATE"', '"BEGIN"'),
    in_blocks(
        "block-not-synced",
        "power loss takes a block's effects",
        '"PRAGMA synchronous = " + self._database.synchronous',
        '"PRAGMA synchronous = NORMAL"',
    ),
    in_blocks(
        "handler-may-commit",
        "a handler ends its block by itself",
        "allowed = threading.get_ident() == self._ender",
        "allowed = True",
    ),
    in_blocks(
        "statements-after-rollback",
        "statements are committed one by one",
        "allowed = self._connection.raw.in_transaction",
        "allowed = True",
    ),
    in_blocks(
        "overdue-commits",
        "a block that was rolled back commits nothing, and says so not",
        "            if self.overdue:\n                return\n",
        "",
    ),
    in_blocks(
        "lost-block-commits",
        "the effects of a stale claim stay",
        '                raw.execute("ROLLBACK")\n\n',
        '                raw.execute("COMMIT")\n\n',
    ),
    in_blocks(
        "overdue-not-ended",
        "a blocked handler keeps everybody from writing",
        "        self._database.file.blocks.add(self)\n",
        "",
    ),
    in_blocks(
        "ended-before-its-time",
        "a block ends at once",
        "if time.monotonic() < self._deadline or not",
        "if not",
    ),
    in_blocks(
        "rolled-back-is-committed",
        "an error that SQLite rolled back for is no error",
        "            if not raw.in_transaction:\n",
        "            if False:\n",
    ),
    in_blocks(
        "block-in-another-file",
        "effects go into a deleted file",
        "            self._database.check_same_file()\n            if",
        "            if",
    ),
]

MUTANTS = [*DATABASE, *COMMITTER, *STORE, *CALLER, *BLOCK]
