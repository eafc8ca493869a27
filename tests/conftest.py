"""What every test gets: asyncio as the only event loop, and one way to say what a machine lacks."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

NODE_PROGRAMS = Path(sys.prefix) / "node" / "node_modules" / ".bin"  # filled by ./dev test
LACKING = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def require_tool(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """Return a function that gives the path of a program, or skips (or fails) the test that needs it."""

    def require(name: str) -> str:
        path = shutil.which(name, path=f"{NODE_PROGRAMS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
        if path is not None:
            return path
        lack(pytestconfig, name)

    return require


@pytest.fixture(scope="session")
def require_package(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that skips (or fails) the test that needs a package of Node which is not there."""

    def require(name: str) -> None:
        if not (NODE_PROGRAMS.parent / name).exists():
            lack(pytestconfig, name)

    return require


def lack(config: pytest.Config, name: str) -> NoReturn:
    """Skip, or fail, a test that needs what this machine lacks."""
    config.stash[LACKING].add(name)
    said = f"{name} is not on this machine"
    if os.environ.get("FLUX_TEST_REQUIRE") == "all":
        pytest.fail(said)
    pytest.skip(said)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LACKING] = set()


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # of a process that runs a share of the tests
    if output is not None:
        lacking = session.config.stash[LACKING]
        output["lacking"] = sorted(lacking)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[LACKING].update(getattr(node, "workeroutput", {}).get("lacking", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lacking = config.stash[LACKING]
    if lacking:
        terminalreporter.write_line(f"Not on this machine: {', '.join(sorted(lacking))}")
