"""The agents of a project as the loop takes them: initialised anew for each run, with the instance's own sandbox."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from flux.agents.define.agent import AgentCreateContext, Resolved, resolve
from flux.agents.harness.given import given_for
from flux.agents.harness.place import open_sandbox
from flux.agents.kept import Recent
from flux.agents.kits import Given
from flux.agents.project.discovery import Project
from flux.errors import AgentNotFound, DefinitionInvalid, FluxError, describe
from flux.sandboxes.base import Sandbox
from flux.store.executions import Execution

#: Sandboxes of instances that are kept open between runs.
KEPT_SANDBOXES = 256


class ProjectAgents:
    """Finds the agent of a session that runs in the project's pool."""

    def __init__(self, project: Project, env: Any = None) -> None:
        self._project = project
        self._env = env
        self._sandboxes: Recent[tuple[str, str, str], Sandbox] = Recent(KEPT_SANDBOXES)
        self._locks: weakref.WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    def has(self, row: Execution) -> bool:
        """Whether a session is one of this project's."""
        return row.pool == self._project.pool

    @asynccontextmanager
    async def given(self, row: Execution) -> AsyncIterator[Given | FluxError]:
        """The agent of a session for one run, or why there is none."""
        agent = self._project.agents.get(row.agent or "")
        if agent is None:
            yield AgentNotFound(f"the project {self._project.name} has no agent {row.agent} any more")
            return
        try:
            with _telling(agent.name):
                resolved = await resolve(agent, AgentCreateContext(row.instance or "", self._env))
            found: Given | FluxError = given_for(resolved, await self._sandbox(row, resolved))
        except FluxError as error:
            found = error
        yield found

    async def _sandbox(self, row: Execution, resolved: Resolved) -> Sandbox:
        """That of the instance: what it keeps is there in the next run, as long as this process lives."""
        key = (row.tenant, resolved.name, row.instance or "")
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            found = self._sandboxes.get(key)
            if found is None:
                found = await open_sandbox(resolved.name, resolved.sandbox, resolved.cwd)
                self._sandboxes.put(key, found)
            return found


class _telling:  # noqa: N801 - used as a function is
    """Says of whatever an initialiser raises whose it was."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Tell."""
        if isinstance(error, Exception) and not isinstance(error, FluxError):
            raise DefinitionInvalid(f"the initialiser of agent {self._agent} failed: {describe(error)}") from error
