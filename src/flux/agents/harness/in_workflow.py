"""`ctx.init`: a harness in an execution of a workflow, which drives its sessions; operations are tasks.

What an operation came to is remembered like any task's: a workflow that goes on in another process does not ask again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flux.agents.code.ids import check_id
from flux.agents.define.agent import AgentCreateContext, CreatedAgent, Resolved, extended, resolve
from flux.agents.define.profile import AgentProfile
from flux.agents.define.tool import ToolDefinition
from flux.agents.harness.harness import DEFAULT, Harness
from flux.agents.harness.instance import checked_sandbox
from flux.agents.harness.session import Session
from flux.agents.harness.workflow_session import SessionsHere, WorkflowSession
from flux.engine.workflows.context import ExecutionContext
from flux.engine.workflows.journal import Journal, journal_here
from flux.errors import InvalidInput, SessionNotFound
from flux.sandboxes.base import Sandbox


async def init_in(
    agent: CreatedAgent,
    context: ExecutionContext[Any],
    *,
    name: str = DEFAULT,
    id: str | None = None,
    tools: Sequence[ToolDefinition] = (),
    skills: Sequence[Any] = (),
    subagents: Sequence[AgentProfile] = (),
    env: Any = None,
) -> Harness:
    """Initialise an agent for an execution; the instance is the execution, unless `id` names another.

    :raises InvalidInput: outside the code of a workflow
    """
    journal = journal_here()
    if journal is None:
        raise InvalidInput("ctx.init works in the code of a workflow; elsewhere it is init_agent")
    instance = context.execution_id if id is None else check_id("the id of an instance", id)
    check_id("the name of a harness", name)
    resolved = await resolve(agent, AgentCreateContext(instance, env, context.input))
    resolved = extended(resolved, tools, skills, subagents)
    return WorkflowHarness(resolved, instance, name, await checked_sandbox(resolved), journal)


class WorkflowHarness(Harness):
    """A harness whose sessions are driven by an execution."""

    def __init__(self, resolved: Resolved, id: str, name: str, sandbox: Sandbox, journal: Journal) -> None:
        super().__init__(resolved, id, name, sandbox, None)
        self.sessions_here: SessionsHere = journal.beside.setdefault("sessions", SessionsHere(journal))
        self.sessions = WorkflowSessions(self)

    async def session(self, name: str = DEFAULT) -> Session:
        """The session of that name; it begins with its first operation."""
        return self.named(name)

    def named(self, name: str) -> WorkflowSession:
        """The session of that name."""
        return WorkflowSession(self, self.sessions_here, check_id("the name of a session", name))


class WorkflowSessions:
    """The sessions of a harness in a workflow, by name."""

    def __init__(self, harness: WorkflowHarness) -> None:
        self._harness = harness

    async def get(self, name: str = DEFAULT) -> Session:
        """The session of that name.

        :raises SessionNotFound: nothing was done in it yet
        """
        session = self._harness.named(name)
        if not await session.is_there():
            raise SessionNotFound(f"agent {self._harness.agent} has no session {name!r} in this execution")
        return session

    async def create(self, name: str = DEFAULT) -> Session:
        """A new session.

        :raises SessionExists: there is one of that name
        """
        session = self._harness.named(name)
        await session.create()
        return session

    async def delete(self, name: str = DEFAULT) -> None:
        """Remove the session of that name with all that it holds; no error when there is none.

        :raises SessionBusy: an operation is under way
        """
        await self._harness.named(name).delete()
