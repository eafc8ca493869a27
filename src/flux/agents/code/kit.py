"""What an agent of the application brings to a session: its tools, its skills and its sub-agents."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from flux.agents.code.place import seen_from
from flux.agents.define.called import ACTIVATE_SKILL, TASK, built_in
from flux.agents.parts.delegation import Colleague, Delegation
from flux.agents.turn.kits import Code, Given, Kit
from flux.agents.turn.loop import Session
from flux.engine.running.driving import MAX_DEPTH
from flux.errors import DefinitionInvalid
from flux.events import ContextFrozen
from flux.models.base import ToolSchema
from flux.tools.base import Failed, Tool, ToolContext, ToolOutcome
from flux.tools.function import tool_of
from flux.tools.skill import Skill
from flux.tools.skills import SCHEME, SkillCatalog
from flux.tools.workspace_skills import workspace_skills

logger = logging.getLogger(__name__)

AGENTS = f"""# Sub-agents

Hand work to one of these with `{TASK}`. It does not see this conversation: tell it all that it needs.

"""


class CodeKit:
    """Makes the kit of sessions whose agent the application has made."""

    def __init__(self, delegation: Delegation) -> None:
        self._delegation = delegation

    async def __call__(self, session: Session) -> Kit | None:
        """The kit; None when the agent is another one.

        :raises DefinitionInvalid: two tools, or two skills, have one name
        """
        code = session.given.code if session.given else None
        if code is None or session.given is None:
            return None
        found = await skills_beside(code)
        catalog = SkillCatalog([*code.skills, *found], untrusted=(skill.name for skill in found))
        tools = [*built_in(code.sandbox), *code.tools, *code.result]
        prompt = []
        if len(catalog):
            tools.append(catalog.tool("read").named(ACTIVATE_SKILL))
            prompt.append(catalog.prompt(ACTIVATE_SKILL))
        if code.agents and session.run.depth < MAX_DEPTH:
            tools.append(self._task(session, code))
            prompt.append(AGENTS + "\n".join(_line(name, one) for name, one in code.agents.items()))
        check_tools(tools)
        section = "\n\n".join(prompt)
        return Kit(
            tuple(tools), section, {SCHEME: catalog.read}, outdates=lambda context: _outdated(context, tools, section)
        )

    def _task(self, session: Session, code: Code) -> Tool:
        async def task(
            context: ToolContext, prompt: str, agent: str | None = None, description: str = "", cwd: str | None = None
        ) -> ToolOutcome:
            """Hand a piece of work to a sub-agent, and get its result. It knows only what you tell it.

            Args:
                prompt: The whole task.
                agent: The sub-agent; without it, one like yourself.
                description: The task in a few words, for people.
                cwd: The directory to work in; without it, yours.
            """
            return await self.hand_over(session, code, context.call, prompt, agent, cwd)

        # Driven again it goes on where it was, so it may be started again after a crash.
        return replace(tool_of(task, effect="idempotent", source="agents"), part_of_run=True)

    async def hand_over(
        self, session: Session, code: Code, call: str, prompt: str, agent: str | None, cwd: str | None
    ) -> ToolOutcome:
        """Give a sub-agent work, or go on with what this call has given to it."""
        one = session.given if agent is None else code.agents.get(agent)
        if one is None or one.code is None:
            return Failed(f"There is no sub-agent {agent!r}. Sub-agents: {', '.join(code.agents) or 'none'}.")
        inside = one.code if cwd is None else replace(one.code, sandbox=seen_from(one.code.sandbox, cwd))
        one = replace(one, code=replace(inside, result=()) if agent is None else inside)
        colleague = Colleague(one.definition, given=one, options=inside.options, images=inside.images)
        return await self._delegation.drive(session, call, colleague, prompt)


async def skills_beside(code: Code) -> tuple[Skill, ...]:
    """The skills that the sandbox keeps for whoever works in it.

    :raises DefinitionInvalid: one has the name of a skill that the agent brings
    """
    found = await workspace_skills(code.sandbox)
    own = {skill.name for skill in code.skills}
    twice = next((skill.name for skill in found if skill.name in own), None)
    if twice is not None:
        raise DefinitionInvalid(f"skills: {twice} is also a skill of the workspace; rename one of them", field="skills")
    return found


def check_tools(tools: Sequence[Tool]) -> None:
    """Refuse two tools of one name.

    :raises DefinitionInvalid: there are two
    """
    seen: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in (TASK, ACTIVATE_SKILL) and tool.source not in ("agents", "builtin"):
            raise DefinitionInvalid(f"tools: {tool.name} is a built-in tool too; rename it", field="tools")
        if tool.name in seen:
            raise DefinitionInvalid(
                f"tools: two are called {tool.name}: of {seen[tool.name].source}, {tool.source}", field="tools"
            )
        seen[tool.name] = tool


def _line(name: str, one: Given) -> str:
    return f"- {name}: {one.definition.description or 'no description'}"


def _outdated(context: ContextFrozen, tools: Sequence[Tool], section: str) -> bool:
    """Whether a frozen prompt does not offer just these tools, or tells of other skills and sub-agents."""
    frozen = [ToolSchema(tool["name"], tool["description"], tool["parameters"]) for tool in context.tools]
    return frozen != [ToolSchema(tool.name, tool.description, tool.parameters) for tool in tools] or (
        section not in context.system
    )
