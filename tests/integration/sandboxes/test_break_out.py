"""What a command in an isolated sandbox tries, and must not reach."""

import asyncio
import http.server
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux.errors import SandboxUnavailable
from flux.sandboxes import Limits, ShellResult, contained
from flux.sandboxes.contained import IsolatedSandbox, isolation_problem, processes_are_limited

pytestmark = [
    pytest.mark.behaviour("sandbox:isolated:break-out"),
    pytest.mark.skipif(bool(isolation_problem()), reason=f"no isolated sandbox works here: {isolation_problem()}"),
]

SMALL = Limits(memory=500_000_000, file=20_000_000, temporary=20_000_000, processes=32)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


@pytest.fixture
def sandbox(workspace: Path) -> IsolatedSandbox:
    return IsolatedSandbox(workspace, limits=SMALL, environment={**os.environ, "API_KEY": "secret"})


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    return secret


async def run(sandbox: IsolatedSandbox, command: str, timeout: float = 20.0) -> ShellResult:
    return await sandbox.exec(command, timeout=timeout)


async def test_host_files_are_absent(sandbox: IsolatedSandbox, outside: Path) -> None:
    result = await run(
        sandbox,
        f"cat {outside}; cat /etc/shadow /etc/ssl/private/* ~root/.bashrc; ls -A ~root /home /var /opt /srv /sys /run",
    )
    assert result.stdout == ""
    found = await run(sandbox, f"ls -A {outside.parent} /proc/1/root{outside.parent}; ls -A /")
    assert "secret" not in found.stdout
    assert set(found.stdout.split()) & {"root", "home", "var", "run", "sys"} == set()


async def test_only_the_workspace_can_be_written(sandbox: IsolatedSandbox, workspace: Path) -> None:
    result = await run(
        sandbox, "for d in / /usr /usr/bin /etc /dev /proc /lib; do touch $d/x && echo $d; done; touch ok"
    )
    assert result.stdout == ""
    assert [one.name for one in workspace.iterdir()] == ["ok"]
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    result = await run(
        sandbox,
        "echo x > /proc/sys/kernel/core_pattern && echo wrote; echo h > /proc/sysrq-trigger && echo wrote;"
        " echo -1000 > /proc/self/oom_score_adj && echo wrote; mount -o remount,rw /proc && echo remounted;"
        " umount /proc/sys && echo unmounted; mknod here b 8 0 && echo made; chroot / true && echo chroot",
    )
    assert result.stdout == ""
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


async def test_no_more_rights_are_to_be_had(sandbox: IsolatedSandbox) -> None:
    result = await run(
        sandbox,
        "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | grep -v 0000000000000000;"
        " unshare -Urm true && echo userns;"
        " unshare -U true && echo userns; unshare -m true && echo mountns; grep NoNewPrivs:.1 /proc/self/status",
    )
    assert result.stdout.split() == ["NoNewPrivs:", "1"]


async def test_the_environment_is_its_own(sandbox: IsolatedSandbox) -> None:
    result = await run(sandbox, "env; cat /proc/*/environ | tr '\\0' '\\n'")
    assert "secret" not in result.stdout
    assert "HOME=/tmp" in result.stdout


async def test_variables_act_only_inside(sandbox: IsolatedSandbox, tmp_path: Path) -> None:
    trace = {
        "SHELLOPTS": "xtrace",
        "PS4": f"$(touch {tmp_path}/escaped)",
        "LD_PRELOAD": "/none.so",
        "BASH_ENV": "/none",
    }
    result = await sandbox.exec("echo $PS4", timeout=20, env=trace)
    assert result.exit_code == 0
    assert not (tmp_path / "escaped").exists()


async def test_other_processes_are_not_seen(sandbox: IsolatedSandbox) -> None:
    result = await run(
        sandbox, f"ls /proc | grep -c '^[0-9]'; kill -0 {os.getpid()} && echo alive; ls -l /proc/self/fd"
    )
    count, *rest = result.stdout.splitlines()
    assert int(count) < 10
    assert "alive" not in rest
    assert not [line for line in rest if "memfd" in line]


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


CONNECT = '{} -c \'import socket; socket.create_connection(("127.0.0.1", {}), 2); print("connected")\''


async def test_the_network_is_absent_unless_it_is_given(workspace: Path, port: int) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("the system has no python3")
    command = CONNECT.format(python, port)
    assert (await run(IsolatedSandbox(workspace), command)).stdout == ""
    assert (await run(IsolatedSandbox(workspace, network=True), command)).stdout == "connected\n"


