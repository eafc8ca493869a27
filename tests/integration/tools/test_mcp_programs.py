"""MCP servers that are programs: what they get, and what they leave behind."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from flux.store.database import LOCAL
from tests.integration.agents.world import opened
from tests.integration.tools import mcp_server
from tests.integration.tools.test_mcp_failures import calls, results


@pytest.mark.behaviour("mcp:stdio:environment")
async def test_a_program_gets_little_and_leaves_nothing(tmp_path: Path) -> None:
    server = {"command": [sys.executable, mcp_server.__file__], "name": "h", "env": {"MINE": "secret:MINE"}}
    async with opened(tmp_path) as world:
        await world.process.secrets.set(LOCAL, "MINE", "1")
        await world.agent(calls("where"), mcp_servers=[server])
        await world.ask("go")
        (found,) = await results(world)
        pid, names = found.split(" ", 1)
        assert "'MINE'" in names
        assert "PYTEST_CURRENT_TEST" not in names
        os.kill(int(pid), 0)  # it is there, for the next call
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


#: A server that ignores the end of its input, and every signal that it can; it says who it is through a FIFO.
STUBBORN = """
import os, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
with open(sys.argv[1], "w") as fifo:
    fifo.write(str(os.getpid()))
while True:
    signal.pause()
"""
#: A process that has started that server.
HOLDER = """
import asyncio, sys
from flux.tools.mcp.stdio import stdio
async def main():
    ended = asyncio.get_running_loop().create_future()
    async with stdio([sys.executable, "-c", *sys.argv[1:]], {}, ".", ended):
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of a foreign process is waited for on Linux only")
@pytest.mark.behaviour("mcp:stdio:killed")
def test_a_stubborn_program_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", HOLDER, STUBBORN, str(fifo)]) as holder:
        program = os.pidfd_open(int(fifo.read_text()))
        holder.kill()
        assert select.select([program], [], [], 10)[0] == [program]
        os.close(program)
