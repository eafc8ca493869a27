"""A local workspace and the bundled tools acting in it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flux.sandboxes.host import LocalSandbox
from flux.tools.base import Done, Failed, ToolContext
from flux.tools.groups import resolve

Call = Callable[..., Awaitable[Done | Failed]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture
def sandbox(workspace: Path) -> LocalSandbox:
    return LocalSandbox(workspace, {"PATH": "/usr/local/bin:/usr/bin:/bin"})


@pytest.fixture
def watched() -> list[str]:
    """What a tool streamed while it ran."""
    return []


@pytest.fixture
def call(sandbox: LocalSandbox, watched: list[str]) -> Call:
    """Calls a tool of `system_tools`: `await call("grep", pattern="x", settings={...})`."""

    async def call(name: str, *, settings: dict[str, Any] | None = None, **args: Any) -> Done | Failed:
        (tool,) = [tool for tool in resolve([{"system_tools": settings}]) if tool.name == name]
        context = ToolContext("s", "c", sandbox, output=watched.append)
        outcome = await tool.run(args, context)
        assert isinstance(outcome, Done | Failed)
        return outcome

    return call
