"""Starts processes fast: everything is imported once, then each process is a fork.

A request is a line of JSON on stdin: `{"start": PLAN}` -> its pid, `{"wait": PID}` -> `exit N`, `signal N`
or `stopped`.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

import msgspec

from tests.crash.driver import run
from tests.crash.stage import Plan


def serve() -> None:
    """Answer requests until stdin closes."""
    with suppress(ImportError):  # the extra package may be missing
        importlib.import_module("flux.store._postgres")
    gc.freeze()
    for line in sys.stdin:
        request: dict[str, Any] = msgspec.json.decode(line)
        reply = _start(request["start"]) if "start" in request else _wait(request["wait"])
        print(reply, flush=True)


def _start(plan: Any) -> str:
    pid = os.fork()
    if pid:
        return str(pid)
    status = 1
    try:
        run(msgspec.convert(plan, Plan))
        status = 0
    except BaseException:  # noqa: BLE001 - the outermost handler of a process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wait(pid: int) -> str:
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return "stopped"
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve()
