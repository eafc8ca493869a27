"""`virtual`, `local` and `isolated`: what makes a sandbox, as agents in code and definitions name it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from msgspec import Struct

from flux.sandboxes.base import Sandbox, SandboxFactory
from flux.sandboxes.host import LocalSandbox


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


def virtual() -> SandboxFactory:
    """Bash and files in memory: no host files, no network, no environment."""
    return Virtual()


def local(cwd: str | Path | None = None, env: Mapping[str, str] | None = None) -> SandboxFactory:
    """This host's files and shell, without isolation: a command can do what this process can.

    `cwd` is the directory, by default the workspace of the session. Of `env`, by default the environment of this
    process, a command gets the few variables named in `flux.sandboxes.host.ENVIRONMENT`.
    """
    return Local(None if cwd is None else str(Path(cwd).expanduser()), env)
