"""Starting a session of a stored agent, whoever talks in it: the agent's own workflow, or the loop of all agents."""

from __future__ import annotations

from msgspec.structs import replace

from flux.engine.dispatching.pools import DEFAULT, place_of, pool_of_agent
from flux.engine.intake.inputs import NewSession
from flux.store import conversations
from flux.store.agents import AgentVersion
from flux.store.database import Scope, Steps


def session_of(scope: Scope, found: AgentVersion, session: NewSession) -> Steps[NewSession]:
    """The session as one of this version of its agent: what it runs, and where."""
    pool = pool_of_agent(found.definition)
    session = replace(session, definition_digest=found.digest, agent_version=found.version, pool=pool)
    workflow = yield from conversations.workflow_of(scope, found)
    if workflow is None:
        return session
    own, requests = place_of(workflow.options)
    pool = pool if own == DEFAULT else own
    return replace(session, source_version=workflow.version, pool=pool, requests=requests)
