"""Specimens that end their process, or change what belongs to all of it."""

from __future__ import annotations

import _thread
import asyncio
import ctypes
import multiprocessing
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from backlite_async import BackliteError, Client, JobContext, Task

from .base import Beside, Stage, once, specimen

# -- the end of the process --------------------------------------------------------------------------------


@specimen("failed", kills=True)
async def leaves_the_building(task: Task, job: JobContext, stage: Stage) -> None:
    os._exit(1)


@specimen("failed", kills=True)
def leaves_the_building_in_a_thread(task: Task, job: JobContext, stage: Stage) -> None:
    os._exit(0)


@specimen("failed", kills=True)
async def reads_address_zero(task: Task, job: JobContext, stage: Stage) -> None:
    ctypes.string_at(0)


@specimen("failed", kills=True)
async def aborts(task: Task, job: JobContext, stage: Stage) -> None:
    os.abort()


@specimen("failed", kills=True)
async def kills_itself(task: Task, job: JobContext, stage: Stage) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@specimen("failed", kills=True)
async def becomes_another_program(task: Task, job: JobContext, stage: Stage) -> None:
    os.execv(sys.executable, [sys.executable, "-S", "-c", ""])


@specimen("failed", kills=True)
async def leaves_a_child_and_dies(task: Task, job: JobContext, stage: Stage) -> None:
    """The child lives on with everything that was open."""
    if os.fork() == 0:
        time.sleep(3.0)  # noqa: ASYNC251 - the child's life, nobody waits for it
        os._exit(0)
    os._exit(1)


@specimen("failed", kills=True)
async def closes_all_files(task: Task, job: JobContext, stage: Stage) -> None:
    os.closerange(3, 1024)


@specimen("failed", kills=True)
async def raises_keyboard_interrupt(task: Task, job: JobContext, stage: Stage) -> None:
    raise KeyboardInterrupt


@specimen("succeeded", "failed", kills=True)
async def raises_keyboard_interrupt_once(task: Task, job: JobContext, stage: Stage) -> None:
    if once("interrupted"):
        raise KeyboardInterrupt


@specimen("succeeded", "failed", kills=True)
async def interrupts_its_process(task: Task, job: JobContext, stage: Stage) -> None:
    if once("interrupted"):
        os.kill(os.getpid(), signal.SIGINT)


@specimen("succeeded", "failed", kills=True)
def interrupts_the_main_thread(task: Task, job: JobContext, stage: Stage) -> None:
    if once("interrupted"):
        _thread.interrupt_main()


@specimen("succeeded", "failed", kills=True, hangs=True)
async def leaves_an_alarm(task: Task, job: JobContext, stage: Stage) -> None:
    """The alarm's handler raises in whatever runs then, also between a future and its result."""
    if once("alarmed"):
        signal.signal(signal.SIGALRM, _alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.05)


@specimen("failed")
async def raises_in_an_alarm(task: Task, job: JobContext, stage: Stage) -> None:
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while True:
        time.sleep(0.01)  # noqa: ASYNC251 - until the alarm


# -- what belongs to all -------------------------------------------------------------------------------------


@specimen("succeeded")
async def ignores_signals(task: Task, job: JobContext, stage: Stage) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


@specimen("succeeded")
async def goes_to_a_folder_that_ends(task: Task, job: JobContext, stage: Stage) -> None:
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    os.rmdir(os.getcwd())
    await job.client.add(Beside()).save()


@specimen("succeeded")
async def forbids_new_files(task: Task, job: JobContext, stage: Stage) -> None:
    os.umask(0o777)
    await job.client.add(Beside()).save()


@specimen("succeeded")
async def opens_files_until_none_is_left(task: Task, job: JobContext, stage: Stage) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            stage.keep(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


@specimen("succeeded")
async def removes_what_lies_beside_the_database(task: Task, job: JobContext, stage: Stage) -> None:
    """Not the database's own files, which nothing could survive."""
    for name in os.listdir():
        if not name.startswith("app.db") or name.endswith("-backlite"):
            shutil.rmtree(name)
    await job.client.add(Beside()).save()


@specimen("succeeded")
async def closes_its_standard_streams(task: Task, job: JobContext, stage: Stage) -> None:
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@specimen("succeeded")
def raises_in_another_thread(task: Task, job: JobContext, stage: Stage) -> None:
    """An exception set from outside, in a thread that is none of the library's."""
    idle = threading.Thread(target=time.sleep, args=[0.2], daemon=True)
    idle.start()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idle.ident or 0), ctypes.py_object(SystemExit))


# -- forks ---------------------------------------------------------------------------------------------------


@specimen("succeeded")
async def forks_and_uses_the_client(task: Task, job: JobContext, stage: Stage) -> None:
    """In the child every use of the client is refused with an error that names the fork."""
    client = job.client
    uses: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "add": lambda: client.add(Beside()).save(),
        "status": lambda: client.status(job.id),
        "get": lambda: client.get(job.id),
        "start": client.start,
    }
    for name, use in uses.items():
        said = _in_a_child(lambda use=use: _refusal(use))  # type: ignore[misc]
        stage.state(f"{name}() in a forked child says so: {said}", "fork" in said.lower())
    said = _in_a_child(_another_client)
    stage.state(f"another client of the file in a forked child says so: {said}", "fork" in said.lower())


@specimen("succeeded")
async def forks_a_child_that_does_nothing(task: Task, job: JobContext, stage: Stage) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=int)
    child.start()
    child.join()


@specimen("succeeded")
async def forks_a_child_that_stays(task: Task, job: JobContext, stage: Stage) -> None:
    if os.fork() == 0:
        time.sleep(2.0)  # noqa: ASYNC251 - the child's life, nobody waits for it
        os._exit(0)


def _alarm(number: int, frame: object) -> NoReturn:
    raise TimeoutError("alarm")


def _refusal(use: Callable[[], Coroutine[Any, Any, object]]) -> str:
    """Return the error of the first step of a call, which has no event loop around it in a child."""
    coroutine = use()
    try:
        coroutine.send(None)
    except BackliteError as error:
        return str(error)
    except BaseException as error:
        return f"<{type(error).__name__}>"
    finally:
        coroutine.close()
    return "<waits>"


def _another_client() -> str:
    """Return the error of a client that is new, for a file that was open at the fork."""
    try:
        asyncio.run(Client("app.db", workers=0).start())
    except BackliteError as error:
        return str(error)
    return "<starts>"


def _in_a_child(function: Callable[[], str]) -> str:
    """Return what a function says in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, function()[:400].encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        ready = select.select([read], [], [], 3.0)[0]
        return os.read(read, 1000).decode() if ready else "<hangs>"
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
