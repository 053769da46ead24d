"""Mutants of what runs jobs: dispatcher, workers, completions, leases, stop, upkeep, takeover."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MUTANTS"]

WORKER = "tests/test_worker.py"
STOP = "tests/test_stop.py"
LEASES = "tests/test_leases.py"
TROUBLE = "tests/test_trouble.py"
PROCESSES = "tests/test_processes.py"
TAKEOVER = "tests/test_takeover.py"
BLOCKS = "tests/test_transaction.py"
SCENARIOS = "tests/simulation/test_scenarios.py"
WORLDS = "tests/simulation/test_scenarios.py tests/simulation/test_worlds.py"


def dispatcher(name: str, breaks: str, old: str, new: str, tests: str = WORLDS) -> Mutant:
    """Return a mutant of the dispatcher."""
    return Mutant(name, breaks, "_dispatcher.py", old, new, tests)


def worker(name: str, breaks: str, old: str, new: str, tests: str = WORKER) -> Mutant:
    """Return a mutant of the pool of workers."""
    return Mutant(name, breaks, "_worker.py", old, new, tests)


def completions(name: str, breaks: str, old: str, new: str, tests: str = TROUBLE) -> Mutant:
    """Return a mutant of the writing of outcomes."""
    return Mutant(name, breaks, "_completions.py", old, new, tests)


def leases(name: str, breaks: str, old: str, new: str, tests: str = LEASES) -> Mutant:
    """Return a mutant of the renewal of leases."""
    return Mutant(name, breaks, "_leases.py", old, new, tests)


def takeover(name: str, breaks: str, old: str, new: str) -> Mutant:
    """Return a mutant of the takeover."""
    return Mutant(name, breaks, "_takeover.py", old, new, TAKEOVER)


DISPATCHER = [
    dispatcher(
        "event-cleared-after-looking",
        "a wake-up during a claim is lost",
        "            self._wake.clear()\n            delay = 0.0\n            try:\n                delay = await self._claim_some()\n",
        "            delay = 0.0\n            try:\n                delay = await self._claim_some()\n                self._wake.clear()\n",
    ),
    dispatcher(
        "unknown-claims-kept",
        "a claim whose answer was lost waits for its lease",
        "        if self._uncertain:\n            await self._give_back_unknown()\n        self._look_around()",
        "        self._look_around()",
    ),
    dispatcher(
        "claims-not-held",
        "a running job's lease ends",
        "            self._leases.hold(job.id, job.fence)\n            handler",
        "            handler",
        LEASES,
    ),
    dispatcher(
        "starts-while-stopping",
        "a stop starts jobs",
        "if self._stop.asked or handler is None:",
        "if handler is None:",
        f"{STOP} {SCENARIOS}",
    ),
    dispatcher(
        "beside-itself",
        "a job runs beside itself",
        "elif job.id in self._unending or self._pool.runs(job.id):",
        "elif False:",
        f"{STOP} {SCENARIOS}",
    ),
    dispatcher(
        "used-up-is-run",
        "attempts and crashes are unbounded",
        "elif reason := used_up(job, handler.config):",
        'elif reason := "":',
        WORKER,
    ),
    dispatcher(
        "last-chance-in-crowd",
        "a poisonous job takes its neighbours with it",
        "elif last_chance(job, handler.config):",
        "elif False:",
        TAKEOVER,
    ),
    dispatcher(
        "suspects-own-claims",
        "a process takes its own jobs",
        "if known or held_in_this_process(job.id, job.fence):",
        "if known:",
        f"{LEASES} {STOP}",
    ),
    dispatcher(
        "suspects-the-known",
        "a crash is counted twice",
        "known = job.id in self._unending or (job.id, job.fence) in self._reports",
        "known = False",
        f"{STOP} {WORLDS}",
    ),
    dispatcher(
        "suspects-are-dead",
        "a job of a live process is taken at the end of its lease",
        "            if beat is None:\n",
        "            if True:\n",
        f"{LEASES} {PROCESSES} {TAKEOVER}",
    ),
    dispatcher(
        "no-wake-when-written",
        "a free place is not seen",
        "            self._maintenance.expect(outcome.keep.until)\n        self._wake.set()\n",
        "            self._maintenance.expect(outcome.keep.until)\n",
    ),
    dispatcher(
        "no-wake-when-ended",
        "a free worker waits for the write",
        "        job = attempt.job\n        self._wake.set()\n        if attempt.completed:",
        "        job = attempt.job\n        if attempt.completed:",
    ),
    dispatcher(
        "spins-before-the-instant",
        "a wait ends early, again and again",
        "/ 1000, 0.001), delay)",
        "/ 1000 - 0.002, 0.0), delay)",
    ),
    dispatcher("polls", "an idle process wakes every second", "LONGEST_SLEEP = 45.0", "LONGEST_SLEEP = 1.0"),
    dispatcher("sleeps-too-long", "a sleep is not capped", ", 0.001), delay)", ", 0.001), 1e6)"),
    dispatcher(
        "claims-while-failing",
        "outcomes pile up while the disk is full",
        "        if self._completions.health.failing:\n            return []\n",
        "",
        f"{TROUBLE} {WORLDS}",
    ),
    dispatcher(
        "gives-up-outcomes-at-once",
        "a stop loses outcomes",
        "CANCEL_GRACE, WRITE_GRACE = 1.0, 2.0",
        "CANCEL_GRACE, WRITE_GRACE = 1.0, 0.0",
        f"{STOP} {TROUBLE} {WORLDS}",
    ),
    dispatcher(
        "long-grace",
        "a stop takes longer than it may",
        "CANCEL_GRACE, WRITE_GRACE = 1.0, 2.0",
        "CANCEL_GRACE, WRITE_GRACE = 8.0, 2.0",
        f"{STOP} {WORLDS}",
    ),
    dispatcher(
        "never-gives-up",
        "a stop waits for a broken disk",
        "            self._completions.give_up()\n",
        "",
        f"{TROUBLE} {STOP} {WORLDS}",
    ),
    dispatcher(
        "stop-waits-for-locks-twice",
        "a stop waits for the busy timeout",
        "            self._completions.give_up()\n            self._store.abandon()\n",
        "            self._completions.give_up()\n",
        f"{TROUBLE} {STOP}",
    ),
    dispatcher(
        "closes-before-the-claim",
        "a claim during a stop is left",
        "        await self._stop.outlast([claiming], grace=WRITE_GRACE)  # what it brings is to be given back\n",
        "",
        f"{STOP} {WORLDS}",
    ),
    dispatcher(
        "stop-says-true",
        "a stop that cut a handler short says it did not",
        "return in_time and not self._uncertain",
        "return not self._uncertain",
        STOP,
    ),
    dispatcher(
        "unwritten-is-clean",
        "a stop that lost outcomes says it did not",
        " and not self._completions and not broken",
        "",
        f"{TROUBLE} {STOP}",
    ),
    dispatcher(
        "unending-forgotten",
        "a handler that will not end runs beside itself",
        "            self._unending[job.id] = job.fence\n",
        "",
        f"{STOP} {SCENARIOS}",
    ),
    dispatcher(
        "late-outcome-lost",
        "the outcome of a late handler is lost",
        "            self._leases.finish_late(outcome, lambda: log.emit(event, **naming(job), **report))\n",
        "            pass\n",
        f"{STOP} {SCENARIOS}",
    ),
    dispatcher(
        "slots-stay-taken",
        "jobs that are done count as started when the process dies",
        "        self._store.ended(outcome.id, outcome.fence)\n",
        "",
        f"{TAKEOVER} tests/test_owners.py",
    ),
    dispatcher(
        "started-not-noted",
        "a job that kills its process is not found out",
        "started=lambda attempt: store.started(attempt.job.id, attempt.job.fence)",
        "started=lambda attempt: None",
        TAKEOVER,
    ),
    dispatcher(
        "nobody-looks-for-the-dead",
        "a crash is noticed by the lease only",
        "        self._takeover.look()\n",
        "",
        TAKEOVER,
    ),
    dispatcher(
        "clock-not-heeded",
        "a clock that was set back delays jobs",
        "        await self._heed_clock()\n",
        "",
        f"{WORLDS} tests/test_worker.py tests/test_trouble.py",
    ),
    dispatcher(
        "lost-file-is-busy",
        "a deleted file is tried for ever",
        "                self.lost = error\n                self._stop.ask(0)\n",
        "                self.lost = error\n",
        TAKEOVER,
    ),
    dispatcher(
        "solo-left-at-stop",
        "a stop leaves claims",
        "        for job in self._solo.give_up():\n            self._finish(job, give_back(job, self._clock.now()), log.JOB_GIVEN_BACK)\n        if self._uncertain",
        "        if self._uncertain",
        f"{TAKEOVER} {STOP} {WORLDS}",
    ),
    dispatcher(
        "block-completes-twice",
        "a job that has completed itself is completed again",
        "        attempt.completed = True\n",
        "",
        BLOCKS,
    ),
    dispatcher(
        "lease-begins-late",
        "a claim that was long in coming is not renewed in time",
        "            self._leases.hurry()  #",
        "            pass  #",
        f"{LEASES} {WORLDS}",
    ),
]

POOL = [
    worker(
        "no-timeout",
        "a handler runs for ever",
        "            attempt.scope.deadline = asyncio.get_running_loop().time() + timeout\n",
        "",
    ),
    worker(
        "place-not-free-again",
        "each cut-off handler takes a worker with it",
        "        attempt = self.running.pop(task)\n",
        "        attempt = self.running[task]\n        if attempt.result is not None:\n            del self.running[task]\n",
        f"{WORKER} {STOP} {PROCESSES} {WORLDS}",
    ),
    worker(
        "one-worker-more",
        "more jobs at once than there are workers",
        "return self._size - len(self.running)",
        "return self._size + 1 - len(self.running)",
    ),
    worker(
        "system-exit-escapes",
        "a handler's sys.exit ends the application",
        "except BaseException as error:  # whatever a handler raises",
        "except Exception as error:  # whatever a handler raises",
    ),
    worker(
        "ctrl-c-swallowed",
        "Ctrl-C does not end the application",
        "ends_process=True)\n            raise\n",
        "ends_process=True)\n",
        PROCESSES,
    ),
    worker(
        "cancelled-is-a-stop",
        "a handler that raises CancelledError runs for ever",
        "if attempt.stopping or (cancelled and self._interrupted()):",
        "if attempt.stopping or cancelled:",
    ),
    worker(
        "stop-is-a-failure",
        "a deploy costs an attempt",
        "if attempt.stopping or (cancelled and self._interrupted()):",
        "if cancelled and self._interrupted():",
        f"{STOP} {WORKER}",
    ),
    worker(
        "steer-at-stop-lost",
        "a snooze during a stop is forgotten",
        "        if isinstance(error, Steer):\n            return self._failed(attempt, error)\n",
        "",
        f"{STOP} {WORKER} {WORLDS}",
    ),
    worker(
        "context-shared",
        "a handler sees another's context variables",
        "context=self._context.copy()",
        "context=self._context",
    ),
    worker(
        "thread-error-escapes",
        "a KeyboardInterrupt in a thread ends the application",
        "raise _InThread(self._error)",
        "raise self._error",
    ),
    worker(
        "threads-unlimited",
        "more threads than there may be",
        "return self._threads - sum(",
        "return self._threads - 0 * sum(",
    ),
    worker(
        "payload-in-log",
        "a value of a payload is logged",
        "re.sub(r\"'.*'\", \"'...'\", str(error))",
        "str(error)",
        f"{WORKER} tests/test_log.py",
    ),
    worker(
        "late-not-noted",
        "a return after the timeout is not logged",
        "late=attempt.scope.cancel_called and not attempt.stopping",
        "late=False",
    ),
    worker(
        "own-timeout-is-ours",
        "a handler's own TimeoutError counts as its timeout",
        "timed_out = attempt.scope.cancel_called",
        "timed_out = True",
    ),
    worker(
        "exception-kept",
        "a steer keeps all its frames in memory",
        "error.with_traceback(None) if isinstance",
        "error if isinstance",
    ),
    worker(
        "huge-error",
        "an error of megabytes is stored",
        "return text if len(text) <= ERROR_LIMIT else",
        "return text if True else",
    ),
    worker(
        "bad-characters",
        "an error with NUL or surrogates cannot be stored",
        '.encode("utf-8", "backslashreplace").decode("utf-8")',
        "",
    ),
]

COMPLETIONS = [
    completions(
        "unwritten-forgotten",
        "outcomes that wait are lost with one group",
        "del self._waiting[: len(group)]",
        "self._waiting.clear()",
        f"{TROUBLE} {WORLDS}",
    ),
    completions(
        "unavailable-forgotten",
        "an outage loses outcomes",
        "                pause = self.health.failed(error)\n            except DatabaseReplaced",
        "                pause = self.health.failed(error)\n                self._waiting.clear()\n            except DatabaseReplaced",
    ),
    completions(
        "one-refused-for-all",
        "one outcome that the database refuses fails all beside it",
        "            if len(group) > 1:\n",
        "            if False:\n",
    ),
    completions(
        "refused-never-given-in",
        "an outcome that the database refuses is tried for ever",
        "            group = [await self._give_in(group[0], error)]\n            lost = set()\n",
        "            raise\n",
    ),
    completions(
        "two-of-one-job",
        "two outcomes of a job in one write",
        "            if outcome.id in ids:\n                return self._waiting[:number]\n",
        "",
        f"{TROUBLE} {WORLDS} tests/test_worker.py",
    ),
    completions(
        "hasty",
        "a broken disk is tried without a pause",
        "                if pause:\n                    await self._rest(pause)\n                elif",
        "                if",
        f"{TROUBLE} {WORLDS}",
    ),
    completions(
        "unsure-is-lost",
        "an outcome that was written after all is logged as lost",
        "outcome.id in lost and claim not in self._unsure",
        "outcome.id in lost",
        f"{TROUBLE} {WORLDS}",
    ),
    completions(
        "busy-is-unsure",
        "a lost lease is not logged after a lock",
        "if not isinstance(error, DatabaseBusy):",
        "if True:",
        f"{TROUBLE} {WORLDS}",
    ),
    completions(
        "cancelled-for-good",
        "a cancellation ends the writing of outcomes",
        "            except asyncio.CancelledError:\n                continue\n",
        "            except asyncio.CancelledError:\n                return\n",
        f"{PROCESSES} {STOP} {WORLDS}",
    ),
    completions(
        "closes-with-outcomes",
        "a stop leaves outcomes unwritten",
        "while self._waiting or not self._closing:",
        "while not self._closing:",
        f"{STOP} {WORLDS}",
    ),
]

LEASE = [
    leases(
        "no-renewals",
        "a long job is run a second time",
        "self._store.renew(held, until=self.until())",
        "pass",
    ),
    leases(
        "one-beat-per-lease",
        "a lease is renewed too late",
        "BEATS_PER_LEASE = 3",
        "BEATS_PER_LEASE = 1",
        f"{LEASES} {SCENARIOS}",
    ),
    leases(
        "renewal-error-is-fatal",
        "one failed renewal ends all",
        "with contextlib.suppress(Exception):  # nothing may end the renewals",
        "with contextlib.nullcontext():",
        f"{LEASES} {TROUBLE}",
    ),
    leases(
        "drops-the-newer-claim",
        "a stale outcome ends the renewal of the new claim",
        "        if self._held.get(job_id) == fence:\n            del self._held[job_id]\n",
        "        self._held.pop(job_id, None)\n",
        f"{LEASES} {WORLDS}",
    ),
    leases(
        "any-claim-is-held",
        "a claim of another process seems to be ours",
        "return self._held.get(job_id) == fence",
        "return job_id in self._held",
        f"{LEASES} {WORLDS}",
    ),
    leases(
        "first-claim-overlooked",
        "a claim while the keeper falls asleep is not renewed",
        "        if self._asleep:\n            self._asleep = False\n",
        "        if False:\n            self._asleep = False\n",
    ),
    leases(
        "dead-coroutines-held",
        "jobs of a closed loop are held for ever",
        "            if not self._in_thread(job_id):\n                self.drop(job_id, fence)\n",
        "            pass\n",
        PROCESSES,
    ),
    leases(
        "threads-dropped",
        "a thread that outlives its loop loses its job",
        "            if not self._in_thread(job_id):\n",
        "            if True:\n",
        PROCESSES,
    ),
    leases(
        "late-refusal-for-ever",
        "a late outcome that is refused is tried for ever",
        "            except BackliteError:  # refused for good: the claim ends with its lease\n                lost = {outcome.id}\n",
        "",
        STOP,
    ),
    leases(
        "late-outage-loses",
        "a late outcome is lost in an outage",
        "            except DatabaseUnavailable:\n                return\n            except BackliteError",
        "            except BackliteError",
        f"{STOP} {SCENARIOS}",
    ),
]

TAKEOVERS = [
    takeover(
        "no-look-at-start",
        "the jobs of a dead process wait for another death",
        "        self._wake = asyncio.Event()\n        self._wake.set()\n",
        "        self._wake = asyncio.Event()\n",
    ),
    takeover(
        "all-count-a-crash",
        "jobs that only waited pay for a death",
        "crashed(job, config, now) if started",
        "crashed(job, config, now) if True",
    ),
    takeover(
        "none-counts-a-crash",
        "a job kills its process for ever",
        "crashed(job, config, now) if started",
        "crashed(job, config, now) if False",
    ),
    takeover("nobody-wakes", "released jobs wait for the next look", "        self._released()\n", ""),
    takeover(
        "buried-before-release",
        "a failed release loses jobs until their lease",
        "                await self._release(dead[-1])\n                dead.pop().bury()\n",
        "                owner = dead.pop()\n                owner.bury()\n                await self._release(owner)\n",
    ),
    takeover(
        "never-buried", "a dead owner is released again and again", "dead.pop().bury()", "dead.pop().leave()"
    ),
]

OTHERS = [
    Mutant(
        "earlier-limit-ignored",
        "a second stop cannot hurry the first",
        "_stop.py",
        "limit is not None and limit < self._limit",
        "False",
        STOP,
    ),
    Mutant(
        "later-limit-wins",
        "a second stop puts the first off",
        "_stop.py",
        "limit is not None and limit < self._limit",
        "True",
        STOP,
    ),
    Mutant(
        "cancelled-stop-goes-on",
        "a cancelled client waits for its handlers",
        "_stop.py",
        "                self.ask(0)\n",
        "                pass\n",
        f"{PROCESSES} {STOP} {WORLDS}",
    ),
    Mutant(
        "nothing-expires",
        "what has expired stays",
        "_maintenance.py",
        "            removed = await self._store.expire(now=self._clock.now(), limit=BATCH)\n",
        "            removed = 0\n            break\n",
        "tests/test_client.py tests/test_worker.py",
    ),
    Mutant(
        "expiry-not-expected",
        "what expires soon waits for the next look",
        "_maintenance.py",
        "if self._leading and expires_at is not None and (self._next is None or expires_at < self._next):",
        "if False:",
        SCENARIOS,
    ),
    Mutant(
        "all-do-upkeep",
        "every process removes what has expired",
        "_maintenance.py",
        "        if not self._leading:\n",
        "        if False:\n",
        TAKEOVER,
    ),
    Mutant(
        "upkeep-dies",
        "one failure ends the upkeep",
        "_maintenance.py",
        "            except Exception as error:  # upkeep outlives every trouble\n",
        "            except ZeroDivisionError as error:\n",
        f"{TROUBLE} {WORLDS}",
    ),
    Mutant(
        "trouble-per-try",
        "a broken disk is logged at every try",
        "_health.py",
        "if not self.failing and not (expected and self._troubled):",
        "if True:",
        TROUBLE,
    ),
    Mutant(
        "recovery-not-said",
        "the end of trouble is not logged",
        "_health.py",
        "            if not self._troubled:\n",
        "            if False:\n",
        TROUBLE,
    ),
    Mutant(
        "no-longer-pauses",
        "a broken disk is tried twenty times a second",
        "_health.py",
        "max(self._pause * 2, FIRST_PAUSE)",
        "FIRST_PAUSE",
        TROUBLE,
    ),
    Mutant(
        "block-without-limit",
        "a block keeps everybody from writing",
        "_transaction.py",
        "return min(5.0, 0.3 * lease)",
        "return 1e6",
        BLOCKS,
    ),
    Mutant(
        "block-twice",
        "a job completes itself twice",
        "_transaction.py",
        "if job.in_transaction or job.completed:",
        "if job.in_transaction:",
        BLOCKS,
    ),
    Mutant(
        "lost-block-is-silent",
        "a handler does not hear that its effects are gone",
        "_transaction.py",
        "if error is None and not block.committed:",
        "if False:",
        BLOCKS,
    ),
    Mutant(
        "failed-block-commits",
        "the effects of a failed block stay",
        "_transaction.py",
        "if error is None and not late:",
        "if not late:",
        BLOCKS,
    ),
    Mutant(
        "register-wakes-nobody",
        "jobs of a new handler wait for the next look",
        "_client.py",
        "        self.registry.register(task_type, handler)\n        self.notify()\n",
        "        self.registry.register(task_type, handler)\n",
        f"tests/test_client.py {WORLDS}",
    ),
    Mutant(
        "fork-not-told",
        "a forked child uses its parent's connections",
        "_client.py",
        "        if os.getpid() != self.pid:\n",
        "        if False:\n",
        TAKEOVER,
    ),
    Mutant(
        "lost-file-not-told",
        "adds to a deleted file wait",
        "_client.py",
        "                raise running.dispatcher.lost\n",
        "                pass\n",
        TAKEOVER,
    ),
    Mutant(
        "lost-lease-not-said",
        "a stale outcome is not logged",
        "_reports.py",
        "        elif outcome.lapsed_by is None:",
        "        elif False:",
        f"{LEASES} {TROUBLE}",
    ),
]

MUTANTS = [*DISPATCHER, *POOL, *COMPLETIONS, *LEASE, *TAKEOVERS, *OTHERS]
