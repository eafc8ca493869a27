from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flux.tools.base import Done, Failed

Call = Callable[..., Awaitable[Done | Failed]]


@pytest.mark.behaviour("tools:shell:result")
async def test_the_result_has_code_stdout_and_stderr(call: Call, watched: list[str], workspace: Path) -> None:
    ended = Done("exit_code: 3\nstdout:\nout\nstderr:\nerr")
    assert await call("shell", command="echo out; echo err >&2; exit 3") == ended
    assert sorted(watched) == ["err\n", "out\n"]
    assert await call("shell", command="pwd") == Done(f"exit_code: 0\nstdout:\n{workspace}\nstderr: (empty)")


@pytest.mark.behaviour("tools:shell:timeout")
async def test_a_timeout_keeps_what_was_said(call: Call) -> None:
    outcome = await call("shell", command="echo begun; exec sleep 60", timeout=60, settings={"timeout": 0.5})
    assert isinstance(outcome, Failed)
    assert outcome.timeout
    assert outcome.content.startswith("ended after 0.5 seconds\nstdout:\nbegun\nstderr:")


@pytest.mark.behaviour("tools:shell:truncated")
async def test_long_output_keeps_head_and_tail(call: Call, watched: list[str]) -> None:
    settings = {"max_output_chars": 2_000}
    content = (await call("shell", command="seq 1000000", settings=settings)).content
    assert len(content) <= 2_000
    assert content.startswith("exit_code: 0\ntruncated: true\nstdout:\n1\n2\n3\n")
    assert content.endswith("999999\n1000000\nstderr: (empty)")
    live = "".join(watched)
    assert live.endswith("[... what follows is not shown live ...]\n")
    assert len(live) < 2_100


@pytest.mark.behaviour("tools:shell:blocked")
async def test_a_blocked_command_is_not_run(call: Call, workspace: Path) -> None:
    outcome = await call("shell", command="touch a; sudo ls")
    assert outcome == Failed("not run: the command holds `sudo`, which this agent's blocklist refuses")
    assert not (workspace / "a").exists()
    allowed = await call("shell", command="echo sudo", settings={"blocklist": ["touch"]})
    assert allowed == Done("exit_code: 0\nstdout:\nsudo\nstderr: (empty)")


async def test_a_command_that_cannot_start_is_a_failure(call: Call) -> None:
    assert isinstance(await call("shell", command="echo a\0b"), Failed)
    assert isinstance(await call("shell", command="echo " + "x" * 200_000), Failed)
