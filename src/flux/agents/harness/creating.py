"""`create_agent`: how an application makes an agent, to be had by itself or inside a workflow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flux.agents.define.agent import CreatedAgent, Initialise
from flux.agents.define.profile import AgentProfile, AgentRuntimeConfig
from flux.agents.define.tool import check_name
from flux.errors import DefinitionInvalid


def create_agent(
    initialise: Initialise | Mapping[str, Any] | AgentRuntimeConfig | AgentProfile, *, name: str | None = None
) -> CreatedAgent:
    """An agent that `initialise` describes: a function of the context, or of nothing, that may be async.

    It returns a mapping of fields, an AgentRuntimeConfig or a profile, and is called whenever an instance is
    initialised. Its name is `name`, else that of the file that calls this.

    :raises DefinitionInvalid: the name cannot be one, or there is nothing to call
    """
    if name is not None:
        check_name("agent", name)
    caller = sys._getframe(1).f_globals
    if isinstance(initialise, Mapping | AgentRuntimeConfig | AgentProfile):
        made = initialise
        return CreatedAgent(lambda: made, name, caller.get("__name__", ""), caller.get("__file__"), in_workflow)
    if not callable(initialise):
        raise DefinitionInvalid(f"create_agent takes a function, not {type(initialise).__name__}", field="initialise")
    return CreatedAgent(initialise, name, caller.get("__name__", ""), caller.get("__file__"), in_workflow)


async def in_workflow(agent: CreatedAgent, context: Any, **options: Any) -> Any:
    """The harness of an agent in an execution; a program that has none never loads what it takes."""
    inside: Any = import_module("flux.agents.harness.in_workflow")
    return await inside.init_in(agent, context, **options)
