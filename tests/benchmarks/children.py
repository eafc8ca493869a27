"""Processes to measure: the real `flux` program, and what /proc knows of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
FLUX = str(Path(sys.prefix, "bin", "flux"))
START_SECONDS = 60


class Child(NamedTuple):
    """A process that serves at `url`; `started` is how many seconds it took."""

    pid: int
    url: str
    started: float

    def cpu(self) -> float:
        """Processor seconds of its threads so far."""
        return cpu_of(self.pid)

    def rss(self) -> float:
        """Megabytes it has in memory."""
        return rss(self.pid)


class Ended(NamedTuple):
    """What a process took, in seconds, from its start to its end."""

    wall: float
    cpu: float


def cpu_of(pid: int) -> float:
    """Processor seconds of a process's threads so far."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def rss(pid: int) -> float:
    """Megabytes that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def flux_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a `flux` that keeps everything in `home`."""
    return {**os.environ, "FLUX_HOME": str(home), "HOME": str(home), "TERM": "xterm-256color", **variables}


@asynccontextmanager
async def serving(*command: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """Run a server that prints its address at the end of its first line, until the context ends."""
    before = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode()
            url = next(word for word in line.split() if word.startswith("http://"))
            await _answering(url)
        yield Child(process.pid, url, time.perf_counter() - before)
    finally:
        process.terminate()
        await process.wait()


async def _answering(url: str) -> None:
    """Return when connections are accepted; a server may say its address before it listens."""
    place = urlsplit(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(place.hostname, place.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.002)
        else:
            writer.close()
            return


def flux_server(home: Path, *options: str, **variables: str) -> AbstractAsyncContextManager[Child]:
    """`flux start server` on a free port."""
    command = [FLUX, "start", "server", "--port", "0", *options]
    return serving(*command, environment=flux_environment(home, **variables))


def replaying(pieces: Path) -> AbstractAsyncContextManager[Child]:
    """`replay.py` on a free port."""
    return serving(sys.executable, "-m", "tests.benchmarks.replay", str(pieces))


def run_to_end(*command: str, environment: Mapping[str, str]) -> Ended:
    """Run a command and wait for it.

    :raises CalledProcessError: it failed
    """
    before = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Ended(wall, used.ru_utime + used.ru_stime)
