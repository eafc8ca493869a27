"""Which sandbox a session acts in, opened in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Literal

from flux.agents.define.definition import AgentDefinition
from flux.agents.parts.delegation import SessionLink
from flux.agents.turn.loop import Session
from flux.errors import DefinitionInvalid, SandboxUnavailable
from flux.sandboxes.base import Sandbox
from flux.sandboxes.factories import isolated_sandbox, isolation_problem
from flux.sandboxes.host import LocalSandbox
from flux.settings import Settings

logger = logging.getLogger(__name__)

Kind = Literal["local", "isolated", "virtual"]


NOT_ALLOWED = (
    "the sandbox `local` isolates nothing, and callers of this server must say who they are: agents act in it only "
    "where FLUX_SANDBOX=local says so; let the agent name isolated or virtual (`flux doctor` says what works here)"
)


class Sandboxes:
    """Opens the sandboxes of sessions. A definition that names none gets the one of the settings."""

    def __init__(self, environment: Mapping[str, str], settings: Settings) -> None:
        #: Flux's own files, which are seen in no sandbox.
        self._home = str(settings.home)
        #: Others than the operator may say what agents do: not on this machine, unless the operator says so.
        self._guarded = settings.auth.enabled and settings.sandbox != "local"
        self._environment = environment
        self._auto = settings.sandbox
        self._warned = False
        self._on_host: dict[tuple[Kind, str], Sandbox] = {}

    async def open(self, session: Session, workspace: str) -> Sandbox:
        """The sandbox of a session. One that is virtual is shared with the sessions it drives, and outlives them.

        :raises SandboxUnavailable: it cannot work on this worker
        :raises DefinitionInvalid: its directory does not exist here
        """
        definition = session.policy.definition
        above = session.run.link.sandbox if isinstance(session.run.link, SessionLink) else None
        kind = await self._kind(definition, above)
        if kind == "local" and self._guarded and (definition.tools or definition.tools_file):
            raise SandboxUnavailable(NOT_ALLOWED)
        if kind == "virtual":
            # bashkit is a large library, which only virtual sandboxes need.
            kept_files = import_module("flux.agents.parts.kept_files")
            made: Sandbox = kept_files.sandbox_of(session.run, above)
            return made
        key = (kind, _folder(workspace, definition.cwd))
        if key not in self._on_host:
            try:
                self._on_host[key] = await asyncio.to_thread(self._made, *key)
            except OSError as error:
                raise DefinitionInvalid(f"cwd: {error}") from error
        return self._on_host[key]

    def _made(self, kind: Kind, folder: str) -> Sandbox:
        if kind == "isolated":
            return isolated_sandbox(folder, environment=self._environment, hidden=(self._home,))
        return LocalSandbox(folder, self._environment, (self._home,))

    async def _kind(self, definition: AgentDefinition, above: Sandbox | None) -> Kind:
        if definition.sandbox != "auto":
            return definition.sandbox
        if above is not None and above.name == "virtual":
            return "virtual"
        if self._auto != "auto":
            return self._auto
        problem = await asyncio.to_thread(isolation_problem)
        if problem and not self._warned:
            self._warned = True
            logger.warning("agents act in the sandbox `local`, without isolation: %s", problem)
        return "local" if problem else "isolated"


def _folder(workspace: str, cwd: str | None) -> str:
    return str(Path(workspace) / Path(cwd or ".").expanduser())
