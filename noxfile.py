"""Tasks: `nox -s NAME`.

`demo`, `tests`, `browser`, `screenshots`, `coverage`, `torture`, `mutants`, `lint`, `typing`, `examples`,
`bench`.
"""

import glob
import os
import shutil
import subprocess
import sys

import nox

PROJECT = nox.project.load_toml("pyproject.toml")


def installed(version: str) -> bool:
    """Return whether this Python can be run; one that only pyenv knows is put on the path."""
    name = f"python{version}"
    found = shutil.which(name)
    if found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0:
        return True
    shims = os.path.dirname(found) if found else ""
    root = os.environ.get("PYENV_ROOT", os.path.dirname(shims) or os.path.expanduser("~/.pyenv"))
    for path in glob.glob(os.path.join(root, "versions", f"{version}.*", "bin", name)):
        os.environ["PATH"] = os.path.dirname(path) + os.pathsep + os.environ["PATH"]
        return True
    return False


THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = [v for v in nox.project.python_versions(PROJECT) if v == THIS or installed(v)] or [THIS]

os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typing", "examples"]
nox.options.error_on_missing_interpreters = True


def install(session: nox.Session, *groups: str) -> None:
    """Install the project as a wheel, and dependency groups."""
    session.install("--quiet", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo: nox -s demo [-- FOLDER]."""
    session.install("--quiet", ".[cli]")
    session.run("python", "-m", "backlite_async", "demo", *session.posargs)


BATTERY = ["tests/torture", "tests/mutants"]
BROWSER = ["tests/browser"]
MODELS = [
    *(
        f"tests/stores/test_{name}.py"
        for name in ("model", "control_model", "service_model", "workflow_model")
    ),
    *(f"tests/simulation/test_{name}.py" for name in ("worlds", "year")),
]


def ignored(paths: list[str]) -> list[str]:
    """Return pytest's options that leave out these paths."""
    return [option for path in paths for option in ("--ignore", path)]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test the installed wheel: models and simulated time on the oldest Python, the battery on the newest.

    The page and the command line on the newest; on those between nothing that knows no Python but SQLite.
    """
    install(session, "test", "examples", "extras")
    session.env["BACKLITE_TEST_WHEEL"] = "1"
    if session.posargs:
        session.run("pytest", "-q", *session.posargs)
        return
    session.env["BACKLITE_SEEDS"] = "200"  # CI runs many more besides
    left_out = [*BATTERY, *BROWSER]
    if session.python != PYTHONS[0]:
        left_out += [*MODELS, "tests/simulation"]
    if session.python != PYTHONS[-1]:
        left_out += ["tests/web", "tests/cli"]
    if session.python not in (PYTHONS[0], PYTHONS[-1]):
        left_out += ["tests/stores"]
    session.run("pytest", "-q", *ignored(left_out))
    if session.python == PYTHONS[-1]:
        session.run("pytest", "-q", *BATTERY)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the page in Chromium; without one the tests are skipped, unless BACKLITE_BROWSER is set."""
    install(session, "test", "extras", "browser")
    session.env["BACKLITE_TEST_WHEEL"] = "1"
    session.run("pytest", "-q", *(session.posargs or [*BROWSER, "tests/test_wheel.py"]))


@nox.session
def screenshots(session: nox.Session) -> None:
    """Make the pictures of the page in docs/images: nox -s screenshots [-- FOLDER]."""
    install(session, "test", "extras", "browser", "screenshots")
    session.run("python", "-m", "tests.browser.screenshots", *(session.posargs or ["docs/images"]))


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests run, without models and battery, which take long."""
    install(session, "test", "examples", "extras")
    session.env["BACKLITE_TEST_WHEEL"] = "1"
    session.env["BACKLITE_SEEDS"] = "200"
    session.run("coverage", "erase")
    # The script, not `-m pytest`: that would put the checkout before the wheel.
    pytest = os.path.join(session.bin, "pytest")
    session.run("coverage", "run", pytest, "-q", *ignored([*BATTERY, *BROWSER, *MODELS]))
    session.run("coverage", "report")


@nox.session
def torture(session: nox.Session) -> None:
    """Inject faults for twelve minutes and print a table: nox -s torture [-- --minutes N] [ROW ...]."""
    install(session, "test", "examples")
    session.run("python", "-m", "tests.torture", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the library in many ways and see the tests notice each: nox -s mutants [-- NAME ...]."""
    install(session, "test", "examples", "extras")
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("--quiet", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, the library's and those that its users see."""
    install(session, "test", "examples", "extras", "browser", "screenshots", "typing")
    session.install("--quiet", "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("pytest", "-q", "tests/typing")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example."""
    install(session, "test", "examples", "extras")
    session.run("pytest", "-q", "tests/examples", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, beside raw sqlite3 and peers: nox -s bench [-- --quick] [-- --servers] [-- --check]."""
    install(session)
    groups = [] if {"--check", "--alone"} & {*session.posargs} else ["bench"]
    if groups and "--servers" in session.posargs:
        groups.append("bench-servers")
    for peer in nox.project.dependency_groups(PROJECT, *groups):  # one that cannot be installed is named
        session.install("--quiet", peer, success_codes=[0, 1])
    session.run("python", "-m", "benchmarks", *session.posargs)
