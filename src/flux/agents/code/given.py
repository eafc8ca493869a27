"""An agent of the application as the loop takes it: a definition, and what a definition cannot hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from flux.agents.define.agent import Resolved, of_profile
from flux.agents.define.called import code_tool
from flux.agents.define.definition import define
from flux.agents.define.output import output_schema
from flux.agents.history.asked import FINISH, GIVE_UP, RESULT
from flux.agents.turn.kits import Code, Given
from flux.errors import InvalidInput
from flux.sandboxes.base import Sandbox
from flux.tools.base import Done, Failed, Tool, ToolContext, ToolOutcome

T = TypeVar("T", bound=BaseModel)

#: Rounds of tool calls in one operation; its caller is who stops it.
MAX_ROUNDS = 1_000


class Result(Generic[T]):
    """The structured answer that an operation is to give: an instance of a Pydantic model."""

    def __init__(self, model: type[T]) -> None:
        self.model = model
        self._schema = output_schema(model)

    def tools(self) -> tuple[Tool, ...]:
        """The tools by which a model gives it, or gives up."""
        give_up = {"type": "object", "properties": {"reason": {"type": "string"}}, "required": ["reason"]}
        finish = f"End with the result. {self._schema.description}".strip()
        return (
            Tool(FINISH, finish, self._schema.schema, self._finish, effect="read", source="the structured result"),
            Tool(
                GIVE_UP,
                "End without a result, when there can be none; say why.",
                give_up,
                _give_up,
                effect="read",
                source="the structured result",
            ),
        )

    def parse(self, text: str) -> T:
        """The result in the text of `finish`."""
        return self.model.model_validate_json(text)

    async def _finish(self, args: dict[str, Any], _: ToolContext) -> ToolOutcome:
        try:
            found = self.model.model_validate_json(json.dumps(args))
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
            return Failed(f"The result does not fit: {'; '.join(faults)}")
        return Done(found.model_dump_json(by_alias=True))


async def _give_up(args: dict[str, Any], _: ToolContext) -> ToolOutcome:
    return Done(str(args["reason"]))


def result_of(result: Any, schema: Any) -> Result[Any] | None:
    """What an operation is to give; `schema` is the older name of `result`.

    :raises InvalidInput: both are given, or it is no Pydantic model
    """
    if result is not None and schema is not None:
        raise InvalidInput("give result=, and not schema=, which is its older name")
    wanted = result if result is not None else schema
    if wanted is None:
        return None
    if not isinstance(wanted, type) or not issubclass(wanted, BaseModel):
        raise InvalidInput(f"result: must be a Pydantic model, not {str(wanted)[:200]}")
    return Result(wanted)


def given_for(
    agent: Resolved,
    sandbox: Sandbox,
    *,
    model: str | None = None,
    result: Result[Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Given:
    """The agent as the loop takes it, for one operation. `model` is that of this operation.

    :raises InvalidInput: it has no model, and none is given
    :raises DefinitionInvalid: the model's name cannot be one
    """
    chosen = model or agent.model
    if not isinstance(chosen, str):
        raise InvalidInput(f"agent {agent.name} has model=False: each operation names one, as model='provider/name'")
    fields: dict[str, Any] = {
        "name": agent.name,
        "model": chosen,
        "system_prompt": agent.instructions,
        "description": agent.description,
        "thinking_level": agent.thinking_level,
        "max_tool_calls": MAX_ROUNDS,
        "tool_approvals": dict(agent.tool_approvals),
    }
    if agent.compaction is not None:
        fields["compaction"] = agent.compaction
    definition = define({key: value for key, value in fields.items() if value is not None})
    inner = {
        str(one.name): given_for(of_profile(one, agent, chosen), sandbox)  # profiles cannot go round in a circle
        for one in agent.subagents
    }
    code = Code(
        sandbox,
        tuple(code_tool(one) for one in agent.tools),
        agent.skills,
        inner,
        result.tools() if result else (),
        {**(options or {}), **({RESULT: True} if result else {})},
    )
    return Given(definition, code=code)
