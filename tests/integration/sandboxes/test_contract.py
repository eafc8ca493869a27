"""Every sandbox keeps the one contract."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bashkit import Bash, ExecutionProfile

from flux.sandboxes import Sandbox, SandboxFactory, ShellResult, isolated, local, virtual
from flux.sandboxes.factories import isolation_problem, of_bash
from flux.sandboxes.host import LocalSandbox
from flux.testing.sandboxes import CHECKS, Broken, check

#: What no single bash can do.
ONE_AT_A_TIME = ("commands_run_beside_each_other_and_the_loop_goes_on",)

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


@pytest.mark.behaviour("sandbox:contract:bash")
@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ONE_AT_A_TIME])
async def test_a_bash_that_somebody_made_keeps_it_too(name: str) -> None:
    await check(name, lambda: of_bash(Bash(cwd="/project", profile=ExecutionProfile.Interactive)))


@pytest.mark.behaviour("sandbox:contract:bash")
async def test_it_stays_as_it_was_made() -> None:
    bash = Bash(
        cwd="/project/here", env={"KEY": "value"}, files={"/project/here/a/b.txt": "text", "/data/c": "more"},
        custom_builtins={"ping": lambda context: "pong\n"},
    )  # fmt: skip
    sandbox = of_bash(bash)
    assert await sandbox.read("a/b.txt") == b"text"
    for _ in range(2):
        found = await sandbox.exec("ping; echo $KEY; cat a/b.txt /data/c; KEY=other; cd /", timeout=10)
        assert found.stdout == "pong\nvalue\ntextmore"
    with pytest.raises(OSError, match="directory of its own"):
        of_bash(Bash(cwd="/"))


class Mine(LocalSandbox):
    """Forgets that each command has a shell of its own."""

    async def exec(self, command: str, **options: Any) -> ShellResult:
        result = await super().exec(command, **options)
        self.cwd = os.path.join(self.cwd, "sub") if "cd sub" in command else self.cwd
        return result


@pytest.mark.behaviour("sandbox:contract:broken")
async def test_a_sandbox_that_breaks_it_is_told_where(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"`pwd; echo .* prints"):
        await check("each_command_has_a_shell_of_its_own_in_cwd", lambda: Mine(tmp_path))
