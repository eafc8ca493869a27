import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from flux.sandboxes.host import LocalSandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> LocalSandbox:
    return LocalSandbox(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "API_KEY": "secret"})


class Pids:
    """The process ids a command prints, and whether those processes are gone."""

    def __init__(self) -> None:
        self.text = ""
        self.changed = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.text += text
        self.changed.set()

    async def of(self, count: int) -> list[int]:
        async with asyncio.timeout(10):
            while len(lines := self.text.split()) < count:
                self.changed.clear()
                await self.changed.wait()
        return [int(line) for line in lines]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - nobody tells when another's child ends
            await asyncio.sleep(0.01)


FAMILY = "echo $$; sleep 300 & echo $!; (trap '' TERM; echo $BASHPID; sleep 300; sleep 300) & wait"
"""A shell, its child, and a grandchild that does not end when asked."""


@pytest.mark.behaviour("tools:shell:process-group")
async def test_a_timeout_kills_the_whole_group_and_keeps_the_output(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec(f"echo begun >&2; {FAMILY}", timeout=1)
    assert result.timed_out
    assert result.exit_code is None
    assert result.stderr.startswith("begun\n")
    pids = [int(line) for line in result.stdout.split()]
    assert len(pids) == 3
    await gone(pids)


@pytest.mark.behaviour("tools:shell:cancel")
async def test_a_cancel_kills_the_whole_group(sandbox: LocalSandbox) -> None:
    pids = Pids()
    running = asyncio.create_task(sandbox.exec(FAMILY, timeout=300, on_output=pids))
    started = await pids.of(3)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(started)


@pytest.mark.behaviour("tools:shell:cancel")
async def test_a_second_cancel_does_not_wait_for_the_grace_period(sandbox: LocalSandbox) -> None:
    pids = Pids()
    running = asyncio.create_task(sandbox.exec(FAMILY, timeout=300, on_output=pids))
    started = await pids.of(3)
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(started)


@pytest.mark.behaviour("tools:shell:background")
async def test_background_children_do_not_hold_the_call(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("sleep 300 & echo $!; sleep 300 >/dev/null 2>&1 & echo $!", timeout=60)
    assert result.exit_code == 0
    assert not result.timed_out
    await gone([int(line) for line in result.stdout.split()])


async def test_a_child_in_a_session_of_its_own_does_not_hold_the_call(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("setsid sleep 300 & echo $!", timeout=60)
    assert result.exit_code == 0
    os.kill(int(result.stdout), signal.SIGKILL)


@pytest.mark.behaviour("tools:shell:asked-first")
async def test_a_command_is_asked_to_end_before_it_is_killed(sandbox: LocalSandbox) -> None:
    command = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    result = await sandbox.exec(command, timeout=0.5)
    assert result.timed_out
    assert result.stdout == "ready\ncleaned\n"


PROGRAM = """
import asyncio, sys
from flux.sandboxes.host import LocalSandbox

def show(text):
    print(text, end="", flush=True)

asyncio.run(LocalSandbox(".", None).exec(sys.argv[1], timeout=300, on_output=show))
"""


@pytest.mark.behaviour("tools:shell:killed-with-flux")
async def test_a_killed_process_leaves_no_commands_behind(sandbox: LocalSandbox) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, FAMILY, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        pids = [int(await process.stdout.readline()) for _ in range(3)]
    process.kill()
    await process.wait()
    await gone(pids)
    assert await process.stdout.read() == b""


@pytest.mark.behaviour("sandbox:local:environment")
async def test_commands_see_few_variables_and_no_input(
    sandbox: LocalSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    result = await sandbox.exec("cat; env", timeout=10)
    variables = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert set(variables) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "TERM"}
    assert variables["TERM"] == "dumb"
    assert variables["PWD"] == str(tmp_path)
    inherited = await LocalSandbox(tmp_path).exec("env", timeout=10)
    assert "secret" not in inherited.stdout
    assert "PATH=" in inherited.stdout


@pytest.mark.behaviour("sandbox:local:exit-codes")
async def test_exit_codes_are_those_of_a_shell(sandbox: LocalSandbox) -> None:
    codes = {"exit 7": 7, "kill -9 $$": 137, "nonexistent-program": 127, "true": 0, "kill -TERM $$": 143}
    assert {command: (await sandbox.exec(command, timeout=10)).exit_code for command in codes} == codes


@pytest.mark.behaviour("sandbox:local:binary-output")
async def test_binary_output_becomes_text(sandbox: LocalSandbox) -> None:
    live: list[str] = []
    result = await sandbox.exec("head -c 300000 /dev/urandom; printf 'a\\0b'", timeout=30, on_output=live.append)
    assert result.stdout.encode()
    assert result.stdout == "".join(live)
    assert result.stdout.endswith("a\ufffdb")
    assert "\0" not in result.stdout


async def test_a_character_in_two_pieces_is_one_character(sandbox: LocalSandbox) -> None:
    live: list[str] = []
    command = r"printf '\303'; read -t 0.2 _ < <(sleep 1); printf '\251'"
    result = await sandbox.exec(command, timeout=10, on_output=live.append)
    assert result.stdout == "é"
    assert "".join(live) == "é"


@pytest.mark.behaviour("sandbox:local:huge-output")
async def test_huge_output_is_counted_and_not_kept(sandbox: LocalSandbox) -> None:
    seen = 0

    def count(text: str) -> None:
        nonlocal seen
        seen += len(text)

    result = await sandbox.exec("yes | head -c 100000000; echo end", timeout=60, on_output=count)
    assert seen == 100_000_004
    assert result.truncated
    assert len(result.stdout) < 1_000_100
    assert result.stdout.startswith("y\ny\n")
    assert result.stdout.endswith("y\nend\n")
    assert "\n[... 99000004 bytes left out ...]\n" in result.stdout


async def test_characters_are_not_cut_in_two(sandbox: LocalSandbox) -> None:
    result = await sandbox.exec("printf 'é%.0s' {1..200}", timeout=10, max_output_bytes=101)
    head, _, tail = result.stdout.partition("\n[... 300 bytes left out ...]\n")
    assert head == "é" * 25
    assert tail == "é" * 25


async def test_many_at_once_leave_nothing_open(sandbox: LocalSandbox) -> None:
    await sandbox.exec("true", timeout=10)
    before = len(os.listdir("/proc/self/fd"))
    results = await asyncio.gather(*(sandbox.exec(f"echo {n}; exit {n}", timeout=30) for n in range(30)))
    assert [(result.exit_code, result.stdout) for result in results] == [(n, f"{n}\n") for n in range(30)]
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_workspace_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as path:
        sandbox = LocalSandbox(path, {})
    with pytest.raises(FileNotFoundError):
        await sandbox.exec("true", timeout=10)
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        LocalSandbox(path, {})
