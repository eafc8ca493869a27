"""`virtual`, `local` and `isolated`: what makes a sandbox, as agents in code and definitions name it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from flux.errors import SandboxUnavailable
from flux.sandboxes.base import Sandbox, SandboxFactory
from flux.sandboxes.host import LocalSandbox
from flux.sandboxes.limits import Limits


class Virtual(Struct, frozen=True):
    """Makes virtual sandboxes."""

    name: str = "virtual"

    async def open(self, *, workspace: str = ".") -> Sandbox:
        """A new one, without files; nothing of the host is in it, so neither is the workspace."""
        # bashkit is a large library, which only virtual sandboxes need.
        made: Sandbox = import_module("flux.sandboxes.in_memory").VirtualSandbox()
        return made


class Local(Struct, frozen=True):
    """Makes sandboxes that are a directory of this host."""

    cwd: str | None = None
    env: Mapping[str, str] | None = None
    name: str = "local"

    async def open(self, *, workspace: str = ".") -> Sandbox:
        """One for `cwd`, taken from the workspace where it is relative."""
        return await asyncio.to_thread(LocalSandbox, os.path.join(workspace, self.cwd or "."), self.env)


class Isolated(Struct, frozen=True):
    """Makes sandboxes that are a directory of this host, for commands that see nothing else of it."""

    workspace: str | None = None
    network: bool = False
    limits: Limits = Limits()
    readable: tuple[str, ...] = ()
    name: str = "isolated"

    async def open(self, *, workspace: str = ".") -> Sandbox:
        """One for `self.workspace`, taken from the workspace where it is relative."""

        folder = os.path.join(workspace, self.workspace or ".")
        return await asyncio.to_thread(
            isolated_sandbox, folder, network=self.network, limits=self.limits, readable=self.readable
        )


def isolated_sandbox(workspace: str, **options: Any) -> Sandbox:
    """An IsolatedSandbox. Takes some 20 ms the first time."""
    # It needs Linux, also to be imported.
    problem = isolation_problem()
    if problem:
        raise SandboxUnavailable(f"an isolated sandbox cannot work here: {problem}")
    made: Sandbox = import_module("flux.sandboxes.contained").IsolatedSandbox(workspace, **options)
    return made


def isolation_problem() -> str:
    """Why no isolated sandbox can work on this machine, and what to do; empty when one can."""
    if sys.platform != "linux":
        return "it needs Linux; use a virtual or a local sandbox"
    found: str = import_module("flux.sandboxes.contained").isolation_problem()
    return found


def processes_are_limited() -> bool:
    """Whether isolated sandboxes here keep to `Limits.processes`."""
    kept: bool = sys.platform == "linux" and import_module("flux.sandboxes.contained").processes_are_limited()
    return kept


def is_bash(made: Any) -> bool:
    """Whether something can be a sandbox by `of_bash`."""
    return all(hasattr(made, name) for name in ("execute_sync", "fs", "mount", "shell_state", "restore_snapshot"))


def of_bash(bash: Any) -> Sandbox:
    """The sandbox of a bash that is there: one of bashkit, or what has its methods. OSError: it has no directory."""
    made: Sandbox = import_module("flux.sandboxes.given_bash").BashSandbox(bash)
    return made


def virtual() -> SandboxFactory:
    """Bash and files in memory: no host files, no network, no environment."""
    return Virtual()


def local(cwd: str | Path | None = None, env: Mapping[str, str] | None = None) -> SandboxFactory:
    """This host's files and shell, without isolation: a command can do what this process can.

    `cwd` is the directory, by default the workspace of the session. Of `env`, by default the environment of this
    process, a command gets the few variables named in `flux.sandboxes.host.ENVIRONMENT`.
    """
    return Local(None if cwd is None else str(Path(cwd).expanduser()), env)


def isolated(
    workspace: str | Path | None = None,
    *,
    network: bool = False,
    limits: Limits | None = None,
    readable: Iterable[str | Path] = (),
) -> SandboxFactory:
    """One directory of this host, and commands in namespaces of their own, made by bubblewrap.

    `workspace` can be written, by default the one of the session; the system's programs and the directories
    `readable` can be read; the rest is absent. Opening one raises SandboxUnavailable, with the remedy, where
    bubblewrap cannot do that.
    """
    directory = None if workspace is None else str(Path(workspace).expanduser())
    return Isolated(directory, network, limits or Limits(), tuple(str(Path(one).expanduser()) for one in readable))
