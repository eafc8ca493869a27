"""`dispatch`: input for an agent to work on when its turn comes. It is durable before this returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from flux.agents.define.agent import CreatedAgent
from flux.agents.harness.host import host
from flux.agents.project.discovery import env_beside, pool_of
from flux.agents.project.initialising import history_of
from flux.agents.project.instances import DEFAULT, Address
from flux.engine.intake.inputs import NewMessage
from flux.errors import InvalidInput
from flux.store.database import LOCAL
from flux.store.log import History

TEXT = "Input was dispatched to you. Act on it with your tools.\n\n```json\n{}\n```"


class DispatchReceipt(Struct, frozen=True):
    """That input was accepted: `dispatch_id` finds it again; `accepted_at` is ISO 8601."""

    dispatch_id: str
    accepted_at: str


def dispatched(input: Any) -> NewMessage:
    """Input as the message that a model is shown.

    :raises InvalidInput: it is not JSON
    """
    try:
        text = json.dumps(input, ensure_ascii=False, allow_nan=False)
        same = json.loads(text) == input
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"input must be JSON: {error}") from error
    if not same:
        raise InvalidInput("input must be JSON: objects with text keys, lists, text, numbers, true, false and null")
    return NewMessage(TEXT.format(text))


async def dispatch(
    agent: CreatedAgent, *, id: str, input: Any, session: str = DEFAULT, idempotency_key: str | None = None
) -> DispatchReceipt:
    """Give an agent of a project input for the instance `id`: processed once, in order, by whoever serves the project.

    With the same `idempotency_key` it is accepted once.

    :raises InvalidInput: the input is not JSON, or the agent is not in a project's `agents` folder
    :raises IdempotencyMismatch: the key was used with other input
    :raises AgentFailed: the session is new, and the agent's initialiser or its store failed
    """
    if not isinstance(agent, CreatedAgent):
        raise InvalidInput(f"dispatch takes an agent that create_agent made, not {type(agent).__name__}")
    if agent.file is None or Path(agent.file).parent.name != "agents":
        raise InvalidInput(f"agent {agent.name} is not served: move its file to the folder agents of a project")
    opened = await host()
    to = Address(agent.name, id, session)
    instances = opened.process.instances
    file = Path(agent.file)

    async def history() -> History:
        return await history_of(agent, env_beside(file), to.key)

    admitted = await instances.reach(LOCAL, pool_of(file), to, dispatched(input), history, key=idempotency_key)
    told = await instances.dispatched(LOCAL, f"{admitted.id}.{admitted.seq}")
    return DispatchReceipt(told["dispatch_id"], told["accepted_at"])
