"""`init_agent`: an instance of an agent in this program, with a sandbox and sessions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from flux.agents.code.errors import AbortError
from flux.agents.code.given import given_for
from flux.agents.code.ids import check_id
from flux.agents.code.kit import check_tools, skills_beside
from flux.agents.code.place import open_sandbox, seen_from
from flux.agents.code.stores import SessionStore, check_store
from flux.agents.define.agent import AgentCreateContext, CreatedAgent, Resolved, extended, of_profile, resolve
from flux.agents.define.called import built_in
from flux.agents.define.profile import AgentProfile
from flux.agents.define.skills import SkillReference
from flux.agents.define.tool import ToolDefinition
from flux.agents.harness.calls import CallHandle
from flux.agents.harness.commands import Command, run_command
from flux.agents.harness.host import Host, host
from flux.agents.harness.session import Session
from flux.agents.harness.wanted import Wanted
from flux.agents.turn.kits import Code, Given
from flux.errors import InvalidInput, SessionNotFound
from flux.sandboxes.base import Sandbox, ShellResult
from flux.sandboxes.verbs import Files
from flux.suggest import unknown
from flux.tools.cancel import CancelSignal
from flux.tools.skill import Skill

DEFAULT = "default"
#: Stands for the model where none is called.
NO_MODEL = "none/none"


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


class Harness:
    """An instance of an agent that is initialised: its sandbox, and its sessions."""

    def __init__(self, resolved: Resolved, id: str, name: str, sandbox: Sandbox, host: Any) -> None:
        self.name = name
        self.agent = resolved.name
        self.id = id
        self.sandbox = sandbox
        self.fs = Files(sandbox)
        self.sessions: Any = Sessions(self, host)
        self.store: SessionStore | None = resolved.persist
        self._resolved = resolved
        self._host = host

    async def session(self, name: str = DEFAULT) -> Session:
        """The session of that name, made if there is none."""
        check_id("the name of a session", name)
        row = await self._host.found_or_created(self.agent, self.id, name, self.store)
        return self.opened(row, name)

    def shell(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        signal: CancelSignal | None = None,
    ) -> CallHandle[ShellResult]:
        """Run a command in the sandbox, without a record."""
        return CallHandle(partial(self._shell, Command(command, dict(env or {}), cwd)), signal)

    async def aclose(self) -> None:
        """Close the sandbox; sessions stay."""
        await self.sandbox.close()

    async def __aenter__(self) -> Harness:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    # For its sessions

    @property
    def any_model(self) -> str | None:
        """A model for what calls none."""
        return None if isinstance(self._resolved.model, str) else NO_MODEL

    def given(self, asked: Wanted, skills: Sequence[SkillReference] = ()) -> Given:
        """The agent for one operation.

        :raises DefinitionInvalid: a tool or a skill of the operation has a name that is taken
        :raises InvalidInput: there is no model
        """
        known = {skill.name for skill in self._resolved.skills}
        agent = extended(self._resolved, asked.tools, [one for one in skills if one.name not in known])
        given = given_for(agent, self.sandbox, model=asked.model, result=asked.result)
        if given.code is not None:
            check_tools([*built_in(self.sandbox), *given.code.tools])
        return given

    def for_task(self, agent: str | None, asked: Wanted, cwd: str | None = None) -> tuple[str, Given, Given]:
        """The name of a sub-agent, the agent that gives it work, and itself, in a directory.

        :raises InvalidInput: there is no sub-agent of that name
        """
        profiles = {str(one.name): one for one in self._resolved.subagents}
        if agent is not None and agent not in profiles:
            raise InvalidInput(unknown("sub-agent", agent, profiles))
        parent = given_for(self._resolved, self.sandbox, model=asked.model or self.any_model)
        model = asked.model or parent.definition.model
        found = self._resolved if agent is None else of_profile(profiles[agent], self._resolved, model)
        options = asked.options
        sandbox = self.sandbox if cwd is None else seen_from(self.sandbox, cwd)
        child = given_for(
            extended(found, asked.tools), sandbox, model=asked.model, result=asked.result, options=options
        )
        if asked.images and child.code is not None:
            child = replace(child, code=replace(child.code, images=asked.parts))
        name = agent or parent.definition.name
        code = parent.code or Code(self.sandbox)
        return name, replace(parent, code=replace(code, agents={name: child})), child

    async def skill(self, skill: SkillReference | str) -> Skill:
        """A skill as an operation names it.

        :raises InvalidInput: there is none of that name
        """
        if isinstance(skill, SkillReference):
            return skill.skill
        own = self._resolved.skills
        found = {one.name: one for one in (*own, *await skills_beside(Code(self.sandbox, skills=own)))}
        if skill not in found:
            raise InvalidInput(unknown("skill", str(skill), found))
        return found[skill]

    def opened(self, row: Any, name: str) -> Session:
        """A session of a row. What was left to do there is gone on with."""
        given = given_for(self._resolved, self.sandbox, model=self.any_model)
        self._host.go_on(row, partial(self._host.process.session_executor.execute, given=given))
        return Session(self, self._host, row.id, name)

    async def _shell(self, command: Command, signal: CancelSignal) -> ShellResult:
        running = asyncio.create_task(run_command(self.sandbox, command))

        def stop(_: Any) -> None:
            running.cancel()

        forget = signal.then(stop)
        try:
            return await running
        except asyncio.CancelledError:
            if signal.cancelled:
                raise AbortError(signal.reason) from None
            raise
        finally:
            forget()
            running.cancel()


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


async def checked_sandbox(resolved: Resolved) -> Sandbox:
    """The sandbox of an agent whose tools and skills have names of their own.

    :raises DefinitionInvalid: two of its tools, or two of its skills, have one name
    :raises Unavailable: it cannot be made
    """
    if resolved.persist is not None:
        check_store(resolved.persist)
    sandbox = await open_sandbox(resolved.name, resolved.sandbox, resolved.cwd)
    given = given_for(resolved, sandbox, model=None if isinstance(resolved.model, str) else NO_MODEL)
    if given.code is not None:
        check_tools([*built_in(sandbox), *given.code.tools])
        await skills_beside(given.code)
    return sandbox
