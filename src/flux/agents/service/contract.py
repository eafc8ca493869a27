"""Agents as workflows: the documented contract, under which a session is an execution of agents/agent_chat.

Input `{"agent": NAME}`, resumed with `{"message": …}` or `{"elicitation_response": {elicitation_id, action}}`.
Agents that talk by a workflow of their own are executions of agents/NAME, and of agents/agent_chat as well.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from flux.agents.service.sessions import Sessions
from flux.engine.intake.answers import Admitted, Decision
from flux.engine.intake.inputs import NewMessage
from flux.engine.service.executions import Executions
from flux.errors import ExecutionFinished, ExecutionNotFound, InvalidInput, NotPaused, SessionBusy, SessionEnded
from flux.store import workflows
from flux.store.database import Database, Scope
from flux.store.executions import Execution
from flux.store.interrupts import Interrupt, payload_of
from flux.store.workflows import AGENT_CHAT, AGENTS

BUILT_IN = f"{AGENTS}/{AGENT_CHAT}"
RESUMES = 'an agent is resumed with {"message": …} or {"elicitation_response": {"elicitation_id": …, "action": …}}'


class _Start(Struct, forbid_unknown_fields=True):
    agent: str
    message: str | None = None


class _Response(Struct, forbid_unknown_fields=True):
    action: str
    elicitation_id: str | None = None
    content: Any = None


class _Resume(Struct, forbid_unknown_fields=True):
    message: str | None = None
    elicitation_response: _Response | None = None


class Contract:
    """Starts and resumes executions by the name of their workflow; where an agent talks, that is a session."""

    def __init__(self, database: Database, sessions: Sessions, executions: Executions) -> None:
        self._database = database
        self._sessions = sessions
        self._executions = executions

    async def start(
        self, scope: Scope, workflow: str, input: Any, *, version: int | None = None, key: str | None = None
    ) -> Admitted:
        """Start an execution, or a session.

        :raises WorkflowNotFound, AgentNotFound, IdempotencyMismatch, TooLarge: it cannot start
        :raises InvalidInput: the input names no agent, or another one
        """
        if not await self._is_agents(scope, workflow):
            return await self._executions.start(scope, workflow, input, version=version, key=key)
        given = _converted(input, _Start, f'{workflow} takes {{"agent": NAME}}, and a "message" if you like')
        if workflow not in (BUILT_IN, f"{AGENTS}/{given.agent}"):
            raise InvalidInput(f"{workflow} talks for {workflow.partition('/')[2]}, not for {given.agent[:80]!r}")
        if version is not None:
            raise InvalidInput("version: a session has the current version of its agent; leave it out")
        message = NewMessage(_said(given.message)) if given.message is not None else None
        return await self._sessions.start(scope, given.agent, message, key=key)

    async def resume(
        self, scope: Scope, workflow: str, id: str, input: Any, pause: str | None = None, *, key: str | None = None
    ) -> Admitted:
        """Answer what an execution has paused for.

        :raises ExecutionNotFound: there is none of this workflow
        :raises ExecutionFinished: it has ended
        :raises NotPaused: it does not wait for that
        :raises InvalidInput: an agent cannot be resumed with this
        """
        row = await self._executions.get(scope, id)
        if workflow not in _names(row):
            raise ExecutionNotFound(f"execution {id} is of {_names(row)[0]}, not of {workflow}")
        if row.agent is None:
            return await self._executions.resume(scope, id, input, pause, key=key)
        if row.state == "ended":
            raise ExecutionFinished(f"execution {id} has finished and cannot be resumed")
        questions = await self._executions.questions(scope, id)
        if pause is not None or any(one.kind == "pause" for one in questions):
            return await self._executions.resume(scope, id, input, pause, key=key)
        given = _converted(input, _Resume, RESUMES)
        if (given.message is None) == (given.elicitation_response is None):
            raise InvalidInput(RESUMES)
        if given.message is not None:
            return await self._say(scope, id, _said(given.message), key)
        return await self._respond(scope, row, questions, given.elicitation_response)

    async def _is_agents(self, scope: Scope, workflow: str) -> bool:
        namespace, _, name = workflow.partition("/")
        if namespace != AGENTS or name == AGENT_CHAT:
            return workflow == BUILT_IN
        found = await self._database.read(workflows.get(scope, namespace, name, source=False))
        return found is not None and found.of_agent

    async def _say(self, scope: Scope, id: str, text: str, key: str | None) -> Admitted:
        try:
            return await self._sessions.send(scope, id, NewMessage(text, "reject"), key=key)
        except SessionBusy as error:
            raise NotPaused(f"execution {id} waits for no message now: it works, or asks something else") from error
        except SessionEnded as error:  # meanwhile
            raise ExecutionFinished(f"execution {id} has finished and cannot be resumed") from error

    async def _respond(
        self, scope: Scope, row: Execution, questions: list[Interrupt], given: _Response | None
    ) -> Admitted:
        wanted = given.elicitation_id if given else None
        asked = [one for one in questions if one.kind == "elicitation"]
        fitting = [one for one in asked if wanted in (None, payload_of(one).get("elicitation_id"))]
        if given is None or len(fitting) != 1:
            named = f" {wanted[:80]!r}" if wanted else ""
            raise NotPaused(f"execution {row.id} has {len(fitting)} open elicitations{named}")
        return await self._sessions.answer(scope, row.id, fitting[0].id, Decision(given.action, content=given.content))


def _names(row: Execution) -> tuple[str, ...]:
    """What the workflow of an execution is called."""
    own = (row.workflow,) if row.workflow else ()
    return (*own, BUILT_IN) if row.agent is not None else own


def _said(text: str) -> str:
    if not text or "\0" in text:
        raise InvalidInput("message: must be text, without the character NUL")
    return text


def _converted(input: Any, form: Any, usage: str) -> Any:
    try:
        return msgspec.convert(input, form)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{usage}; {error}") from error
