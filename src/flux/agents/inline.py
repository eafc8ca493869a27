"""`agent()`: an agent as a task of a workflow. Each call drives a session of its own inside the execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from flux.agents.asking import Asked
from flux.agents.define.definition import define
from flux.agents.define.memory import LongTermMemory
from flux.agents.define.output import output_schema
from flux.agents.history.window import WorkingMemory
from flux.agents.parts.parameters import check_parameters, default_name, question
from flux.agents.turn.kits import Given
from flux.engine.running import driving
from flux.engine.workflows.elsewhere import elsewhere
from flux.engine.workflows.journal import journal_here
from flux.engine.workflows.place import here
from flux.engine.workflows.task import task
from flux.engine.workflows.workflow import workflow
from flux.errors import AgentFailed, InvalidInput, NotPaused
from flux.events import SessionStarted
from flux.tools.skills import SkillCatalog


async def agent(  # noqa: PLR0913 - the documented parameters
    system_prompt: str,
    *,
    model: str,
    name: str | None = None,
    tools: Sequence[task[..., Any] | str | Mapping[str, Any]] | None = None,
    skills: SkillCatalog | None = None,
    response_format: type[BaseModel] | None = None,
    working_memory: WorkingMemory | None = None,
    long_term_memory: LongTermMemory | None = None,
    agents: Sequence[task[..., Any] | str] | None = None,
    description: str | None = None,
    planning: bool = False,
    max_plan_steps: int = 20,
    approve_plan: bool = False,
    max_tool_calls: int = 10,
    max_concurrent_tools: int | None = None,
    max_tokens: int = 4096,
    stream: bool = True,
    approval_mode: str | None = None,
    reasoning_effort: str | None = None,
    budget: Mapping[str, Any] | None = None,
) -> task[..., Any]:
    """An agent as a task: `await (await agent("...", model="..."))("do this", context="...")` returns its answer.

    :raises DefinitionInvalid: a parameter is wrong, or a tool cannot be used
    """
    objects = {"working_memory": working_memory, "skills": skills, "long_term_memory": long_term_memory}
    check_parameters(objects | {"system_prompt": system_prompt, "tools": tools, "agents": agents})
    tasks = tuple(one for one in tools or () if isinstance(one, task))
    fields: dict[str, Any] = {
        "name": name or default_name(model),
        "model": model,
        "system_prompt": system_prompt,
        "description": description,
        "tools": [one for one in tools or () if not isinstance(one, task)],
        "skills": [one.model_dump(mode="json", exclude_defaults=True) for one in skills or ()],
        "agents": [one for one in agents or () if isinstance(one, str)],
        "long_term_memory": long_term_memory and long_term_memory.model_dump(exclude_unset=True),
        "max_tool_calls": max_tool_calls,
        "max_tokens": max_tokens,
        "stream": stream,
        "reasoning_effort": reasoning_effort,
        "budget": budget,
        "approval_mode": approval_mode,
        "max_concurrent_tools": max_concurrent_tools,
        "planning": planning or None,
        "max_plan_steps": max_plan_steps if planning else None,
        "approve_plan": approve_plan or None,
    }
    definition = define({key: value for key, value in fields.items() if value is not None})
    given = Given(
        definition,
        tasks,
        {one.given.definition.name: one.given for one in map(_colleague, agents or ()) if one},
        output_schema(response_format) if response_format is not None else None,
        working_memory,
        by_code=True,
    )
    return task(AgentFunction(given, response_format)).with_options(name=definition.name)


def _colleague(one: task[..., Any] | str) -> AgentFunction | None:
    """The agent behind a task; None for the name of a stored one."""
    if isinstance(one, str):
        return None
    if not isinstance(one.function, AgentFunction):
        raise InvalidInput(f"agents: {one.name} is a task, not an agent; give it to `tools`")
    if not one.function.given.definition.description:
        raise InvalidInput(f"agents: {one.name} has no description, by which a model chooses; give it one")
    return one.function


class AgentFunction:
    """What the task of an agent calls."""

    def __init__(self, given: Given, format: type[BaseModel] | None = None) -> None:
        self.given = given
        self._format = format
        self.__name__ = given.definition.name
        self.__doc__ = given.definition.description

    async def __call__(self, instruction: str, *, context: str = "") -> Any:
        """Ask the agent. Outside a workflow it is run by an execution of its own.

        :raises AgentFailed: its run failed, or was stopped, or its answer does not fit the format
        """
        if elsewhere() is not None:
            raise InvalidInput("the tools of a file cannot ask an agent while auth is on; give the agent sub-agents")
        text = question(instruction, context)
        journal, place = journal_here(), here()
        if journal is None or place is None or place.body is None:
            return await _alone(self.given.definition.name, self, text)
        definition, memory = self.given.definition, self.given.memory
        key = memory.key if memory else place.body.call
        started = SessionStarted(
            agent=definition.name,
            instance=driving.child_id(journal.run.id, key),
            name=key if memory else "default",  # by it, a fork of the workflow knows what outlives its call
            definition_digest=definition.digest,
        )
        asked = Asked(journal, place.body, self.given, started.instance, format=self._format, started=started)
        return await asked.answer(text)


async def _alone(name: str, function: AgentFunction, text: str) -> Any:
    """Ask an agent outside a workflow: in an execution of its own, on the database of this program.

    :raises AgentFailed: its run failed, or was stopped
    :raises NotPaused: it waits for a person
    """

    @workflow.with_options(name=name, namespace="agents")
    async def asks(ctx: Any) -> Any:
        return await task(function).with_options(name=name)(ctx.input)

    done = await asks.run_async(text)
    if done.has_succeeded:
        return done.output
    if done.is_paused:
        raise NotPaused(
            f"the agent {name} waits for a person; `flux execution approvals {done.execution_id}` shows what is asked"
        )
    raise AgentFailed(done.error)