async def test_sockets_of_the_host_are_absent(sandbox: IsolatedSandbox, workspace: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0flux-break-out-test")
        server.listen()
        code = 's = socket.socket(socket.AF_UNIX); s.connect("\\0flux-break-out-test"); print("connected")'
        result = await run(sandbox, f"python3 -c 'import socket; {code}'")
    assert result.stdout == ""


async def test_links_made_inside_lead_nowhere(sandbox: IsolatedSandbox, workspace: Path, outside: Path) -> None:
    await run(
        sandbox, f"ln -s {outside} link; ln -s {outside.parent} folder; ln {outside} hard; ln -s /etc/shadow shadow"
    )
    assert (await run(sandbox, "cat link folder/secret.txt shadow hard")).stdout == ""
    for path in ("link", "folder/secret.txt", "shadow", "folder"):
        with pytest.raises(PermissionError):
            await sandbox.read(path)
        with pytest.raises(PermissionError):
            await sandbox.write(path, b"x")
        with pytest.raises(PermissionError):
            await sandbox.exec("pwd", timeout=5, cwd=path)
    assert outside.read_text() == "secret"
    assert not (workspace / "hard").exists()


async def test_memory_and_files_have_limits(sandbox: IsolatedSandbox) -> None:
    result = await run(sandbox, "python3 -c 'bytearray(10**9)' 2>&1 | tail -1")
    assert result.stdout == "MemoryError\n"
    result = await run(
        sandbox,
        "for f in big /tmp/big /dev/shm/big; do head -c 30000000 /dev/zero > $f; wc -c < $f; done 2> /dev/null",
    )
    assert all(int(size) <= 21_000_000 for size in result.stdout.split())
    raised = await run(sandbox, "ulimit -v unlimited; ulimit -c unlimited; ulimit -v; ulimit -c")
    assert raised.stdout.split() == [str(SMALL.memory // 1024), "0"]


async def test_what_it_leaves_behind_is_killed(sandbox: IsolatedSandbox, workspace: Path) -> None:
    left = "setsid sh -c 'trap \"\" TERM HUP; while :; do date +%N > beat; sleep 0.01; done' > /dev/null 2>&1 &"
    result = await run(sandbox, f"{left} while [ ! -s beat ]; do sleep 0.01; done; echo left")
    assert result.stdout == "left\n"
    before = (workspace / "beat").read_text()
    await run(sandbox, "sleep 0.2")
    assert (workspace / "beat").read_text() == before


async def test_what_is_hidden_in_the_workspace_is_not_to_be_had(workspace: Path) -> None:
    home = workspace / ".flux"
    home.mkdir()
    (home / "secret.key").write_text("secret")
    (workspace / "link").symlink_to(home)
    sandbox = IsolatedSandbox(workspace, limits=SMALL, hidden=[str(home)])
    result = await run(
        sandbox, "cat .flux/secret.key link/secret.key; ls -A .flux; mv .flux moved && echo moved; touch .flux/x"
    )
    assert result.stdout == ""
    for path in (".flux/secret.key", "link/secret.key", ".flux"):
        with pytest.raises(PermissionError, match="hidden"):
            await sandbox.read(path)
    assert [one.name for one in home.iterdir()] == ["secret.key"]


FORKS = """
import asyncio, sys
from flux.sandboxes import Limits
from flux.sandboxes.contained import IsolatedSandbox, processes_are_limited

async def main() -> None:
    assert processes_are_limited()
    sandbox = IsolatedSandbox(sys.argv[1], limits=Limits(processes=32))
    bomb = await sandbox.exec("f() { f | f & }; f; sleep 100", timeout=1)
    print("ended" if bomb.timed_out or bomb.exit_code else bomb)
    many = await sandbox.exec("for i in $(seq 100); do sleep 1 & done; ls -d /proc/[0-9]* | wc -l", timeout=20)
    print(many.stderr.count("fork") > 0 and (not many.stdout or int(many.stdout) < 40))

asyncio.run(main())
"""


async def test_a_fork_bomb_is_kept_small(workspace: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(workspace)]
    if os.geteuid() == 0:
        # The kernel counts no process of root's: somebody else has to try.
        command = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
        readable = await asyncio.create_subprocess_exec(*command[:4], sys.executable, "-c", "import flux.sandboxes")
        if await readable.wait() != 0:
            pytest.skip("only root can read this interpreter, and the kernel limits no processes of root's")
        for folder in (workspace, *workspace.parents[:4]):
            folder.chmod(0o777) if folder == workspace else folder.chmod(folder.stat().st_mode | 0o011)
    elif not processes_are_limited():
        pytest.skip("this kernel does not count the processes of a sandbox by themselves; Linux 5.14 does")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().split() == ["ended", "True"]


async def test_where_it_cannot_work_it_says_what_to_do(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contained, "PATH", "/nowhere")
    isolation_problem.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="install the package bubblewrap"):
            IsolatedSandbox(workspace)
    finally:
        monkeypatch.undo()
        isolation_problem.cache_clear()
