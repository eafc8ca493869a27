"""`init_agent`: an instance of an agent in this program, with a sandbox and sessions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from flux.agents.code.given import given_for
from flux.agents.code.ids import check_id
from flux.agents.define.agent import AgentCreateContext, CreatedAgent, Resolved, extended, resolve
from flux.agents.define.profile import AgentProfile
from flux.agents.define.tool import ToolDefinition
from flux.agents.harness.host import Host, host
from flux.agents.harness.instance import Instance, checked_sandbox
from flux.agents.harness.session import Session
from flux.errors import SessionNotFound
from flux.sandboxes.base import Sandbox

DEFAULT = "default"


class Sessions:
    """The sessions of a harness, by name."""

    def __init__(self, harness: Harness, host: Host) -> None:
        self._harness = harness
        self._host = host

    async def get(self, name: str = DEFAULT) -> Session:
        """The session of that name.

        :raises SessionNotFound: there is none
        """
        row = await self._host.find(*self._key(name))
        if row is None:
            raise SessionNotFound(f"agent {self._harness.agent} has no session {name!r} for {self._harness.id!r}")
        return self._harness.opened(row, name)

    async def create(self, name: str = DEFAULT) -> Session:
        """A new session.

        :raises SessionExists: there is one of that name
        """
        return self._harness.opened(await self._host.create(*self._key(name), self._harness.store), name)

    async def delete(self, name: str = DEFAULT) -> None:
        """Remove the session of that name with all that it holds; no error when there is none.

        :raises SessionBusy: an operation is under way
        """
        row = await self._host.find(*self._key(name))
        if row is not None:
            await Session(self._harness, self._host, row.id, name).delete()

    def _key(self, name: str) -> tuple[str, str, str]:
        return self._harness.agent, self._harness.id, check_id("the name of a session", name)


class Harness(Instance):
    """An instance of an agent that is initialised: its sandbox, and its sessions."""

    def __init__(self, resolved: Resolved, id: str, name: str, sandbox: Sandbox, host: Any) -> None:
        super().__init__(resolved, id, sandbox)
        self.name = name
        self.sessions: Any = Sessions(self, host)
        self._host = host

    async def session(self, name: str = DEFAULT) -> Session:
        """The session of that name, made if there is none."""
        check_id("the name of a session", name)
        row = await self._host.found_or_created(self.agent, self.id, name, self.store)
        return self.opened(row, name)

    async def aclose(self) -> None:
        """Close the sandbox; sessions stay."""
        await self.sandbox.close()

    async def __aenter__(self) -> Harness:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def opened(self, row: Any, name: str) -> Session:
        """A session of a row. What was left to do there is gone on with."""
        given = given_for(self._resolved, self.sandbox, model=self.any_model)
        self._host.go_on(row, partial(self._host.process.session_executor.execute, given=given))
        return Session(self, self._host, row.id, name)


async def init_agent(
    agent: CreatedAgent,
    *,
    id: str | None = None,
    name: str = DEFAULT,
    tools: Sequence[ToolDefinition] = (),
    skills: Sequence[Any] = (),
    subagents: Sequence[AgentProfile] = (),
    env: Any = None,
    payload: Any = None,
) -> Harness:
    """Initialise an agent in this program for the instance `id` (None: a fresh one); its sessions are in the database.

    `env` and `payload` are given to its initialiser, whose errors are raised as they are.

    :raises DefinitionInvalid: what the initialiser returned, or what is added to it, cannot be an agent
    :raises Unavailable: its sandbox cannot be made
    """
    instance = f"i-{uuid.uuid4()}" if id is None else check_id("the id of an instance", id)
    check_id("the name of a harness", name)
    resolved = await resolve(agent, AgentCreateContext(instance, env, payload))
    return await made(extended(resolved, tools, skills, subagents), instance, name, await host())


async def made(resolved: Resolved, instance: str, name: str, on: Host) -> Harness:
    """A harness of an agent.

    :raises DefinitionInvalid: two of its tools, or two of its skills, have one name
    """
    return Harness(resolved, instance, name, await checked_sandbox(resolved), on)
