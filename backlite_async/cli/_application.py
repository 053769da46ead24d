"""The client of an application, named as `package.module:client`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import click

from .. import Client
from ._base import Body, Failure, did_you_mean

__all__ = ["app_option", "load"]


def app_option(*, required: bool = False) -> Callable[[Body], Body]:
    """Return the option that names an application's client."""
    return click.option(
        "--app",
        metavar="MODULE:CLIENT",
        required=required,
        help="The application's client, such as shop.jobs:client; its code is imported.",
    )


def load(app: str) -> Client:
    """Import an application's client; the working directory may hold the code."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    name, _, attribute = app.partition(":")
    if not name or name.startswith("."):
        raise click.UsageError(f"--app {app}: write MODULE:CLIENT, such as shop.jobs:client.")
    module = _module(name)
    if not attribute:
        raise click.UsageError(f"--app {app}: which client of it? Write {name}:CLIENT.{_clients(module)}")
    return _client(module, name, attribute)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            raise _broken(name) from error  # something that it imports
        parent, _, last = missing.rpartition(".")
        where = f"in {parent!r}" if parent else f"here ({os.getcwd()}), nor is it installed"
        raise Failure(f"--app: there is no module {missing!r} {where}.{_similar(parent, last)}") from None
    except Exception as error:
        raise _broken(name) from error


def _broken(name: str) -> Failure:
    """Show what an application's own code raised: there its programmer looks."""
    click.echo(traceback.format_exc(), err=True, nl=False)
    return Failure(f"--app: importing {name!r} failed; the traceback above says where.")


def _similar(parent: str, name: str) -> str:
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else [os.getcwd()]
    beside = [found.name for found in pkgutil.iter_modules(path)] if path is not None else []
    hint = did_you_mean(name, beside)
    return hint.replace("'", f"'{parent}.", 1) if parent and hint else hint


def _client(module: ModuleType, name: str, attribute: str) -> Client:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            hint = did_you_mean(part, [known for known in dir(value) if not known.startswith("__")])
            raise Failure(f"--app: {name!r} has no {attribute!r}.{hint}{_clients(module)}")
        value = getattr(value, part)
    if not isinstance(value, Client):
        raise Failure(f"--app: {name}:{attribute} is no Client, but {_called(value)}.{_clients(module)}")
    return value


def _called(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__qualname__}"


def _clients(module: ModuleType) -> str:
    found = [name for name, value in vars(module).items() if isinstance(value, Client)]
    return f" Its clients: {', '.join(found)}." if found else ""
