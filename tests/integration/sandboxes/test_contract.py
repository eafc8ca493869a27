"""Every sandbox keeps the one contract."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flux.sandboxes import Sandbox, SandboxFactory, isolated, local, virtual
from flux.sandboxes.contained import isolation_problem
from flux.testing.sandboxes import CHECKS, check

Open = Callable[[], Awaitable[Sandbox]]


@pytest.fixture(params=[virtual, local, isolated], ids=lambda make: make.__name__)
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    factory: SandboxFactory = request.param()
    if factory.name == "isolated" and isolation_problem():
        pytest.skip(f"no isolated sandbox works here: {isolation_problem()}")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return lambda: factory.open(workspace=str(workspace))


@pytest.mark.behaviour("sandbox:contract")
@pytest.mark.parametrize("name", CHECKS)
async def test_a_sandbox_keeps_the_contract(opens: Open, name: str) -> None:
    await check(name, opens)
