"""An instance of an agent in this program, without its sessions: its sandbox, and what its operations work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from msgspec.structs import replace

from flux.agents.code.given import given_for
from flux.agents.code.kit import check_tools, skills_beside
from flux.agents.code.place import open_sandbox, seen_from
from flux.agents.code.stores import SessionStore, check_store
from flux.agents.define.agent import Resolved, extended, of_profile
from flux.agents.define.called import built_in
from flux.agents.define.skills import SkillReference
from flux.agents.harness.calls import CallHandle, until
from flux.agents.harness.commands import Command, run_command
from flux.agents.harness.wanted import Wanted
from flux.agents.turn.kits import Code, Given
from flux.errors import InvalidInput
from flux.sandboxes.base import Sandbox, ShellResult
from flux.sandboxes.verbs import Files
from flux.suggest import unknown
from flux.tools.cancel import CancelSignal
from flux.tools.skill import Skill

#: Stands for the model where none is called.
NO_MODEL = "none/none"


class Instance:
    """An instance of an agent that is initialised."""

    def __init__(self, resolved: Resolved, id: str, sandbox: Sandbox) -> None:
        self.agent = resolved.name
        self.id = id
        self.sandbox = sandbox
        self.fs = Files(sandbox)
        self.store: SessionStore | None = resolved.persist
        self._resolved = resolved

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

    async def _shell(self, command: Command, signal: CancelSignal) -> ShellResult:
        return await until(run_command(self.sandbox, command), signal)


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
