"""The agents of a project as the loop takes them: initialised anew for each run, with the instance's own sandbox."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any

from flux.agents.code.given import given_for
from flux.agents.code.place import open_sandbox
from flux.agents.define.agent import Resolved
from flux.agents.parts.kept import Recent
from flux.agents.project.discovery import Project
from flux.agents.project.initialising import initialised, save
from flux.agents.turn.kits import Given
from flux.engine.running.run import Run
from flux.errors import AgentNotFound, FluxError
from flux.sandboxes.base import Sandbox
from flux.sandboxes.factories import Virtual
from flux.store.executions import Execution
from flux.store.files import place_of

#: Tenant, agent and instance.
Key = tuple[str, str, str]

#: Sandboxes of instances that are kept open between runs.
KEPT_SANDBOXES = 256


class ProjectAgents:
    """Finds the agent of a session that runs in the project's pool."""

    def __init__(self, project: Project, env: Any = None) -> None:
        self._project = project
        self._env = env
        self._sandboxes: Recent[Key, Sandbox] = Recent(KEPT_SANDBOXES)
        self._in_use: dict[Key, tuple[Any, int]] = {}
        self._locks: weakref.WeakValueDictionary[Key, asyncio.Lock] = weakref.WeakValueDictionary()

    def has(self, row: Execution) -> bool:
        """Whether a session is one of this project's."""
        return row.pool == self._project.pool

    @asynccontextmanager
    async def given(self, run: Run) -> AsyncIterator[Given | FluxError]:
        """The agent of a session for one run, or why there is none."""
        row = run.execution
        agent = self._project.agents.get(row.agent or "")
        if agent is None:
            yield AgentNotFound(f"the project {self._project.name} has no agent {row.agent} any more")
            return
        async with AsyncExitStack() as stack:
            try:
                resolved = await initialised(agent, row.instance or "", self._env)
                given = given_for(resolved, await self._sandbox(run, resolved, stack))
            except FluxError as error:
                yield error
                return
            yield given
        await save(resolved, run)

    async def _sandbox(self, run: Run, resolved: Resolved, stack: AsyncExitStack) -> Sandbox:
        """That of the instance. The files of a virtual one are in the database, another lives as this process does."""
        key = (run.execution.tenant, resolved.name, run.execution.instance or "")
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            if resolved.sandbox is None or resolved.sandbox is False or isinstance(resolved.sandbox, Virtual):
                kept = stack.enter_context(self._files(key))
                # bashkit is a large library, which only virtual sandboxes need.
                made = import_module("flux.agents.parts.kept_files").KeptSandbox(run, kept)
                return await open_sandbox(resolved.name, made, resolved.cwd)
            found = self._sandboxes.get(key)
            if found is None:
                found = await open_sandbox(resolved.name, resolved.sandbox, resolved.cwd)
                self._sandboxes.put(key, found)
            return found

    @contextmanager
    def _files(self, key: Key) -> Iterator[Any]:
        """The virtual files of an instance, the same for its runs that go on here at the same time."""
        files, users = self._in_use.get(key, (None, 0))
        if files is None:
            files = import_module("flux.agents.parts.kept_files").KeptFiles(place_of(key[1], key[2]))
        self._in_use[key] = (files, users + 1)
        try:
            yield files
        finally:
            files, users = self._in_use.pop(key)
            if users > 1:
                self._in_use[key] = (files, users - 1)
